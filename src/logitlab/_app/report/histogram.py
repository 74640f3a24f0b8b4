"""A histogram that is filled block by block."""

import numpy as np

from logitlab._rows import Floats

_CELLS = 10_000  # the resolution of the quantiles


class Distribution:
    """A histogram on a known range, filled block by block; its mean is exact."""

    def __init__(self, low: float, high: float) -> None:
        self.edges = np.linspace(low, max(high, low + 1e-9), _CELLS + 1)
        self.counts = np.zeros(_CELLS, np.int64)
        self._sum = 0.0

    def add(self, values: Floats) -> None:
        inside = np.clip(values, self.edges[0], self.edges[-1])
        self.counts += np.histogram(inside, self.edges)[0]
        self._sum += float(values.sum())

    def merge(self, other: "Distribution") -> None:
        """Add the values of another histogram on the same range."""
        self.counts += other.counts
        self._sum += other._sum

    @property
    def mean(self) -> float:
        return self._sum / int(self.counts.sum())

    @property
    def resolution(self) -> float:
        """The largest error of a quantile."""
        return float(self.edges[1] - self.edges[0])

    def quantile(self, q: float) -> float:
        """The `q`-quantile, interpolated linearly in its cell."""
        below = np.concatenate([[0], np.cumsum(self.counts)]) / self.counts.sum()
        cell = min(int(np.searchsorted(below, q, side="right")) - 1, _CELLS - 1)
        cell = cell if self.counts[cell] else int(np.flatnonzero(self.counts[: cell + 1])[-1])
        part = (q - below[cell]) / (below[cell + 1] - below[cell])
        return float(self.edges[cell] + part * (self.edges[cell + 1] - self.edges[cell]))
