"""Accuracy and Brier score of logits and labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab import _checks
from logitlab._distributed import Block, open_rows
from logitlab._rows import (
    Floats,
    Integers,
    blocks,
    check_distributions,
    row_max,
    softmax_rows,
)


def confidences(z: NDArray[Any], numbers: Integers | None = None) -> tuple[Floats, Integers]:
    """The largest probability of each row, and the predicted class (the first of equal ones).

    `numbers` are those of the rows, for an error.
    """
    confidence = np.empty(len(z))
    predicted = np.empty(len(z), np.int64)
    for rows in blocks(*z.shape):
        confidence[rows] = row_max(softmax_rows(z, rows, numbers=numbers))
        predicted[rows] = z[rows].argmax(axis=-1)
    return confidence, predicted


def accuracy(
    z: Any,
    y: Any,
    axis: int = -1,
    *,
    sample_weight: Any = None,
    ignore_index: int | Sequence[int] | None = None,
) -> float:
    """Fraction of the rows whose label is the predicted class.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits. The predicted class has the largest logit; of equal ones, the first. Dask arrays are
        read chunk by chunk; a :class:`logitlab.parallel.RowShard` stands for the rows of all ranks.
    y : array of int, shape of z without the class axis
        Labels, 0 to K - 1.
    axis : int
        The class axis.
    sample_weight : array, shape of y, optional
        Weights of the rows, finite and >= 0. Only their ratios matter. A row of weight 0 is left
        out, even if it has no distribution.
    ignore_index : int or sequence of int, optional
        Rows with this label, or with one of these, are left out.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    TypeError
        `y` is not an integer array; `z` is of a type that :func:`logitlab.softmax` rejects; an
        option has a wrong type.
    ValueError
        A label is out of range (the error names the first such row); `y` or `sample_weight` does
        not have the batch shape of `z`; a weight is negative or not finite; there are no rows, or
        all are left out; a row of `z` contains NaN or only -inf.

    Examples
    --------
    >>> import logitlab
    >>> z = [[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]]
    >>> logitlab.accuracy(z, [0, 1, 1])
    0.6666666666666666
    >>> logitlab.accuracy(z, [0, -100, 1], ignore_index=-100)
    0.5
    """
    rows = open_rows(z, y, sample_weight, axis, ignore_index)
    return weighted_mean(rows.reduce(_correct_sums))


def weighted_mean(sums: tuple[Any, Any]) -> float:
    """A sum over rows, divided by that of the weights."""
    total, weight = sums
    return float(total / weight)


def weighted_sums(values: Floats | NDArray[np.bool_], weight: Floats | None) -> tuple[float, float]:
    """The weighted sum of the values of rows, and the sum of the weights."""
    if weight is None:
        return float(values.sum()), float(len(values))
    # Sums of the same order, so that the mean of equal values is exact.
    return float((weight * values).sum()), float(weight.sum())


def _correct_sums(block: Block) -> tuple[float, float]:
    predicted = confidences(block.z, block.numbers)[1]
    return weighted_sums(predicted == block.y, block.weight)


def top_k_accuracy(
    z: Any,
    y: Any,
    k: int,
    axis: int = -1,
    *,
    sample_weight: Any = None,
    ignore_index: int | Sequence[int] | None = None,
) -> float:
    """Fraction of the rows whose label is among the k classes with the largest logits.

    Of equal logits the class with the smaller index comes first, so that ``k=1`` is
    :func:`accuracy` and exactly k classes count in every row.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits.
    y : array of int, shape of z without the class axis
        Labels, 0 to K - 1.
    k : int
        Number of classes, 1 to K.
    axis, sample_weight, ignore_index
        As in :func:`accuracy`.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        As :func:`accuracy`; `k` is outside 1 to K.

    Examples
    --------
    >>> import logitlab
    >>> z = [[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]
    >>> logitlab.top_k_accuracy(z, [1, 2], k=2)
    0.5
    """
    rows = open_rows(z, y, sample_weight, axis, ignore_index)
    if not 1 <= _checks.integer(k, "k") <= rows.classes:
        raise ValueError(f"k must be from 1 to {rows.classes}, the number of classes, got {k}")
    return weighted_mean(rows.reduce(_top_k_sums, k))


def _top_k_sums(block: Block, k: int) -> tuple[float, float]:
    z, y, weight, numbers, _ = block
    among = np.empty(len(z), np.bool_)
    for rows in blocks(*z.shape):
        logits, label = z[rows], y[rows, None]
        largest = row_max(logits)
        check_distributions(np.isnan(largest) | (largest == -np.inf), rows, numbers=numbers)
        own = np.take_along_axis(logits, label, axis=-1)
        before = (logits > own) | ((logits == own) & (np.arange(z.shape[1]) < label))
        among[rows] = np.count_nonzero(before, axis=-1) < k
    return weighted_sums(among, weight)


def brier_score(
    z: Any,
    y: Any,
    axis: int = -1,
    *,
    sample_weight: Any = None,
    ignore_index: int | Sequence[int] | None = None,
) -> float:
    r"""Mean squared distance of the probabilities from the one-hot labels.

    :math:`\frac1N \sum_n \sum_k (p_{nk} - [k = y_n])^2`: the sum over classes, the mean over rows.
    It is 0 if every row gives probability 1 to its label, and 2 if every row gives probability 1
    to another class. Lower is better.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits.
    y : array of int, shape of z without the class axis
        Labels, 0 to K - 1.
    axis, sample_weight, ignore_index
        As in :func:`accuracy`.

    Returns
    -------
    float
        Between 0 and 2.

    Raises
    ------
    TypeError, ValueError
        As :func:`accuracy`.

    References
    ----------
    G. W. Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather
    Review 78 (1950) 1-3.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.brier_score([[0.0, 0.0]], [1])
    0.5
    """
    rows = open_rows(z, y, sample_weight, axis, ignore_index)
    return weighted_mean(rows.reduce(_squared_error_sums))


def _squared_error_sums(block: Block) -> tuple[float, float]:
    z, y, weight, numbers, _ = block
    total = 0.0
    for rows in blocks(*z.shape):
        error = softmax_rows(z, rows, numbers=numbers)
        error[np.arange(len(error)), y[rows]] -= 1
        if weight is None:
            total += float(np.vdot(error, error))
        else:
            total += float(weight[rows] @ np.einsum("nk,nk->n", error, error))
    return total, float(len(y) if weight is None else weight.sum())


def squared_errors(p: Floats, y: Integers) -> Floats:
    """(p - one_hot(y))^2, of the shape of p: its sum over classes is a row's Brier score."""
    error = p.copy()
    error[np.arange(len(y)), y] -= 1
    return np.square(error, out=error)
