"""Labelled rows in blocks, of one process, of Dask arrays or of a process group; sums over them.

A function of one block is computed where the block is. The results are merged in the order of the
blocks, and only they travel.
"""

from typing import Any

from logitlab import _arrays
from logitlab._distributed.dask import DaskRows, check_chunks
from logitlab._distributed.process_group import GroupRows, RowShard, gather_numbers
from logitlab._distributed.rows import (
    Block,
    LocalRows,
    Rows,
    Sums,
    add,
    join,
    rows_in_memory,
)
from logitlab._rows import check_not_empty, labelled_rows

__all__ = [
    "Block",
    "DaskRows",
    "LocalRows",
    "RowShard",
    "Rows",
    "Sums",
    "add",
    "check_chunks",
    "gather_numbers",
    "join",
    "open_rows",
    "rows_in_memory",
]


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
        return GroupRows(*arguments)
    if _arrays.is_dask(z):
        z = _arrays.as_floating(z, name)
        check_chunks(z, name)
        check_not_empty(z, name)
        if z.ndim > 1:
            return DaskRows(z, *arguments[1:])
    return LocalRows(Block(*labelled_rows(*arguments), 0))
