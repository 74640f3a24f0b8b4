"""A fitted model in a file: safetensors, with what its columns mean as JSON. No pickle."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.fit.features import Column
from logitlab._app.io.outputs import atomic_write
from logitlab._app.io.source import UserError, catch_read_errors
from logitlab.probabilities import softmax

FILE = "model.safetensors"
_KEY = "logitlab"
_VERSION = 1


@dataclass(frozen=True)
class Model:
    """Softmax regression on the columns of a table."""

    target: str
    classes: tuple[Any, ...]
    columns: tuple[Column, ...]
    coef: NDArray[np.float64]  # (K, features)
    intercept: NDArray[np.float64]
    temperature: float

    def logits(self, x: Any) -> NDArray[np.float64]:
        z: NDArray[np.float64] = x @ self.coef.T + self.intercept
        return z

    def probabilities(self, x: Any) -> NDArray[np.float64]:
        """Calibrated."""
        p: NDArray[np.float64] = softmax(self.logits(x), temperature=self.temperature)
        return p

    def as_bytes(self) -> bytes:
        """The file."""
        from safetensors.numpy import save

        about = {
            "version": _VERSION,
            "target": self.target,
            "classes": self.classes,
            "columns": [column.as_json() for column in self.columns],
            "temperature": self.temperature,
        }
        tensors = {"coef": self.coef, "intercept": self.intercept}
        held: bytes = save(tensors, {_KEY: json.dumps(about)})
        return held


def file_of(path: Path) -> Path:
    return path / FILE if path.is_dir() else path


def load(path: Path) -> Model:
    """The model of a file, or of the folder that ``logitlab fit`` wrote it to."""
    from safetensors import SafetensorError, safe_open

    path = file_of(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with catch_read_errors(path), safe_open(path, "np") as held:
            text = (held.metadata() or {}).get(_KEY)
            tensors = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path}: is no model file: {error}") from None
    if text is None:
        raise UserError(f"{path}: is no model of logitlab fit")
    try:
        about = json.loads(text)
        if about["version"] != _VERSION:
            raise UserError(f"{path}: has version {about['version']}; known: {_VERSION}")
        model = Model(
            about["target"],
            tuple(about["classes"]),
            tuple(Column.of_json(column) for column in about["columns"]),
            tensors["coef"],
            tensors["intercept"],
            float(about["temperature"]),
        )
        features = sum(len(column.features()) for column in model.columns)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path}: a damaged model: what it says of itself is incomplete") from None
    k = len(model.classes)
    if (
        model.coef.shape != (k, features)
        or model.intercept.shape != (k,)
        or not (np.isfinite(model.coef).all() and np.isfinite(model.intercept).all())
        or not 0 < model.temperature < math.inf
    ):
        raise UserError(
            f"{path}: a damaged model: coefficients of shape {model.coef.shape}, intercepts of "
            f"shape {model.intercept.shape} and temperature {model.temperature} for {k} classes "
            f"and {features} features"
        )
    return model


def write_predictions(path: Path, classes: Sequence[Any], p: NDArray[np.float64]) -> None:
    """The likeliest label, and the probability of each class: .csv or .parquet.

    The first column is ``label``, or, where a class is called that, ``label_``.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    best = pa.array(classes).take(pa.array(p.argmax(axis=1)))
    names = [str(label) for label in classes]
    likeliest = "label"
    while likeliest in names:
        likeliest += "_"
    table = pa.table([best, *p.T.copy()], [likeliest, *names])
    write = parquet.write_table if path.suffix.lower() == ".parquet" else csv.write_csv
    with atomic_write(path) as temporary:
        write(table, temporary)
