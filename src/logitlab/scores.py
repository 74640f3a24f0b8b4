"""How sharp, how right and how honest probabilities are: scores of logits against labels."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from logitlab import _arrays
from logitlab._rows import Floats, Integers, as_rows, blocks, probabilities
from logitlab.probabilities import log_softmax, softmax


def entropy(z: Any, axis: int = -1, *, temperature: Any = 1.0, where: Any = None) -> Any:
    r"""Shannon entropy of the distribution of each row, in nats.

    :math:`H = -\sum_i p_i \log p_i` with p the softmax of z at the given temperature and
    0 log 0 = 0. Its exponential is the perplexity, the effective number of classes.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, of any kind that :func:`logitlab.softmax` takes.
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one for each row.
    where : array of bool, optional
        Broadcasts to z. Entries where it is False are excluded.

    Returns
    -------
    array, shape of z without the class axis
        Between 0 and log K, in z's type. NaN where :func:`logitlab.softmax` is NaN.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.softmax`.

    References
    ----------
    C. E. Shannon, "A mathematical theory of communication", Bell System Technical Journal 27
    (1948) 379-423.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.entropy([[0.0, 0.0], [50.0, 0.0]]).round(4)
    array([0.6931, 0.    ])
    """
    z = _arrays.as_floating(z, "z")
    _arrays.one_axis(axis, z.ndim)
    xp = array_namespace(z)
    wide = _arrays.at_least_float32(z, xp)
    p = softmax(wide, axis, temperature=temperature, where=where)
    log_p = log_softmax(wide, axis, temperature=temperature, where=where)
    nats = xp.abs(xp.sum(p * xp.where(p == 0, xp.zeros_like(p), log_p), axis=axis))
    return xp.astype(nats, z.dtype, copy=False)


def kl_divergence(
    z: Any, other: Any, axis: int = -1, *, temperature: Any = 1.0, where: Any = None
) -> Any:
    r"""Kullback-Leibler divergence of the distribution of `other` from that of z, in nats.

    :math:`\sum_i p_i \log(p_i / q_i)` with p and q the softmax of z and of `other`: what is lost
    where q is taken for p. 0 where the two agree, however large their logits; where they nearly
    agree, the small difference keeps its digits.

    Parameters
    ----------
    z, other : array, shape (..., K, ...)
        Logits, of one shape, of any kind that :func:`logitlab.softmax` takes.
    axis : int
        The class axis.
    temperature : float or array
        T, of both: a scalar, or one for each row.
    where : array of bool, optional
        Broadcasts to z. Entries where it is False are excluded from both.

    Returns
    -------
    array, shape of z without the class axis
        0 and up, in z's type: infinite where q excludes a class that p does not; NaN where
        :func:`logitlab.softmax` of either is NaN.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.softmax`; `other` of another shape or another library.

    References
    ----------
    S. Kullback and R. A. Leibler, "On information and sufficiency", Annals of Mathematical
    Statistics 22 (1951) 79-86.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.kl_divergence([0.0, 0.0], [1.0, 0.0]).round(4)
    np.float64(0.1201)
    """
    z = _arrays.as_floating(z, "z")
    xp = array_namespace(z)
    other = _arrays.as_floating(
        _arrays.like(_arrays.as_array(other, "other"), z, xp, "other"), "other"
    )
    if tuple(other.shape) != tuple(z.shape):
        raise ValueError(f"other has shape {tuple(other.shape)}; accepted: z's {tuple(z.shape)}")
    _arrays.one_axis(axis, z.ndim)
    wide, beside = _arrays.at_least_float32(z, xp), _arrays.at_least_float32(other, xp)
    p = softmax(wide, axis, temperature=temperature, where=where)
    q = softmax(beside, axis, temperature=temperature, where=where)
    log_p = log_softmax(wide, axis, temperature=temperature, where=where)
    log_q = log_softmax(beside, axis, temperature=temperature, where=where)
    t = _arrays.request(wide, axis, temperature, where).temperature
    with np.errstate(all="ignore"):
        d = xp.where(p == 0, 0.0, log_q - log_p)
        # Close logits, whose difference is exact, tell d better than its rounded logarithms do.
        step = xp.astype((beside - wide) / t, p.dtype)
        left = (p > 0) | (q > 0)
        near = xp.all(~left | (xp.abs(step) < 0.125), axis=axis, keepdims=True)
        step = xp.where(left & near, step, 0.0)
        mean = xp.log1p(xp.sum(p * xp.expm1(step), axis=axis, keepdims=True))
        d = xp.where(near & (p > 0), step - mean, d)
        # Summed as p log(p/q) - p + q, of which no term is negative.
        nats = xp.sum(xp.where(p == 0, q, _excess(p, q, d, xp)), axis=axis)
    return xp.astype(nats, z.dtype, copy=False)


def _excess(p: Any, q: Any, d: Any, xp: Any) -> Any:
    """p (e^d - 1 - d) with q = p e^d."""
    # Without cancellation below 1/8; beyond 16 without e^d, which may overflow where p is small.
    size = xp.abs(d)
    s = xp.where(size < 0.125, d, 0.0)
    series = xp.ones_like(s)
    for n in range(10, 2, -1):
        series = 1 + s / n * series
    mid = xp.where(size < 16, d, 0.0)
    middle = xp.where(size < 0.125, s * s / 2 * series, xp.expm1(mid) - mid)
    return xp.where(size < 16, p * middle, q - p - p * d)


def confidences(z: NDArray[Any]) -> tuple[Floats, Integers]:
    """The largest probability of each row, and its class (of equal ones the first)."""
    confidence = np.empty(len(z))
    predicted = np.empty(len(z), np.int64)
    for rows in blocks(*z.shape):
        confidence[rows] = probabilities(z, rows).max(axis=-1)
        predicted[rows] = z[rows].argmax(axis=-1)
    return confidence, predicted


def accuracy(z: Any, y: Any) -> float:
    """Share of the rows whose label has the largest logit.

    Parameters
    ----------
    z : array, shape (..., K)
        Logits. Of equal largest ones, the first is the prediction.
    y : array of int, shape (...)
        Labels, 0 to K - 1.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    TypeError
        `y` does not hold integers; `z` is of a type that :func:`logitlab.softmax` does not take.
    ValueError
        A label out of range (the first such row is named); `y` of another shape than z's rows;
        no rows; a row of z with NaN or with nothing but -inf.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.accuracy([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]], [0, 1, 1])
    0.6666666666666666
    """
    z, y = as_rows(z, y)
    return float(np.mean(confidences(z)[1] == y))


def brier_score(z: Any, y: Any) -> float:
    r"""Mean squared distance of the probabilities from what came true.

    :math:`\frac1N \sum_n \sum_k (p_{nk} - [k = y_n])^2`: the sum over classes, the mean over rows.
    0 is perfect, 2 is certain and wrong in every row.

    Parameters
    ----------
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.

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
    z, y = as_rows(z, y)
    total = 0.0
    for rows in blocks(*z.shape):
        p = probabilities(z, rows)
        p[np.arange(len(p)), y[rows]] -= 1
        total += float(np.sum(p * p))
    return total / len(y)
