"""Rows of Dask arrays."""

import copy
import math
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays, _labels
from logitlab._distributed.parts import (
    BlockRows,
    Checked,
    attempt,
    count_rows,
    counted,
    make_block,
    merge_all,
    value_of,
)
from logitlab._distributed.rows import Merge, add, join

_FAN_IN = 16  # results that one task merges
_LARGEST_SOURCE = 1 << 16  # bytes of a part of a graph that is sent in each pass


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

    merged = dask.delayed(merge_all, pure=False)
    while len(results) > 1:
        groups = (results[i : i + _FAN_IN] for i in range(0, len(results), _FAN_IN))
        results = [merged(merge, list(group)) for group in groups]
    return value_of(dask.compute(results[0])[0])


def _delayed_attempt(*arguments: Any) -> Any:
    """The delayed result of :func:`attempt`."""
    import dask

    return dask.delayed(attempt, pure=False)(*arguments)


def _check_block(
    y: NDArray[Any], weight: Any, k: int, ignore_index: Any, name: str, start: int
) -> Checked:
    labels = _labels.labels(y, y, y.shape, k, ignore_index, of=name, start=start).reshape(-1)
    if weight is not None:
        weight = np.asarray(weight, np.float64).reshape(-1)
    return Checked(labels, weight)


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
    checked: Checked,
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
    return function(make_block(z, checked, place, scale), *arguments)


def _exclude(checked: Checked, excluded: NDArray[np.bool_]) -> Checked:
    return checked._replace(y=np.where(excluded, -1, checked.y))


class DaskRows(BlockRows):
    """Rows of Dask arrays: the blocks are the chunks of z along its first axis.

    z is computed in each pass; the labels and weights of the chunks stay in the memory of the
    workers.
    """

    def __init__(
        self, z: Any, y: Any, sample_weight: Any, axis: int, ignore_index: Any, name: str
    ) -> None:
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
        self._set_checked(
            _delayed_attempt(_check_block, y_part, weight, self.classes, ignore_index, name, start)
            for y_part, weight, start in zip(labels, weights, starts.tolist(), strict=True)
        )

    def _set_checked(self, checked: Iterable[Any]) -> None:
        """Compute the labels and weights, and what depends on those of all rows."""
        import dask

        self._checked = dask.persist(*checked)
        self._set_counts(
            merge_tree([_delayed_attempt(count_rows, c) for c in self._checked], _concatenate)
        )

    def counted(self) -> NDArray[np.bool_]:
        """Which of all rows count."""

        (mask,) = merge_tree([_delayed_attempt(counted, c) for c in self._checked], join)
        return np.asarray(mask)

    def without(self, excluded: NDArray[np.bool_]) -> "DaskRows":
        """These rows but for the excluded ones, of all rows."""

        starts = [start for start, _ in self._places]
        parts = zip(self._checked, np.split(excluded, starts[1:]), strict=True)
        rows = copy.copy(self)
        rows._set_checked(_delayed_attempt(_exclude, c, part) for c, part in parts)
        return rows

    def reduce(self, function: Callable[..., Any], *arguments: Any, merge: Merge = add) -> Any:
        import dask

        call = dask.delayed((function, arguments), traverse=False)
        parts = zip(self._sources, self._checked, self._places, strict=True)
        results = [
            _delayed_attempt(_evaluate, source, self._name, checked, place, self.scale, call)
            for source, checked, place in parts
        ]
        return merge_tree(results, merge)


def _check_weights(weight: Any, batch: tuple[int, ...]) -> None:
    _labels.check_weight_shape(_arrays.as_floating(weight, "sample_weight"), batch)
    _arrays.check_nonnegative(weight, "sample_weight", finite=True)


def _concatenate(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
    return a + b
