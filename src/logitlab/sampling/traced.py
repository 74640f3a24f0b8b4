"""Samples in functions that JAX traces, such as those under jit."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from logitlab import _arrays, _checks, _tracing
from logitlab._backends import jax_callback, jax_sampling
from logitlab._backends.jax_sampling import Pair
from logitlab._backends.reference_sampling import Words
from logitlab.sampling import calls
from logitlab.sampling.calls import Call
from logitlab.sampling.draws import Key, check_row_keys, generator_key


class TracedCall(NamedTuple):
    """The checked arguments of a traced call."""

    request: _arrays.Request  # a row whose temperature is NaN is NaN
    batch: tuple[int, ...]
    key: Pair
    row_keys: Pair

    def restore(self, indices: Array, n: int | None) -> Array:
        """The indices, (rows, n), in the shape of the batch; n is None for one of each row."""
        return indices.reshape(self.batch if n is None else (*self.batch, n))


def _words(x: Any) -> Pair:
    """NumPy integers of 64 bits as pairs of words."""
    return jnp.asarray(x.astype(np.uint32)), jnp.asarray((x >> np.uint64(32)).astype(np.uint32))


def _check_key(rng: Any) -> Pair:
    # A trace would record the random key of None or of a generator as a constant.
    rule = "an int or a traced integer where JAX traces the call, such as jax.random.bits(key)"
    if not _tracing.has_values(rng):
        if rng.ndim or not jnp.issubdtype(rng.dtype, jnp.integer):
            raise TypeError(f"rng must be {rule}, got a traced {rng.dtype}{list(rng.shape)}")
        return jax_sampling.key_of_seed(rng)
    try:
        seed = _checks.integer(rng, "rng", 0)
    except TypeError:
        raise TypeError(f"rng must be {rule}, got {rng!r}") from None
    a, b = generator_key(seed)
    return jnp.asarray(np.uint32(a)), jnp.asarray(np.uint32(b))


def _check_row_keys(row_keys: Any, batch: tuple[int, ...]) -> Pair:
    if _tracing.has_values(row_keys):
        return _words(check_row_keys(row_keys, batch))
    if not jnp.issubdtype(row_keys.dtype, jnp.integer):
        raise TypeError(f"row_keys must be an integer array, got {row_keys.dtype}")
    if row_keys.shape != batch:
        raise ValueError(
            f"row_keys must have the batch shape {batch} of z, got shape {row_keys.shape}"
        )
    return jax_sampling.split(row_keys.reshape(-1))


def check_call(
    z: Any, axis: Any, temperature: Any, where: Any, rng: Any, row_keys: Any
) -> TracedCall:
    """Check the arguments; negative numbers among traced ones are taken modulo 2^64."""
    z = jnp.asarray(_arrays.as_floating(z, "z"))
    _arrays.one_axis(axis, z.ndim)
    request = _arrays.request(z, axis, temperature, where)
    batch = tuple(n for a, n in enumerate(request.z.shape) if a not in request.axes)
    z, t = jax.lax.stop_gradient(request.z), request.temperature
    if not isinstance(t, float):
        t = jax.lax.stop_gradient(t)
        z = jnp.where(jnp.isnan(t), jnp.nan, z)
    request = request._replace(z=z, temperature=t)
    return TracedCall(request, batch, _check_key(rng), _check_row_keys(row_keys, batch))


def check_dynamic_temperature(traced: TracedCall, width: Any) -> None:
    """As :func:`calls.check_dynamic_temperature`, which reads the temperature."""
    t = traced.request.temperature
    if not isinstance(t, float):
        raise TypeError(
            "temperature must be a number with dynatemp_range where JAX traces the call, got an "
            f"array of shape {tuple(t.shape)}"
        )
    arguments = None, traced.request.axes[0], t, None
    calls.check_dynamic_temperature(Call(traced.request, traced.batch, arguments), width)


def sample(
    traced: TracedCall, n: int, on_host: Callable[[Call, Key, Words], Any], has_formula: bool
) -> Array:
    """The indices, (rows, n), that `on_host` returns for NumPy arrays, which JAX calls.

    With `has_formula` other platforms than the CPU compute them from the weights of z instead.
    """
    z, axes, temperature, where, _ = traced.request
    is_number = isinstance(temperature, float)
    rows = traced.row_keys[0].shape[0]
    arrays = z, None if is_number else temperature, where, traced.key, traced.row_keys
    leaves, structure = jax.tree.flatten(arrays)
    shape = jax.ShapeDtypeStruct((rows, n), jnp.result_type(int))

    def sample_on_host(*leaves: Any) -> Any:
        z, t, where, key, row_keys = jax.tree.unflatten(structure, leaves)
        t = temperature if is_number else t.astype(np.float64)
        low, high = (word.astype(np.uint64) for word in row_keys)
        request = _arrays.Request(z, axes, t, where, False)
        call = Call(request, traced.batch, (z, axes[0], t, where))
        indices = on_host(call, (int(key[0]), int(key[1])), low | high << np.uint64(32))
        return indices.astype(shape.dtype)

    def by_callback(*leaves: Any) -> Any:
        return jax_callback.call(sample_on_host, shape, *leaves)

    def by_formula(*leaves: Any) -> Any:
        z, t, where, key, row_keys = jax.tree.unflatten(structure, leaves)
        t = temperature if is_number else t
        return jax_sampling.sample(z, axes, t, where, n, key, row_keys, jnp)

    if not has_formula:
        return by_callback(*leaves)
    return jax.lax.platform_dependent(*leaves, cpu=by_callback, default=by_formula)
