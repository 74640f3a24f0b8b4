"""Rows of logits that are read in blocks, and the file that they are in: ``FILE[:NAME]``."""

import contextlib
import math
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab._rows import Integers, blocks

TABLES = (".csv", ".parquet")
SHARDS = (".npy", ".parquet")  # the files of a folder
SUFFIXES = (".npy", ".npz", *TABLES, ".safetensors", ".jsonl")
NUMBERS = "fiub"  # the kinds of NumPy types that hold numbers


# Wraps a pass over blocks of rows: the blocks, the number of rows, and the name of the task.
Track = Callable[[Iterator[Any], int, str], Iterator[Any]]


class UserError(Exception):
    """An error of the user's input: one line for standard error."""


def printable(text: str) -> str:
    """`text` with every control character and every undecodable byte written as its escape.

    A terminal would execute the control sequences in the names of files, columns and classes.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def memory_bytes() -> int:
    """The size of the machine's memory; where it is unknown, that of all addresses."""
    if not hasattr(os, "sysconf"):
        return 1 << 62
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def pluralize(n: int, one: str, many: str = "") -> str:
    """``1 row``, ``2 rows``."""
    return f"{n} {one if n == 1 else many or one + 's'}"


class ClassLabels(NamedTuple):
    """The class of each row, -1 where it is ignored; and how labels became classes."""

    classes: Integers
    mapping: str
    warnings: tuple[str, ...] = ()


class Shard(NamedTuple):
    """A file of a folder, which has the rows `first` to `first + rows - 1`.

    `open` opens it, and can be pickled.
    """

    name: str
    first: int
    rows: int
    open: "Callable[[], Logits]"


@dataclass(frozen=True)
class Logits:
    """Rows of logits that are read block by block, as often as needed.

    `shape` ends with the class axis, wherever that is in the file; all other axes are rows.
    """

    source: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    names: tuple[str, ...] | None  # of the classes, if the file has names
    read: Callable[[], Iterator[NDArray[Any]]]
    rows_at: Callable[[Any], NDArray[Any]] | None = None  # by number, if that needs no pass
    axis: int = -1  # of the classes in the file
    one_score: bool = False  # the file has the score of class 1 alone, for two classes
    labels: Callable[[], ClassLabels] | None = None  # if the file has them
    shards: tuple[Shard, ...] = ()  # of a folder
    file: str = ""  # the name of the file, if it is a shard of the folder `source`
    first: int = 0  # the number of its first row in the folder

    @property
    def is_sample_log(self) -> bool:
        """Whether the logits are those of choices; only sample logs have labels."""
        return self.labels is not None

    @property
    def rows(self) -> int:
        return int(np.prod(self.shape[:-1]))

    @property
    def classes(self) -> int:
        return self.shape[-1]

    def place(self, row: int) -> str:
        """The file and the number of a row, for messages; of a folder, with the shard."""
        file, first = self.file, self.first
        if self.shards:
            shard = self.shards[bisect_right(self.shards, row, key=lambda s: s.first) - 1]
            file, row, first = shard.name, row - shard.first, shard.first
        if not file:
            return f"{self.source}: row {row}"
        return f"{self.source}: row {first + row} (row {row} of {printable(file)})"


def in_memory(source: str, z: NDArray[Any], names: tuple[str, ...] | None = None) -> Logits:
    """The logits of an array."""
    rows = z.reshape(math.prod(z.shape[:-1]), z.shape[-1])

    def read() -> Iterator[NDArray[Any]]:
        return (rows[part] for part in blocks(*rows.shape))

    return Logits(source, z.shape, z.dtype, names, read, rows.__getitem__)


def change_check(path: Path) -> Callable[[], None]:
    """A function that raises an error if the file is no longer as it is now.

    A changed file holds other rows, and reading a memory map beyond the end of its file would end
    the process.
    """

    def version() -> tuple[int, ...]:
        status = os.stat(path)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    opened = version()

    def check_unchanged() -> None:
        with catch_read_errors(path):
            unchanged = version() == opened
        if not unchanged:
            raise UserError(f"{path}: the file was changed after it was opened; start again")

    return check_unchanged


def in_file(source: str, z: np.memmap[Any, Any]) -> Logits:
    """The logits of a memory map; rows are read when they are needed."""
    rows, path = z.reshape(math.prod(z.shape[:-1]), z.shape[-1]), Path(str(z.filename))
    check_unchanged = change_check(path)

    def block(part: slice) -> NDArray[Any]:
        check_unchanged()
        if not rows.flags.c_contiguous:
            return np.array(rows[part])
        # Pages of a memory map that were read count as memory of the process.
        offset, size = z.offset + part.start * rows.strides[0], rows[part].size
        with catch_read_errors(path):
            values = np.fromfile(path, z.dtype, size, offset=offset)
        check_unchanged()
        return values.reshape(-1, rows.shape[1])

    def read() -> Iterator[NDArray[Any]]:
        return map(block, blocks(*rows.shape))

    def rows_at(numbers: Any) -> NDArray[Any]:
        check_unchanged()
        return np.array(rows[numbers])

    return Logits(source, z.shape, z.dtype, None, read, rows_at)


def parse_file_spec(spec: str) -> tuple[Path, str | None]:
    """The path and the name in ``FILE`` or ``FILE:NAME``; both may contain colons.

    The path may be that of a folder.
    """
    ends = [len(spec), *(i for i in range(len(spec) - 1, 0, -1) if spec[i] == ":")]
    for end in ends:
        path = Path(spec[:end])
        if path.is_file() or path.is_dir():
            break
    else:
        raise UserError(f"{spec}: no such file or folder")
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: the file type must be one of {', '.join(SUFFIXES)}")
    if path.is_file() and not path.stat().st_size:
        raise UserError(f"{path}: the file must have rows, got an empty file")
    return path, spec[end + 1 :] or None


@contextlib.contextmanager
def catch_read_errors(path: Path) -> Iterator[None]:
    """Turn the error of a library that reads `path` into one line that names the file."""
    try:
        yield
    except (UserError, ImportError):
        raise
    except MemoryError as error:
        raise UserError(f"{path}: not enough memory to read the file") from error
    except Exception as error:  # libraries raise errors of any type for damaged files
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if "allow_pickle" in reason or "Python objects" in reason:
            reason = "contains pickled objects, which are not loaded; save an array of numbers"
        raise UserError(f"{path}: {reason}") from error


def select_name(path: Path, name: str | None, names: Sequence[str]) -> str:
    """`name`, checked to be one of `names`; without it, the only one of `names`."""
    listing = ", ".join(names)
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise UserError(f"{path}: contains {listing}; choose one with {path}:NAME")
    if name not in names:
        raise UserError(f"{path}: NAME must be one of {listing}, got {name!r}")
    return name
