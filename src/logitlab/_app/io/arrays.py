"""Logits and labels in files: ``FILE``, or ``FILE:NAME`` for one array or column of the file."""

import contextlib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.source import (
    NUMBERS,
    Logits,
    UserError,
    catch_read_errors,
    in_file,
    in_memory,
    memory_bytes,
    parse_file_spec,
    pluralize,
    printable,
    select_name,
)
from logitlab._app.io.tables import is_tabular, label_column, table_logits
from logitlab._rows import Integers

_MAGIC = b"\x93NUMPY"
# The types of .safetensors files that NumPy, or ml_dtypes with NumPy, can hold.
_INTEGERS = [f"{sign}{bits}" for sign in "IU" for bits in (8, 16, 32, 64)]
_TENSORS = ["F16", "BF16", "F32", "F64", "BOOL", *_INTEGERS]


def _array(path: Path, name: str | None, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    """One array of an array file; that of a .npy file may be a memory map."""
    kind = path.suffix.lower()
    with catch_read_errors(path):
        if kind == ".npy":
            if name is not None:
                raise UserError(f"{path}: a .npy file has no names, got {name!r}")
            with path.open("rb") as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    raise UserError(f"{path}: not a valid .npy file")
            array: NDArray[Any] = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
            return array
        if kind == ".npz":
            if not zipfile.is_zipfile(path):
                raise UserError(f"{path}: not a valid .npz file")
            # NumPy does not close the file of a damaged archive that it opens itself.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                name = select_name(path, name, archive.files)
                _check_size(path, archive.zip, name)
                return np.asarray(archive[name])
        from safetensors import safe_open

        with safe_open(path, "np") as tensors:
            name = select_name(path, name, list(tensors.keys()))
            kind = tensors.get_slice(name).get_dtype()
            if kind not in _TENSORS:
                types = ", ".join(_TENSORS)
                raise UserError(f"{path}: the type of {name!r} must be one of {types}, got {kind}")
            if kind == "BF16":
                import ml_dtypes  # noqa: F401  registers bfloat16 with NumPy
            return np.asarray(tensors.get_tensor(name))


def _check_size(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    """Refuse an array that is larger than the memory of the machine: files can be compressed."""
    member = name if name in archive.namelist() else f"{name}.npy"
    size = archive.getinfo(member).file_size
    if size > memory_bytes():
        raise UserError(f"{path}: {name!r} has {size} bytes, more than the memory of this machine")


def open_logits(spec: str, labels: str | None = None) -> Logits:
    """The logits of ``FILE`` or ``FILE:NAME``.

    NAME is an array of the file, a column of lists, or several columns, ``a,b,c``. In a table
    without NAME every column is a class, except a column of labels and columns without a name
    (the index that pandas writes).
    """
    path, name = parse_file_spec(spec)
    if is_tabular(path):
        labels_path, column = parse_file_spec(labels) if labels else (None, None)
        logits = table_logits(path, name, column if labels_path == path else None)
        logits = replace(logits, source=printable(spec))
    else:
        z = _array(path, name, "r")
        if z.dtype.kind not in NUMBERS and z.dtype.name != "bfloat16":
            raise UserError(f"{spec}: must contain numbers, got {_dtype_label(z.dtype)}")
        if z.ndim < 2:
            raise UserError(f"{spec}: logits must have a shape (rows, classes), got {z.shape}")
        if isinstance(z, np.memmap) and (z.ndim == 2 or z.flags.c_contiguous):
            logits = in_file(printable(spec), z)
        else:
            logits = in_memory(printable(spec), np.asarray(z))
    if logits.rows == 0 or logits.classes == 0:
        raise UserError(f"{spec}: logits must have a row and a class, got shape {logits.shape}")
    return logits


def _dtype_label(dtype: np.dtype[Any]) -> str:
    return "text" if dtype.kind in "USO" else dtype.name


def read_labels(spec: str, logits: Logits, ignore_index: int | None = None) -> Integers:
    """The label of each row, as the number of its class; -1 where it is `ignore_index`.

    Labels are column numbers, from 0, or names of columns. Numbers are names too if every one of
    them is the name of a column.
    """
    path, name = parse_file_spec(spec)
    y = label_column(path, name) if is_tabular(path) else _array(path, name)
    if y.dtype.kind == "f" and np.isnan(y).any():
        raise UserError(f"{spec}: the label of row {int(np.isnan(y).argmax())} is missing")
    if y.dtype.kind not in "iuUS":
        raise UserError(f"{spec}: labels must be integers or names, got {_dtype_label(y.dtype)}")
    rows = logits.shape[:-1]
    if y.shape not in (rows, (*rows, 1)):
        raise UserError(_shape_error(spec, y.shape, logits))
    y = y.reshape(-1)
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8")
    if y.dtype.kind == "U":
        with contextlib.suppress(ValueError):
            numbers = y.astype(np.int64)
            # `01` is the name of a class, not the number 1.
            y = numbers if (numbers.astype(y.dtype) == y).all() else y
    if ignore_index is not None:
        if y.dtype.kind == "U":
            raise UserError(f"{spec}: --ignore-index needs numbers as labels, got names")
        ignored = y == ignore_index
        if ignored.all():
            raise UserError(f"{spec}: every label is {ignore_index}, which --ignore-index ignores")
        if ignored.any():
            labels = _class_numbers(spec, np.where(ignored, y[~ignored][0], y), logits)
            return np.where(ignored, -1, labels)
    return _class_numbers(spec, y, logits)


def _class_numbers(spec: str, y: NDArray[Any], logits: Logits) -> Integers:
    distinct, index = np.unique(y, return_inverse=True)
    if logits.names is not None and (
        y.dtype.kind == "U" or {str(value) for value in distinct} <= set(logits.names)
    ):
        columns = {label: k for k, label in enumerate(logits.names)}
        unknown = [str(value) for value in distinct if str(value) not in columns]
        if unknown:
            row = int(np.argmax(y == unknown[0]))
            raise UserError(
                f"{spec}: the label of row {row} must be a column of {logits.source}, "
                f"got {unknown[0]!r}"
            )
        return np.array([columns[str(value)] for value in distinct], np.int64)[index]
    if y.dtype.kind == "U":
        raise UserError(
            f"{spec}: the labels are names, but the columns of {logits.source} have none; use the "
            "number of the column, from 0, as the label"
        )
    if len(outside := distinct[(distinct < 0) | (distinct >= logits.classes)]):
        row = int(np.argmax(y == outside[0]))
        classes = pluralize(logits.classes, "class", "classes")
        from_one = distinct[0] == 1 and distinct[-1] == logits.classes
        raise UserError(
            f"{spec}: the label of row {row} must be in 0 to {logits.classes - 1} "
            f"({logits.source} has {classes}), got {outside[0]}"
            + ("; these labels count from 1: subtract 1" if from_one else "")
        )
    return y.astype(np.int64)


def _shape_error(spec: str, shape: tuple[int, ...], logits: Logits) -> str:
    rows = logits.shape[:-1]
    if len(shape) == len(rows) == 1:
        return (
            f"{spec}: {pluralize(shape[0], 'row')}, {logits.source}: {pluralize(rows[0], 'row')}; "
            "they must have the same number of rows"
        )
    return f"{spec}: labels must have shape {rows} as the rows of {logits.source}, got {shape}"
