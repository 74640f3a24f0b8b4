"""Labelled rows in blocks, and what is computed over them; all rows in this process."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab._rows import Floats, Integers, blocks

Merge = Callable[[Any, Any], Any]


class Block(NamedTuple):
    """Checked logits (n, K) and labels of rows that count; n may be 0."""

    z: NDArray[Any]
    y: Integers
    weight: Floats | None  # > 0, up to a common factor; None where every row has weight 1
    numbers: Integers | None  # of the rows among all; None where row i has the number i
    first: int  # how many rows that count are in the blocks before


def add(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
    """The sums of two tuples of numbers or arrays."""
    return tuple(x + y for x, y in zip(a, b, strict=True))


def join(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
    """The rows of two tuples of arrays, or of Nones, after each other."""
    pairs = zip(a, b, strict=True)
    return tuple(None if x is None else np.concatenate([x, y]) for x, y in pairs)


class Rows(ABC):
    """Labelled rows in blocks.

    Attributes
    ----------
    count : int
        The rows that count: not ignored, of weight > 0.
    classes : int
        K.
    dtype : numpy.dtype
        The type of the logits.
    is_weighted : bool
        Whether rows have weights.
    """

    count: int
    classes: int
    dtype: np.dtype[Any]
    is_weighted: bool

    @abstractmethod
    def reduce(self, function: Callable[..., Any], *arguments: Any, merge: Merge = add) -> Any:
        """The merged results of `function(block, *arguments)`, by default the sums of tuples.

        `function` is one of a module, so that it can be sent to other processes.
        """

    def prepare(self, make: Callable[..., Any], *arguments: Any) -> "Sums":
        """Sums over the rows by the methods of the objects `make(block, *arguments)`."""
        return lambda method, *args: self.reduce(_call_method, make, arguments, method, args)

    def gather(self) -> Block:
        """All rows as one block of this process."""
        z, y, weight, numbers = self.reduce(_contents, merge=join)
        return Block(z, y, weight, numbers, 0)


# The sums of the results of a method of objects that hold rows: name, arguments -> tuple.
Sums = Callable[..., tuple[Any, ...]]


def _call_method(
    block: Block,
    make: Callable[..., Any],
    arguments: tuple[Any, ...],
    method: str,
    method_arguments: tuple[Any, ...],
) -> Any:
    sums = (
        getattr(make(part, *arguments), method)(*method_arguments) for part in _small_parts(block)
    )
    return functools.reduce(add, sums)


def _small_parts(block: Block) -> Iterator[Block]:
    """Parts of a block whose copies stay in the cache of the processor."""
    z, y, weight, numbers, first = block
    numbers = np.arange(len(y)) if numbers is None else numbers
    for rows in blocks(max(len(y), 1), z.shape[1]):
        of_rows = None if weight is None else weight[rows]
        yield Block(z[rows], y[rows], of_rows, numbers[rows], first + rows.start)


def _contents(block: Block) -> tuple[Any, ...]:
    numbers = np.arange(len(block.y)) if block.numbers is None else block.numbers
    return block.z, block.y, block.weight, numbers


class LocalRows(Rows):
    """Rows in the memory of this process, one block."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.count, self.classes = block.z.shape
        self.dtype, self.is_weighted = block.z.dtype, block.weight is not None

    def reduce(self, function: Callable[..., Any], *arguments: Any, merge: Merge = add) -> Any:
        return function(self.block, *arguments)

    def prepare(self, make: Callable[..., Any], *arguments: Any) -> Sums:
        rows = make(self.block, *arguments)
        return lambda method, *args: getattr(rows, method)(*args)

    def gather(self) -> Block:
        return self.block


def rows_in_memory(z: NDArray[Any], y: Integers, weight: Floats | None) -> LocalRows:
    """Checked rows that all count."""
    return LocalRows(Block(z, y, weight, None, 0))
