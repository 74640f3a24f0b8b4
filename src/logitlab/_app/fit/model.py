"""A fitted model, and its file: safetensors with the columns as JSON, without pickle."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from logitlab import _saved
from logitlab._app.fit.features import Column
from logitlab._app.io.outputs import atomic_write, csv_text
from logitlab._app.io.source import UserError
from logitlab._app.saved import catch_saved_errors
from logitlab._rows import Floats
from logitlab.probabilities import softmax

FILE = "model.safetensors"
_KIND = "TableModel"


@dataclass(frozen=True)
class Model:
    """Softmax regression on the columns of a table."""

    target: str
    classes: tuple[Any, ...]
    columns: tuple[Column, ...]
    coef: Floats  # (classes, features)
    intercept: Floats  # (classes,)
    temperature: float

    def logits(self, x: Any) -> Floats:
        """Uncalibrated logits of the features x, a dense or sparse matrix."""
        z: Floats = x @ self.coef.T + self.intercept
        return z

    def probabilities(self, x: Any) -> Floats:
        """Calibrated probabilities of the features x."""
        p: Floats = softmax(self.logits(x), temperature=self.temperature)
        return p

    def as_bytes(self) -> bytes:
        """The contents of the model file."""
        metadata = {
            "target": self.target,
            "classes": self.classes,
            "columns": [column.as_json() for column in self.columns],
            "temperature": self.temperature,
        }
        return _saved.to_bytes(_KIND, {"coef": self.coef, "intercept": self.intercept}, metadata)

    def error(self) -> str | None:
        """Why the parameters cannot be used; None if they can."""
        if not isinstance(self.target, str):
            return f"the target must be text, got {self.target!r}"
        kinds = {type(label) for label in self.classes}
        if len(kinds) != 1 or not kinds <= {str, int, bool}:
            return "the classes must be all text, all integers or all booleans"
        k = len(self.classes)
        if k < 2 or len(set(self.classes)) != k:
            return "there must be 2 or more classes, all distinct"
        if self.coef.dtype != np.float64 or self.intercept.dtype != np.float64:
            return "coef and intercept must be float64"
        for column in self.columns:
            if (reason := column.error()) is not None:
                return f"column {column.name!r}: {reason}"
        if len({column.name for column in self.columns}) != len(self.columns):
            return "the columns must have distinct names"
        shape = (k, sum(len(column.features()) for column in self.columns))
        if self.coef.shape != shape:
            return f"coef must have shape {shape}, got {self.coef.shape}"
        if self.intercept.shape != (k,):
            return f"intercept must have shape {(k,)}, got {self.intercept.shape}"
        if not (np.isfinite(self.coef).all() and np.isfinite(self.intercept).all()):
            return "coef and intercept must be finite"
        if not 0 < self.temperature < math.inf:
            return f"temperature must be positive and finite, got {self.temperature}"
        return None


def model_file(path: Path) -> Path:
    """The model file of a folder, or the path itself."""
    return path / FILE if path.is_dir() else path


def load(path: Path) -> Model:
    """The model of a file, or of the folder that ``logitlab fit`` wrote it to."""
    path = model_file(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    with catch_saved_errors(path):
        kind, tensors, metadata = _saved.read(path)
    if kind != _KIND:
        raise UserError(f"{path}: must be a model of logitlab fit, got a file of {kind}")
    try:
        model = Model(
            metadata["target"],
            tuple(metadata["classes"]),
            tuple(Column.from_json(column) for column in metadata["columns"]),
            tensors["coef"],
            tensors["intercept"],
            float(metadata["temperature"]),
        )
        reason = model.error()
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise UserError(f"{path}: invalid model: its metadata is incomplete; fit again") from None
    if reason is not None:
        raise UserError(f"{path}: invalid model: {reason}")
    return model


def write_predictions(path: Path, classes: Sequence[Any], p: Floats) -> None:
    """Write the predicted class and the probability of each class to a .csv or .parquet file.

    The first column is ``label``, or ``label_`` if a class has that name.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    is_parquet = path.suffix.lower() == ".parquet"
    names = [str(name) if is_parquet else csv_text(str(name)) for name in classes]
    # In a .csv file the text of a label is the header of its column.
    labels = pa.array(np.array(classes if is_parquet else names))
    predicted = labels.take(pa.array(p.argmax(axis=1)))
    label = "label"
    while label in names:
        label += "_"
    table = pa.table([predicted, *p.T.copy()], [label, *names])
    write = parquet.write_table if is_parquet else csv.write_csv
    with atomic_write(path) as temporary:
        write(table, temporary)
