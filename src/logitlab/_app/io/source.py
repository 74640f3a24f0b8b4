"""Rows of logits that came from somewhere, and where: ``FILE``, or ``FILE:NAME``."""

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
NUMBERS = "fiub"


class UserError(Exception):
    """What a person can put right: one line for standard error."""


def counted(n: int, one: str, many: str = "") -> str:
    """``1 row``, ``2 rows``."""
    return f"{n} {one if n == 1 else many or one + 's'}"


@dataclass(frozen=True)
class Logits:
    """Rows of logits that are read block by block, as often as needed.

    A file of three or more dimensions is rows by classes all the same: its last one is K.
    """

    source: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    names: tuple[str, ...] | None  # of the classes, where the file has any
    read: Callable[[], Iterator[NDArray[Any]]]
    held: NDArray[Any] | None = None  # (rows, K), where a row can be reached by its number

    @property
    def rows(self) -> int:
        return int(np.prod(self.shape[:-1]))

    @property
    def classes(self) -> int:
        return self.shape[-1]


def in_memory(source: str, z: NDArray[Any], names: tuple[str, ...] | None = None) -> Logits:
    """Logits of an array. One that lies in a file in C order is read from there by blocks."""
    rows = z.reshape(math.prod(z.shape[:-1]), z.shape[-1])

    def read() -> Iterator[NDArray[Any]]:
        for part in blocks(*rows.shape):
            if isinstance(z, np.memmap) and z.flags.c_contiguous and z.filename is not None:
                # A memory map would count every page it has touched as memory of the process.
                offset = z.offset + part.start * rows.strides[0]
                size = (part.stop - part.start) * rows.shape[1]
                block = np.fromfile(z.filename, z.dtype, size, offset=offset)
                yield block.reshape(-1, rows.shape[1])
            else:
                yield rows[part]

    return Logits(source, z.shape, z.dtype, names, read, rows)


def locate(spec: str) -> tuple[Path, str | None]:
    """The file of ``FILE`` or ``FILE:NAME``, and NAME: both may hold colons of their own."""
    ends = [len(spec), *(i for i in range(len(spec) - 1, 0, -1) if spec[i] == ":")]
    for end in ends:
        if (path := Path(spec[:end])).is_file():
            break
    else:
        if Path(spec).is_dir():
            raise UserError(f"{spec}: is a folder; accepted: a file, {', '.join(SUFFIXES)}")
        raise UserError(f"{spec}: no such file")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: unknown kind of file; accepted: {', '.join(SUFFIXES)}")
    return path, spec[end + 1 :] or None


@contextlib.contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """A library's complaint about a file, as one line that names the file."""
    try:
        yield
    except (ValueError, TypeError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).strip().partition("\n")[0]
        if "allow_pickle" in reason or "Python objects" in reason:
            reason = "holds pickled objects, which are not loaded; save plain numbers instead"
        raise UserError(f"{path}: {reason}") from error


def pick(path: Path, name: str | None, held: Sequence[str]) -> str:
    listing = ", ".join(held)
    if name is None and len(held) == 1:
        return held[0]
    if name is None:
        raise UserError(f"{path}: holds {listing}; say which: {path}:NAME")
    if name not in held:
        raise UserError(f"{path}: no {name!r} inside; it holds {listing}")
    return name
