"""Logits and labels in files: ``FILE``, or ``FILE:NAME`` for one array or column of the file."""

import contextlib
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.layouts import along_axis, two_classes
from logitlab._app.io.lm_eval import SUFFIX, read_samples
from logitlab._app.io.source import (
    NUMBERS,
    ClassLabels,
    Logits,
    UserError,
    catch_read_errors,
    memory_bytes,
    parse_file_spec,
    pluralize,
    printable,
    select_name,
)
from logitlab._app.io.tables import is_tabular, table_column, table_logits
from logitlab._rows import Integers

MAX_GROUPS = 50
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
        if kind == SUFFIX:
            raise UserError(f"{path}: a sample log is for LOGITS; it has no other arrays")
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


def open_logits(
    spec: str,
    not_classes: Sequence[str] = (),
    *,
    axis: int = -1,
    probabilities: bool | None = None,
) -> Logits:
    """The logits of ``FILE`` or ``FILE:NAME``, with classes along `axis` of an array.

    NAME is an array of the file, a column of lists, or several columns, ``a,b,c``. In a table
    without NAME every column is a class, except columns without a name (the index that pandas
    writes) and those of `not_classes`: ``FILE:COLUMN`` of labels or groups.

    With `probabilities` given, one number for each row is the logit of class 1, or its
    probability, and the result has two classes.
    """
    path, name = parse_file_spec(spec)
    source = printable(spec)
    if path.suffix.lower() == SUFFIX:
        if name is not None or axis != -1 or probabilities:
            raise UserError(
                f"{source}: a sample log has neither names, axes nor probabilities; omit NAME, "
                "--axis and --probabilities"
            )
        logits = read_samples(path, source)
    elif is_tabular(path):
        if axis != -1:
            raise UserError(f"{source}: --axis is for arrays; the classes of a table are columns")
        others = [column for file, column in map(parse_file_spec, not_classes) if file == path]
        logits = replace(table_logits(path, name, others), source=source)
    else:
        z = _array(path, name, "r")
        if z.dtype.kind not in NUMBERS and z.dtype.name != "bfloat16":
            raise UserError(f"{spec}: must contain numbers, got {_dtype_label(z.dtype)}")
        if z.ndim == 1 and probabilities is not None and axis in (0, -1):
            z, axis = z[:, None], -1
        if z.ndim < 2:
            raise UserError(f"{spec}: logits must have a shape (rows, classes), got {z.shape}")
        if z.size == 0:
            raise UserError(f"{spec}: logits must have a row and a class, got shape {z.shape}")
        logits = along_axis(source, z, axis)
    if logits.rows == 0 or logits.classes == 0:
        raise UserError(f"{spec}: logits must have a row and a class, got shape {logits.shape}")
    if logits.classes == 1 and probabilities is not None:
        return two_classes(logits, probabilities)
    return logits


def _dtype_label(dtype: np.dtype[Any]) -> str:
    return "text" if dtype.kind in "USO" else dtype.name


def read_labels(spec: str, logits: Logits, ignore_index: int | None = None) -> ClassLabels:
    """The label of each row, as the number of its class; -1 where it is `ignore_index`.

    Labels are column numbers, from 0, or names of columns. Numbers are names if the columns have
    numbers as names. For two classes without names, False and True are 0 and 1.
    """
    path, name = parse_file_spec(spec)
    y = table_column(path, name, "label") if is_tabular(path) else _array(path, name)
    if y.dtype.kind == "f" and np.isnan(y).any():
        raise UserError(f"{spec}: the label of row {int(np.isnan(y).argmax())} is missing")
    if y.dtype.kind not in "iuUSb":
        raise UserError(f"{spec}: labels must be integers or names, got {_dtype_label(y.dtype)}")
    rows = logits.shape[:-1]
    if y.shape not in (rows, (*rows, 1)):
        raise UserError(_shape_error(spec, y.shape, logits))
    y = y.reshape(-1)
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8")
    if logits.names is None and logits.classes == 2 and _are_boolean(y):
        y = np.char.lower(y.astype(np.str_)) == "true"
        return ClassLabels(y.astype(np.int64), "Labels: False is class 0, True is class 1.")
    if y.dtype.kind == "b":
        raise UserError(f"{spec}: labels must be integers or names, got bool")
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
            labels = _classes(spec, np.where(ignored, y[~ignored][0], y), logits)
            return labels._replace(classes=np.where(ignored, -1, labels.classes))
    return _classes(spec, y, logits)


def class_labels(
    spec: str | None, logits: Logits, ignore_index: int | None = None
) -> ClassLabels | None:
    """The labels of the file `spec`, or without it those that the file of the logits has."""
    if spec is not None:
        return read_labels(spec, logits, ignore_index)
    if ignore_index is not None:
        raise UserError("--ignore-index is a value of --labels, which is missing")
    return None if logits.labels is None else logits.labels()


class Groups(NamedTuple):
    """The column of the groups, its distinct values, and the number of the value of each row."""

    column: str
    names: tuple[str, ...]
    numbers: Integers


def read_groups(spec: str, logits: Logits) -> Groups:
    """The group of each row: the values of a column."""
    path, name = parse_file_spec(spec)
    values = table_column(path, name, "group") if is_tabular(path) else _array(path, name)
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise UserError(f"{spec}: the group of row {int(np.isnan(values).argmax())} is missing")
    if values.dtype.kind not in "iufbUS":
        raise UserError(f"{spec}: groups must be numbers or names, got {values.dtype.name}")
    if values.shape != logits.shape[:-1]:
        raise UserError(_shape_error(spec, values.shape, logits, "groups"))
    values = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
    if values.dtype.kind == "U" and (empty := np.char.strip(values) == "").any():
        raise UserError(f"{spec}: the group of row {int(empty.argmax())} is missing")
    distinct, numbers = np.unique(values.reshape(-1), return_inverse=True)
    if len(distinct) > MAX_GROUPS:
        raise UserError(
            f"{spec}: groups must have at most {MAX_GROUPS} distinct values, got {len(distinct)}"
        )
    column = name or path.stem
    return Groups(printable(column), tuple(map(str, distinct.tolist())), numbers.astype(np.int64))


def _are_boolean(y: NDArray[Any]) -> bool:
    return y.dtype.kind == "b" or (
        y.dtype.kind == "U" and bool(np.isin(np.char.lower(y), ("true", "false")).all())
    )


def _classes(spec: str, y: NDArray[Any], logits: Logits) -> ClassLabels:
    distinct, index = np.unique(y, return_inverse=True)
    names, k = logits.names, logits.classes
    if names is not None and (y.dtype.kind == "U" or all(map(_is_integer, names))):
        columns = {label: i for i, label in enumerate(names)}
        unknown = [str(value) for value in distinct if str(value) not in columns]
        if unknown:
            row = int(np.argmax(y.astype(np.str_) == unknown[0]))
            raise UserError(
                f"{spec}: the label of row {row} must be a column of {logits.source}, "
                f"got {unknown[0]!r}"
            )
        found = np.array([columns[str(value)] for value in distinct], np.int64)
        values = pluralize(len(distinct), "value")
        return ClassLabels(
            found[index], f"Labels: {values}, matched to the columns of the same name."
        )
    if y.dtype.kind == "U":
        if logits.one_score:
            row = int(np.argmin(np.isin(y, ("0", "1"))))
            raise UserError(
                f"{spec}: the label of row {row} must be 0 or 1, got {str(y[row])!r}; write 1 for "
                f"the class whose score {logits.source} has and 0 for the other"
            )
        raise UserError(
            f"{spec}: the labels are names, but the columns of {logits.source} have none; use the "
            "number of the column, from 0, as the label"
        )
    if len(outside := distinct[(distinct < 0) | (distinct >= k)]):
        row = int(np.argmax(y == outside[0]))
        from_one = distinct[0] == 1 and distinct[-1] == k
        raise UserError(
            f"{spec}: the label of row {row} must be in 0 to {k - 1} "
            f"({logits.source} has {pluralize(k, 'class', 'classes')}), got {outside[0]}"
            + ("; these labels count from 1: subtract 1" if from_one else "")
        )
    if logits.one_score:
        mapping = "Labels: 0 and 1 are the classes."
    elif names is None:
        mapping = f"Labels: column numbers, from 0 to {k - 1}."
    else:
        mapping = (
            f"Labels: column numbers, from 0 (column {names[0]!r}) to {k - 1} ({names[-1]!r})."
        )
    return ClassLabels(y.astype(np.int64), mapping)


def _is_integer(name: str) -> bool:
    try:
        int(name)
    except ValueError:
        return False
    return True


def _shape_error(spec: str, shape: tuple[int, ...], logits: Logits, content: str = "labels") -> str:
    rows = logits.shape[:-1]
    if len(shape) == len(rows) == 1:
        return (
            f"{spec}: {pluralize(shape[0], 'row')}, {logits.source}: {pluralize(rows[0], 'row')}; "
            "they must have the same number of rows"
        )
    return f"{spec}: {content} must have shape {rows} as the rows of {logits.source}, got {shape}"
