"""Rows of logits that are read in blocks, and the file that they are in: ``FILE[:NAME]``."""

import contextlib
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._rows import blocks

TABLES = (".csv", ".parquet")
SUFFIXES = (".npy", ".npz", *TABLES, ".safetensors")
NUMBERS = "fiub"  # the kinds of NumPy types that hold numbers


class UserError(Exception):
    """An error of the user's input: one line for standard error."""


def pluralize(n: int, one: str, many: str = "") -> str:
    """``1 row``, ``2 rows``."""
    return f"{n} {one if n == 1 else many or one + 's'}"


@dataclass(frozen=True)
class Logits:
    """Rows of logits that are read block by block, as often as needed.

    Of a file of three or more dimensions, the last one is the class axis, all others are rows.
    """

    source: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    names: tuple[str, ...] | None  # of the classes, if the file has names
    read: Callable[[], Iterator[NDArray[Any]]]
    array: NDArray[Any] | None = None  # (rows, K), if rows can be indexed

    @property
    def rows(self) -> int:
        return int(np.prod(self.shape[:-1]))

    @property
    def classes(self) -> int:
        return self.shape[-1]


def in_memory(source: str, z: NDArray[Any], names: tuple[str, ...] | None = None) -> Logits:
    """The logits of an array; a C-ordered memory map is read from its file in blocks."""
    rows = z.reshape(math.prod(z.shape[:-1]), z.shape[-1])

    def read() -> Iterator[NDArray[Any]]:
        for part in blocks(*rows.shape):
            if isinstance(z, np.memmap) and z.flags.c_contiguous and z.filename is not None:
                # Pages of a memory map that were read count as memory of the process.
                offset = z.offset + part.start * rows.strides[0]
                size = (part.stop - part.start) * rows.shape[1]
                block = np.fromfile(z.filename, z.dtype, size, offset=offset)
                yield block.reshape(-1, rows.shape[1])
            else:
                yield rows[part]

    return Logits(source, z.shape, z.dtype, names, read, rows)


def parse_file_spec(spec: str) -> tuple[Path, str | None]:
    """The path and the name in ``FILE`` or ``FILE:NAME``; both may contain colons."""
    ends = [len(spec), *(i for i in range(len(spec) - 1, 0, -1) if spec[i] == ":")]
    for end in ends:
        if (path := Path(spec[:end])).is_file():
            break
    else:
        if Path(spec).is_dir():
            raise UserError(f"{spec}: must be a file ({', '.join(SUFFIXES)}), got a folder")
        raise UserError(f"{spec}: no such file")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: the file type must be one of {', '.join(SUFFIXES)}")
    return path, spec[end + 1 :] or None


@contextlib.contextmanager
def catch_read_errors(path: Path) -> Iterator[None]:
    """Turn the error of a library that reads `path` into one line that names the file."""
    try:
        yield
    except (ValueError, TypeError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip().partition("\n")[0]
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
