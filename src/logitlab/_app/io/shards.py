"""Folders of shards: .npy or .parquet files whose rows are read as those of one table."""

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.files import dtype_label, open_file, read_array
from logitlab._app.io.source import (
    SHARDS,
    Logits,
    Shard,
    UserError,
    catch_read_errors,
    printable,
)
from logitlab._app.io.tables import is_tabular, table_column

_Version = tuple[int, int]


def shard_files(folder: Path) -> list[Path]:
    """The files of a folder, all .npy or all .parquet: ``part-2`` is before ``part-10``.

    Names that begin with ``.`` or ``_`` are those of Dask and Spark, without rows.
    """
    kinds = " or ".join(SHARDS)
    with catch_read_errors(folder):
        found = sorted(
            (path for path in folder.iterdir() if path.name[0] not in "._"),
            key=lambda path: (_natural_order(path.name), path.name),
        )
    for path in found:
        if path.suffix.lower() not in SHARDS or not path.is_file():
            got = f"the folder {path.name}" if path.is_dir() else path.name
            raise UserError(f"{folder}: the shards of a folder must be {kinds} files, got {got}")
        if path.suffix.lower() != found[0].suffix.lower():
            raise UserError(
                f"{folder}: the shards of a folder must be of one type, got {found[0].name} and "
                f"{path.name}"
            )
    if not found:
        raise UserError(f"{folder}: the shards of a folder must be {kinds} files, got none")
    return found


def _natural_order(name: str) -> list[tuple[int, str]]:
    """A key that compares numbers in names by value."""
    parts = re.split("([0-9]+)", name)
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)]


def _version(path: Path) -> _Version:
    """The size and the time of the last change of a file, the same on all machines."""
    if not path.exists():
        raise UserError(f"{path}: no such file; all machines must see the shards at this path")
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _open_shard(version: _Version, path: Path, *arguments: Any, **options: Any) -> Logits:
    """The logits of a shard that must not have changed."""
    if _version(path) != version:
        raise UserError(f"{path}: the file was changed after it was opened; start again")
    return open_file(path, *arguments, **options)


def open_folder(path: Path, name: str | None, source: str, **options: Any) -> Logits:
    """The logits of a folder; the arguments are those of :func:`open_file`.

    The first axis that is not that of the classes counts the rows of all shards.
    """
    shards: list[Shard] = []
    first: Logits | None = None
    counted = rows = 0  # entries of the first axis, and rows
    for file in shard_files(path):
        file = file.absolute()  # other processes have other current folders
        options = {**options, "file": file.name, "first": rows}
        open_shard = partial(_open_shard, _version(file), file, name, source, **options)
        shard = open_shard()
        if first is None or not first.rows:
            first = shard
        elif shard.rows:
            _check_alike(path, first, shard)
        shards.append(Shard(file.name, rows, shard.rows, open_shard))
        rows, counted = rows + shard.rows, counted + shard.shape[0]
    assert first is not None
    like_first = partial(
        Logits,
        source,
        dtype=first.dtype,
        names=first.names,
        axis=first.axis,
        one_score=first.one_score,
    )
    # The length of the lists of a shard without rows is unknown.
    without_rows = partial(like_first, (0, *first.shape[1:]), read=_no_blocks)
    shards = [
        shard if shard.rows else shard._replace(open=partial(without_rows, file=shard.name))
        for shard in shards
    ]

    def read() -> Iterator[NDArray[Any]]:
        for shard in shards:
            yield from shard.open().read()

    return like_first((counted, *first.shape[1:]), read=read, shards=tuple(shards))


def _no_blocks() -> Iterator[NDArray[Any]]:
    return iter(())


def _check_alike(folder: Path, first: Logits, shard: Logits) -> None:
    """Refuse a shard whose rows are not of the kind of those of the first one."""
    for what, expected, got in (
        ("columns", ", ".join(first.names or ()), ", ".join(shard.names or ())),
        ("shape of a row", first.shape[1:], shard.shape[1:]),
        ("type", first.dtype, shard.dtype),
    ):
        _check_same(folder / shard.file, what, first.file, expected, got)


def _check_same(shard: Path, what: str, first: str, expected: Any, got: Any) -> None:
    """Refuse a shard that differs from the one named `first`."""
    if expected != got:
        raise UserError(
            f"{shard}: the shards of a folder must have the same {what}: {printable(first)} has "
            f"{expected}, got {got}"
        )


def read_values(path: Path, name: str | None, content: str) -> NDArray[Any]:
    """An array or a column, of a file or of all shards of a folder.

    `content` is what one value is, for messages.
    """
    if not path.is_dir():
        return table_column(path, name, content) if is_tabular(path) else read_array(path, name)
    files = shard_files(path)
    parts = [read_values(file, name, content) for file in files]
    kinds = [dtype_label(part.dtype) for part in parts]
    for file, part, kind in zip(files, parts, kinds, strict=True):
        _check_same(file, "type", files[0].name, kinds[0], kind)
        _check_same(file, "shape of a row", files[0].name, parts[0].shape[1:], part.shape[1:])
    return np.concatenate(parts)
