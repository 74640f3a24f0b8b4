"""Labelled rows in blocks, of one process, of Dask arrays or of a process group; sums over them.

A function of one block is computed where the block is. The results are merged in the order of the
blocks, and only they travel.
"""

import copy
import functools
import math
import pickle
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays, _labels
from logitlab._rows import (
    Floats,
    Integers,
    as_rows,
    blocks,
    check_not_empty,
    check_some_counted,
    counted_rows,
    labelled_rows,
    mean_scale,
)

Result = TypeVar("Result")
Merge = Callable[[Any, Any], Any]

_FAN_IN = 16  # results that one task merges
_LARGEST_SOURCE = 1 << 16  # bytes of a part of a graph that is sent in each pass


class Block(NamedTuple):
    """Checked logits (n, K) and labels of rows that count; n may be 0."""

    z: NDArray[Any]
    y: Integers
    weight: Floats | None  # > 0, up to a common factor; None where every row has weight 1
    numbers: Integers | None  # of the rows among all; None where row i has the number i
    first: int  # how many rows that count are in the blocks before


class _Failure(NamedTuple):
    """The error of a block: of several, the first in the order of the blocks is raised."""

    error: Exception


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


class _Checked(NamedTuple):
    """Checked labels and weights of the rows of a block."""

    y: Integers
    weight: Floats | None


class _Count(NamedTuple):
    """What the rows of a block are, for the blocks after it and for the scale of the weights."""

    rows: int
    counted: int
    largest_weight: float


def _counted(checked: _Checked) -> tuple[NDArray[np.bool_]]:
    y, weight = checked
    return (y >= 0 if weight is None else (y >= 0) & (weight > 0),)


def _count(checked: _Checked) -> tuple[_Count, ...]:
    y, weight = checked
    largest = 1.0 if weight is None else float(weight.max(initial=0))
    return (_Count(len(y), int(np.count_nonzero(_counted(checked))), largest),)


def _make_block(
    z: NDArray[Any], checked: _Checked, place: tuple[int, int], scale: tuple[float, float]
) -> Block:
    """The block of checked rows; `place` is the number of its first row, and `Block.first`."""
    weight = checked.weight
    if weight is not None:
        weight = weight * scale[0] * scale[1]
    return Block(*counted_rows(z, checked.y, weight, place[0]), place[1])


def _places(counts: Sequence[_Count]) -> list[tuple[int, int]]:
    """For each block, the number of its first row, and the rows that count before it."""
    totals = np.cumsum([(0, 0), *((c.rows, c.counted) for c in counts)], axis=0)
    return [(int(rows), int(counted)) for rows, counted in totals[:-1]]


def _attempt(function: Callable[..., Result], *arguments: Any) -> Result | _Failure:
    for argument in arguments:
        if isinstance(argument, _Failure):
            return argument
    try:
        return function(*arguments)
    except Exception as error:
        return _Failure(error)


def _merge_all(merge: Merge, results: Sequence[Any]) -> Any:
    """The results merged in their order; the first failure if there is one."""
    for result in results:
        if isinstance(result, _Failure):
            return result
    return functools.reduce(merge, results)


def _value(result: Any) -> Any:
    """A result; the error of a failure is raised."""
    if isinstance(result, _Failure):
        raise result.error
    return result


class _BlockRows(Rows):
    """Rows whose blocks other processes may hold."""

    scale = 1.0, 1.0  # the factors of the weights

    def _set_counts(self, counts: Sequence[_Count]) -> None:
        self._places = _places(counts)
        self.count = sum(c.counted for c in counts)
        if self.is_weighted:
            self.scale = mean_scale(max(c.largest_weight for c in counts))
        check_some_counted(self.count)


def check_chunks(x: Any, name: str) -> None:
    """Refuse a Dask array of unknown shape."""
    if any(np.isnan(n) for n in x.shape):
        raise ValueError(
            f"{name} must have chunks of known sizes, got {x.chunks}; call compute_chunk_sizes()"
        )


def _row_chunks(x: Any, name: str, like: Any, check: Callable[[Any, Any], None]) -> list[Any]:
    """The delayed values of the rows, checked and in the chunks of the logits `like`."""
    import dask.array as da

    batch = like.shape[:-1]
    x = _arrays.as_array(x, name)
    if _arrays.is_dask(x):
        check_chunks(x, name)
    else:
        x = _arrays.on_host(x, name)
    check(x, batch)
    x = x.rechunk(like.chunks[:-1]) if _arrays.is_dask(x) else da.from_array(x, like.chunks[:-1])
    return list(x.to_delayed().ravel())


def merge_tree(results: Sequence[Any], merge: Merge) -> Any:
    """The merged value of delayed results, in their order, by a tree of tasks.

    The client of a Dask cluster, if there is one, computes them.
    """
    import dask

    merged = dask.delayed(_merge_all, pure=False)
    while len(results) > 1:
        groups = (results[i : i + _FAN_IN] for i in range(0, len(results), _FAN_IN))
        results = [merged(merge, list(group)) for group in groups]
    return _value(dask.compute(results[0])[0])


def _check_block(
    y: NDArray[Any], weight: Any, k: int, ignore_index: Any, name: str, start: int
) -> _Checked:
    labels = _labels.labels(y, y, y.shape, k, ignore_index, of=name, start=start).reshape(-1)
    if weight is not None:
        weight = np.asarray(weight, np.float64).reshape(-1)
    return _Checked(labels, weight)


def _chunk_sources(z: Any) -> list[Any]:
    """For each chunk, what computes it: its own part of the graph, pickled, or a delayed value.

    On a cluster, a task that runs the part itself needs no logits of another task, which could be
    on another worker.
    """
    import cloudpickle
    from dask.optimization import cull

    chunks = list(z.to_delayed().ravel())
    if not _has_client() or sys.modules["distributed"].futures_of(z):
        return chunks
    graph = dict(chunks[0].dask)
    parts = [cull(graph, [chunk.key])[0] for chunk in chunks]
    if len({key for part in parts for key in part}) < sum(map(len, parts)):
        return chunks  # of chunks that share tasks or data
    sources = [cloudpickle.dumps((p, c.key)) for p, c in zip(parts, chunks, strict=True)]
    # Larger ones hold the logits themselves.
    return sources if max(map(len, sources)) <= _LARGEST_SOURCE else chunks


def _has_client() -> bool:
    """Whether Dask computes on a cluster."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_client()
    except ValueError:
        return False
    return True


def _evaluate(
    source: Any,
    name: str,
    checked: _Checked,
    place: tuple[int, int],
    scale: tuple[float, float],
    call: tuple[Callable[..., Any], tuple[Any, ...]],
) -> Any:
    if isinstance(source, bytes):
        import dask

        source = dask.get(*pickle.loads(source))
    function, arguments = call
    logits = _arrays.on_host(_arrays.as_floating(source, name), name)
    z = logits.reshape(-1, logits.shape[-1])
    return function(_make_block(z, checked, place, scale), *arguments)


def _exclude(checked: _Checked, excluded: NDArray[np.bool_]) -> _Checked:
    return checked._replace(y=np.where(excluded, -1, checked.y))


class DaskRows(_BlockRows):
    """Rows of Dask arrays: the blocks are the chunks of z along its first axis.

    z is computed in each pass; the labels and weights of the chunks stay in the memory of the
    workers.
    """

    def __init__(
        self, z: Any, y: Any, sample_weight: Any, axis: int, ignore_index: Any, name: str
    ) -> None:
        import dask
        import dask.array as da

        z = da.moveaxis(z, _arrays.one_axis(axis, z.ndim)[0], -1)
        z = z.rechunk(
            {0: tuple(n for n in z.chunks[0] if n), **dict.fromkeys(range(1, z.ndim), -1)}
        )
        self._sources, self._name = _chunk_sources(z), name
        self.classes, self.dtype = z.shape[-1], np.dtype(z.dtype)
        self.is_weighted = sample_weight is not None
        labels = _row_chunks(y, "y", z, _labels.check_label_shape)
        weights: list[Any] = [None] * len(labels)
        if sample_weight is not None:
            weights = _row_chunks(sample_weight, "sample_weight", z, _check_weights)
        inner = math.prod(z.shape[1:-1])
        starts = np.cumsum([0, *z.chunks[0]])[:-1] * inner
        attempt = dask.delayed(_attempt, pure=False)
        self._set_checked(
            attempt(_check_block, y_part, weight, self.classes, ignore_index, name, start)
            for y_part, weight, start in zip(labels, weights, starts.tolist(), strict=True)
        )

    def _set_checked(self, checked: Iterable[Any]) -> None:
        """Compute the labels and weights, and what depends on those of all rows."""
        import dask

        attempt = dask.delayed(_attempt, pure=False)
        self._checked = dask.persist(*checked)
        self._set_counts(merge_tree([attempt(_count, c) for c in self._checked], _concatenate))

    def counted(self) -> NDArray[np.bool_]:
        """Which of all rows count."""
        import dask

        attempt = dask.delayed(_attempt, pure=False)
        (mask,) = merge_tree([attempt(_counted, c) for c in self._checked], join)
        return np.asarray(mask)

    def without(self, excluded: NDArray[np.bool_]) -> "DaskRows":
        """These rows but for the excluded ones, of all rows."""
        import dask

        attempt = dask.delayed(_attempt, pure=False)
        starts = [start for start, _ in self._places]
        parts = zip(self._checked, np.split(excluded, starts[1:]), strict=True)
        rows = copy.copy(self)
        rows._set_checked(attempt(_exclude, c, part) for c, part in parts)
        return rows

    def reduce(self, function: Callable[..., Any], *arguments: Any, merge: Merge = add) -> Any:
        import dask

        attempt = dask.delayed(_attempt, pure=False)
        call = dask.delayed((function, arguments), traverse=False)
        parts = zip(self._sources, self._checked, self._places, strict=True)
        results = [
            attempt(_evaluate, source, self._name, checked, place, self.scale, call)
            for source, checked, place in parts
        ]
        return merge_tree(results, merge)


def _check_weights(weight: Any, batch: tuple[int, ...]) -> None:
    _labels.check_weight_shape(_arrays.as_floating(weight, "sample_weight"), batch)
    _arrays.check_nonnegative(weight, "sample_weight", finite=True)


def _concatenate(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
    return a + b


@dataclass(frozen=True)
class RowShard:
    """Rows of logits of this process, of those that are sharded over a torch process group.

    In the place of the logits, in scores and in the fits of calibrators, it stands for the rows of
    all ranks, in their order. The labels and weights are those of the rows of this process, and
    every rank gets the result of all rows.

    All ranks pass the same settings, for random numbers the same seed. Wrong rows, labels or
    weights of a rank, and settings that differ, are an error on all ranks; a setting that is
    invalid on one rank alone is an error there, and the others wait until the timeout of the group.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits of this process, of any kind that :func:`logitlab.softmax` takes; it may be without
        rows.
    group : torch.distributed.ProcessGroup, optional
        By default the group of all processes.

    Examples
    --------
    >>> import tempfile
    >>> import torch.distributed as dist
    >>> import logitlab
    >>> from logitlab.parallel import RowShard
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dist.init_process_group("gloo", init_method=f"file://{folder}/f", rank=0, world_size=1)
    ...     print(logitlab.accuracy(RowShard([[2.0, 1.0], [0.0, 3.0]]), [0, 0]))
    ...     dist.destroy_process_group()
    0.5
    """

    z: Any
    group: Any = None

    @property
    def rank(self) -> int:
        """The rank of this process in the group."""
        import torch.distributed as dist

        return int(dist.get_rank(self.group))

    def __array__(self, *args: Any, **kwargs: Any) -> NDArray[Any]:
        raise TypeError(
            "a RowShard is for scores, the fits of calibrators and cross_entropy; pass its z"
        )


def _exchange(group: Any, text: str, result: Any, what: str) -> list[Any]:
    """The results of all ranks, of which each gives the same text; a failure is raised on all."""
    import torch.distributed as dist

    ranks: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(ranks, (text, result), group=group)
    for rank, (_, found) in enumerate(ranks):
        if isinstance(found, _Failure):
            raise _error_of_rank(found.error, rank)
    for rank, (text, _) in enumerate(ranks):
        if text != ranks[0][0]:
            raise ValueError(
                f"{what} must be the same on all ranks, got {ranks[0][0]} on rank 0 and {text} on "
                f"rank {rank}"
            )
    return [found for _, found in ranks]


def _error_of_rank(error: Exception, rank: int) -> Exception:
    kinds = (TypeError, ValueError, RuntimeError)
    kind = next((kind for kind in kinds if isinstance(error, kind)), RuntimeError)
    return kind(f"rank {rank}: {error}")


def gather_numbers(
    shard: RowShard, function: Callable[[], tuple[str, tuple[float, ...], Result]]
) -> tuple[Result, list[tuple[float, ...]]]:
    """What `function` returns last on this rank, and the numbers that it returns on each rank.

    The text that it returns first must be the same on all ranks.
    """
    own = _attempt(function)
    text, numbers, result = ("", own, None) if isinstance(own, _Failure) else own
    ranks = _exchange(shard.group, text, numbers, "the call")  # raises the error of a failure
    return cast(Result, result), ranks


class _GroupRows(_BlockRows):
    """Rows of a process group: a block for each rank."""

    def __init__(
        self, shard: RowShard, y: Any, sample_weight: Any, axis: int, ignore_index: Any, name: str
    ) -> None:
        self._group = shard.group
        self.is_weighted = sample_weight is not None
        rows = _attempt(_rows_of_shard, shard.z, y, sample_weight, axis, ignore_index, name)
        text = ""
        count: Any = rows
        if not isinstance(rows, _Failure):
            self._z, self._checked = rows
            self.classes, self.dtype = self._z.shape[1], self._z.dtype
            weighted = "with" if self.is_weighted else "without"
            text = f"{self.classes} classes of {self.dtype} {weighted} sample_weight"
            count = _count(self._checked)
        counts = _exchange(self._group, text, count, name)
        self._set_counts([of_rank for (of_rank,) in counts])
        self._place = self._places[shard.rank]

    def reduce(self, function: Callable[..., Any], *arguments: Any, merge: Merge = add) -> Any:
        block = _make_block(self._z, self._checked, self._place, self.scale)
        checksum = zlib.crc32(pickle.dumps(arguments))
        text = f"{function.__qualname__} with arguments of checksum {checksum:08x}"
        result = _attempt(function, block, *arguments)
        # The error of a row has its number among all rows.
        ranks = _exchange(self._group, text, (result,), "the call")
        return _value(_merge_all(merge, [of_rank for (of_rank,) in ranks]))


def _rows_of_shard(
    z: Any, y: Any, sample_weight: Any, axis: int, ignore_index: Any, name: str
) -> tuple[NDArray[Any], _Checked]:
    """The checked rows of one rank, which may have none."""
    z = _arrays.as_floating(z, name)
    class_axis = _arrays.one_axis(axis, z.ndim)[0] if z.ndim else 0
    batch = tuple(n for a, n in enumerate(z.shape) if a != class_axis)
    if 0 in batch and z.shape[class_axis]:
        _labels.check_label_shape(_arrays.as_array(y, "y"), batch)
        if sample_weight is not None:
            _labels.check_weight_shape(_arrays.as_array(sample_weight, "sample_weight"), batch)
        logits = _arrays.on_host(z, name).reshape(0, z.shape[class_axis])
        weight = None if sample_weight is None else np.empty(0)
        return logits, _Checked(np.empty(0, np.int64), weight)
    logits, labels = as_rows(z, y, name, axis, ignore_index)
    weights = None
    if sample_weight is not None:
        given = _arrays.on_host(_arrays.as_array(sample_weight, "sample_weight"), "sample_weight")
        weights = _labels.row_weights(given, batch, given).reshape(-1)
    return logits, _Checked(labels, weights)


def open_rows(
    z: Any,
    y: Any,
    sample_weight: Any = None,
    axis: int = -1,
    ignore_index: Any = None,
    name: str = "z",
) -> Rows:
    """Labelled rows, checked, without the ignored ones and those of weight 0.

    z is an array of any kind, a Dask collection, whose chunks are blocks, or a :class:`RowShard`.
    """
    arguments = z, y, sample_weight, axis, ignore_index, name
    if isinstance(z, RowShard):
        return _GroupRows(*arguments)
    if _arrays.is_dask(z):
        z = _arrays.as_floating(z, name)
        check_chunks(z, name)
        check_not_empty(z, name)
        if z.ndim > 1:
            return DaskRows(z, *arguments[1:])
    return LocalRows(Block(*labelled_rows(*arguments), 0))
