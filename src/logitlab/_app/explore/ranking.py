"""Row numbers by entropy, and misclassified rows by confidence, computed in the background."""

import sys
import threading
from collections.abc import Callable, Iterable

import numpy as np

from logitlab._rows import Floats, Integers
from logitlab.divergences import entropy
from logitlab.probabilities import softmax

_HAS_THREADS = sys.platform != "emscripten"  # in a browser there are none
_TIMEOUT = 0.2  # seconds that a request waits for the result


class Ranking:
    """Row numbers in three orders: "certain", "uncertain" and, with labels, "mistake".

    One pass over all rows computes them. Rows without a distribution are not included.
    """

    def __init__(
        self, rows: int, read_blocks: Callable[[], Iterable[Floats]], labels: Integers | None
    ) -> None:
        self.rows, self._read_blocks, self._labels = rows, read_blocks, labels
        self._orders: dict[str, Integers] = {}
        self._done = 0
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def progress(self) -> float:
        return self._done / max(self.rows, 1)

    def order(self, by: str) -> Integers | None:
        """Row numbers in the order `by`; None as long as the pass is running."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                if _HAS_THREADS:
                    self._thread.start()
                else:
                    self._run()
        if _HAS_THREADS:
            self._thread.join(_TIMEOUT)
        if self._failure is not None:
            raise self._failure
        return self._orders.get(by)

    def _run(self) -> None:
        try:
            self._orders = self._compute_orders()
        except Exception as error:  # raised again by `order`
            self._failure = error

    def _compute_orders(self) -> dict[str, Integers]:
        nats, top = np.empty(self.rows, np.float32), np.empty(self.rows, np.float32)
        predicted = np.empty(self.rows, np.int64)
        for z in self._read_blocks():
            part = slice(self._done, self._done + len(z))
            nats[part] = entropy(z)
            top[part] = softmax(z).max(axis=-1)
            predicted[part] = z.argmax(axis=-1)
            self._done = part.stop
        valid = np.flatnonzero(~np.isnan(nats))
        ascending = valid[np.argsort(nats[valid], kind="stable")]
        orders = {"certain": ascending, "uncertain": ascending[::-1]}
        if self._labels is not None:
            wrong = valid[predicted[valid] != self._labels[valid]]
            orders["mistake"] = wrong[np.argsort(-top[wrong], kind="stable")]
        return orders
