"""Passes over blocks of rows: what came in, and the rows that have a distribution."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.source import Logits, UserError
from logitlab._rows import Floats, Integers
from logitlab.probabilities import logits

_SUM_TOLERANCE = 0.01  # of a row of probabilities, as printed or held in a half type

# Wraps a pass over blocks of rows: the blocks, how many rows there are, and what is being done.
Track = Callable[[Iterator[NDArray[Any]], int, str], Iterator[NDArray[Any]]]


@dataclass
class Incoming:
    """What came in. Counts are of rows, `zeros` of entries; all but the first three are of the
    rows that are judged."""

    nan_rows: int = 0
    empty_rows: int = 0  # nothing but -inf
    unshared_rows: int = 0  # without a distribution in another model
    tie_rows: int = 0  # two or more entries share the maximum
    minus_inf_rows: int = 0
    plus_inf_rows: int = 0
    zeros: int = 0  # probabilities of exactly 0
    minimum: float = math.inf  # of the finite entries, as they stand in the file
    maximum: float = -math.inf
    naive_overflow_rows: int = 0
    looks_like_probabilities: bool = True


def _as_logits(p: NDArray[Any], start: int, source: str) -> Floats:
    """Logits of rows of probabilities, which are checked."""
    p = p.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        total = p.sum(axis=-1)
    negative = (p < 0).any(axis=-1)
    off = np.abs(total - 1) > _SUM_TOLERANCE
    for wrong, what in ((negative, "holds a negative number"), (off, "sums to {:.6g}, not to 1")):
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"{source}: row {start + row} {what.format(total[row])}; "
                "logits are read without --probabilities"
            )
    z: Floats = logits(p)
    return z


def _naive_failures(z: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows in which exp(z) / sum(exp(z)), in z's type, divides by infinity or by zero."""
    with np.errstate(all="ignore"):
        e = np.exp(z)
        total = e.sum(axis=-1, dtype=e.dtype)
    failed: NDArray[np.bool_] = ~np.isfinite(total) | (total == 0)
    return failed


def in_type(z: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    floating = dtype.kind == "f" or dtype.name == "bfloat16"
    return z.astype(dtype if floating else np.float64, copy=False)


class Passes:
    """The rows that have a distribution, as often as needed: numbers of the rows, and logits.

    With `shared` only those of them for which it is True.
    """

    def __init__(
        self,
        source: Logits,
        probabilities: bool,
        track: Track,
        shared: NDArray[np.bool_] | None = None,
    ) -> None:
        self._source, self._probabilities, self._track = source, probabilities, track
        self._shared = shared
        self.classes = source.classes

    def blocks(self, what: str, seen: Incoming | None = None) -> Iterator[tuple[Integers, Any]]:
        start = 0
        for raw in self._track(self._source.read(), self._source.rows, what):
            z = _as_logits(raw, start, self._source.source) if self._probabilities else raw
            top = z.max(axis=-1)
            nan, empty = np.isnan(top), np.isneginf(top)
            some = had = ~(nan | empty)
            if self._shared is not None:
                some = had & self._shared[start : start + len(raw)]
            if seen is not None:
                seen.nan_rows += int(nan.sum())
                seen.empty_rows += int(empty.sum())
                seen.unshared_rows += int(had.sum() - some.sum())
                self._look(raw[some], z[some], seen)
            yield start + np.flatnonzero(some), z[some]
            start += len(raw)

    def _look(self, raw: NDArray[Any], z: NDArray[Any], seen: Incoming) -> None:
        top = z.max(axis=-1, keepdims=True)
        seen.tie_rows += int(((z == top).sum(axis=-1) > 1).sum())
        seen.minus_inf_rows += int(np.isneginf(z).any(axis=-1).sum())
        seen.plus_inf_rows += int(np.isposinf(top).sum())
        finite = raw[np.isfinite(raw)].astype(np.float64)
        seen.minimum = min(seen.minimum, float(finite.min(initial=math.inf)))
        seen.maximum = max(seen.maximum, float(finite.max(initial=-math.inf)))
        if self._probabilities:
            seen.zeros += int((raw == 0).sum())
            return
        seen.naive_overflow_rows += int(_naive_failures(in_type(z, z.dtype)).sum())
        if seen.looks_like_probabilities:
            wide = raw.astype(np.float64)
            seen.looks_like_probabilities = bool(
                ((wide >= 0) & (wide <= 1)).all() and (np.abs(wide.sum(axis=-1) - 1) < 1e-3).all()
            )
