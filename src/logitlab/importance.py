"""Which columns a classifier needs: the log-loss after the values of a column are shuffled."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays, _checks
from logitlab._rows import Floats, Integers


@dataclass(frozen=True)
class PermutationImportance:
    """The result of :func:`permutation_importance`; arrays have one number for each column.

    Attributes
    ----------
    names : list of str
        Names of the columns of X, or x0, x1, ....
    increase : numpy.ndarray
        Increase of the mean log-loss, in nats.
    low, high : numpy.ndarray
        Bounds of its confidence interval.
    confidence_level : float
        Confidence level of each interval.
    log_loss : float
        Mean log-loss of the columns as they are, in nats.
    """

    names: list[str]
    increase: Floats
    low: Floats
    high: Floats
    confidence_level: float
    log_loss: float


def permutation_importance(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    n_repeats: int = 5,
    confidence_level: float = 0.95,
    rng: Any = None,
) -> PermutationImportance:
    """Return the increase of the log-loss when the values of a column are shuffled among the rows.

    The column no longer says anything about the label, and its distribution is the same. The
    increase is a mean over pairs of rows, one of which has the value of the other: a U-statistic,
    whose standard error for independent rows gives the interval. Columns that replace each other
    share what they matter: each of them has a small increase.

    Parameters
    ----------
    estimator : object
        A fitted classifier with ``classes_`` and ``predict_proba`` (``predict_log_proba`` is used
        where it exists). It takes X as it is: a pipeline or a model of tables gets its raw columns.
        A probability of exactly 0, as of a forest, counts as the machine epsilon of its type, as in
        ``sklearn.metrics.log_loss``.
    X : array, sparse matrix or data frame (pandas, polars, Arrow), shape (N, D)
        Rows that the estimator was not fitted on. They are not changed.
    y : array, shape (N,)
        The label of each row.
    n_repeats : int
        Number of shuffles of each column, >= 1.
    confidence_level : float
        Between 0 and 1.
    rng : None, int or numpy.random.Generator
        The source of the shuffles.

    Returns
    -------
    PermutationImportance

    Raises
    ------
    TypeError, ValueError
        An estimator without ``classes_``; fewer than two rows; labels that are not classes of the
        estimator; an argument out of range.

    References
    ----------
    L. Breiman, "Random forests", Machine Learning 45, 2001, section 10. A. Fisher, C. Rudin and
    F. Dominici, "All models are wrong, but many are useful", Journal of Machine Learning Research
    20, 2019. W. Hoeffding, "A class of statistics with asymptotically normal distribution", Annals
    of Mathematical Statistics 19, 1948.

    Examples
    --------
    >>> import numpy as np, logitlab
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((500, 2))
    >>> y = X[:, 0] + rng.logistic(size=500) > 0  # the second column does not matter
    >>> model = logitlab.SoftmaxRegression().fit(X[:250], y[:250])
    >>> result = logitlab.permutation_importance(model, X[250:], y[250:], rng=0)
    >>> result.names, result.increase.round(2), result.low.round(2)
    (['x0', 'x1'], array([0.32, 0.  ]), array([ 0.22, -0.  ]))
    """
    from scipy.special import ndtri

    n_repeats = _checks.integer(n_repeats, "n_repeats", 1)
    confidence_level = _checks.between_0_and_1(confidence_level, "confidence_level")
    if not hasattr(estimator, "classes_"):
        raise TypeError(
            f"estimator must be a fitted classifier with classes_, got {type(estimator).__name__}"
        )
    X, names, shuffled = _columns(X)
    codes = _codes(y, estimator.classes_)
    rows = X.shape[0]
    if rows < 2:
        raise ValueError(f"X must have at least 2 rows, got {rows}")
    if len(codes) != rows:
        raise ValueError(f"y must have a label for each of the {rows} rows of X, got {len(codes)}")
    generator = _checks.generator(rng)
    before = _losses(estimator, X, codes)
    increase, half_width = np.zeros((2, len(names)))
    for column in range(len(names)):
        # Each row has a part in the mean twice: with the value of another row, and by its value in
        # another row. Their sum less the mean is its part in a U-statistic of pairs of rows.
        received, given = np.zeros((2, rows))
        for _ in range(n_repeats):
            order = generator.permutation(rows)
            difference = _losses(estimator, shuffled(column, order), codes) - before
            received += difference
            given[order] += difference
        increase[column] = received.mean() / n_repeats
        half_width[column] = (received + given).std(ddof=1) / n_repeats / np.sqrt(rows)
    half_width *= ndtri((1 + confidence_level) / 2)
    return PermutationImportance(
        names,
        increase,
        increase - half_width,
        increase + half_width,
        confidence_level,
        float(before.mean()),
    )


def _columns(X: Any) -> tuple[Any, list[str], Callable[[int, Integers], Any]]:
    """Return X, the names of its columns, and a function that returns X with one of them shuffled.

    A list is returned as an array.
    """
    if not hasattr(X, "columns") and not hasattr(X, "column_names"):
        if not hasattr(X, "tocsc"):
            X = np.asarray(X)
        if X.ndim != 2:
            raise ValueError(f"X must have 2 dimensions, got {X.ndim}")
        names = [f"x{j}" for j in range(X.shape[1])]
        return X, names, lambda column, order: _shuffled(X, column, order)
    import narwhals as nw

    frame = nw.from_native(X, eager_only=True)

    def shuffled_frame(column: int, order: Integers) -> Any:
        name = frame.columns[column]
        values = frame.get_column(name)[order.tolist()]
        return nw.to_native(frame.with_columns(values.alias(name)))

    return X, [str(name) for name in frame.columns], shuffled_frame


def _shuffled(X: Any, column: int, order: Integers) -> Any:
    if isinstance(X, np.ndarray):
        result = X.copy()
        result[:, column] = X[order, column]
        return result
    columns = X.tocsc(copy=True)
    part = slice(columns.indptr[column], columns.indptr[column + 1])
    columns.indices[part] = np.argsort(order)[columns.indices[part]]
    columns.has_sorted_indices = False
    return columns.tocsr()


def _codes(y: Any, classes: NDArray[Any]) -> Integers:
    labels = _arrays.on_host(_arrays.as_array(y, "y")).reshape(-1)
    order = np.argsort(classes)
    positions = np.searchsorted(classes, labels, sorter=order).clip(max=len(classes) - 1)
    codes: Integers = order[positions]
    wrong = classes[codes] != labels
    if wrong.any():
        raise ValueError(
            f"y must hold classes of the estimator, {classes.tolist()}, got "
            f"{labels[wrong].tolist()[0]!r}"
        )
    return codes


def _losses(estimator: Any, X: Any, codes: Integers) -> Floats:
    """Return the log-loss of each row."""
    with np.errstate(divide="ignore"):
        if hasattr(estimator, "predict_log_proba"):
            log_p = np.asarray(estimator.predict_log_proba(X))
        else:
            log_p = np.log(np.asarray(estimator.predict_proba(X)))
    of_label = np.take_along_axis(log_p, codes[:, None], axis=1)[:, 0].astype(np.float64)
    # As in scikit-learn's log_loss: a probability of 0 is the unit roundoff of its type.
    impossible = math.log(np.finfo(log_p.dtype).eps)
    losses: Floats = -np.where(np.isneginf(of_label), impossible, of_label)
    return losses
