"""The backend of JAX arrays: the kernels where the temperature is a number, else the formulas."""

import jax.numpy as jnp

from logitlab._arrays import Array, Axes, scale_nonzero
from logitlab._backends import jax_kernels, reference
from logitlab._backends import linear_loss as linear
from logitlab._backends.linear_loss import Gradients
from logitlab._backends.reference import (
    centred,
    hessian_product,
    jacobian,
    jacobian_product,
    logits,
    one_minus,
    signed_logsumexp,
)
from logitlab._backends.targets import Targets

__all__ = [
    "centred",
    "hessian_product",
    "jacobian",
    "jacobian_product",
    "linear_loss",
    "log_softmax",
    "logits",
    "logsumexp",
    "one_minus",
    "signed_logsumexp",
    "softmax",
    "target_loss",
]


def _exclude(z: Array, where: Array | None) -> Array:
    return z if where is None else jnp.where(where, z, -jnp.inf)


def _elementwise(
    name: str, z: Array, axis: Axes, t: float | Array, where: Array | None, out: Array | None
) -> Array:
    if not isinstance(t, float) or z.size == 0:
        return getattr(reference, name)(z, axis, t, where, out)
    z = _exclude(z, where)
    if len(axis) == 1:
        return jax_kernels.rows(name, axis[0], t, z)
    last = tuple(range(-len(axis), 0))
    moved = jnp.moveaxis(z, axis, last)
    merged = moved.reshape(*moved.shape[: -len(axis)], -1)
    result = jax_kernels.rows(name, merged.ndim - 1, t, merged)
    return jnp.moveaxis(result.reshape(moved.shape), last, axis)


def softmax(
    z: Array, axis: Axes, temperature: float | Array, where: Array | None, out: Array | None
) -> Array:
    return _elementwise("softmax", z, axis, temperature, where, out)


def log_softmax(
    z: Array, axis: Axes, temperature: float | Array, where: Array | None, out: Array | None
) -> Array:
    return _elementwise("log_softmax", z, axis, temperature, where, out)


def logsumexp(
    z: Array, axis: Axes, temperature: float | Array, where: Array | None, keepdims: bool
) -> Array:
    if not isinstance(temperature, float) or z.size == 0:
        return reference.logsumexp(z, axis, temperature, where, keepdims)
    moved = jnp.moveaxis(_exclude(z, where), axis, range(-len(axis), 0))
    merged = moved.reshape(*moved.shape[: -len(axis)], -1)
    result = jax_kernels.rows("logsumexp", merged.ndim - 1, temperature, merged)[..., 0]
    return jnp.expand_dims(result, axis) if keepdims else result


def target_loss(
    z: Array,
    axis: Axes,
    temperature: float | Array,
    where: Array | None,
    targets: Targets,
    scale: float | Array | None,
) -> tuple[Array, Array | None]:
    label, distribution, smoothing = targets[:3]
    # At T < 0 the kernels replace +inf by -inf, which smoothing would leave out.
    covered = isinstance(temperature, float) and (temperature >= 0 or not smoothing)
    if not covered or label is None or distribution is not None or z.size == 0:
        return reference.target_loss(z, axis, temperature, where, targets, scale)
    x = _exclude(z, where)
    options = (axis[0], temperature, smoothing)
    if scale is None:
        return jax_kernels.losses(*options, x, label), None
    loss, residual = jax_kernels.losses_and_residuals(*options, jax_kernels.wide(x), label)
    factor = scale if isinstance(scale, float) else jnp.expand_dims(scale, axis)
    return loss, scale_nonzero(residual, factor, jnp).astype(z.dtype)


def linear_loss(
    x: Array,
    weight: Array,
    bias: Array | None,
    targets: Targets,
    t: float | Array,
    scale: float | Array | None,
    by_temperature: bool,
) -> tuple[Array, Gradients | None]:
    return linear.linear_loss(x, weight, bias, targets, t, scale, by_temperature, target_loss)
