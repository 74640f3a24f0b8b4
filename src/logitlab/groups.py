"""Scores of groups of rows with bootstrap confidence intervals."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays, _checks
from logitlab._arrays import bincount
from logitlab._bins import check_bins
from logitlab._rows import Floats, Integers, as_rows, blocks, group_labels, softmax_rows
from logitlab.resampling import (
    Interval,
    ScoreSums,
    resampled_sums,
    row_groups,
    score_intervals,
)


class GroupScores(NamedTuple):
    """Scores of the rows of one group, with the keys of :func:`logitlab.bootstrap`."""

    rows: int
    intervals: dict[str, Interval]


def resampling_groups(groups: NDArray[Any]) -> tuple[list[int], NDArray[np.uint16]]:
    """The number of rows of each group, and in which group of :class:`ScoreSums` each row is.

    `groups` are the numbers of the groups of all rows.
    """
    counts = bincount(groups).tolist()
    found = np.empty(len(groups), np.uint16)
    found[np.argsort(groups, kind="stable")] = np.concatenate(
        [row_groups(rows, slice(0, rows)) for rows in counts]
    )
    return counts, found


class GroupSums:
    """Sums of the scores of each group, accumulated block by block in bounded memory."""

    def __init__(self, counts: Sequence[int], n_bins: int, dtype: np.dtype[Any]) -> None:
        """`counts` are the rows of each group, `dtype` is the type of the logits."""
        self._sums = [ScoreSums(rows, n_bins, dtype, part=slice(0, 0)) for rows in counts]

    def add(self, groups: Any, resampled: Any, z: Floats, y: Integers) -> None:
        """Add rows that have a distribution.

        `groups` are the numbers of their groups, `resampled` those of :func:`resampling_groups`.
        """
        for group in np.unique(groups):
            part = groups == group
            self._sums[group].add_to(resampled[part], z[part], y[part])

    def merge(self, other: "GroupSums") -> None:
        """Add the sums over other rows."""
        for sums, others in zip(self._sums, other._sums, strict=True):
            sums.merge(others)

    def scores(
        self, n_resamples: int, rng: Any, confidence_level: float = 0.95
    ) -> list[GroupScores | None]:
        """The scores of each group; None of one without rows."""
        found: list[GroupScores | None] = []
        for sums in self._sums:
            rows = int(sums.bin_sums[0].sum())
            if not rows:
                found.append(None)
                continue
            generator = np.random.default_rng(rng)
            resampled = resampled_sums(sums.group_sums, n_resamples, generator)
            intervals = score_intervals(sums, resampled, confidence_level, generator)
            found.append(GroupScores(rows, intervals))
        return found


def group_scores(
    z: Any,
    y: Any,
    groups: Any,
    *,
    n_bins: int = 15,
    confidence_level: float = 0.95,
    n_resamples: int = 1000,
    rng: Any = 0,
) -> dict[Any, GroupScores]:
    """Scores of each group of rows, with bootstrap confidence intervals.

    Those of a group are the result of :func:`bootstrap` for its rows alone. A model that is
    calibrated over all rows can be overconfident in one group and underconfident in another
    (multicalibration). The calibration error of a group of few rows is large by chance: compare
    groups by confidence less accuracy.

    Parameters
    ----------
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.
    groups : array, shape (...)
        The group of each row: integers or strings.
    n_bins, confidence_level, n_resamples, rng
        As of :func:`bootstrap`. A seed gives every group the results of its own bootstrap.

    Returns
    -------
    dict
        By the values of `groups`, in ascending order: ``rows``, the number of rows, and
        ``intervals``, the result of :func:`bootstrap`.

    Raises
    ------
    TypeError, ValueError
        As :func:`bootstrap`; `groups` has another shape than `y`, or is of another type.

    References
    ----------
    U. Hebert-Johnson, M. Kim, O. Reingold, G. Rothblum, "Multicalibration: calibration for the
    (computationally-identifiable) masses", ICML 2018.

    Examples
    --------
    >>> import logitlab
    >>> z = [[2.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    >>> scores = logitlab.group_scores(z, [0, 0, 1, 0], ["a", "a", "b", "b"])
    >>> {group: s.intervals["accuracy"].value for group, s in scores.items()}
    {'a': 1.0, 'b': 0.5}
    """
    level = _checks.between_0_and_1(confidence_level, "confidence_level")
    n_resamples = _checks.integer(n_resamples, "n_resamples", 1)
    check_bins(n_bins)
    _checks.generator(rng)
    z, y = _arrays.as_array(z, "z"), _arrays.as_array(y, "y")
    found = group_labels(groups, tuple(y.shape))
    values, numbers = np.unique(found, return_inverse=True)
    z, y = as_rows(z, y)
    counts, resampled = resampling_groups(numbers)
    sums = GroupSums(counts, n_bins, z.dtype)
    for part in blocks(*z.shape):
        softmax_rows(z, part)  # raises an error for rows without a distribution
        sums.add(numbers[part], resampled[part], z[part].astype(np.float64), y[part])
    scores = sums.scores(n_resamples, rng, level)
    return {v: s for v, s in zip(values.tolist(), scores, strict=True) if s is not None}
