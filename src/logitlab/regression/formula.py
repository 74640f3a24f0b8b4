"""Softmax regression of a formula on the columns of a data frame."""

import inspect
import os
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from logitlab.regression.design import Design
from logitlab.regression.estimator import SoftmaxRegression
from logitlab.regression.inference.kept_rows import RowsOfFit
from logitlab.regression.rows import Engine


class FormulaRegression(SoftmaxRegression):
    """A :class:`logitlab.SoftmaxRegression` of a formula: its data are data frames.

    :meth:`logitlab.SoftmaxRegression.from_formula` returns it fitted.

    Parameters
    ----------
    formula : str
        The response and the terms, as in ``"vote ~ age + C(region)"``. Formulas are Python code,
        which runs: do not use formulas of strangers.
    **parameters
        The parameters of :class:`logitlab.SoftmaxRegression` but `fit_intercept`, which is part of
        the formula.

    Attributes
    ----------
    design_ : logitlab.regression.design.Design
        What the formula learned from the data. Its `names` are those of the columns of ``coef_``.
    """

    design_: Design

    def __init__(self, formula: str, **parameters: Any) -> None:
        if "fit_intercept" in parameters:
            raise TypeError("fit_intercept is part of the formula: write '- 1' for no intercept")
        super().__init__(**parameters)
        self.formula = formula

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit the coefficients.

        Parameters
        ----------
        X : data frame
            A pandas, polars or Arrow table with the columns of the formula.
        y : array, shape (N,), optional
            The labels; by default the response of the formula.
        sample_weight : array, shape (N,), optional
            Weights, >= 0.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As :meth:`SoftmaxRegression.fit`; X is not a table; a formula that cannot be read or
            evaluated, without response, or with names that are not columns; missing values.
        """
        self.design_ = Design(self.formula, X)
        self.fit_intercept = self.design_.fit_intercept
        return super().fit(X, y, sample_weight)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy on a data frame; the labels are by default its response."""
        check_is_fitted(self)
        y = self.design_.labels(X) if y is None else y
        return float(super().score(X, y, sample_weight))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Raise ValueError: no file without code holds the functions of a formula."""
        raise ValueError("a model of a formula cannot be saved without code; pickle it instead")

    def _make_engine(
        self, X: Any, y: Any, sample_weight: Any, reset: bool
    ) -> tuple[Engine, Any, np.dtype[Any]]:
        y = self.design_.labels(X) if y is None else y
        return super()._make_engine(self.design_.matrix(X), y, sample_weight, reset)

    def _checked_features(self, X: Any) -> Any:
        check_is_fitted(self)
        return super()._checked_features(self.design_.matrix(X))

    def _feature_names(self) -> list[str]:
        return self.design_.names

    def _keep_rows(self, rows: tuple[Engine, Any, np.dtype[Any]], y: Any) -> None:
        super()._keep_rows(rows, self.design_.response)

    def _rows_of(self, X: Any, y: Any, sample_weight: Any) -> RowsOfFit:
        return super()._rows_of(X, y, sample_weight)._replace(response=self.design_.response)


def _signature() -> inspect.Signature:
    """Return the signature of the constructor, from which scikit-learn takes the parameters."""
    own = inspect.signature(FormulaRegression.__init__).parameters
    rest = inspect.signature(SoftmaxRegression.__init__).parameters
    names = [name for name in rest if name not in ("self", "fit_intercept")]
    return inspect.Signature([own["self"], own["formula"], *(rest[name] for name in names)])


FormulaRegression.__init__.__signature__ = _signature()  # type: ignore[attr-defined]
