"""Functions of NumPy arrays in programs of JAX.

`jax.pure_callback` copies the arguments to arrays of JAX first. On the CPU that copy waits for a
thread, and never ends if all threads are in such calls: https://github.com/jax-ml/jax/issues/25861.
Here the function gets the arguments themselves.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

_callback = Primitive("logitlab_callback")


def call(function: Callable[..., Any], shape: jax.ShapeDtypeStruct, *arrays: Array) -> Any:
    """The result, of this shape and type, of a function without side effects.

    Under vmap it is called for each entry of the batch.
    """
    return _callback.bind(*arrays, function=function, shape=shape)


def _lower(context: Any, *arrays: Any, function: Callable[..., Any], shape: Any) -> Any:
    results, _, keep_alive = mlir.emit_python_callback(
        context,
        lambda *arrays: (function(*arrays),),
        None,
        list(arrays),
        context.avals_in,
        context.avals_out,
        has_side_effect=False,
    )
    if keep_alive is not None:
        context.module_context.add_keepalive(keep_alive)
    return results


def _batched(arrays: Sequence[Array], axes: Sequence[Any], **options: Any) -> tuple[Array, int]:
    mapped = tuple(
        jnp.moveaxis(x, a, 0) for x, a in zip(arrays, axes, strict=True) if a is not None
    )

    def of_entry(entries: tuple[Array, ...]) -> Array:
        entry = iter(entries)
        pairs = zip(arrays, axes, strict=True)
        result: Array = _callback.bind(
            *(x if a is None else next(entry) for x, a in pairs), **options
        )
        return result

    return jax.lax.map(of_entry, mapped), 0


_callback.def_impl(lambda *arrays, function, shape: jnp.asarray(function(*map(np.asarray, arrays))))
_callback.def_abstract_eval(
    lambda *_, function, shape: jax.core.ShapedArray(shape.shape, shape.dtype)
)
batching.primitive_batchers[_callback] = _batched
mlir.register_lowering(_callback, _lower)
