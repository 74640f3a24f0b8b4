"""Logits and labels from files: ``FILE``, or ``FILE:NAME`` for one array or column inside it."""

import contextlib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.source import (
    NUMBERS,
    Logits,
    UserError,
    counted,
    in_memory,
    locate,
    pick,
    plain_errors,
)
from logitlab._app.io.tables import is_tabular, label_column, table_logits
from logitlab._rows import Integers

_MAGIC = b"\x93NUMPY"


def _array(path: Path, name: str | None) -> NDArray[Any]:
    """One array of an array file; a single .npy is a memory map."""
    kind = path.suffix.lower()
    with plain_errors(path):
        if kind == ".npy":
            if name is not None:
                raise UserError(f"{path}: a .npy file holds one array, so no {name!r}")
            with path.open("rb") as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    raise UserError(f"{path}: is no .npy file")
            mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            return mapped
        if kind == ".npz":
            if not zipfile.is_zipfile(path):
                raise UserError(f"{path}: is no .npz file")
            with np.load(path, allow_pickle=False) as archive:
                return np.asarray(archive[pick(path, name, archive.files)])
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "np") as tensors:
                name = pick(path, name, list(tensors.keys()))
                if tensors.get_slice(name).get_dtype() == "BF16":
                    import ml_dtypes  # noqa: F401  makes bfloat16 a NumPy type
                return np.asarray(tensors.get_tensor(name))
        except SafetensorError as error:
            raise ValueError(error) from None


def open_logits(spec: str, labels: str | None = None) -> Logits:
    """The logits of ``FILE`` or ``FILE:NAME``; of a table without NAME every column is a class.

    A column that holds the labels is left out, and so is an unnamed first one (pandas' index).
    NAME may be several columns, ``a,b,c``, or one column of lists.
    """
    path, name = locate(spec)
    if is_tabular(path):
        beside = locate(labels) if labels else (None, None)
        logits = table_logits(path, name, beside[1] if beside[0] == path else None)
        logits = replace(logits, source=spec)
    else:
        z = _array(path, name)
        if z.dtype.kind not in NUMBERS and z.dtype.name != "bfloat16":
            raise UserError(f"{spec}: holds {_spoken(z.dtype)}, not numbers")
        if z.ndim < 2:
            raise UserError(f"{spec}: has shape {z.shape}; logits are rows by classes")
        logits = in_memory(spec, z)
    if logits.rows == 0 or logits.classes == 0:
        raise UserError(f"{spec}: has shape {logits.shape}; needed: a row of at least one class")
    return logits


def _spoken(dtype: np.dtype[Any]) -> str:
    return "text" if dtype.kind in "USO" else dtype.name


def read_labels(spec: str, logits: Logits) -> Integers:
    """The label of each row, as the number of its class.

    Labels are numbers of columns, from 0, or names. Names, and numbers where every one of them
    is a column's name, mean the columns so named; where the columns have no names, the sorted
    distinct names are the classes in order, and there must be K of them.
    """
    path, name = locate(spec)
    y = label_column(path, name) if is_tabular(path) else _array(path, name)
    if y.dtype.kind == "f" and np.isnan(y).any():
        raise UserError(f"{spec}: no label in row {int(np.isnan(y).argmax())}")
    if y.dtype.kind not in "iuUS":
        raise UserError(f"{spec}: labels are integers or names, not {_spoken(y.dtype)}")
    rows = logits.shape[:-1]
    if y.shape not in (rows, (*rows, 1)):
        raise UserError(f"{spec}: labels have shape {y.shape}, {logits.source} has rows {rows}")
    y = y.reshape(-1)
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8")
    if y.dtype.kind == "U":
        with contextlib.suppress(ValueError):
            y = y.astype(np.int64)
    distinct, place = np.unique(y, return_inverse=True)
    if logits.names is not None and (
        y.dtype.kind == "U" or {str(value) for value in distinct} <= set(logits.names)
    ):
        column = {label: k for k, label in enumerate(logits.names)}
        unknown = [str(value) for value in distinct if str(value) not in column]
        if unknown:
            row = int(np.argmax(y == unknown[0]))
            raise UserError(
                f"{spec}: label {unknown[0]!r} in row {row} is no column of {logits.source}"
            )
        return np.array([column[str(value)] for value in distinct], np.int64)[place]
    if y.dtype.kind == "U":
        if len(distinct) != logits.classes:
            raise UserError(
                f"{spec}: {len(distinct)} distinct names for the "
                f"{counted(logits.classes, 'class', 'classes')} of {logits.source}; "
                "use the numbers of the columns, from 0"
            )
        return place.astype(np.int64)
    if len(outside := distinct[(distinct < 0) | (distinct >= logits.classes)]):
        row = int(np.argmax(y == outside[0]))
        raise UserError(
            f"{spec}: label {outside[0]} in row {row}; accepted: 0 to {logits.classes - 1}, as "
            f"{logits.source} has {counted(logits.classes, 'class', 'classes')}"
        )
    return y.astype(np.int64)
