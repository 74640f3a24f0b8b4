"""Entropy of distributions, and the divergence of one from another."""

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from logitlab import _arrays, _dispatch
from logitlab._arrays import Array, Namespace
from logitlab._backends import native
from logitlab._rows import blocks
from logitlab.probabilities import log_softmax, softmax


def entropy(z: Any, axis: int = -1, *, temperature: Any = 1.0, where: Any = None) -> Any:
    r"""Shannon entropy of softmax(z / T) for each row, in nats.

    :math:`H = -\sum_i p_i \log p_i` with p = softmax(z / T) and 0 log 0 = 0. Its exponential is
    the perplexity, the effective number of classes.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, in any array type that :func:`logitlab.softmax` accepts.
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one value for each row.
    where : array of bool, optional
        Broadcasts to z. Entries where it is False are excluded.

    Returns
    -------
    array, shape of z without the class axis
        Values in [0, log K], in the dtype of z. NaN where :func:`logitlab.softmax` is NaN.

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
    if where is None and (result := _plain_scores(z, None, axis, temperature)) is not None:
        return result
    if (sharded := _dispatch.sharded("entropy", z, axis)) is not None:
        return sharded(z, axis=axis, temperature=temperature, where=where)
    z = _arrays.as_floating(z, "z")
    _arrays.one_axis(axis, z.ndim)
    return _by_blocks(_entropies, (z,), axis, temperature, where)


def _by_blocks(
    function: Callable[..., Any], arrays: tuple[Any, ...], axis: int, temperature: Any, where: Any
) -> Any:
    """function(*arrays, axis, temperature, where), the results of the rows of z = arrays[0].

    If possible it is called on blocks of rows, as its intermediate arrays are as large as z.
    """
    z = arrays[0]
    contiguous = all(isinstance(a, np.ndarray) and a.flags.c_contiguous for a in arrays)
    if z.ndim < 2 or not contiguous or axis % z.ndim != z.ndim - 1 or not z.size:
        return function(*arrays, axis, temperature, where)
    request = _arrays.request(z, axis, temperature, where)
    shape = (-1, z.shape[-1])
    flat = [a.reshape(shape) for a in arrays]
    t, mask = request.temperature, request.where
    if not isinstance(t, float):
        t = np.broadcast_to(t, (*z.shape[:-1], 1)).reshape(-1)
    if mask is not None:
        mask = np.broadcast_to(mask, z.shape).reshape(shape)
    result = np.empty(len(flat[0]), _arrays.native_type(z.dtype))
    for rows in blocks(*flat[0].shape):
        row_t = t if isinstance(t, float) else t[rows]
        row_mask = None if mask is None else mask[rows]
        result[rows] = function(*(a[rows] for a in flat), -1, row_t, row_mask)
    return result.reshape(z.shape[:-1])


def _plain_scores(z: Any, other: Any, axis: Any, temperature: Any) -> Any:
    """The scores of plain arrays whose rows the kernels compute, else None."""
    if not native.are_plain((z,) if other is None else (z, other), axis, temperature):
        return None
    shape = (-1, z.shape[-1])
    rows, others = z.reshape(shape), None if other is None else other.reshape(shape)
    result = native.row_scores(rows, others, np.full(len(rows), temperature))
    if result is None or np.isnan(result).any():
        return None
    with np.errstate(all="ignore"):
        return _arrays.scalar(result.astype(z.dtype, copy=False).reshape(z.shape[:-1]))


def _by_kernel(
    formula: Callable[..., Any], arrays: tuple[Any, ...], axis: int, temperature: Any, where: Any
) -> Any:
    """formula(*arrays, axis, temperature, where), with the compiled kernels where they apply: to
    rows of NumPy arrays whose largest entry is finite, at temperatures above 0.
    """
    z = arrays[0]
    rows = _as_rows(arrays, axis, where)
    if rows is None:
        return formula(*arrays, axis, temperature, where)
    batch = tuple(n for i, n in enumerate(z.shape) if i != axis % z.ndim)
    t = _arrays.request(z, axis, temperature, where).temperature
    if not isinstance(t, float):
        t = t.reshape(tuple(n for i, n in enumerate(t.shape) if i != axis % z.ndim))
    t = native.contiguous(np.broadcast_to(t, batch), np.dtype(np.float64)).reshape(-1)
    result = native.row_scores(*rows, t)
    if result is None:
        return formula(*arrays, axis, temperature, where)
    others = np.isnan(result)
    if others.any():
        chosen = (x[others] for x in rows if x is not None)
        result[others] = formula(*chosen, -1, t[others], None)
    with np.errstate(all="ignore"):
        return _arrays.scalar(result.astype(_arrays.native_type(z.dtype)).reshape(batch))


def _as_rows(
    arrays: tuple[Any, ...], axis: int, where: Any
) -> tuple[NDArray[Any], NDArray[Any] | None] | None:
    """One or two NumPy arrays of a type as contiguous rows in at least float32, with excluded
    entries of -inf; None for other arrays.
    """
    z = arrays[0]
    if any(type(a) is not np.ndarray or a.dtype != z.dtype for a in arrays):
        return None
    if z.ndim == 0 or not z.size:
        return None
    rows = []
    for a in arrays:
        x = _arrays.at_least_float32(a, np)
        if where is not None:
            x = np.where(where, x, x.dtype.type(-np.inf))
        x = np.moveaxis(x, axis, -1)
        rows.append(native.contiguous(x, x.dtype).reshape(-1, x.shape[-1]))
    return rows[0], rows[1] if len(rows) > 1 else None


def _entropies(z: Any, axis: int, temperature: Any, where: Any) -> Any:
    return _by_kernel(_entropy_formula, (z,), axis, temperature, where)


def _entropy_formula(z: Any, axis: int, temperature: Any, where: Any) -> Any:
    xp = array_namespace(z)
    wide = _arrays.at_least_float32(z, xp)  # half types are computed in float32
    p = softmax(wide, axis, temperature=temperature, where=where)
    # A copy of z is overwritten: a long row needs much memory.
    out = wide if wide is not z and isinstance(p, np.ndarray) else None
    log_p = log_softmax(wide, axis, temperature=temperature, where=where, out=out)
    if isinstance(p, np.ndarray):
        log_p[p == 0] = 0
        value = xp.abs(xp.sum(np.multiply(p, log_p, out=p), axis=axis))
    else:
        value = entropy_of_probabilities(p, log_p, axis, xp)
    return xp.astype(value, _arrays.native_type(z.dtype), copy=False)


def entropy_of_probabilities(p: Array, log_p: Array, axis: int, xp: Namespace) -> Array:
    """-sum p log p, where 0 log 0 = 0."""
    return xp.abs(xp.sum(p * xp.where(p == 0, xp.zeros_like(p), log_p), axis=axis))


def kl_divergence(
    z: Any, other: Any, axis: int = -1, *, temperature: Any = 1.0, where: Any = None
) -> Any:
    r"""Kullback-Leibler divergence KL(p || q) for each row, in nats.

    :math:`\sum_i p_i \log(p_i / q_i)` with p = softmax(z / T) and q = softmax(other / T). It is 0
    if the two distributions are equal, at any magnitude of the logits. If they are nearly equal,
    the small result is still accurate to a few units in the last place.

    Parameters
    ----------
    z, other : array, shape (..., K, ...)
        Logits, both of the same shape, in any array type that :func:`logitlab.softmax` accepts.
    axis : int
        The class axis.
    temperature : float or array
        T of both distributions: a scalar, or one value for each row.
    where : array of bool, optional
        Broadcasts to z. Entries where it is False are excluded from both distributions.

    Returns
    -------
    array, shape of z without the class axis
        Values >= 0, in the dtype of z: infinite where q is 0 for a class with p > 0; NaN where
        :func:`logitlab.softmax` of z or of `other` is NaN.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.softmax`; `other` has another shape or belongs to another array library.

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
    if where is None and other is not None:
        result = _plain_scores(z, other, axis, temperature)
        if result is not None:
            return result
    z = _arrays.as_floating(z, "z")
    xp = array_namespace(z)
    other = _arrays.as_floating(
        _arrays.like(_arrays.as_array(other, "other"), z, xp, "other"), "other"
    )
    if tuple(other.shape) != tuple(z.shape):
        raise ValueError(
            f"other must have the shape {tuple(z.shape)} of z, got shape {tuple(other.shape)}"
        )
    _arrays.one_axis(axis, z.ndim)
    z = _dispatch.autocast("kl_divergence", z)
    return _by_blocks(_divergences, (z, other), axis, temperature, where)


def _divergences(z: Any, other: Any, axis: int, temperature: Any, where: Any) -> Any:
    return _by_kernel(_divergence_formula, (z, other), axis, temperature, where)


def _divergence_formula(z: Any, other: Any, axis: int, temperature: Any, where: Any) -> Any:
    xp = array_namespace(z)
    z_p, z_q = _arrays.at_least_float32(z, xp), _arrays.at_least_float32(other, xp)
    if _arrays.dtype_name(z_p.dtype) == "float32":
        # The probability of a class that the other row excludes could round to 0.
        z_p, z_q = (xp.astype(x, _arrays.widest_float(xp, z)) for x in (z_p, z_q))
    p = softmax(z_p, axis, temperature=temperature, where=where)
    q = softmax(z_q, axis, temperature=temperature, where=where)
    log_p = log_softmax(z_p, axis, temperature=temperature, where=where)
    log_q = log_softmax(z_q, axis, temperature=temperature, where=where)
    t = _arrays.request(z_p, axis, temperature, None).temperature
    with np.errstate(all="ignore"):
        d = xp.where(p == 0, 0.0, log_q - log_p)
        # The difference of close logits is exact: it gives log(q / p) more accurately than the
        # difference of rounded logarithms, as delta - log(sum_i p_i e^delta_i).
        delta = xp.astype((z_q - z_p) / t, p.dtype)
        support = (p > 0) | (q > 0)
        close = xp.all(~support | (xp.abs(delta) < 0.125), axis=axis, keepdims=True)
        delta = xp.where(support & close, delta, 0.0)
        log_mean = xp.log1p(xp.sum(p * xp.expm1(delta), axis=axis, keepdims=True))
        d = xp.where(close & (p > 0), delta - log_mean, d)
        # Summed as p log(p/q) - p + q: no term is negative, so nothing cancels.
        result = xp.sum(xp.where(p == 0, q, _kl_terms(p, q, d, xp)), axis=axis)
    return xp.astype(result, _arrays.native_type(z.dtype), copy=False)


def _kl_terms(p: Any, q: Any, d: Any, xp: Any) -> Any:
    """p log(p/q) - p + q = p (e^d - 1 - d), where q = p e^d."""
    # |d| < 1/8: a series, which does not cancel. |d| >= 16: without e^d, which may overflow.
    size = xp.abs(d)
    small = xp.where(size < 0.125, d, 0.0)
    series = xp.ones_like(small)
    for n in range(10, 2, -1):
        series = 1 + small / n * series
    medium = xp.where(size < 16, d, 0.0)
    term = xp.where(size < 0.125, small * small / 2 * series, xp.expm1(medium) - medium)
    return xp.where(size < 16, p * term, q - p - p * d)
