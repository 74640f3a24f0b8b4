"""Models in files: safetensors with metadata in JSON, which runs no code when read."""

import math
import os
from typing import Any

import numpy as np

from logitlab import _saved
from logitlab.regression import saved
from logitlab.regression.estimator import SoftmaxRegression
from logitlab.tables.columns import Column
from logitlab.tables.encoder import feature_names
from logitlab.tables.model import KIND, TableModel

FILE = "model.safetensors"


def load_model(path: str | os.PathLike[str]) -> TableModel | SoftmaxRegression:
    """Return the model in a file of ``logitlab fit`` or of the ``save`` of a model.

    Parameters
    ----------
    path : str or path-like
        The file, or the folder that ``logitlab fit`` wrote.

    Returns
    -------
    TableModel or SoftmaxRegression
        Of ``logitlab fit`` a TableModel, which takes data frames of pandas and polars and Arrow
        tables.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        The file holds no valid model.

    Notes
    -----
    The file is safetensors with the encodings of the columns as JSON; reading it runs no code.

    Examples
    --------
    >>> import tempfile
    >>> import pyarrow as pa
    >>> import logitlab
    >>> table = pa.table({"age": [20, 30, 40, 50], "city": ["Oslo", "Rome", "Rome", "Oslo"]})
    >>> model = logitlab.TableModel().fit(table, [0, 1, 1, 0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/model.safetensors")
    ...     logitlab.load_model(folder).predict(table)
    array([0, 1, 1, 0])
    """
    path = model_file(path)
    kind, arrays, metadata = _saved.read(path)
    if kind not in (KIND, saved.KIND):
        raise ValueError(
            f"{path}: must be a model of logitlab fit or of a regression, got a file of {kind}"
        )
    try:
        if kind == saved.KIND:
            return _regression(arrays, metadata)
        return _table_model(arrays, metadata)
    except ValueError as error:
        raise ValueError(f"{path}: invalid model: {error}") from None
    except (TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        raise ValueError(f"{path}: invalid model: its metadata is incomplete; fit again") from None


def model_file(path: str | os.PathLike[str]) -> str:
    """The model file of a folder, or the path itself."""
    path = os.fspath(path)
    return os.path.join(path, FILE) if os.path.isdir(path) else path


def _regression(arrays: _saved.Arrays, metadata: dict[str, Any]) -> SoftmaxRegression:
    regression = SoftmaxRegression()
    regression._restore(arrays, metadata)
    return regression


def _table_model(arrays: _saved.Arrays, metadata: dict[str, Any]) -> TableModel:
    C = metadata["C"]
    model = TableModel(C=math.inf if C is None else float(C))
    model.columns_ = tuple(Column.from_json(column) for column in metadata["columns"])
    model.feature_names_in_ = np.array([column.name for column in model.columns_])
    model.n_features_in_ = len(model.columns_)
    model.dropped_ = list(metadata["dropped"])
    model.target_, model.temperature_ = metadata["target"], float(metadata["temperature"])
    model.regression_ = SoftmaxRegression(C=model.C)
    model.regression_._restore_fit(arrays, metadata["classes"])
    model.classes_ = model.regression_.classes_
    if (reason := _error(model)) is not None:
        raise ValueError(reason)
    return model


def _error(model: TableModel) -> str | None:
    """Why the parameters cannot be used; None if they can."""
    if not isinstance(model.target_, str):
        return f"the target must be text, got {model.target_!r}"
    if not all(isinstance(name, str) for name in model.dropped_):
        return "the names of dropped columns must be text"
    for column in model.columns_:
        if (reason := column.error()) is not None:
            return f"column {column.name!r}: {reason}"
    if len({column.name for column in model.columns_}) != len(model.columns_):
        return "the columns must have distinct names"
    coef = model.regression_.coef_
    if coef.dtype != np.float64:
        return f"coef must be float64, got {coef.dtype}"
    shape = (len(coef), len(feature_names(model.columns_, model._drop_first)))
    if coef.shape != shape:
        return f"coef must have shape {shape}, got {coef.shape}"
    if not 0 < model.temperature_ < math.inf:
        return f"temperature must be positive and finite, got {model.temperature_}"
    return None
