"""Sums over rows that are in several partitions, elsewhere than in memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from scipy.sparse import vstack

from logitlab._rows import Integers
from logitlab.regression.penalized_sums import DualPoint
from logitlab.regression.rows import Rows
from logitlab.regression.solver import Floats


class PartitionedEngine:
    """An engine of partitions, each of which has the methods of :class:`Rows`.

    Its sums are those of the partitions, added in their order.
    """

    def _call(self, method: str, *arguments: Any) -> Iterable[Any]:
        """Return the results of a method of every partition, in the order of the partitions."""
        raise NotImplementedError

    def _call_by_row(
        self, function: Callable[..., Any], by_row: Any, *arguments: Any
    ) -> Iterable[Any]:
        """Return function(partition, *arguments, entries of `by_row`) of every partition."""
        raise NotImplementedError

    def map_parts(
        self, function: Callable[..., Any], *arguments: Any, by_row: Any = None
    ) -> Iterator[Any]:
        if by_row is not None:
            yield from self._call_by_row(function, by_row, *arguments)
            return
        for results in self._call("map_parts", function, *arguments):
            yield from results

    def totals(self) -> tuple[int, float, float, Floats, Floats]:
        rows, total, least, sums, sizes = zip(*self._call("totals"), strict=True)
        return sum(rows), sum(total), min(least), sum_arrays(sums), sum_arrays(sizes)

    def sample(self, step: int) -> Rows:
        parts = [part for part in self._call("sample", step) if len(part.y)]
        x, y, weights = zip(*((part.x, part.y, part.weight) for part in parts), strict=True)
        stacked = np.vstack(x) if isinstance(x[0], np.ndarray) else vstack(x, "csr")
        weight = None if weights[0] is None else np.concatenate(weights)
        return Rows(stacked, np.concatenate(y), weight, parts[0].classes, parts[0].dtype)

    def scatter(self, centre: Floats, full: bool) -> tuple[Floats, Floats]:
        sums, products = sum_members(self._call("scatter", centre, full))
        return sums, products

    def loss_and_gradient(self, coef: Floats, intercept: Floats) -> tuple[float, Floats, Floats]:
        loss, by_coef, by_intercept = sum_members(self._call("loss_and_gradient", coef, intercept))
        return loss, by_coef, by_intercept

    def spread(self, coef: Floats, intercept: Floats) -> Floats:
        return sum_arrays(self._call("spread", coef, intercept))

    def hessian(self, coef: Floats, intercept: Floats, centre: Floats) -> Floats:
        return sum_arrays(self._call("hessian", coef, intercept, centre))

    def entries(self) -> int:
        return sum(self._call("entries"))

    def working_hessian(
        self, coef: Floats, intercept: Floats, centre: Floats, columns: list[Integers]
    ) -> Floats:
        return sum_arrays(self._call("working_hessian", coef, intercept, centre, columns))

    def dual_entropy(self, coef: Floats, intercept: Floats, point: DualPoint) -> float:
        return float(sum(self._call("dual_entropy", coef, intercept, point)))

    def margins(self, coef: Floats, intercept: Floats) -> tuple[float, float]:
        least, largest = zip(*self._call("margins", coef, intercept), strict=True)
        return min(least), max(largest)


def sum_arrays(parts: Iterable[Any]) -> Floats:
    """Return the sum of arrays, added in their order; no more than two are held in memory."""
    (total,) = sum_members((part,) for part in parts)
    return np.asarray(total)


def sum_members(parts: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Return the sums of the members of tuples of numbers or arrays, added in their order."""
    totals: list[Any] = []
    for part in parts:
        if not totals:
            totals = [value.copy() if isinstance(value, np.ndarray) else value for value in part]
            continue
        for position, value in enumerate(part):
            totals[position] += value
    return totals
