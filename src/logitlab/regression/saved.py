"""Fitted regressions in files: safetensors with metadata in JSON, which runs no code when read."""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from logitlab import _saved
from logitlab.regression.solver import Floats

KIND = "SoftmaxRegression"

_INFINITY = "infinity"  # JSON has none


class SavedMixin:
    """The methods of a regression that writes itself to a file and reads itself from one."""

    classes_: Any
    coef_: Floats
    intercept_: Floats
    n_features_in_: int
    get_params: Callable[..., dict[str, Any]]
    set_params: Callable[..., Any]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to a file, for :func:`logitlab.load_model`.

        Parameters
        ----------
        path : str or path-like
            Conventionally ends with ``.safetensors``.

        Raises
        ------
        ValueError
            A model of a formula, which holds functions; pickle it instead.

        Examples
        --------
        >>> import tempfile
        >>> import logitlab
        >>> model = logitlab.SoftmaxRegression().fit([[0.0], [1.0], [2.0]], ["a", "b", "b"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.safetensors")
        ...     logitlab.load_model(folder).predict([[3.0]])
        array(['b'], dtype='<U1')
        """
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        metadata = {
            "parameters": {n: _to_json(p) for n, p in self.get_params(deep=False).items()},
            "classes": self.classes_.tolist(),
            "features": None if names is None else names.tolist(),
        }
        arrays = {"coef": self.coef_, "intercept": self.intercept_}
        _saved.write(path, _saved.to_bytes(KIND, arrays, metadata))

    def _restore(self, arrays: _saved.Arrays, metadata: dict[str, Any]) -> None:
        """Take the contents of a file; raise TypeError, ValueError or KeyError if damaged."""
        parameters = {n: _from_json(p) for n, p in metadata["parameters"].items()}
        self.set_params(**parameters)
        self._restore_fit(arrays, metadata["classes"])
        names = metadata["features"]
        if names is not None:
            known = len(names) == self.n_features_in_
            if not known or not all(isinstance(name, str) for name in names):
                raise ValueError("the names of the features must be text, one for each")
            self.feature_names_in_ = np.array(names, object)

    def _restore_fit(self, arrays: _saved.Arrays, labels: list[Any]) -> None:
        """Take the classes and the coefficients of a file; raise as :meth:`_restore` does."""
        coef, intercept = arrays["coef"], arrays["intercept"]
        kinds = {type(label) for label in labels}
        if (
            len(kinds) != 1
            or not kinds <= {str, int, bool, float}
            or len(set(labels)) < len(labels)
            or (kinds == {float} and not all(label.is_integer() for label in labels))
        ):
            raise ValueError("the classes must be distinct labels of one type")
        rows = 1 if len(labels) == 2 else len(labels)
        if len(labels) < 2 or coef.ndim != 2 or len(coef) != rows or intercept.shape != (rows,):
            raise ValueError("the coefficients must have a row for each class, or one for two")
        if coef.dtype not in (np.float32, np.float64) or intercept.dtype != coef.dtype:
            raise ValueError("the coefficients must be float32 or float64")
        if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            raise ValueError("the coefficients must be finite")
        self.classes_, self.coef_, self.intercept_ = np.array(labels), coef, intercept
        self.n_features_in_ = coef.shape[1]


def _to_json(parameter: Any) -> Any:
    """Return a parameter in the types of JSON; the weights of classes as pairs."""
    if isinstance(parameter, dict):
        return [[_to_json(label), _to_json(weight)] for label, weight in parameter.items()]
    value = parameter.item() if isinstance(parameter, np.generic) else parameter
    return _INFINITY if isinstance(value, float) and math.isinf(value) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return dict(value)
    return math.inf if value == _INFINITY else value
