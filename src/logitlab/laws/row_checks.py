"""Order and ties of probabilities, on plain arrays of rows (N, K)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def sort_by_logit(z: Array, p: Array) -> tuple[Array, Array]:
    """z and p of each row in ascending order of z; p ascends among equal logits."""
    rank = np.lexsort((p, z), axis=-1)
    return np.take_along_axis(z, rank, axis=-1), np.take_along_axis(p, rank, axis=-1)


def order_violations(p: Array) -> Array:
    """By how much each probability is below one of a smaller logit; (N, K-1), 0 where it is not.

    p is sorted by logit. NaN is an infinite violation.
    """
    with np.errstate(invalid="ignore"):
        drop = np.maximum(np.maximum.accumulate(p, axis=-1)[:, :-1] - p[:, 1:], 0)
        return np.where(np.isnan(p[:, 1:] + p[:, :-1]), np.inf, np.nan_to_num(drop))


def tie_violations(z: Array, p: Array) -> Array:
    """The difference of the probabilities of equal adjacent logits; (N, K-1), 0 elsewhere.

    z and p are sorted by logit. NaN is an infinite violation.
    """
    tied = z[:, 1:] == z[:, :-1]
    with np.errstate(invalid="ignore"):
        step = np.where(tied & (p[:, 1:] != p[:, :-1]), p[:, 1:] - p[:, :-1], 0)
        nan = tied & np.isnan(p[:, 1:] + p[:, :-1])
    return np.where(nan, np.inf, np.abs(np.nan_to_num(step)))
