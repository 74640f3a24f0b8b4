"""Rows in order of how uncertain or how wrong they are: one pass in the background."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from logitlab._rows import Floats, Integers
from logitlab.probabilities import softmax
from logitlab.scores import entropy

_PATIENCE = 0.2  # seconds that a first answer waits for the pass


class Ranking:
    """The numbers of the rows in three orders, once a pass over all of them is done.

    Rows without a distribution stand in none of the orders.
    """

    def __init__(
        self, rows: int, read: Callable[[], Iterable[Floats]], labels: Integers | None
    ) -> None:
        self.rows, self._read, self._labels = rows, read, labels
        self._orders: dict[str, Any] = {}
        self._done = 0
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def progress(self) -> float:
        return self._done / max(self.rows, 1)

    def order(self, by: str) -> Integers | None:
        """Row numbers, first the ones to look at; None while the pass is under way."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()
        self._thread.join(_PATIENCE)
        if self._failure is not None:
            raise self._failure
        return self._orders.get(by)

    def _run(self) -> None:
        try:
            self._orders = self._pass()
        except Exception as error:  # told to whoever asks for an order
            self._failure = error

    def _pass(self) -> dict[str, Integers]:
        nats, top = np.empty(self.rows, np.float32), np.empty(self.rows, np.float32)
        predicted = np.empty(self.rows, np.int64)
        for z in self._read():
            part = slice(self._done, self._done + len(z))
            nats[part] = entropy(z)
            top[part] = softmax(z).max(axis=-1)
            predicted[part] = z.argmax(axis=-1)
            self._done = part.stop
        sound = np.flatnonzero(~np.isnan(nats))
        ascending = sound[np.argsort(nats[sound], kind="stable")]
        orders = {"certain": ascending, "uncertain": ascending[::-1]}
        if self._labels is not None:
            wrong = sound[predicted[sound] != self._labels[sound]]
            orders["mistake"] = wrong[np.argsort(-top[wrong], kind="stable")]
        return orders
