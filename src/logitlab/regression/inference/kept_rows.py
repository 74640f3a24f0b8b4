"""The rows that an estimator keeps after a fit without penalty."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted

from logitlab.regression.objective import Objective
from logitlab.regression.rows import Engine
from logitlab.regression.solver import Floats


class RowsOfFit(NamedTuple):
    """The rows that a fit without penalty keeps for inference."""

    engine: Engine
    classes: Any
    dtype: np.dtype[Any]
    response: str  # the name of y


class KeepsRows:
    """An estimator that keeps a reference to the rows of a fit without penalty."""

    C: float
    l1_ratio: float
    fit_intercept: bool
    classes_: Any
    _make_engine: Callable[..., tuple[Engine, Any, np.dtype[Any]]]
    _objective: Callable[..., Objective]
    _centred_parameters: Callable[[Objective], Floats]
    _feature_names: Callable[[], list[str]]
    _checked_features: Callable[[Any], Any]
    _rows_of_fit: RowsOfFit

    def _parameter_names(self) -> list[str]:
        return self._feature_names() + (["intercept"] if self.fit_intercept else [])

    def _objective_of(
        self, X: Any, y: Any, sample_weight: Any, base: Any
    ) -> tuple[Objective, Any, str]:
        """Return the objective of the rows of the fit, the base class and the name of y."""
        check_is_fitted(self)
        if not math.isinf(self.C):
            raise ValueError(
                f"inference needs a fit with C=math.inf, got C={self.C}: a penalty makes standard "
                "errors meaningless; posterior has intervals of a fit with a ridge penalty"
            )
        return self._fitted_objective(X, y, sample_weight, base)

    def _fitted_objective(
        self, X: Any, y: Any, sample_weight: Any, base: Any
    ) -> tuple[Objective, Any, str]:
        names = self.classes_.tolist()
        base = names[0] if base is None else base
        if base not in names:
            raise ValueError(f"base must be one of {names}, got {base!r}")
        engine, classes, dtype, response = self._rows_of(X, y, sample_weight)
        if not np.array_equal(classes, self.classes_):
            raise ValueError(f"y must have the classes of the fit, {names}, got {classes.tolist()}")
        return self._objective(engine, len(classes), dtype), base, response

    def _keep_rows(self, rows: tuple[Engine, Any, np.dtype[Any]], y: Any) -> None:
        """Keep a reference to the rows of a fit without penalty; forget those of another fit."""
        self.__dict__.pop("_rows_of_fit", None)
        if math.isinf(self.C):
            self._rows_of_fit = RowsOfFit(*rows, _name(y))

    def _rows_of(self, X: Any, y: Any, sample_weight: Any) -> RowsOfFit:
        """Return the rows of the arguments; without arguments those of the fit."""
        if X is None:
            if y is not None or sample_weight is not None:
                raise ValueError("X must be given with y and sample_weight, got None")
            kept: RowsOfFit | None = getattr(self, "_rows_of_fit", None)
            if kept is None:
                raise ValueError(
                    "inference needs the rows of the fit, which are not kept with a model that was "
                    "pickled, copied or fitted with a penalty; pass X and y"
                )
            return kept
        return RowsOfFit(*self._make_engine(X, y, sample_weight, reset=False), _name(y))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the rows of the fit."""
        state: Any = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_rows_of_fit"}


def _name(y: Any) -> str:
    """Return the name of a series or column of labels."""
    name = y if isinstance(y, str) else getattr(y, "name", None)
    return name if isinstance(name, str) else "y"
