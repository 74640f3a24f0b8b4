"""Selective classification: rows are rejected so that the others have a bounded error."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from logitlab import _arrays, _checks, _registry, _rows
from logitlab._arrays import bincount
from logitlab._estimators import Estimator, check_dense
from logitlab._rows import Floats, Integers
from logitlab.decisions.rows import (
    as_wide,
    check_distributions,
    labelled_rows,
    map_rows,
)
from logitlab.divergences import entropy
from logitlab.probabilities import softmax

Score = Literal["confidence", "margin", "entropy"]
SCORES = ("confidence", "margin", "entropy")
_MAX_THRESHOLDS = 50
_STRIDE = 20  # every 20th row of a fit determines the thresholds that the other rows test


def _scores(z: Any, score: Score) -> Any:
    """Return the certainty of each row of floating logits, in the widest real type."""
    xp = array_namespace(z)
    wide = as_wide(z, xp)
    if score == "entropy":
        return -entropy(wide)
    p = softmax(wide)
    largest = xp.max(p, axis=-1)
    if score == "confidence" or z.shape[-1] == 1:
        return largest
    is_first = xp.arange(p.shape[-1], device=getattr(p, "device", None)) == xp.argmax(
        p, axis=-1, keepdims=True
    )
    return largest - xp.max(xp.where(is_first, xp.zeros_like(p), p), axis=-1)


def _checked_scores(z: Any, score: Score, numbers: Integers | None = None) -> Any:
    scores = map_rows(lambda rows: _scores(rows, score), z)
    xp = array_namespace(z)
    check_distributions(xp.isnan(scores), xp, numbers)
    return scores


@dataclass(frozen=True)
class RiskCoverageCurve:
    """Error among the accepted rows as a function of the fraction of accepted rows.

    Attributes
    ----------
    thresholds : array, shape (M,)
        The distinct scores, descending: rows with at least this score are accepted.
    coverage : array, shape (M,)
        Fraction of accepted rows, or of their weights.
    error : array, shape (M,)
        Fraction of wrong predictions among them (selective risk).
    area : float
        Area under the curve (AURC): the mean of the error over all numbers of accepted rows. Rows
        of equal score are accepted in random order: the sums of their weights and errors after
        each row are the expected ones.
    """

    thresholds: Floats
    coverage: Floats
    error: Floats
    area: float

    def plot(self, ax: Any = None) -> Any:
        """Draw the curve with :func:`logitlab.plot.risk_coverage`."""
        return _registry.module("plot").risk_coverage(self, ax=ax)


def risk_coverage_curve(
    z: Any,
    y: Any,
    axis: int = -1,
    *,
    score: Score = "confidence",
    sample_weight: Any = None,
    ignore_index: int | Sequence[int] | None = None,
) -> RiskCoverageCurve:
    """Error among the most certain rows, for each fraction of rows (risk-coverage curve).

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits.
    y : array of int, shape of z without the class axis
        Labels, 0 to K - 1.
    axis : int
        The class axis.
    score : {"confidence", "margin", "entropy"}
        Certainty of a row, as in :class:`SelectiveClassifier`.
    sample_weight, ignore_index
        As in :func:`accuracy`.

    Returns
    -------
    RiskCoverageCurve
        ``thresholds``, ``coverage``, ``error`` and the ``area`` under the curve (AURC; smaller is
        better); ``.plot()`` draws it.

    Raises
    ------
    TypeError, ValueError
        As :func:`accuracy`; an unknown `score`.

    References
    ----------
    Y. Geifman, G. Uziel and R. El-Yaniv, "Bias-reduced uncertainty estimation for deep neural
    classifiers", ICLR 2019.

    Examples
    --------
    >>> import logitlab
    >>> z = [[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.5, 0.0]]
    >>> curve = logitlab.risk_coverage_curve(z, [0, 0, 1, 0])
    >>> curve.coverage, curve.error.round(2), round(curve.area, 4)
    (array([0.25, 0.5 , 0.75, 1.  ]), array([0.  , 0.  , 0.33, 0.25]), 0.1458)
    """
    _checks.choice(score, "score", SCORES)
    rows, labels, weight, numbers = _rows.labelled_rows(
        check_dense(z), y, sample_weight, axis, ignore_index
    )
    wrong = rows.argmax(axis=-1) != labels
    scores = _checked_scores(rows, score, numbers)
    weight = np.ones(len(labels)) if weight is None else weight
    thresholds, group, size = np.unique(-scores, return_inverse=True, return_counts=True)
    weights = bincount(group, weight)
    accepted, total = np.cumsum(weights), np.cumsum(bincount(group, weight * wrong))
    # Within a group of equal scores the expected sums grow linearly.
    step = np.repeat(weights / size, size)
    accepted_at = np.cumsum(step)
    errors_at = np.interp(accepted_at, np.r_[0, accepted], np.r_[0, total])
    area = float(np.average(errors_at / accepted_at, weights=step))
    return RiskCoverageCurve(-thresholds, accepted / accepted[-1], total / accepted, area)


def error_bound(errors: int, rows: int, level: float) -> float:
    """The one-sided Clopper-Pearson bound: exact, exceeded with probability `level` at most."""
    from scipy.special import betaincinv

    return 1.0 if errors == rows else float(betaincinv(errors + 1, rows - errors, 1 - level))


def _least_rows(max_error: float, delta: float) -> int:
    """Number of rows without an error from which the error is at most `max_error`."""
    return math.ceil(math.log(delta) / math.log1p(-max_error))


def _candidates(scores: Floats, rows: int, max_error: float, delta: float) -> Floats:
    """Thresholds to be tested on `rows` other rows, descending: quantiles of `scores`, and -inf.

    The first accepts between 1.25 and 3 times as many rows as are necessary, if possible a quarter.
    """
    least = _least_rows(max_error, delta / 2)  # for the level of the first threshold
    start = min(3 * least, max(1.25 * least, rows / 4)) / rows
    if start >= 1:
        return np.array([-np.inf])
    coverage = np.linspace(start, 1, _MAX_THRESHOLDS)[:-1]
    quantiles = np.quantile(scores, 1 - coverage, method="inverted_cdf")
    result: Floats = np.append(np.unique(quantiles)[::-1], -np.inf)
    return result


def _shares(n: int) -> Floats:
    """The share of delta of each of n thresholds: more for the first and another early one."""
    shares = np.full(n, 1 / 4 / n)
    shares[0] += 1 / 2
    shares[n // 5] += 1 / 4
    return shares


@dataclass(frozen=True)
class _Test:
    """A threshold that passed its test; `level` is the probability of a wrong pass."""

    threshold: float
    accepted: int
    errors: int
    level: float


def _lowest_threshold(
    thresholds: Floats, scores: Floats, wrong: NDArray[np.bool_], max_error: float, delta: float
) -> _Test | None:
    """The lowest of descending thresholds that passes, by the fallback procedure.

    The level of a test that passes is added to that of the next one.
    """
    order = np.argsort(-scores, kind="stable")
    accepted = np.searchsorted(-scores[order], -thresholds, side="right")
    errors = np.r_[0, np.cumsum(wrong[order])][accepted]
    level, found = 0.0, None
    levels = delta * _shares(len(thresholds))
    for t, m, k, own in zip(thresholds, accepted, errors, levels, strict=True):
        level += float(own)
        if error_bound(int(k), int(m), level) <= max_error:
            found = _Test(float(t), int(m), int(k), level)
        else:
            level = 0.0
    return found


class SelectiveClassifier(Estimator):
    r"""Classifier that rejects uncertain rows so that the others have a bounded error.

    It accepts the rows whose score is at least a threshold. With probability 1 - `delta` over the
    rows of the fit, the error among accepted rows is at most `max_error`. This holds for any
    classifier and any distribution of the rows, if the rows of the fit and the later ones are
    independent samples of one distribution, and the classifier was not trained or calibrated on
    the rows of the fit.

    Parameters
    ----------
    max_error : float
        Largest error among accepted rows, between 0 and 1.
    delta : float
        Probability that the error is larger, between 0 and 1.
    score : {"confidence", "margin", "entropy"}
        Certainty of a row: the largest probability; its difference to the second; minus the
        Shannon entropy in nats.

    Attributes
    ----------
    threshold_ : float
        Rows with at least this score are accepted: -inf accepts all rows, +inf none.
    coverage_, error_ : float
        Fraction of accepted rows, and fraction of wrong predictions among them, in the rows that
        test the thresholds.
    error_bound_ : float
        Clopper-Pearson bound of the error at the level of the test that the threshold passed; at
        most `max_error`. NaN, as `error_`, if no row is accepted.
    classes_ : array of int, shape (K,)
        0 to K - 1.
    n_features_in_ : int
        K.

    Notes
    -----
    Every 20th row of the fit determines up to 50 thresholds, quantiles of its scores; the other
    rows test them. A threshold passes if the Clopper-Pearson bound of its error, the inversion of
    the binomial tail, is at most `max_error` at its level. The levels are those of the fallback
    procedure: the tests run from the highest threshold to the lowest, each has a share of `delta`
    (1/2 for the first, 1/4 for one at a fifth of the list, equal shares of 1/4 for all), and a
    test that passes adds its level to that of the next. The probability that any threshold passes
    wrongly is at most `delta`, because the thresholds and their order do not depend on the rows
    that test them. The lowest threshold that passes is taken. In simulations this accepts more
    rows than equal levels (Bonferroni); unlike fixed-sequence testing it goes on after a test that
    fails. The binary search of Geifman and El-Yaniv chooses its thresholds by the rows that test
    them, so its bound does not hold exactly.

    At least log(delta) / log(1 - max_error) rows are necessary, 299 for 0.01 and 0.05. SciPy must
    be installed.

    References
    ----------
    Y. Geifman and R. El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017.
    C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the
    case of the binomial", Biometrika 26 (1934) 404-413. B. L. Wiens and A. Dmitrienko, "The
    fallback procedure for evaluating a single family of hypotheses", Journal of
    Biopharmaceutical Statistics 15 (2005) 929-942. A. N. Angelopoulos et al., "Learn then test:
    calibrating predictive algorithms to achieve risk control", Annals of Applied Statistics 19
    (2025) 1641-1662.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(0, 3, (4000, 5))
    >>> y = logitlab.sample(z, rng=rng)
    >>> classifier = logitlab.SelectiveClassifier(max_error=0.05).fit(z[:2000], y[:2000])
    >>> accepted = classifier.accepts(z[2000:])
    >>> error = np.mean(classifier.predict(z[2000:])[accepted] != y[2000:][accepted])
    >>> round(float(accepted.mean()), 2), round(float(error), 3)
    (0.21, 0.026)
    """

    threshold_: float
    coverage_: float
    error_: float
    error_bound_: float

    def __init__(self, max_error: float, *, delta: float = 0.05, score: Score = "confidence"):
        self.max_error = max_error
        self.delta = delta
        self.score = score

    def fit(
        self,
        z: Any,
        y: Any,
        *,
        axis: int = -1,
        ignore_index: int | Sequence[int] | None = None,
    ) -> Self:
        """Find the lowest threshold with the guaranteed error.

        Parameters
        ----------
        z : array, shape (..., K, ...)
            Logits of two rows or more.
        y : array of int, shape of z without the class axis
            Labels, 0 to K - 1.
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
            As :func:`logitlab.accuracy`; `max_error` or `delta` outside (0, 1); an unknown score;
            a single row.

        Warns
        -----
        UserWarning
            No threshold passes: all rows will be rejected.
        """
        max_error = _checks.between_0_and_1(self.max_error, "max_error")
        delta = _checks.between_0_and_1(self.delta, "delta")
        _checks.choice(self.score, "score", SCORES)
        rows, labels, _, numbers = labelled_rows(z, y, axis, ignore_index)
        scores: Floats = _checked_scores(rows, self.score, numbers)
        wrong = rows.argmax(axis=-1) != labels
        tests = np.arange(len(rows)) % _STRIDE > 0
        n = int(tests.sum())
        thresholds = _candidates(scores[~tests], n, max_error, delta)
        passed = _lowest_threshold(thresholds, scores[tests], wrong[tests], max_error, delta)
        if passed is None:
            warnings.warn(
                f"no threshold has an error of at most {max_error} with probability "
                f"{1 - delta:g}: all rows will be rejected; {len(rows)} rows were given, "
                f"{_least_rows(max_error, delta)} or more accepted ones without an error are "
                "necessary",
                UserWarning,
                stacklevel=2,
            )
            self.threshold_, self.coverage_ = math.inf, 0.0
            self.error_ = self.error_bound_ = math.nan
        else:
            self.threshold_, self.coverage_ = passed.threshold, passed.accepted / n
            self.error_ = passed.errors / passed.accepted
            self.error_bound_ = error_bound(passed.errors, passed.accepted, passed.level)
        self.n_features_in_ = rows.shape[1]
        self.classes_: Integers = np.arange(rows.shape[1])
        return self

    def accepts(self, z: Any, *, axis: int = -1) -> Any:
        """Return whether each row is accepted.

        Parameters
        ----------
        z : array, shape (..., K, ...)
            Logits, of any kind that :func:`logitlab.softmax` takes.
        axis : int
            The class axis.

        Returns
        -------
        array of bool, shape of z without the class axis
            Of z's kind, computed on z's device.

        Raises
        ------
        ValueError
            Another number of classes than in ``fit``; a row with NaN, or with -inf only.
        """
        z, _ = self._check_logits(z, axis)
        return _checked_scores(z, self.score) >= self.threshold_

    def predict(self, z: Any, *, axis: int = -1) -> Any:
        """Return the predicted class of accepted rows, -1 for the others.

        Parameters
        ----------
        z, axis
            As in :meth:`accepts`.

        Returns
        -------
        array of int, shape of z without the class axis
            The class with the largest logit (of equal ones, the first), or -1; of z's kind.

        Raises
        ------
        ValueError
            As :meth:`accepts`.
        """
        z, xp = self._check_logits(z, axis)
        predicted = xp.argmax(z, axis=-1)
        accepted = self.accepts(z)
        return _arrays.scalar(xp.where(accepted, predicted, xp.full_like(predicted, -1)))
