"""The functions of the compiled kernels for JAX arrays, with their derivatives.

XLA calls the kernels on the CPU, and computes the formulas on other platforms. Derivatives are
products with the Jacobian of softmax, so that they can be differentiated again.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from logitlab._backends import native, reference
from logitlab._backends.targets import Targets

_FUNCTIONS = {"softmax": 0, "log_softmax": 1, "logsumexp": 2}  # as Op in exact_row.h


@functools.cache
def available() -> bool:
    """Whether XLA can call the kernels; registers them."""
    if not native.native_available() or not hasattr(jax, "ffi"):
        return False
    for name in ("rows", "losses"):
        handler = getattr(native._native, f"xla_{name}")()
        jax.ffi.register_ffi_target(f"logitlab_{name}", handler, platform="cpu")
    return True


def _dispatch(kernel: Any, formula: Any, *arrays: Array) -> Any:
    """What the kernel computes on the CPU, and the formula on other platforms."""
    if not available():
        return formula(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=kernel, default=formula)


def _slope(t: float, dtype: Any) -> Any:
    """1/T in a type, which may be infinite in it; 0 at T = 0, where there is no derivative."""
    return np.asarray(1 / t if t else 0.0).astype(dtype)


def _times(x: Array, slope: Any) -> Array:
    """x times 1/T, where 0 stays 0."""
    return jnp.where(x == 0, x, x * slope) if np.isinf(slope) else x * slope


def wide(z: Array) -> Array:
    """Half types as float32."""
    return z.astype(jnp.promote_types(z.dtype, jnp.float32))


class _Compiled:
    """A function whose first three arguments are constants, compiled, with its own derivative."""

    def __init__(self, function: Any) -> None:
        self._with_derivative = jax.custom_jvp(function, nondiff_argnums=(0, 1, 2))
        self.defjvp = self._with_derivative.defjvp
        self._compiled = jax.jit(self._with_derivative, static_argnums=(0, 1, 2))

    def __call__(self, *args: Any) -> Any:
        return self._compiled(*args)


@_Compiled
def rows(name: str, axis: int, t: float, z: Array) -> Array:
    """softmax, log_softmax or logsumexp at temperature t along an axis, which logsumexp keeps."""

    def kernel(z: Array) -> Any:
        shape = jax.eval_shape(lambda z: z.sum(axis, keepdims=True) if reduces else z, z)
        call = jax.ffi.ffi_call("logitlab_rows", shape, vmap_method="broadcast_all")
        last = np.int64(axis - z.ndim)
        return call(z, axis=last, function=np.int64(_FUNCTIONS[name]), temperature=np.float64(t))

    def formula(z: Array) -> Any:
        return getattr(reference, name)(z, (axis,), t, None, True if reduces else None)

    reduces = name == "logsumexp"
    return _dispatch(kernel, formula, z)


def _softmax_tangent(p: Array, axis: int, t: float, z: Array, dz: Array) -> Array:
    """The product of dz with the Jacobian of softmax, 0 for an infinite z."""
    dz = jnp.where(jnp.isinf(z), 0, dz)
    return _times(p * (dz - (p * dz).sum(axis, keepdims=True)), _slope(t, p.dtype))


@rows.defjvp
def _rows_jvp(name: str, axis: int, t: float, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    value = rows(name, axis, t, z)
    x, dz = wide(z), wide(dz)
    is_value = name == "softmax" and x is z
    p = value if is_value else rows("softmax", axis, t, x)
    if name == "softmax":
        tangent = _softmax_tangent(p, axis, t, x, dz)
    elif name == "logsumexp":
        tangent = (p * jnp.where(jnp.isinf(x), 0, dz)).sum(axis, keepdims=True)
    else:
        # No finite change of the logits affects an excluded entry, or a row with +inf.
        constant = jnp.isinf(x) | jnp.isinf(value)
        dz = jnp.where(constant, 0, dz)
        tangent = _times(dz - (p * dz).sum(axis, keepdims=True), _slope(t, p.dtype))
        tangent = jnp.where(constant, 0, tangent)
    return value, tangent.astype(value.dtype)


@_Compiled
def losses(axis: int, t: float, smoothing: float, z: Array, label: Array) -> Array:
    """The loss of each row's label, 0 in a row with another number as label."""
    return _losses(False, axis, t, smoothing, z, label)[0]


@_Compiled
def losses_and_residuals(
    axis: int, t: float, smoothing: float, z: Array, label: Array
) -> tuple[Array, Array]:
    """The losses and p - y, in the type of z."""
    return _losses(True, axis, t, smoothing, z, label)


def _losses(
    residuals: bool, axis: int, t: float, smoothing: float, z: Array, label: Array
) -> tuple[Array, ...]:
    widest = jnp.result_type(float)

    def kernel(z: Array, label: Array) -> Any:
        loss = jax.eval_shape(lambda z: z.astype(widest).sum(axis), z)
        call = jax.ffi.ffi_call(
            "logitlab_losses", (loss, z)[: 1 + residuals], vmap_method="broadcast_all"
        )
        numbers = {"smoothing": np.float64(smoothing), "temperature": np.float64(t)}
        return call(z, label, axis=np.int64(axis - z.ndim), **numbers)

    def formula(z: Array, label: Array) -> Any:
        # As in the kernel, the labels that are not below K are ignored.
        label = jnp.where(label < z.shape[axis], label, -1)
        targets = Targets(label, smoothing=smoothing)
        both = reference.target_loss(z, (axis,), t, None, targets, 1.0 if residuals else None)
        return both[: 1 + residuals]

    result: tuple[Array, ...] = _dispatch(kernel, formula, z, label)
    return result


def _loss_tangent(axis: int, t: float, residual: Array, dz: Array, loss: Array) -> Array:
    # The residual of an excluded class is 0.
    dz = jnp.where(residual == 0, 0, dz)
    return _times((residual * dz).sum(axis), _slope(t, residual.dtype)).astype(loss.dtype)


@losses.defjvp
def _losses_jvp(
    axis: int, t: float, smoothing: float, primals: Any, tangents: Any
) -> tuple[Array, Array]:
    (z, label), dz = primals, tangents[0]
    loss, residual = losses_and_residuals(axis, t, smoothing, wide(z), label)
    return loss, _loss_tangent(axis, t, residual, wide(dz), loss)


@losses_and_residuals.defjvp
def _residuals_jvp(
    axis: int, t: float, smoothing: float, primals: Any, tangents: Any
) -> tuple[Any, Any]:
    (z, label), dz = primals, wide(tangents[0])
    loss, residual = losses_and_residuals(axis, t, smoothing, z, label)
    x = wide(z)
    p = rows("softmax", axis, t, x)
    included = jnp.expand_dims((label >= 0) & (label < z.shape[axis]), axis)
    slope = jnp.where(included, _softmax_tangent(p, axis, t, x, dz), 0)
    exact = residual if x is z else losses_and_residuals(axis, t, smoothing, x, label)[1]
    return (loss, residual), (_loss_tangent(axis, t, exact, dz, loss), slope.astype(z.dtype))
