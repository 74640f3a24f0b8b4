"""Blocks that other processes may hold: their labels and weights, and results or errors of each."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from logitlab._distributed.rows import Block, Merge, Rows
from logitlab._rows import Floats, Integers, check_some_counted, counted_rows, mean_scale

Result = TypeVar("Result")


class Failure(NamedTuple):
    """The error of a block: of several, the first in the order of the blocks is raised."""

    error: Exception


class Checked(NamedTuple):
    """Checked labels and weights of the rows of a block."""

    y: Integers
    weight: Floats | None


class Count(NamedTuple):
    """What the rows of a block are, for the blocks after it and for the scale of the weights."""

    rows: int
    counted: int
    largest_weight: float


def counted(checked: Checked) -> tuple[NDArray[np.bool_]]:
    """Which rows count, in a tuple that can be merged."""
    y, weight = checked
    return (y >= 0 if weight is None else (y >= 0) & (weight > 0),)


def count_rows(checked: Checked) -> tuple[Count, ...]:
    """The counts of a block, in a tuple that can be merged."""
    y, weight = checked
    largest = 1.0 if weight is None else float(weight.max(initial=0))
    return (Count(len(y), int(np.count_nonzero(counted(checked))), largest),)


def make_block(
    z: NDArray[Any], checked: Checked, place: tuple[int, int], scale: tuple[float, float]
) -> Block:
    """The block of checked rows; `place` is the number of its first row, and `Block.first`."""
    weight = checked.weight
    if weight is not None:
        weight = weight * scale[0] * scale[1]
    return Block(*counted_rows(z, checked.y, weight, place[0]), place[1])


def places_of(counts: Sequence[Count]) -> list[tuple[int, int]]:
    """For each block, the number of its first row, and the rows that count before it."""
    totals = np.cumsum([(0, 0), *((c.rows, c.counted) for c in counts)], axis=0)
    return [(int(rows), int(counted)) for rows, counted in totals[:-1]]


def attempt(function: Callable[..., Result], *arguments: Any) -> Result | Failure:
    """The result of a function, or the error as a value; that of an argument stays."""
    for argument in arguments:
        if isinstance(argument, Failure):
            return argument
    try:
        return function(*arguments)
    except Exception as error:
        return Failure(error)


def merge_all(merge: Merge, results: Sequence[Any]) -> Any:
    """The results merged in their order; the first failure if there is one."""
    for result in results:
        if isinstance(result, Failure):
            return result
    return functools.reduce(merge, results)


def value_of(result: Any) -> Any:
    """A result; the error of a failure is raised."""
    if isinstance(result, Failure):
        raise result.error
    return result


class BlockRows(Rows):
    """Rows whose blocks other processes may hold."""

    scale = 1.0, 1.0  # the factors of the weights

    def _set_counts(self, counts: Sequence[Count]) -> None:
        self._places = places_of(counts)
        self.count = sum(c.counted for c in counts)
        if self.is_weighted:
            self.scale = mean_scale(max(c.largest_weight for c in counts))
        check_some_counted(self.count)
