"""Logits and labels in files: ``FILE``, or ``FILE:NAME`` for one array or column of the file."""

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.files import dtype_label, open_file
from logitlab._app.io.shards import open_folder, read_values
from logitlab._app.io.source import (
    ClassLabels,
    Logits,
    UserError,
    parse_file_spec,
    pluralize,
    printable,
)

MAX_GROUPS = 50


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
    writes) and those of `not_classes`: ``FILE:COLUMN`` of labels or groups. FILE may be a folder
    of shards.

    With `probabilities` given, one number for each row is the logit of class 1, or its
    probability, and the result has two classes.
    """
    path, name = parse_file_spec(spec)
    others = tuple(column for file, column in map(parse_file_spec, not_classes) if file == path)
    open_path = open_folder if path.is_dir() else open_file
    logits = open_path(
        path, name, printable(spec), others=others, axis=axis, probabilities=probabilities
    )
    if logits.rows == 0 or logits.classes == 0:
        raise UserError(f"{spec}: logits must have a row and a class, got shape {logits.shape}")
    return logits


def read_labels(spec: str, logits: Logits, ignore_index: int | None = None) -> ClassLabels:
    """The label of each row, as the number of its class; -1 where it is `ignore_index`.

    Labels are column numbers, from 0, or names of columns. Numbers are names if the columns have
    numbers as names. For two classes without names, False and True are 0 and 1.
    """
    path, name = parse_file_spec(spec)
    y = read_values(path, name, "label")
    if y.dtype.kind == "f" and np.isnan(y).any():
        raise UserError(f"{spec}: the label of row {int(np.isnan(y).argmax())} is missing")
    if y.dtype.kind not in "iuUSb":
        got = dtype_label(y.dtype)
        if y.ndim > 1 and logits.one_score:  # the labels were read as logits of class 1
            got += f"; {logits.source} may have the labels, and {spec} the logits"
        raise UserError(f"{spec}: labels must be integers or names, got {got}")
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
    numbers: NDArray[np.uint8]


def read_groups(spec: str, logits: Logits) -> Groups:
    """The group of each row: the values of a column."""
    path, name = parse_file_spec(spec)
    values = read_values(path, name, "group")
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
    return Groups(printable(column), tuple(map(str, distinct.tolist())), numbers.astype(np.uint8))


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
