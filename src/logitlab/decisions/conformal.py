"""Prediction sets that contain the true class with a guaranteed probability (split conformal)."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal, Self

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from logitlab import _arrays, _checks, _rows
from logitlab._estimators import Estimator
from logitlab._rows import Floats, Integers, blocks, group_labels
from logitlab.decisions.rows import as_wide, check_distributions, labelled_rows
from logitlab.probabilities import softmax

SCORES = ("lac", "aps", "raps")


def _quantile(scores: Floats, coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest of n scores, inf if there is none.

    `coverage` is the decimal number that is written: 0.9 of 10 is 9.
    """
    rank = math.ceil(Fraction(repr(coverage)) * (len(scores) + 1))
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= len(scores) else math.inf


class ConformalSets(Estimator):
    r"""Sets of classes that contain the true class with at least a chosen probability.

    The set of a row holds the classes whose score is at most a threshold, a quantile of the scores
    of the true classes in the rows of the fit. If the rows of the fit and a new row are
    exchangeable, its set contains its true class with probability `coverage` at least, whatever
    the classifier; it must not have been trained or calibrated on the rows of the fit.

    Parameters
    ----------
    coverage : float
        Probability that the set contains the true class, between 0 and 1.
    score : {"lac", "aps", "raps"}
        Score of class k with probability :math:`p_k`. LAC: :math:`1 - p_k`, which gives the
        smallest sets on average. APS: the sum of the probabilities from the largest down to
        :math:`p_k`, which gives larger sets to uncertain rows. RAPS: APS plus `penalty` times the
        number of classes by which the rank of k exceeds `rank`, which avoids very large sets.
    conditional : {"class"}, optional
        "class" guarantees the coverage for the rows of each true class, by a threshold for each
        class. By default it holds on average over all rows. With `groups` in :meth:`fit` it holds
        in each group of rows.
    randomized : bool
        For APS and RAPS: subtract u :math:`p_k` from the score, with u uniform on [0, 1] for each
        row. The coverage is exact up to 1 / (n + 1) of n rows. The sets are smaller, much smaller
        for a confident classifier: without this, the score of its first class is close to 1.
    penalty : float
        Penalty of RAPS for each rank, >= 0.
    rank : int
        Number of classes without penalty in RAPS, >= 0.

    Attributes
    ----------
    thresholds_ : array, shape (G, K)
        Largest score in the set, for each group (G = 1 without groups) and class.
    groups_ : array, shape (G,), or None
        The groups of the fit, sorted.
    classes_ : array of int, shape (K,)
        0 to K - 1.
    n_features_in_ : int
        K.

    Notes
    -----
    The threshold of n rows is the :math:`\lceil (n + 1) \cdot` `coverage` :math:`\rceil`-th
    smallest score. If there are too few rows for it, the threshold is infinite and the set holds
    all classes. A set may be empty, where no class has a score as small as those of the fit. The
    number of covered rows among m new ones has a beta-binomial distribution. Equal probabilities
    are ranked in the order of the classes.

    References
    ----------
    V. Vovk, A. Gammerman and G. Shafer, "Algorithmic learning in a random world", Springer, 2005.
    LAC: M. Sadinle, J. Lei and L. Wasserman, "Least ambiguous set-valued classifiers with bounded
    error levels", Journal of the American Statistical Association 114 (2019) 223-234. APS:
    Y. Romano, M. Sesia and E. J. Candès, "Classification with valid and adaptive coverage",
    NeurIPS 2020. RAPS: A. N. Angelopoulos, S. Bates, J. Malik and M. I. Jordan, "Uncertainty sets
    for image classifiers using conformal prediction", ICLR 2021.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(0, 3, (4000, 5))
    >>> y = logitlab.sample(z, rng=rng)
    >>> sets = logitlab.ConformalSets(coverage=0.9).fit(z[:2000], y[:2000])
    >>> sets.predict([[5.0, 1.0, 0.0, 0.0, 0.0], [5.0, 4.0, 0.0, 0.0, 0.0]])
    array([[ True, False, False, False, False],
           [ True,  True, False, False, False]])
    >>> round(sets.empirical_coverage(z[2000:], y[2000:]), 2)
    0.9
    """

    thresholds_: Floats
    groups_: NDArray[Any] | None

    def __init__(
        self,
        coverage: float = 0.9,
        *,
        score: Literal["lac", "aps", "raps"] = "lac",
        conditional: Literal["class"] | None = None,
        randomized: bool = False,
        penalty: float = 0.01,
        rank: int = 5,
    ) -> None:
        self.coverage = coverage
        self.score = score
        self.conditional = conditional
        self.randomized = randomized
        self.penalty = penalty
        self.rank = rank

    def _check_parameters(self) -> None:
        _checks.choice(self.score, "score", SCORES)
        _checks.choice(self.conditional, "conditional", (None, "class"))
        _checks.real(self.penalty, "penalty", "finite and >= 0", lambda x: 0 <= x < math.inf)
        _checks.integer(self.rank, "rank", 0)
        if _checks.boolean(self.randomized, "randomized") and self.score == "lac":
            raise ValueError("randomized must be False for score 'lac', got True")

    def _random_numbers(self, n: int, rng: Any) -> Floats | None:
        """The u of each of n rows, or None for scores that are not randomized."""
        generator = _checks.generator(rng)
        return generator.random(n) if self.randomized else None

    def _scores(self, z: Any, u: Any, numbers: Sequence[int] | Integers | None = None) -> Any:
        """The score of each class of rows of logits, shape (N, K); u has shape (N,).

        Row i has the number `numbers[i]`, or i.
        """
        xp = array_namespace(z)
        wide = as_wide(z, xp)
        p = softmax(wide)
        check_distributions(xp.isnan(p[:, 0]), xp, numbers)
        if self.score == "lac":
            return 1 - p
        order = _descending_order(wide, xp)
        p = xp.take_along_axis(p, order, axis=-1)
        scores = xp.cumulative_sum(p, axis=-1)
        if u is not None:
            scores = scores - u[:, None] * p
        if self.score == "raps":
            ranks = np.arange(1, z.shape[-1] + 1)
            penalties = self.penalty * np.maximum(ranks - self.rank, 0)
            scores = scores + _as_type_of(penalties, scores, xp)
        if isinstance(scores, np.ndarray):
            result = np.empty_like(scores)
            np.put_along_axis(result, order, scores, axis=-1)
            return result
        return xp.take_along_axis(scores, xp.argsort(order, axis=-1), axis=-1)

    def fit(
        self,
        z: Any,
        y: Any,
        groups: Any = None,
        rng: Any = None,
        *,
        axis: int = -1,
        ignore_index: int | Sequence[int] | None = None,
    ) -> Self:
        """Compute the thresholds from labelled rows.

        Parameters
        ----------
        z : array, shape (..., K, ...)
            Logits of two rows or more.
        y : array of int, shape of z without the class axis
            Labels, 0 to K - 1.
        groups : array of int or str, shape of y, optional
            Group of each row: each has its own thresholds.
        rng : None, int or numpy.random.Generator
            Seed or generator of randomized scores.
        axis : int
            The class axis.
        ignore_index : int or sequence of int, optional
            Rows with this label, or with one of these, are left out.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As :func:`logitlab.accuracy`; a parameter out of range; a single row; groups of
            another shape or type.
        """
        coverage = _checks.between_0_and_1(self.coverage, "coverage")
        self._check_parameters()
        y = _arrays.as_array(y, "y")
        rows, labels, _, numbers = labelled_rows(z, y, axis, ignore_index)
        n, k = rows.shape
        numbers = np.arange(n) if numbers is None else numbers
        u = self._random_numbers(n, rng)
        scores = np.empty(n)
        for block in blocks(n, k):
            matrix = self._scores(rows[block], None if u is None else u[block], numbers[block])
            scores[block] = np.take_along_axis(matrix, labels[block][:, None], axis=1)[:, 0]
        if groups is None:
            self.groups_, index = None, np.zeros(n, np.int64)
        else:
            given = group_labels(groups, tuple(y.shape))[numbers]
            self.groups_, index = np.unique(given, return_inverse=True)
        thresholds = np.empty((int(index.max()) + 1, k))
        for group, row in enumerate(thresholds):
            chosen, classes = scores[index == group], labels[index == group]
            if self.conditional == "class":
                row[:] = [_quantile(chosen[classes == label], coverage) for label in range(k)]
            else:
                row[:] = _quantile(chosen, coverage)
        self.thresholds_ = thresholds
        self.n_features_in_ = k
        self.classes_: Integers = np.arange(k)
        return self

    def _group_indices(self, groups: Any, batch: tuple[int, ...]) -> Integers | None:
        """The number of the group of each row, or None without groups."""
        if self.groups_ is None:
            if groups is not None:
                raise ValueError("groups must be None, as in fit, got groups")
            return None
        if groups is None:
            raise ValueError("groups must be given, as in fit, got None")
        labels = group_labels(groups, batch)
        index = np.minimum(np.searchsorted(self.groups_, labels), len(self.groups_) - 1)
        unknown = self.groups_[index] != labels
        if np.any(unknown):
            row = int(np.argmax(unknown))
            raise ValueError(
                f"groups must be groups of the fit, got {labels[row].item()!r} in row {row}"
            )
        return index

    def predict(self, z: Any, groups: Any = None, rng: Any = None, *, axis: int = -1) -> Any:
        """Return the prediction set of each row as a mask of its classes.

        Parameters
        ----------
        z : array, shape (..., K, ...)
            Logits, of any kind that :func:`logitlab.softmax` takes.
        groups : array of int or str, shape of z without the class axis, optional
            Group of each row, if there were groups in :meth:`fit`.
        rng : None, int or numpy.random.Generator
            Seed or generator of randomized scores.
        axis : int
            The class axis.

        Returns
        -------
        array of bool, shape of z
            Whether each class is in the set; of z's kind, computed on z's device.

        Raises
        ------
        ValueError
            Another number of classes than in ``fit``; a row with NaN, or with -inf only; a group
            that ``fit`` did not have, or missing groups.
        """
        z, xp = self._check_logits(z, axis)
        rows = xp.reshape(z, (-1, z.shape[-1]))
        index = self._group_indices(groups, tuple(z.shape[:-1]))
        sets = self._sets(rows, index, rng, range(rows.shape[0]))
        return _arrays.move_axis(xp.reshape(sets, z.shape), -1, axis, xp)

    def _sets(
        self, rows: Any, index: Integers | None, rng: Any, numbers: Sequence[int] | Integers
    ) -> Any:
        """The prediction sets of rows, shape (N, K), of these groups and numbers."""
        xp, n = array_namespace(rows), rows.shape[0]
        if not hasattr(xp, "take_along_axis"):  # Dask, which has no sorting by rows either
            return xp.asarray(self._sets(_arrays.on_host(rows), index, rng, numbers))
        u = self._random_numbers(n, rng)
        # Rows that are not in NumPy arrays are computed at once, where they are stored.
        several = isinstance(rows, np.ndarray) and n > 0
        sets = []
        for block in blocks(*rows.shape) if several else [slice(0, n)]:
            random = None if u is None else _as_type_of(u[block], rows, xp)
            scores = self._scores(rows[block], random, numbers[block])
            thresholds = self.thresholds_ if index is None else self.thresholds_[index[block]]
            sets.append(scores <= _as_type_of(thresholds, scores, xp))
        return xp.concat(sets)

    def set_sizes(self, z: Any, groups: Any = None, rng: Any = None, *, axis: int = -1) -> Any:
        """Return the number of classes in the prediction set of each row.

        Parameters
        ----------
        z, groups, rng, axis
            As in :meth:`predict`.

        Returns
        -------
        array of int, shape of z without the class axis
            0 to K; of z's kind.
        """
        sets = self.predict(z, groups, rng, axis=axis)
        xp = array_namespace(sets)
        return xp.sum(xp.astype(sets, xp.int32), axis=axis)

    def empirical_coverage(
        self,
        z: Any,
        y: Any,
        groups: Any = None,
        rng: Any = None,
        *,
        axis: int = -1,
        ignore_index: int | Sequence[int] | None = None,
    ) -> float:
        """Return the fraction of labelled rows whose prediction set contains the label.

        Parameters
        ----------
        z : array, shape (..., K, ...)
            Logits.
        y : array of int, shape of z without the class axis
            Labels, 0 to K - 1.
        groups, rng, axis
            As in :meth:`predict`.
        ignore_index : int or sequence of int, optional
            As in :meth:`fit`.

        Returns
        -------
        float
            Between 0 and 1.
        """
        z, _ = self._check_logits(z, axis)
        y = _arrays.as_array(y, "y")
        rows, labels, _, numbers = _rows.labelled_rows(z, y, None, -1, ignore_index)
        numbers = np.arange(len(rows)) if numbers is None else numbers
        index = self._group_indices(groups, tuple(y.shape))
        sets = self._sets(rows, None if index is None else index[numbers], rng, numbers)
        return float(np.take_along_axis(sets, labels[:, None], axis=1).mean())


def _descending_order(z: Any, xp: Any) -> Any:
    """The classes of each row from the largest logit to the smallest; equal ones in their order."""
    if not isinstance(z, np.ndarray):
        return xp.argsort(z, axis=-1, descending=True)
    # A stable sort is slower: only for rows with equal logits.
    order = np.argsort(-z, axis=-1)
    descending = np.take_along_axis(z, order, axis=-1)
    tied = (descending[:, 1:] == descending[:, :-1]).any(axis=-1)
    order[tied] = np.argsort(-z[tied], axis=-1, kind="stable")
    return order


def _as_type_of(x: Floats, z: Any, xp: Any) -> Any:
    """Return numbers as an array of z's library, on its device, in the widest real type."""
    wide = _arrays.dtype_name(_arrays.widest_float(xp, z))
    return _arrays.like(x.astype(wide), z, xp, "x")
