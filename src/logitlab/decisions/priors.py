"""Class frequencies that differ from those of the training data (label shift)."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from logitlab import _arrays, _checks
from logitlab._arrays import bincount
from logitlab._rows import Floats
from logitlab.decisions.rows import (
    check_distributions,
    check_number_of_rows,
    log_frequencies,
    with_classes,
)
from logitlab.probabilities import softmax

_BLOCK = 1 << 20  # weights of resampled rows held at a time
_MAX_ITERATIONS = 10_000
_RESAMPLED_ITERATIONS = 20  # after a Newton step from the estimate
_TOLERANCE = 1e-8  # of the log-likelihood of all rows; the standard error times 1e-4
_RESAMPLED_TOLERANCE = 0.1  # the same for a resample


def _shift(z: Any, shift: Floats, axis: int, xp: Any) -> Any:
    """Return z plus a number for each class; -inf excludes a class whatever its logit is."""
    wide = _arrays.at_least_float32(z, xp)
    values = shift.astype(_arrays.dtype_name(_arrays.widest_float(xp, z)))
    s = xp.astype(_arrays.like(values, z, xp, "z"), wide.dtype)
    s = xp.reshape(s, tuple(-1 if i == axis else 1 for i in range(z.ndim)))
    with np.errstate(invalid="ignore", over="ignore"):
        shifted = xp.where((s == -xp.inf) & (wide == xp.inf), s, wide + s)
        return xp.astype(shifted, _arrays.native_type(z.dtype), copy=False)


def adjust_prior(z: Any, from_: Any, to: Any, axis: int = -1) -> Any:
    r"""Logits under other class frequencies (prior probabilities) than those of the classifier.

    :math:`z_k + \log(\pi'_k / \pi_k)`: by Bayes' rule, the probabilities of softmax(z), calibrated
    where class k has the frequency :math:`\pi_k`, become those where it has :math:`\pi'_k`, if the
    distribution of the inputs of each class is the same (label shift).

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Calibrated logits, in any array type that :func:`logitlab.softmax` accepts.
    from_ : array, shape (K,)
        Class frequencies, or counts, for which z is calibrated: > 0. Only their ratios matter.
    to : array, shape (K,)
        The other frequencies, or counts, >= 0. A class of frequency 0 is excluded: its logit is
        -inf.
    axis : int
        The class axis.

    Returns
    -------
    array, shape of z
        Of z's kind and type.

    Raises
    ------
    TypeError
        `z` is of a type that :func:`logitlab.softmax` does not take.
    ValueError
        `from_` or `to` does not hold one number for each class, or one out of range.

    References
    ----------
    M. Saerens, P. Latinne and C. Decaestecker, "Adjusting the outputs of a classifier to new a
    priori probabilities: a simple procedure", Neural Computation 14 (2002) 21-41.

    Examples
    --------
    >>> import logitlab
    >>> z = logitlab.logits([0.5, 0.5])
    >>> logitlab.softmax(logitlab.adjust_prior(z, from_=[0.5, 0.5], to=[0.9, 0.1]))
    array([0.9, 0.1])
    """
    z, axis, xp = with_classes(z, axis)
    k = z.shape[axis]
    before = log_frequencies(from_, "from_", k, positive=True)
    after = log_frequencies(to, "to", k)
    return _shift(z, after - before, axis, xp)


class PriorEstimate(NamedTuple):
    """Result of :func:`estimate_prior`."""

    prior: Floats  #: frequency of each class, shape (K,)
    low: Floats  #: lower bounds of the bootstrap intervals, shape (K,)
    high: Floats  #: upper bounds of the bootstrap intervals, shape (K,)
    n_iterations: int  #: iterations of the EM algorithm


def _log_likelihood(likelihoods: Floats, counts: Floats, prior: Floats) -> Floats:
    """Log-likelihood of each row of `prior`, up to a constant; NaN where a prior is negative."""
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.where(counts > 0, np.log(prior @ likelihoods.T), 0)
        total: Floats = np.einsum("rn,rn->r", counts, logs)
    total[(prior < 0).any(axis=-1)] = np.nan
    return total


def _maximize(
    likelihoods: Floats,
    counts: Floats,
    start: Floats,
    tolerance: float,
    max_iterations: int = _MAX_ITERATIONS,
) -> tuple[Floats, int]:
    """Maximum likelihood estimates of the prior, one for each row of `counts`.

    `likelihoods` has shape (N, K): those of each class for each row of data, up to a factor for
    each row. `counts` has shape (R, N): how often a row of data occurs in each of R data sets.
    Also returns the number of iterations.

    An iteration is three steps of the EM algorithm, two of them to extrapolate (SQUAREM). An
    extrapolation that has a smaller likelihood than the second step is replaced by that step.
    The log-likelihood is concave: with the ratio g = EM(q) / q, it is less than its maximum by at
    most N (max g - 1), and the iteration stops at this bound.
    """
    n = counts.sum(axis=-1, keepdims=True)

    def ratio(q: Floats, active: Any) -> Floats:
        drawn = counts[active]
        # A row that is not drawn may have the likelihood 0.
        shares = np.divide(drawn, q @ likelihoods.T, out=np.zeros(drawn.shape), where=drawn > 0)
        result: Floats = (shares @ likelihoods) / n[active]
        return result

    priors = np.broadcast_to(start, (len(counts), likelihoods.shape[1])).copy()
    active, iterations = np.arange(len(counts)), 0
    while True:
        q = priors[active]
        gradient = ratio(q, active)
        going = n[active, 0] * (gradient.max(axis=-1) - 1) > tolerance
        active, q, gradient = active[going], q[going], gradient[going]
        if not len(active) or iterations == max_iterations:
            return priors, iterations
        iterations += 1
        first = q * gradient
        second = first * ratio(first, active)
        r, v = first - q, second - 2 * first + q
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.sqrt((r * r).sum(axis=-1) / (v * v).sum(axis=-1))
        step = np.where(size > 1, size, 1)[:, None]  # a step of 1 gives `second`
        q = np.where(np.isfinite(step), q + 2 * step * r + step**2 * v, second)
        before = _log_likelihood(likelihoods, counts[active], second)
        worse = ~(_log_likelihood(likelihoods, counts[active], q) >= before)
        q = np.where(worse[:, None], second, q)
        q = q * ratio(q, active)
        priors[active] = q / q.sum(axis=-1, keepdims=True)


def estimate_prior(
    z: Any,
    prior: Any,
    axis: int = -1,
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 1000,
    rng: Any = 0,
) -> PriorEstimate:
    r"""Class frequencies of unlabelled rows, by maximum likelihood, with bootstrap intervals.

    The rows of z are calibrated where the classes have the frequencies `prior`. Under label shift
    (the inputs of each class are distributed as before) the log-likelihood of other frequencies q
    is :math:`\sum_n \log \sum_k p_{nk} q_k / \pi_k` with p = softmax(z). The EM algorithm
    multiplies :math:`q_k` by the mean of :math:`p_{nk} / \pi_k` over :math:`\sum_j p_{nj} q_j /
    \pi_j`. Pass the result to :func:`adjust_prior` as `to`.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Calibrated logits of two rows or more.
    prior : array, shape (K,)
        Class frequencies, or counts, for which z is calibrated: > 0. Only their ratios matter.
    axis : int
        The class axis.
    confidence_level : float
        Confidence level of the intervals, between 0 and 1.
    n_resamples : int
        Number of bootstrap resamples.
    rng : None, int or numpy.random.Generator
        Seed or generator of the resampling.

    Returns
    -------
    PriorEstimate
        ``prior``, with the bounds ``low`` and ``high`` of the interval of each class (percentile
        method), and ``n_iterations``. The intervals reflect the sampling of the rows; they do not
        contain errors of the calibration or of `prior`.

    Raises
    ------
    TypeError
        `z` is of a type that :func:`logitlab.softmax` does not take.
    ValueError
        `z` has fewer than two rows, or a row with NaN or only -inf; `prior` does not hold one
        number > 0 for each class; `confidence_level` is outside (0, 1); `n_resamples` is below 1.

    Warns
    -----
    RuntimeWarning
        The iteration stops before it has converged, after 10000 iterations.

    Notes
    -----
    The iteration stops where the log-likelihood of all rows is less than its maximum by at most
    1e-8, by a bound from its gradient, and never decreases it. Steps are extrapolated (SQUAREM)
    while this increases the likelihood. Time is proportional to the number of rows times
    `n_resamples`.

    References
    ----------
    M. Saerens, P. Latinne and C. Decaestecker, "Adjusting the outputs of a classifier to new a
    priori probabilities: a simple procedure", Neural Computation 14 (2002) 21-41. R. Varadhan and
    C. Roland, "Simple and globally convergent methods for accelerating the convergence of any EM
    algorithm", Scandinavian Journal of Statistics 35 (2008) 335-353.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> rng = np.random.default_rng(0)
    >>> y = rng.random(1000) < 0.2  # 20 % of class 1; the classifier expects 50 %
    >>> score = rng.normal(np.where(y, 1.0, -1.0))
    >>> z = np.stack([-score, score], axis=-1)
    >>> estimate = logitlab.estimate_prior(z, [0.5, 0.5])
    >>> estimate.prior.round(2), estimate.low.round(2), estimate.high.round(2)
    (array([0.8, 0.2]), array([0.77, 0.16]), array([0.84, 0.23]))
    """
    level = _checks.between_0_and_1(confidence_level, "confidence_level")
    n_resamples, generator = _checks.integer(n_resamples, "n_resamples", 1), _checks.generator(rng)
    z, axis, xp = with_classes(z, axis)
    z = _arrays.on_host(_arrays.move_axis(z, axis, -1, xp))
    rows = z.reshape(-1, z.shape[-1]).astype(np.float64)
    n = len(rows)
    check_number_of_rows(n)
    log_prior = log_frequencies(prior, "prior", rows.shape[1], positive=True)
    # p / prior, up to a factor for each row, which changes the log-likelihood by a constant.
    likelihoods: Floats = softmax(_shift(rows, -log_prior, 1, np))
    check_distributions(np.isnan(likelihoods[:, 0]), np)
    start, once = np.exp(log_prior), np.ones((1, n))
    estimates, n_iterations = _maximize(likelihoods, once, start, _TOLERANCE)
    if n_iterations == _MAX_ITERATIONS:
        warnings.warn(
            f"the EM algorithm has not converged after {n_iterations} iterations: the classes are "
            "too similar to tell their frequencies",
            RuntimeWarning,
            stacklevel=2,
        )
    scores = likelihoods / (likelihoods @ estimates.T)
    step, resampled = max(1, _BLOCK // n), []
    for first in range(0, n_resamples, step):
        counts = _counts(generator, min(step, n_resamples - first), n)
        near = _newton_step(scores, counts, estimates[0])
        resampled.append(
            _maximize(likelihoods, counts, near, _RESAMPLED_TOLERANCE, _RESAMPLED_ITERATIONS)[0]
        )
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(resampled), [tail, 1 - tail], axis=0)
    return PriorEstimate(estimates[0], low, high, n_iterations)


def _newton_step(scores: Floats, counts: Floats, estimate: Floats) -> Floats:
    """A Newton step from the estimate to those of resampled rows, kept positive.

    `scores` has shape (N, K): derivatives of the log-likelihood of each row at the estimate.
    """
    n, k = scores.shape
    # The sum of the prior stays 1: the step solves a system bordered by ones.
    system = np.ones((k + 1, k + 1))
    system[:k, :k] = scores.T @ scores / n
    system[k, k] = 0
    target = np.zeros((k + 1, len(counts)))
    target[:k] = (counts @ scores / n).T
    stepped = estimate + (np.linalg.pinv(system, hermitian=True) @ target)[:k].T
    stepped = np.maximum(stepped, estimate / 10)
    result: Floats = stepped / stepped.sum(axis=-1, keepdims=True)
    return result


def _counts(generator: np.random.Generator, size: int, n: int) -> Floats:
    """How often each of n rows is in each of `size` samples of n rows with replacement."""
    sampled = generator.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
    counts = bincount(sampled.reshape(-1), minlength=size * n)
    return counts.reshape(size, n).astype(np.float64)
