"""Softmax regression on tables."""

import math
import os
import warnings
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from logitlab import _saved
from logitlab._rows import Floats
from logitlab.probabilities import log_softmax, softmax
from logitlab.regression.estimator import SoftmaxRegression
from logitlab.tables.columns import NumberFormat, is_index
from logitlab.tables.encoder import feature_names, features
from logitlab.tables.infer import Plan, infer_plan

if TYPE_CHECKING:
    import pyarrow as pa

KIND = "TableModel"  # of a file


class TableModel(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Softmax regression on a data frame whose columns are numbers, text, dates, or yes and no.

    What ``logitlab fit`` fits and :func:`logitlab.load_model` reads. The type of each column, its
    levels and the medians of its numbers come from the rows of the fit. Text that holds numbers
    (``23,456``), ISO dates or yes and no is read as such; other text becomes a feature for each
    level, at most 100 of them. Identifiers and constants are dropped. Missing numbers become the
    median, with an indicator where more than 1 % is missing; missing text becomes a level.

    Parameters
    ----------
    C : float
        As in :class:`logitlab.SoftmaxRegression`.
    drop : collection of str
        Columns that are not used.
    keep : collection of str
        Columns that are used although they look like identifiers or are constant.
    decimal : {".", ","}, optional
        The decimal mark of numbers in text; None: detected.
    thousands : {",", ".", " ", "'", "_"}, optional
        The mark between groups of three digits, empty if there is none; None: detected.
    verbose : bool
        Whether a progress bar is shown.

    Attributes
    ----------
    classes_ : numpy.ndarray, shape (K,)
        The labels.
    feature_names_in_ : numpy.ndarray of str
        Names of the columns that are used.
    dropped_ : list of str
        Names of the columns that are not.
    columns_ : tuple
        Their encodings.
    regression_ : SoftmaxRegression
        Fitted on the features of :meth:`transform`.
    temperature_ : float
        Divides the logits; 1 after ``fit``, else that of the calibration.
    target_ : str
        Name of the column with the labels, empty if it is not known.

    Examples
    --------
    >>> import pyarrow as pa
    >>> import logitlab
    >>> table = pa.table({"age": [20, 30, 40, 50] * 5, "paid": ["1,200", "950", "1,400", None] * 5})
    >>> model = logitlab.TableModel().fit(table, ["a", "b"] * 10)
    >>> model.feature_names_in_, model.predict(table.slice(0, 2))
    (array(['age', 'paid'], dtype='<U4'), array(['a', 'b'], dtype='<U1'))
    """

    def __init__(
        self,
        *,
        C: float = 1.0,
        drop: Collection[str] = (),
        keep: Collection[str] = (),
        decimal: str | None = None,
        thousands: str | None = None,
        verbose: bool = False,
    ) -> None:
        self.C = C
        self.drop = drop
        self.keep = keep
        self.decimal = decimal
        self.thousands = thousands
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> Self:
        """Find the type of each column and fit the regression.

        Parameters
        ----------
        X : data frame of pandas or polars, or pyarrow.Table, shape (N, columns)
            Without the target.
        y : array, shape (N,)
            Labels, as in :meth:`logitlab.SoftmaxRegression.fit`.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            X is not a table, has no rows, two columns of one name, or no column that is used;
            `drop` or `keep` name no column; an invalid mark.
        """
        table = as_table(X)
        if table.num_rows == 0:
            raise ValueError("X must have at least one row, got none")
        return self._fit_plan(table, y, self._plan(table))

    def _plan(self, table: "pa.Table") -> Plan:
        problems = check_options(
            table.column_names, self.drop, self.keep, self.decimal, self.thousands
        )
        if problems:
            raise ValueError("; ".join(problems))
        options = {"decimal": self.decimal, "thousands": self.thousands}
        return infer_plan(table, drop=self.drop, keep=self.keep, **options)

    def _fit_plan(self, table: "pa.Table", y: Any, plan: Plan) -> Self:
        if not plan.columns:
            raise ValueError("X must have a column that is used, got none")
        self.columns_ = plan.columns
        self.dropped_ = [line.name for line in plan.lines if not line.used]
        self.feature_names_in_ = np.array([c.name for c in plan.columns])
        self.n_features_in_ = len(plan.columns)
        self.target_, self.temperature_ = "", 1.0
        x, _ = features(table, self.columns_, self._drop_first)
        self.regression_ = SoftmaxRegression(C=self.C, verbose=self.verbose).fit(x, y)
        self.classes_ = self.regression_.classes_
        return self

    @property
    def _drop_first(self) -> bool:
        """Without penalty the first level has no feature: the features are independent."""
        return math.isinf(self.C)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Return the names of the features of :meth:`transform`.

        Parameters
        ----------
        input_features : None
            Has no effect.

        Returns
        -------
        numpy.ndarray of object, shape (D,)
        """
        check_is_fitted(self)
        return np.array(feature_names(self.columns_, self._drop_first), object)

    def transform(self, X: Any) -> Any:
        """Return the features of ``regression_``.

        Parameters
        ----------
        X : data frame of pandas or polars, or pyarrow.Table, shape (N, columns)
            With the columns of the fit in any order.

        Returns
        -------
        numpy.ndarray or scipy.sparse.csr_matrix, shape (N, D)

        Raises
        ------
        ValueError
            Columns that are missing or of a wrong type; all in one message.

        Warns
        -----
        UserWarning
            Columns and levels that are new, values that cannot be read.
        """
        check_is_fitted(self)
        table = as_table(X)
        x, messages = features(table, self.columns_, self._drop_first)
        known = {self.target_, *self.feature_names_in_, *self.dropped_}
        names = [name for name in table.column_names if not is_index(name)]
        if new := [repr(name) for name in names if name not in known]:
            messages.append(f"columns that the fit did not have are ignored: {', '.join(new)}")
        for message in messages:
            warnings.warn(message, UserWarning, stacklevel=3)
        return x

    def _logits(self, X: Any) -> Floats:
        """The uncalibrated logits of all classes."""
        x = self.transform(X)
        if x.shape[0] == 0:
            return np.empty((0, len(self.classes_)))
        z: Floats = self.regression_._logits_of_all_classes(x)
        return z

    def predict_proba(self, X: Any) -> Floats:
        """Return the calibrated probability of each class, in the order of ``classes_``.

        Parameters
        ----------
        X : data frame of pandas or polars, or pyarrow.Table, shape (N, columns)
            With the columns of the fit in any order.

        Returns
        -------
        numpy.ndarray, shape (N, K)
        """
        p: Floats = softmax(self._logits(X), temperature=self.temperature_)
        return p

    def predict_log_proba(self, X: Any) -> Floats:
        """Return the logarithms of the probabilities, exact where a probability rounds to 0 or 1.

        Parameters
        ----------
        X : data frame of pandas or polars, or pyarrow.Table, shape (N, columns)
            With the columns of the fit in any order.

        Returns
        -------
        numpy.ndarray, shape (N, K)
        """
        p: Floats = log_softmax(self._logits(X), temperature=self.temperature_)
        return p

    def predict(self, X: Any) -> Any:
        """Return the most probable label of each row.

        Parameters
        ----------
        X : data frame of pandas or polars, or pyarrow.Table, shape (N, columns)
            With the columns of the fit in any order.

        Returns
        -------
        numpy.ndarray, shape (N,)
        """
        return self.classes_[self._logits(X).argmax(axis=1)]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, for :func:`logitlab.load_model`.

        Parameters
        ----------
        path : str or path-like
            Conventionally ends with ``.safetensors``.
        """
        check_is_fitted(self)
        _saved.write(path, self._to_bytes())

    def _to_bytes(self) -> bytes:
        metadata = {
            "target": self.target_,
            "classes": self.classes_.tolist(),
            "columns": [column.as_json() for column in self.columns_],
            "dropped": self.dropped_,
            "C": None if math.isinf(self.C) else self.C,  # JSON has no infinity
            "temperature": self.temperature_,
        }
        regression = self.regression_
        arrays = {"coef": regression.coef_, "intercept": regression.intercept_}
        return _saved.to_bytes(KIND, arrays, metadata)


def as_table(X: Any) -> "pa.Table":
    """The Arrow table of a data frame; the index of pandas is no column."""
    import pyarrow as pa

    if not isinstance(X, pa.Table):
        if not (hasattr(X, "columns") and hasattr(X, "__arrow_c_stream__")):
            raise TypeError(
                "X must be a data frame of pandas or polars or a pyarrow.Table, got "
                f"{type(X).__name__}"
            )
        X = _from_pandas(X) if type(X).__module__.startswith("pandas") else pa.table(X)
    names = X.column_names
    if repeated := sorted({name for name in names if name and names.count(name) > 1}):
        listing = ", ".join(map(repr, repeated))
        raise ValueError(f"column names must be distinct, got {listing} more than once")
    return X


def _from_pandas(X: Any) -> "pa.Table":
    """The table of a data frame of pandas; objects of several types are text."""
    import pyarrow as pa

    arrays = []
    for i in range(X.shape[1]):
        column = X.iloc[:, i]
        try:
            array = pa.array(column, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            array = pa.array(column.map(str, na_action="ignore"), from_pandas=True)
        arrays.append(array)
    return pa.table(arrays, names=[str(name) for name in X.columns])


def check_options(
    names: Collection[str],
    drop: Collection[str],
    keep: Collection[str],
    decimal: str | None,
    thousands: str | None,
    option: str = "",
) -> list[str]:
    """Why the options do not fit a table with these columns; `option` is written before names."""
    problems = []
    for name, columns in (("drop", drop), ("keep", keep)):
        if isinstance(columns, str):
            problems.append(f"{option}{name} must be a list of columns, got {columns!r}")
        elif unknown := [repr(column) for column in columns if column not in names]:
            problems.append(f"{option}{name} must be columns, got {', '.join(unknown)}")
    if both := sorted(set(drop) & set(keep)):
        problems.append(f"{option}drop and {option}keep must be distinct, got {both[0]!r} in both")
    marks = NumberFormat(
        decimal if decimal is not None else "." if thousands != "." else ",", thousands or ""
    )
    if (reason := marks.error()) is not None:
        problems.append(f"{option}{reason}")
    return problems
