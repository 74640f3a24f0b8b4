"""The formulas, on the array API standard: the reference of the tests, and the backend of all
arrays that have no other.

Everything is computed in the widest real type that the library has enabled and rounded once.
Branches depend on shapes and types only, so that JAX can trace the functions and torch can
differentiate them. An entry that is not used in a formula is replaced by a finite constant first,
so that gradients stay finite.

Reductions over the class axis, and class numbers (`arange`), are those of the namespace `xp`: that
of `jax_sharded` includes the classes on other devices.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from logitlab._arrays import (
    Array,
    Axes,
    DType,
    Namespace,
    move_axis,
    scale_nonzero,
    widest_float,
)
from logitlab._backends import linear_loss as linear
from logitlab._backends.linear_loss import Gradients
from logitlab._backends.targets import Targets, is_argmax, residual


class _Weights(NamedTuple):
    """The weights exp((z - m)/T) of the entries of every row, limits in T and z included."""

    t: Array  # (z - m)/T <= 0 of the weighted entries, else 0
    t_low: Array  # the rounding error of t
    e: Array  # exp(t) of the weighted entries, else 0
    included: Array  # mask of the entries that are not excluded
    weighted: Array  # mask of the entries with a weight > 0; at T = 0 and inf they weigh the same
    at_max: Array  # mask of the entries at the maximum
    nan: Array  # mask of the rows with a NaN
    undefined: Array  # mask of the rows without a distribution: with NaN or no entry left
    m: Array  # the maximum of z (T < 0: of -z)
    sign: Array  # -1 where T < 0, else 1
    scale: Array  # |T|


def _widen(z: Array, xp: Namespace) -> Array:
    wide = widest_float(xp, z)
    if isinstance(z, np.ndarray):
        return z.astype(np.result_type(wide, z.dtype) if z.dtype.kind == "f" else wide)
    return xp.astype(z, wide)


def _round(x: Array, dtype: DType, xp: Namespace) -> Array:
    if isinstance(x, np.ndarray):
        return x.astype(dtype.newbyteorder("="), copy=False)
    return xp.astype(x, dtype, copy=False)


def _round_or_write(x: Array, z: Array, out: Array | None, xp: Namespace) -> Array:
    """`x` in the type of z, or written to `out`."""
    if out is None:
        return _round(x, z.dtype, xp)
    out[...] = _round(x, out.dtype, xp)
    return out


def _temperature_array(temperature: float | Array, z: Array, xp: Namespace) -> Array:
    if isinstance(temperature, float):
        device = getattr(z, "device", None)  # a traced JAX array has none
        return xp.full((1,) * z.ndim, temperature, dtype=z.dtype, device=device)
    return temperature


def _exact_product(a: Array, b: Array, xp: Namespace) -> tuple[Array, Array]:
    """a b and its rounding error: T. J. Dekker, Numer. Math. 18 (1971) 224-242."""
    # Splits float32, float64 and longdouble in halves of their digits.
    digits = round(-math.log2(float(xp.finfo(a.dtype).eps))) + 1
    splitter = 2.0 ** ((digits + 1) // 2) + 1

    def split(x: Array) -> tuple[Array, Array]:
        high = splitter * x - (splitter * x - x)
        return high, x - high

    (a_1, a_2), (b_1, b_2) = split(a), split(b)
    p = a * b
    return p, a_2 * b_2 - (((p - a_1 * b_1) - a_2 * b_1) - a_1 * b_2)


def _exact_quotient(w: Array, m: Array, s: Array, xp: Namespace) -> tuple[Array, Array]:
    """(w - m)/s and its rounding error, for w <= m and finite s > 0."""
    # Where w - m overflows, both are halved first.
    one = xp.ones_like(s)
    half = xp.where(w - m == -xp.inf, 0.5 * one, one)
    w, m = w * half, m * half
    d = w - m
    m_virtual = w - d  # the rounding error of a difference: D. E. Knuth, TAOCP 2, 4.2.2
    d_low = (w - (d + m_virtual)) + (m_virtual - m)
    # Scaling by a power of two, which is exact, keeps the products below in range.
    single = xp.finfo(w.dtype).bits == 32
    far, power = (2.0**64, 2.0**80) if single else (2.0**512, 2.0**600)
    unit = xp.where(s > far, one / power, xp.where(s < 1 / far, one * power, one))
    d, d_low, s = d * unit, d_low * unit, s * unit * half
    q = d / s
    relevant = q > -2000.0  # below that exp(q) = 0 in every type
    qs, qs_low = _exact_product(xp.where(relevant, q, 0.0), s, xp)
    q_low = ((xp.where(relevant, d, 0.0) - qs) - qs_low + xp.where(relevant, d_low, 0.0)) / s
    return q, xp.where(relevant, q_low, 0.0)


def _weights(
    z: Array, axis: Axes, temperature: float | Array, where: Array | None, xp: Namespace
) -> _Weights:
    sign = xp.where(temperature < 0, -xp.ones_like(temperature), 1.0)
    scale = xp.abs(temperature)
    unmasked = xp.ones_like(z, dtype=xp.bool) if where is None else where
    nan = xp.any(unmasked & xp.isnan(z), axis=axis, keepdims=True)
    # -inf is excluded at every T, and +inf at T < 0, where sign * z is -inf.
    included = unmasked & ~xp.isnan(z) & (z != -xp.inf)
    w = xp.where(included, sign * z, -xp.inf)
    m = xp.max(w, axis=axis, keepdims=True)
    included = included & (w != -xp.inf)
    at_max = included & (w == m)

    only_max = (scale == 0) | (m == xp.inf)
    weighted = included & (at_max | ~only_max)
    # A single largest entry has the weight exp(0) for any z: its derivatives come from the other
    # entries only, whose sum does not cancel. In the limits of T and z all weights are exp(0).
    single = at_max & (xp.sum(xp.astype(at_max, z.dtype), axis=axis, keepdims=True) == 1)
    computed = weighted & ~single & ~only_max & (scale != xp.inf)
    m_0 = xp.where(xp.isfinite(m), m, 0.0)
    scale_1 = xp.where((scale == 0) | (scale == xp.inf), 1.0, scale)
    t, t_low = _exact_quotient(xp.where(computed, w, m_0), m_0, scale_1, xp)
    t, t_low = xp.where(computed, t, 0.0), xp.where(computed, t_low, 0.0)
    e = xp.where(weighted, xp.exp(t) * (1 + t_low), 0.0)
    undefined = nan | (m == -xp.inf)
    return _Weights(t, t_low, e, included, weighted, at_max, nan, undefined, m, sign, scale)


def _log_sum(v: _Weights, axis: Axes, xp: Namespace) -> Array:
    """log sum exp((z - m)/T), by log1p of the sum without the maximum."""
    ties = xp.sum(xp.astype(v.at_max, v.t.dtype), axis=axis, keepdims=True)
    rest = xp.sum(xp.where(v.at_max, 0.0, v.e), axis=axis, keepdims=True)
    return xp.log1p(xp.where(v.undefined, 0.0, ties - 1 + rest))


def _has_no_class(z: Array, axis: Axes) -> bool:
    return any(z.shape[a] == 0 for a in axis)


def _softmax(v: _Weights, axis: Axes, xp: Namespace) -> Array:
    total = xp.where(v.undefined, 1.0, xp.sum(v.e, axis=axis, keepdims=True))
    return xp.where(v.undefined, xp.nan, v.e / total)


def _log_softmax(v: _Weights, axis: Axes, xp: Namespace) -> Array:
    x = xp.where(v.weighted, v.t + (v.t_low - _log_sum(v, axis, xp)), -xp.inf)
    return xp.where(v.undefined, xp.nan, x)


def _of_weights(
    formula: Callable[[_Weights, Axes, Namespace], Array],
    z: Array,
    axis: Axes,
    temperature: float | Array,
    where: Array | None,
    xp: Namespace,
) -> Array:
    """A formula of the weights of z, not rounded yet; z itself if it has no class."""
    x = _widen(z, xp)
    if _has_no_class(z, axis):
        return x
    return formula(_weights(x, axis, _temperature_array(temperature, x, xp), where, xp), axis, xp)


@np.errstate(all="ignore")
def softmax(
    z: Array,
    axis: Axes,
    temperature: float | Array,
    where: Array | None,
    out: Array | None,
) -> Array:
    """exp(z/T) / sum exp(z/T)."""
    xp = array_namespace(z)
    return _round_or_write(_of_weights(_softmax, z, axis, temperature, where, xp), z, out, xp)


@np.errstate(all="ignore")
def log_softmax(
    z: Array,
    axis: Axes,
    temperature: float | Array,
    where: Array | None,
    out: Array | None,
) -> Array:
    """z/T - log sum exp(z/T)."""
    xp = array_namespace(z)
    return _round_or_write(_of_weights(_log_softmax, z, axis, temperature, where, xp), z, out, xp)


def _log_weighted_sum(v: _Weights, b: Array, axis: Axes, xp: Namespace) -> tuple[Array, Array]:
    """log |sum b exp((z - m)/T)| and the sign of the sum."""
    at_max = xp.sum(xp.where(v.at_max, b, 0.0), axis=axis, keepdims=True)
    rest = xp.sum(xp.where(v.at_max | ~v.weighted, 0.0, b * v.e), axis=axis, keepdims=True)
    total, minus_one = at_max + rest, at_max - 1 + rest
    close = xp.abs(minus_one) < 0.5
    log = xp.log(xp.where(close | (total == 0), 1.0, xp.abs(total)))
    log = xp.where(close, xp.log1p(xp.where(close, minus_one, 0.0)), log)
    log = xp.where(v.undefined, 0.0, xp.where(total == 0, -xp.inf, log))
    sign = xp.where(v.nan, xp.nan, xp.where(v.undefined, 0.0, xp.sign(total)))
    return log, sign


@np.errstate(all="ignore")
def logsumexp(
    z: Array, axis: Axes, temperature: float | Array, where: Array | None, keepdims: bool
) -> Array:
    """T log sum exp(z/T)."""
    return signed_logsumexp(z, axis, temperature, where, keepdims, None)[0]


@np.errstate(all="ignore")
def signed_logsumexp(
    z: Array,
    axis: Axes,
    temperature: float | Array,
    where: Array | None,
    keepdims: bool,
    b: Array | None,
) -> tuple[Array, Array]:
    """T log |sum b exp(z/T)| and, unless b is None, the sign of the sum. b has the shape of z."""
    return _signed_logsumexp(z, axis, temperature, where, keepdims, b, array_namespace(z))


def _signed_logsumexp(
    z: Array,
    axis: Axes,
    temperature: float | Array,
    where: Array | None,
    keepdims: bool,
    b: Array | None,
    xp: Namespace,
) -> tuple[Array, Array]:
    x = _widen(z, xp)
    scale = _temperature_array(temperature, x, xp)
    sign: Array = None
    if b is not None:
        b = xp.astype(b, x.dtype)
        where = b != 0 if where is None else where & (b != 0)
    if _has_no_class(z, axis):
        shape = tuple(1 if a in axis else n for a, n in enumerate(z.shape))
        x = xp.broadcast_to(xp.where(scale < 0, xp.inf, -xp.inf * xp.ones_like(scale)), shape)
        sign = None if b is None else xp.zeros_like(x)
    else:
        v = _weights(x, axis, scale, where, xp)
        if b is None:
            log_sum = _log_sum(v, axis, xp)
        else:
            log_sum, sign = _log_weighted_sum(v, b, axis, xp)
        # At T = inf, T log n is inf for n > 1 entries and 0 for one.
        tail = xp.where(v.scale == xp.inf, 1.0, v.scale) * log_sum
        limit = xp.where(log_sum > 0, xp.inf, -xp.inf * xp.ones_like(log_sum))
        at_infinity = (v.scale == xp.inf) & xp.isfinite(v.m)
        tail = xp.where(at_infinity & (log_sum != 0), limit, tail)
        result = v.sign * (v.m + tail)
        if b is not None:
            # The limit at T = inf of weights with the sum 1 or -1.
            finite = xp.where(v.weighted & xp.isfinite(x), x, 0.0)
            mean = sign * xp.sum(b * finite, axis=axis, keepdims=True)
            result = xp.where(at_infinity & (log_sum == 0), mean, result)
        x = xp.where(v.nan, xp.nan, result)
    if not keepdims:
        x = xp.squeeze(x, axis=axis)
        sign = sign if sign is None else xp.squeeze(sign, axis=axis)
    return _round(x, z.dtype, xp), sign if sign is None else _round(sign, z.dtype, xp)


@np.errstate(all="ignore")
def logits(p: Array, axis: Axes) -> Array:
    """log p minus its mean over the finite entries."""
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
    z: Array,
    axis: Axes,
    temperature: float | Array,
    where: Array | None,
    targets: Targets,
    scale: float | Array | None,
) -> tuple[Array, Array | None]:
    """The loss -sum y log p of each row, and its gradient scale (p sum y - y) in the type of z.

    The losses are in the widest type, 0 in ignored rows. `scale` is a float or has an entry for
    each row; where it is None, no gradient is computed.
    """
    return _target_loss(z, axis, temperature, where, targets, scale, array_namespace(z))


def _target_loss(
    z: Array,
    axis: Axes,
    temperature: float | Array,
    where: Array | None,
    targets: Targets,
    scale: float | Array | None,
    xp: Namespace,
) -> tuple[Array, Array | None]:
    x = move_axis(_widen(z, xp), axis[0], -1, xp)
    if not x.shape[-1]:
        return xp.sum(x, axis=-1), None if scale is None else z
    t = _temperature_array(temperature, x, xp)
    t = t if isinstance(temperature, float) else move_axis(t, axis[0], -1, xp)
    if where is not None:
        where = move_axis(xp.broadcast_to(where, z.shape), axis[0], -1, xp)
    v = _weights(x, (-1,), t, where, xp)
    log_p, y, rows = (
        _log_softmax(v, (-1,), xp),
        targets.probabilities(x, where, xp),
        targets.included_rows(),
    )
    # 0 log 0 = 0: a target of 0 on an excluded class adds nothing to the loss.
    finite = xp.where((y == 0) & (log_p == -xp.inf), 0.0, log_p)
    # Where (m - z)/T overflows, y (m - z)/T may be in range.
    overflow = v.weighted & (v.t == -xp.inf) & (y > 0)
    half_distance = xp.where(overflow, v.m / 2 - v.sign * x / 2, 0.0)
    distance = xp.where(overflow, 2 * (y * half_distance / v.scale), 0.0)
    loss = xp.sum(xp.where(overflow, distance, -(y * finite)), axis=-1)
    loss = loss if rows is None else xp.where(rows, loss, 0.0)
    if scale is None:
        return loss, None
    # A number may be symbolic in a trace of torch.
    factor: Any = scale
    factor = factor[..., None] if hasattr(factor, "shape") else factor
    gradient = scale_nonzero(residual(_softmax(v, (-1,), xp), y, xp), factor, xp)
    # The gradient at an excluded class is 0.
    has_gradient = v.included | v.undefined
    has_gradient = has_gradient if rows is None else has_gradient & rows[..., None]
    gradient = move_axis(xp.where(has_gradient, gradient, 0.0), -1, axis[0], xp)
    return loss, _round(gradient, z.dtype, xp)


def one_minus(p: Array) -> Array:
    """1 - p, without cancellation where p is close to 1: there it is the sum of the others."""
    xp = array_namespace(p)
    if not p.shape[-1]:
        return p
    largest = is_argmax(p, xp)
    others = xp.sum(xp.where(largest, 0.0, p), axis=-1, keepdims=True)
    return xp.where(largest, others, 1 - p)


def centred(p: Array, v: Array) -> Array:
    """v minus its mean under p; 0 where p is 0.

    Both are taken relative to the entry of v at the largest probability, so that they do not
    cancel in a saturated row.
    """
    xp = array_namespace(p)
    if not p.shape[-1]:
        return v
    v_top = xp.sum(xp.where(is_argmax(p, xp), v, 0.0), axis=-1, keepdims=True)
    w = xp.where(p > 0, v - v_top, 0.0)
    return w - xp.sum(p * w, axis=-1, keepdims=True)


@np.errstate(all="ignore")
def jacobian(p: Array, slope: Array) -> Array:
    """slope p_i (delta_ij - p_j), the classes of p last."""
    xp = array_namespace(p)
    eye = xp.eye(p.shape[-1], dtype=xp.bool, device=getattr(p, "device", None))
    # The product p_i p_j first makes J symmetric to the last bit.
    matrix = xp.where(eye, (p * one_minus(p))[..., None], -(p[..., None] * p[..., None, :]))
    return scale_nonzero(matrix, slope[..., None], xp)


def _largest(p: Array, v: Array, xp: Namespace) -> Array:
    """The largest magnitude (..., 1) of the entries of v where p is not 0."""
    return xp.max(xp.where(p > 0, xp.abs(v), 0.0), axis=-1, keepdims=True)


def _sum_unit(p: Array, v: Array, xp: Namespace) -> Array:
    """A power of two (..., 1): 1, or less in a row of v whose differences may overflow."""
    largest = _largest(p, v, xp)
    return xp.where(largest > float(xp.finfo(v.dtype).max) / 16, 1 / 16, xp.ones_like(largest))


def _product_unit(p: Array, v: Array, xp: Namespace) -> Array:
    """A power of two (..., 1) that keeps products of v in range: 1 unless v is large or tiny."""
    largest = _largest(p, v, xp)
    far, power = (2.0**60, 2.0**66) if xp.finfo(v.dtype).bits == 32 else (2.0**500, 2.0**530)
    one = xp.ones_like(largest)
    return xp.where(largest > far, one / power, xp.where(largest < 1 / far, one * power, one))


@np.errstate(all="ignore")
def jacobian_product(p: Array, v: Array, slope: Array) -> Array:
    """slope p_i (v_i - sum_j p_j v_j), the classes last."""
    xp = array_namespace(p)
    if not p.shape[-1]:
        return v
    unit = _sum_unit(p, v, xp)
    return scale_nonzero(p * centred(p, v * unit), slope, xp) / unit


@np.errstate(all="ignore")
def hessian_product(p: Array, u: Array, v: Array, slope: Array) -> Array:
    """slope^2 p_i [(u_i - mean u)(v_i - mean v) - mean of these products], the classes last."""
    xp = array_namespace(p)
    if not p.shape[-1]:
        return v
    unit_u, unit_v = _product_unit(p, u, xp), _product_unit(p, v, xp)
    x = p * centred(p, centred(p, u * unit_u) * centred(p, v * unit_v))
    # One factor at a time, so that only a result that is too large overflows.
    opposite = unit_u * unit_v == 1
    for unit in (unit_u, unit_v):
        x = scale_nonzero(x, slope, xp) / xp.where(opposite, 1.0, unit)
    return x


@np.errstate(all="ignore")
def linear_loss(
    x: Array,
    weight: Array,
    bias: Array | None,
    targets: Targets,
    t: float | Array,
    scale: float | Array | None,
    by_temperature: bool,
) -> tuple[Array, Gradients | None]:
    """The losses of labels with the logits x weightᵀ + bias, and unless `scale` is None the
    gradients by x, weight and bias, and by T if `by_temperature`."""
    return linear.linear_loss(x, weight, bias, targets, t, scale, by_temperature, target_loss)
