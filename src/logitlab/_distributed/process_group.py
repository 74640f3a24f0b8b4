"""Rows of the ranks of a torch process group."""

import pickle
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays, _labels
from logitlab._distributed.parts import (
    BlockRows,
    Checked,
    Failure,
    attempt,
    count_rows,
    make_block,
    merge_all,
    value_of,
)
from logitlab._distributed.rows import Merge, add
from logitlab._rows import as_rows

Result = TypeVar("Result")


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
        if isinstance(found, Failure):
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
    own = attempt(function)
    text, numbers, result = ("", own, None) if isinstance(own, Failure) else own
    ranks = _exchange(shard.group, text, numbers, "the call")  # raises the error of a failure
    return cast(Result, result), ranks


class GroupRows(BlockRows):
    """Rows of a process group: a block for each rank."""

    def __init__(
        self, shard: RowShard, y: Any, sample_weight: Any, axis: int, ignore_index: Any, name: str
    ) -> None:
        self._group = shard.group
        self.is_weighted = sample_weight is not None
        rows = attempt(_rows_of_shard, shard.z, y, sample_weight, axis, ignore_index, name)
        text = ""
        count: Any = rows
        if not isinstance(rows, Failure):
            self._z, self._checked = rows
            self.classes, self.dtype = self._z.shape[1], self._z.dtype
            weighted = "with" if self.is_weighted else "without"
            text = f"{self.classes} classes of {self.dtype} {weighted} sample_weight"
            count = count_rows(self._checked)
        counts = _exchange(self._group, text, count, name)
        self._set_counts([of_rank for (of_rank,) in counts])
        self._place = self._places[shard.rank]

    def reduce(self, function: Callable[..., Any], *arguments: Any, merge: Merge = add) -> Any:
        block = make_block(self._z, self._checked, self._place, self.scale)
        checksum = zlib.crc32(pickle.dumps(arguments))
        text = f"{function.__qualname__} with arguments of checksum {checksum:08x}"
        result = attempt(function, block, *arguments)
        # The error of a row has its number among all rows.
        ranks = _exchange(self._group, text, (result,), "the call")
        return value_of(merge_all(merge, [of_rank for (of_rank,) in ranks]))


def _rows_of_shard(
    z: Any, y: Any, sample_weight: Any, axis: int, ignore_index: Any, name: str
) -> tuple[NDArray[Any], Checked]:
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
        return logits, Checked(np.empty(0, np.int64), weight)
    logits, labels = as_rows(z, y, name, axis, ignore_index)
    weights = None
    if sample_weight is not None:
        given = _arrays.on_host(_arrays.as_array(sample_weight, "sample_weight"), "sample_weight")
        weights = _labels.row_weights(given, batch, given).reshape(-1)
    return logits, Checked(labels, weights)
