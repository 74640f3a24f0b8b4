"""The functions of jax.numpy for arrays whose class axis is divided over an axis of a mesh."""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array, lax

from logitlab._arrays import Axes
from logitlab._backends.reference import (
    _log_softmax,
    _of_weights,
    _signed_logsumexp,
    _softmax,
    _target_loss,
)
from logitlab._backends.targets import Targets


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _max(x: Array, axis: Any, axis_name: Any) -> Array:
    """The maximum over the shards, with the class axes kept: pmax has no derivative."""
    return lax.pmax(jnp.max(x, axis=axis, keepdims=True), axis_name)


def _max_jvp(axis: Any, axis_name: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    """The mean of the tangents of the largest entries, as of jax.numpy.max."""
    (x,), (dx,) = primals, tangents
    m = _max(x, axis, axis_name)
    total, count = (
        lax.psum(jnp.sum(v, axis=axis, keepdims=True), axis_name)
        for v in (jnp.where(x == m, dx, 0), (x == m).astype(x.dtype))
    )
    return m, total / count


_max.defjvp(_max_jvp)


class ShardedClasses:
    """jax.numpy, where reductions and class numbers include the classes of all shards.

    Inside of a function that is mapped over `axis_name`, whose shards have equal numbers of classes
    and follow one another.
    """

    def __init__(self, axis_name: Any) -> None:
        self.axis_name = axis_name
        self.shards = lax.psum(1, axis_name)  # a constant

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    def sum(self, x: Array, *, axis: Any, keepdims: bool = False) -> Array:
        return lax.psum(jnp.sum(x, axis=axis, keepdims=keepdims), self.axis_name)

    def max(self, x: Array, *, axis: Any, keepdims: Literal[True]) -> Array:
        return _max(x, axis, self.axis_name)

    def any(self, x: Array, *, axis: Any, keepdims: bool = False) -> Array:
        return self.sum(x.astype(jnp.int32), axis=axis, keepdims=keepdims) > 0

    def arange(self, size: int, **_: Any) -> Array:
        """The numbers of the classes of this shard, of which there are `size`."""
        return lax.axis_index(self.axis_name) * size + jnp.arange(size)


def prepared(z: Array, t: float | Array) -> tuple[Array, float | Array]:
    """z with the derivative 0 at infinite entries, as that of the kernels; and T.

    A subnormal T, which XLA may replace by 0, becomes the smallest normal number.
    """
    smallest = float(jnp.finfo(jnp.result_type(float)).tiny)
    t = math.copysign(max(abs(t), smallest), t) if isinstance(t, float) and t else t
    return jnp.where(jnp.isinf(z), lax.stop_gradient(z), z), t


def softmax(
    z: Array, axis: Axes, t: float | Array, where: Array | None, xp: ShardedClasses
) -> Array:
    """As the function of the reference, for a shard of the classes; so are the next ones."""
    x, t = prepared(z, t)
    return _of_weights(_softmax, x, axis, t, where, xp).astype(z.dtype)


def log_softmax(
    z: Array, axis: Axes, t: float | Array, where: Array | None, xp: ShardedClasses
) -> Array:
    x, t = prepared(z, t)
    return _of_weights(_log_softmax, x, axis, t, where, xp).astype(z.dtype)


def logsumexp(
    z: Array,
    axis: Axes,
    t: float | Array,
    where: Array | None,
    keepdims: bool,
    xp: ShardedClasses,
) -> Array:
    z, t = prepared(z, t)
    return _signed_logsumexp(z, axis, t, where, keepdims, None, xp)[0]


def target_loss(
    z: Array,
    axis: Axes,
    t: float | Array,
    where: Array | None,
    targets: Targets,
    xp: ShardedClasses,
) -> Array:
    """The loss of each row, in the widest type."""
    z, t = prepared(z, t)
    return _target_loss(z, axis, t, where, targets, None, xp)[0]
