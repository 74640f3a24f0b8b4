"""The functions of the compiled kernels for JAX arrays, with their derivatives.

XLA calls the kernels on the CPU, and computes the formulas on other platforms. Derivatives are
products with the Jacobian of softmax, so that they can be differentiated again.
"""

import functools
import math
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from logitlab._backends import native, reference
from logitlab._backends.targets import Targets

_FUNCTIONS = {"softmax": 0, "log_softmax": 1, "logsumexp": 2}  # as Op in exact_row.h


@functools.cache
def available() -> bool:
    """Whether XLA can call the kernels; registers them."""
    if not native.native_available():
        return False
    try:
        for name in ("rows", "products", "losses"):
            handler = getattr(native._native, f"xla_{name}")()
            jax.ffi.register_ffi_target(f"logitlab_{name}", handler, platform="cpu")
    except jax.errors.JaxRuntimeError:  # another major version of XLA's interface
        return False
    return True


def _dispatch(kernel: Any, formula: Any, *arrays: Array) -> Any:
    """What the kernel computes on the CPU, and the formula on other platforms."""
    if not available():
        return formula(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=kernel, default=formula)


def _divide(x: Array, t: float) -> Array:
    """x/T, where 1/T may overflow: 0 stays 0. 0 at T = 0, where there is no derivative."""
    slope = math.copysign(min(1 / abs(t), sys.float_info.max), t) if t else 0.0
    large = 2.0 ** (jnp.finfo(x.dtype).maxexp - 1)
    while abs(slope) > large:
        x, slope = x * large, slope / large
    return x * slope


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


# The product of the classes, last in z and v, with the derivative at z: linear in v.
_product = Primitive("logitlab_product")
_TRANSPOSED = {
    "softmax": "softmax",  # is symmetric
    "log_softmax": "log_softmax_transposed",
    "log_softmax_transposed": "log_softmax",
}
_PRODUCTS = {"softmax": 0, "log_softmax_transposed": 1}  # as Product in products_args.h


def product(name: str, axis: int, t: float, z: Array, v: Array) -> Array:
    """The product of v with the derivative of softmax or log_softmax, 0 for an infinite z."""
    z, v = (jnp.moveaxis(x, axis, -1) for x in (z, v))
    return jnp.moveaxis(_product.bind(z, v, name=name, t=t), -1, axis)


def _product_formula(z: Array, v: Array, *, name: str, t: float) -> Array:
    p = rows("softmax", z.ndim - 1, t, z)
    constant = jnp.isinf(z)
    if name != "softmax":
        # No finite change of the logits affects an excluded entry, or a row with +inf.
        constant = constant | ((t > 0) & (z == jnp.inf).any(-1, keepdims=True))
    v = jnp.where(constant, 0, v)
    if name == "softmax":
        x = p * (v - (p * v).sum(-1, keepdims=True))
    elif name == "log_softmax":
        x = jnp.where(constant, 0, v - (p * v).sum(-1, keepdims=True))
    else:
        x = jnp.where(constant, 0, v - p * v.sum(-1, keepdims=True))
    return _divide(x, t)


@functools.partial(jax.jit, static_argnames=("name", "t"))
def _product_of_values(z: Array, v: Array, *, name: str, t: float) -> Any:
    return _product.bind(z, v, name=name, t=t)


def _product_jvp(primals: Any, tangents: Any, **options: Any) -> tuple[Any, Any]:
    (z, v), (dz, dv) = primals, tangents
    terms = []
    if type(dv) is not ad.Zero:
        terms.append(_product.bind(z, dv, **options))
    if type(dz) is not ad.Zero:
        formula = functools.partial(_product_formula, v=v, **options)
        terms.append(jax.jvp(formula, (z,), (dz,))[1])
    return _product.bind(z, v, **options), sum(terms[1:], terms[0])


def _product_transpose(g: Any, z: Array, v: Any, *, name: str, t: float) -> tuple[None, Any]:
    if type(g) is ad.Zero:
        return None, g
    return None, _product.bind(z, g, name=_TRANSPOSED[name], t=t)


def _product_batched(arrays: Any, axes: Any, **options: Any) -> tuple[Array, int]:
    size = next(x.shape[a] for x, a in zip(arrays, axes, strict=True) if a is not None)
    z, v = (
        jnp.broadcast_to(x, (size, *x.shape)) if a is None else jnp.moveaxis(x, a, 0)
        for x, a in zip(arrays, axes, strict=True)
    )
    return _product.bind(z, v, **options), 0


def _product_on_cpu(context: Any, *arrays: Any, name: str, t: float) -> Any:
    if name not in _PRODUCTS:
        return mlir.lower_fun(_product_formula, multiple_results=False)(
            context, *arrays, name=name, t=t
        )
    call = jax.ffi.ffi_lowering("logitlab_products")
    function = np.int64(_PRODUCTS[name])
    return call(context, *arrays, function=function, temperature=np.float64(t))


def _product_now(z: Array, v: Array, **options: Any) -> Any:
    with jax.disable_jit(False):  # without jit the function below would call itself
        return _product_of_values(z, v, **options)


_product.def_impl(_product_now)
_product.def_abstract_eval(lambda z, v, **_: v)
ad.primitive_jvps[_product] = _product_jvp
ad.primitive_transposes[_product] = _product_transpose
batching.primitive_batchers[_product] = _product_batched
mlir.register_lowering(_product, mlir.lower_fun(_product_formula, multiple_results=False))
if available():
    mlir.register_lowering(_product, _product_on_cpu, platform="cpu")


def _rows_jvp(name: str, axis: int, t: float, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    value = rows(name, axis, t, z)
    x, dz = wide(z), wide(dz)
    if name == "logsumexp":
        p = rows("softmax", axis, t, x)
        tangent = (p * jnp.where(jnp.isinf(x), 0, dz)).sum(axis, keepdims=True)
    else:
        tangent = product(name, axis, t, x, dz)
    return value, tangent.astype(value.dtype)


rows.defjvp(_rows_jvp)


@_Compiled
def losses(axis: int, t: float, smoothing: float, z: Array, label: Array) -> Array:
    """The loss of each row's label, 0 in a row with another number as label."""
    return _losses(False, axis, t, smoothing, z, label)[0]


@_Compiled
def losses_and_residuals(
    axis: int, t: float, smoothing: float, z: Array, label: Array
) -> tuple[Array, Array]:
    """The losses and p - y, for float32 or float64."""
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
    return _divide((residual * dz).sum(axis), t).astype(loss.dtype)


def _losses_jvp(
    axis: int, t: float, smoothing: float, primals: Any, tangents: Any
) -> tuple[Array, Array]:
    (z, label), dz = primals, tangents[0]
    loss, residual = losses_and_residuals(axis, t, smoothing, wide(z), label)
    return loss, _loss_tangent(axis, t, residual, wide(dz), loss)


def _residuals_jvp(
    axis: int, t: float, smoothing: float, primals: Any, tangents: Any
) -> tuple[Any, Any]:
    (z, label), dz = primals, tangents[0]
    loss, residual = losses_and_residuals(axis, t, smoothing, z, label)
    included = jnp.expand_dims((label >= 0) & (label < z.shape[axis]), axis)
    slope = jnp.where(included, product("softmax", axis, t, z, dz), 0)
    return (loss, residual), (_loss_tangent(axis, t, residual, dz, loss), slope)


losses.defjvp(_losses_jvp)
losses_and_residuals.defjvp(_residuals_jvp)
