"""One axis of the pictures that :mod:`logitlab.plot.svg_axes` writes: limits, ticks, labels."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from logitlab._rows import Floats

_STEPS = (1, 2, 2.5, 5, 10)

Formatter = Callable[[float, int], str]


def _decimals(values: Floats) -> int:
    """The least number of decimals that shows `values` exactly."""
    return next((d for d in range(12) if np.allclose(np.round(values, d), values, rtol=1e-9)), 12)


class Axis:
    """Limits, ticks and labels of one axis."""

    def __init__(self) -> None:
        self.label = ""
        self.log = False
        self.low: float | None = None
        self.high: float | None = None
        self.margin = 0.05
        self.starts_at_zero = False
        self.rotated = False
        self.formatter: Formatter | None = None
        self._fixed: tuple[Floats, list[str]] | None = None
        self._extent = math.inf, -math.inf

    def set_major_formatter(self, formatter: Formatter) -> None:
        self.formatter = formatter

    def set_ticks(self, ticks: Iterable[float], names: Sequence[str]) -> None:
        self._fixed = np.array(ticks, float), list(names)

    def add(self, values: Any) -> None:
        """Extend the limits to values that are drawn."""
        low, high = self._extent
        values = np.asarray(values, float)
        self._extent = (
            float(values.min(initial=low, where=np.isfinite(values))),
            float(values.max(initial=high, where=np.isfinite(values))),
        )

    def limits(self) -> tuple[float, float]:
        low, high = self._extent if self._extent[0] <= self._extent[1] else (0.0, 1.0)
        margin = self.margin * (high - low) if high > low else 0.5
        if not (self.starts_at_zero and low == 0):
            low -= margin
        high += margin
        low, high = (
            low if self.low is None else self.low,
            high if self.high is None else self.high,
        )
        return (low, high) if high != low else (low, low + 1)

    def ticks(self, length: float, extent: Callable[[str], float]) -> tuple[Floats, list[str]]:
        """Positions and labels of the ticks on an axis; `extent` is the length of a label."""
        if self._fixed is not None:
            return self._fixed
        low, high = self.limits()
        for n in range(9, 0, -1):
            ticks = decades(low, high) if self.log else _multiples(low, high, n)
            labels = self._labels(ticks)
            if len(ticks) < 2 or self.log or sum(map(extent, labels)) <= length:
                break
        return ticks, labels

    def _labels(self, ticks: Floats) -> list[str]:
        if self.formatter is not None:
            return [self.formatter(float(t), i) for i, t in enumerate(ticks)]
        decimals = _decimals(ticks)
        return [f"{t:z.{decimals}f}".replace("-", "−") for t in ticks]

    def fractions(self, values: Any) -> Floats:
        """Positions of values along the axis, 0 to 1."""
        low, high = self.limits()
        if self.log:
            low, high, values = math.log(low), math.log(high), np.log(values)
        return np.asarray((np.asarray(values, float) - low) / (high - low))


def _multiples(low: float, high: float, n: int) -> Floats:
    """The multiples, in [low, high], of the least round step that gives at most n intervals."""
    scale = 10.0 ** math.floor(math.log10((high - low) / n))
    step = next(s * scale for s in _STEPS if (high - low) / (s * scale) <= n * (1 + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks: Floats = np.arange(first, last + 1, dtype=np.float64) * step
    return ticks


def decades(low: float, high: float) -> Floats:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    ticks: Floats = np.logspace(first, last, last - first + 1)
    return ticks
