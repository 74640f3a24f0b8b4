"""The formulas, on the array API standard: the oracle, and the fallback for every other array.

Everything is computed in the widest real type the library has enabled and rounded once. Branches
depend on shapes and types alone, so that JAX can trace and torch can differentiate what stands
here; an entry that takes no part in a formula is replaced by a harmless one before it, so that
gradients stay finite.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from logitlab._arrays import moved, scaled, widest_float
from logitlab._backends import linear_loss as blocks
from logitlab._backends.targets import Targets, at_top, difference, top


class _Weights(NamedTuple):
    """The weights exp((z - m)/T) of the entries of every row, and what the limits know of it."""

    t: Any  # (z - m)/T <= 0 where the entry has a weight, else 0
    t_low: Any  # what t lost by rounding
    e: Any  # exp(t) where the entry has a weight, else 0
    share: Any  # the entries with a weight; in a limit these weights are equal
    top: Any  # the entries at the maximum
    nan: Any  # rows with a NaN
    undefined: Any  # rows without a distribution: NaN, or nothing left
    m: Any  # the maximum (T < 0: of -z)
    sign: Any  # -1 where T < 0
    scale: Any  # |T|


def _widen(z: Any, xp: Any) -> Any:
    wide = widest_float(xp, z)
    if isinstance(z, np.ndarray):
        return z.astype(np.result_type(wide, z.dtype) if z.dtype.kind == "f" else wide)
    return xp.astype(z, wide)


def _round(x: Any, dtype: Any, xp: Any) -> Any:
    if isinstance(x, np.ndarray):
        return x.astype(dtype.newbyteorder("="), copy=False)
    return xp.astype(x, dtype, copy=False)


def _deliver(x: Any, z: Any, out: Any, xp: Any) -> Any:
    if out is None:
        return _round(x, z.dtype, xp)
    out[...] = _round(x, out.dtype, xp)
    return out


def _as_array(temperature: Any, z: Any, xp: Any) -> Any:
    if isinstance(temperature, float):
        device = getattr(z, "device", None)  # a traced JAX array has none
        return xp.full((1,) * z.ndim, temperature, dtype=z.dtype, device=device)
    return temperature


def _product(a: Any, b: Any, xp: Any) -> tuple[Any, Any]:
    """a b and what it lost by rounding: T. J. Dekker, Numer. Math. 18 (1971) 224-242."""
    # Half the digits of float32, float64 and longdouble.
    digits = round(-math.log2(float(xp.finfo(a.dtype).eps))) + 1
    splitter = 2.0 ** ((digits + 1) // 2) + 1

    def split(x: Any) -> tuple[Any, Any]:
        high = splitter * x - (splitter * x - x)
        return high, x - high

    (a_1, a_2), (b_1, b_2) = split(a), split(b)
    p = a * b
    return p, a_2 * b_2 - (((p - a_1 * b_1) - a_2 * b_1) - a_1 * b_2)


def _quotient(w: Any, m: Any, s: Any, xp: Any) -> tuple[Any, Any]:
    """(w - m)/s, of w <= m and finite s > 0, and what it lost by rounding."""
    # Where w - m overflows, both are halved first.
    one = xp.ones_like(s)
    half = xp.where(w - m == -xp.inf, 0.5 * one, one)
    w, m = w * half, m * half
    d = w - m
    m_again = w - d  # the rounding error of a difference: D. E. Knuth, TAOCP 2, 4.2.2
    d_low = (w - (d + m_again)) + (m_again - m)
    # A power of two keeps the products below in range.
    single = xp.finfo(w.dtype).bits == 32
    far, power = (2.0**64, 2.0**80) if single else (2.0**512, 2.0**600)
    unit = xp.where(s > far, one / power, xp.where(s < 1 / far, one * power, one))
    d, d_low, s = d * unit, d_low * unit, s * unit * half
    q = d / s
    small = q > -2000.0  # everything below is exp(q) = 0 in every type
    back, back_low = _product(xp.where(small, q, 0.0), s, xp)
    q_low = ((xp.where(small, d, 0.0) - back) - back_low + xp.where(small, d_low, 0.0)) / s
    return q, xp.where(small, q_low, 0.0)


def _weights(z: Any, axis: tuple[int, ...], temperature: Any, where: Any, xp: Any) -> _Weights:
    sign = xp.where(temperature < 0, -xp.ones_like(temperature), 1.0)
    scale = xp.abs(temperature)
    unmasked = xp.ones_like(z, dtype=xp.bool) if where is None else where
    nan = xp.any(unmasked & xp.isnan(z), axis=axis, keepdims=True)
    # -inf is excluded at every T, and sign * z brings a +inf at T < 0 there.
    left = unmasked & ~xp.isnan(z) & (z != -xp.inf)
    w = xp.where(left, sign * z, -xp.inf)
    m = xp.max(w, axis=axis, keepdims=True)
    left = left & (w != -xp.inf)
    top = left & (w == m)

    only_top = (scale == 0) | (m == xp.inf)
    share = left & (top | ~only_top)
    # A single largest entry weighs exp(0) whatever it is: derivatives by it come from the others
    # alone, whose sum does not cancel. Everything else that is not exact is a limit: exp(0).
    single = top & (xp.sum(xp.astype(top, z.dtype), axis=axis, keepdims=True) == 1)
    exact = share & ~single & ~only_top & (scale != xp.inf)
    m_0 = xp.where(xp.isfinite(m), m, 0.0)
    scale_1 = xp.where((scale == 0) | (scale == xp.inf), 1.0, scale)
    t, t_low = _quotient(xp.where(exact, w, m_0), m_0, scale_1, xp)
    t, t_low = xp.where(exact, t, 0.0), xp.where(exact, t_low, 0.0)
    e = xp.where(share, xp.exp(t) * (1 + t_low), 0.0)
    return _Weights(t, t_low, e, share, top, nan, nan | (m == -xp.inf), m, sign, scale)


def _log_sum(v: _Weights, axis: tuple[int, ...], xp: Any) -> Any:
    """log sum exp((z - m)/T), by log1p of what is not the maximum."""
    ties = xp.sum(xp.astype(v.top, v.t.dtype), axis=axis, keepdims=True)
    rest = xp.sum(xp.where(v.top, 0.0, v.e), axis=axis, keepdims=True)
    return xp.log1p(xp.where(v.undefined, 0.0, ties - 1 + rest))


def _empty(z: Any, axis: tuple[int, ...]) -> bool:
    return any(z.shape[a] == 0 for a in axis)


def _softmax(v: _Weights, axis: tuple[int, ...], xp: Any) -> Any:
    total = xp.where(v.undefined, 1.0, xp.sum(v.e, axis=axis, keepdims=True))
    return xp.where(v.undefined, xp.nan, v.e / total)


def _log_softmax(v: _Weights, axis: tuple[int, ...], xp: Any) -> Any:
    x = xp.where(v.share, v.t + (v.t_low - _log_sum(v, axis, xp)), -xp.inf)
    return xp.where(v.undefined, xp.nan, x)


@np.errstate(all="ignore")
def softmax(z: Any, axis: tuple[int, ...], temperature: Any, where: Any, out: Any) -> Any:
    """exp(z/T) / sum exp(z/T)."""
    xp = array_namespace(z)
    x = _widen(z, xp)
    if not _empty(z, axis):
        x = _softmax(_weights(x, axis, _as_array(temperature, x, xp), where, xp), axis, xp)
    return _deliver(x, z, out, xp)


@np.errstate(all="ignore")
def log_softmax(z: Any, axis: tuple[int, ...], temperature: Any, where: Any, out: Any) -> Any:
    """z/T - log sum exp(z/T)."""
    xp = array_namespace(z)
    x = _widen(z, xp)
    if not _empty(z, axis):
        x = _log_softmax(_weights(x, axis, _as_array(temperature, x, xp), where, xp), axis, xp)
    return _deliver(x, z, out, xp)


@np.errstate(all="ignore")
def logsumexp(z: Any, axis: tuple[int, ...], temperature: Any, where: Any, keepdims: bool) -> Any:
    """T log sum exp(z/T)."""
    xp = array_namespace(z)
    x = _widen(z, xp)
    scale = _as_array(temperature, x, xp)
    if _empty(z, axis):
        shape = tuple(1 if a in axis else n for a, n in enumerate(z.shape))
        x = xp.broadcast_to(xp.where(scale < 0, xp.inf, -xp.inf * xp.ones_like(scale)), shape)
    else:
        v = _weights(x, axis, scale, where, xp)
        log_sum = _log_sum(v, axis, xp)
        # At T = inf, T log n is inf for n > 1 entries and 0 for one.
        tail = xp.where(v.scale == xp.inf, 1.0, v.scale) * log_sum
        x = v.m + xp.where((v.scale == xp.inf) & (log_sum > 0), xp.inf, tail)
        x = xp.where(v.nan, xp.nan, v.sign * x)
    if not keepdims:
        x = xp.squeeze(x, axis=axis)
    return _round(x, z.dtype, xp)


@np.errstate(all="ignore")
def logits(p: Any, axis: tuple[int, ...]) -> Any:
    """log p less its mean over the finite entries."""
    xp = array_namespace(p)
    x = _widen(p, xp)
    positive = x > 0
    log_p = xp.where(positive, xp.log(xp.where(positive, x, 1.0)), -xp.inf)
    log_p = xp.where(xp.isnan(x), xp.nan, log_p)
    finite = positive & xp.isfinite(x)
    count = xp.sum(xp.astype(finite, x.dtype), axis=axis, keepdims=True)
    mean = xp.sum(xp.where(finite, log_p, 0.0), axis=axis, keepdims=True) / xp.where(
        count == 0, 1.0, count
    )
    nan = xp.any(xp.isnan(x), axis=axis, keepdims=True)
    return _round(xp.where(nan, xp.nan, log_p - mean), p.dtype, xp)


@np.errstate(all="ignore")
def target_loss(
    z: Any, axis: tuple[int, ...], temperature: Any, where: Any, targets: Targets, scale: Any
) -> tuple[Any, Any]:
    """-sum y log p with the targets y of every row, in the widest type, 0 in rows that count for
    nothing; unless `scale`, a float or one a row, is None, its gradient scale (p sum y - y)."""
    xp = array_namespace(z)
    x = moved(_widen(z, xp), axis[0], -1, xp)
    if not x.shape[-1]:
        return xp.sum(x, axis=-1), None if scale is None else z
    t = _as_array(temperature, x, xp)
    t = t if isinstance(temperature, float) else moved(t, axis[0], -1, xp)
    if where is not None:
        where = moved(xp.broadcast_to(where, z.shape), axis[0], -1, xp)
    v = _weights(x, (-1,), t, where, xp)
    log_p, y, kept = _log_softmax(v, (-1,), xp), targets.whole(x, where), targets.kept()
    # 0 log 0 = 0: a target of 0 on an excluded class costs nothing.
    finite = xp.where((y == 0) & (log_p == -xp.inf), 0.0, log_p)
    loss = -xp.sum(y * finite, axis=-1)
    loss = loss if kept is None else xp.where(kept, loss, 0.0)
    if scale is None:
        return loss, None
    scale = scale if isinstance(scale, float) else scale[..., None]
    gradient = scaled(difference(_softmax(v, (-1,), xp), y, xp), scale, xp)
    moves = v.share | v.undefined
    moves = moves if kept is None else moves & kept[..., None]
    gradient = moved(xp.where(moves, gradient, 0.0), -1, axis[0], xp)
    return loss, _round(gradient, z.dtype, xp)


def one_minus(p: Any) -> Any:
    """1 - p, exact to the last places where p is close to 1: less than 1 by the others."""
    xp = array_namespace(p)
    if not p.shape[-1]:
        return p
    most = at_top(p, xp)
    others = xp.sum(xp.where(most, 0.0, p), axis=-1, keepdims=True)
    return xp.where(most, others, 1 - p)


def centred(p: Any, v: Any) -> Any:
    """v less its mean under p. Taken from the entry at the largest probability, so that what is
    left of a saturated row does not cancel."""
    xp = array_namespace(p)
    if not p.shape[-1]:
        return v
    w = xp.where(p > 0, v - xp.take_along_axis(v, top(p, xp), axis=-1), 0.0)
    return w - xp.sum(p * w, axis=-1, keepdims=True)


@np.errstate(all="ignore")
def jacobian(p: Any, slope: Any) -> Any:
    """slope p_i (delta_ij - p_j), the classes of p last."""
    xp = array_namespace(p)
    eye = xp.eye(p.shape[-1], dtype=xp.bool, device=getattr(p, "device", None))
    # p_i p_j first: so J is symmetric to the bit.
    matrix = xp.where(eye, (p * one_minus(p))[..., None], -(p[..., None] * p[..., None, :]))
    return scaled(matrix, slope[..., None], xp)


@np.errstate(all="ignore")
def jacobian_product(p: Any, v: Any, slope: Any) -> Any:
    """slope p_i (v_i - sum_j p_j v_j), the classes last."""
    return scaled(p * centred(p, v), slope, array_namespace(p))


@np.errstate(all="ignore")
def linear_loss(
    x: Any, weight: Any, bias: Any, targets: Targets, t: Any, scale: Any, by_temperature: bool
) -> tuple[Any, Any]:
    """As :func:`target_loss` of z = x weightᵀ + bias and labels, with the gradients by these, and
    by T."""
    return blocks.linear_loss(x, weight, bias, targets, t, scale, by_temperature, target_loss)
