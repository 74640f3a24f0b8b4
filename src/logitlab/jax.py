"""The functions of logitlab where the classes of JAX arrays are divided over devices.

Every public function of logitlab takes JAX arrays as well. The functions here are called inside of
:func:`jax.shard_map`, on the classes of one device (a part of a vocabulary, say). They reduce over
the axis of the mesh by ``pmax`` and ``psum`` only: no device gets the logits of another.
The rules for types, special values, temperature and `where` are those of the functions of the same
names, and so are the values, up to the order of summation. ``jit``, ``grad`` and ``vmap`` apply.

The parts are equal in size and follow one another in the order of the devices. Where the devices do
not divide the number of classes, append logits of -inf.
"""

from collections.abc import Sequence
from typing import Any

import jax

from logitlab import _arrays, _checks
from logitlab._arrays import Request
from logitlab._backends import jax_sampling, jax_sharded
from logitlab._backends.jax_sharded import ShardedClasses
from logitlab._loss_arguments import Reduction, check_arguments, reduce_rows
from logitlab.divergences import entropy_of_probabilities
from logitlab.sampling import traced

__all__ = ["cross_entropy", "entropy", "log_softmax", "logsumexp", "sample", "softmax"]


def _sharded_classes(axis_name: Any) -> ShardedClasses:
    try:
        return ShardedClasses(axis_name)
    except (NameError, TypeError, ValueError):
        raise ValueError(
            "axis_name must be an axis of the mesh of the jax.shard_map around this call, "
            f"got {axis_name!r}"
        ) from None


def _check_type(z: Any) -> None:
    if not isinstance(z, jax.Array):
        raise TypeError(f"z must be a JAX array, got {type(z).__name__}")


def _check_call(z: Any, axis: Any, temperature: Any, where: Any) -> Request:
    _check_type(z)
    return _arrays.request(z, axis, temperature, where)


def softmax(
    z: Any, axis: Any = -1, *, axis_name: Any, temperature: Any = 1.0, where: Any = None
) -> Any:
    """Softmax of logits whose classes are divided over devices.

    Parameters
    ----------
    z : jax.Array, shape (..., K, ...)
        Logits of the K classes of this device.
    axis : int, tuple of int or None
        The class axis or axes; one of them is divided.
    axis_name : str or tuple of str
        The axis of the mesh that divides the classes, or several.
    temperature : float or array
        T, as in :func:`logitlab.softmax`; equal on all devices of `axis_name`.
    where : array of bool, optional
        Broadcasts to z. Classes where it is False are excluded.

    Returns
    -------
    jax.Array, shape of z
        The probabilities of the classes of this device; of all devices together they sum to 1.

    Raises
    ------
    TypeError
        `z` is not a JAX array; as :func:`logitlab.softmax`.
    ValueError
        `axis_name` is not an axis of the mesh; as :func:`logitlab.softmax`.

    Examples
    --------
    >>> from functools import partial
    >>> import jax
    >>> import numpy as np
    >>> from jax.sharding import Mesh, PartitionSpec
    >>> import logitlab.jax
    >>> mesh = Mesh(np.array(jax.devices()), ("classes",))
    >>> spec = PartitionSpec(None, "classes")
    >>> f = partial(logitlab.jax.softmax, axis_name="classes")
    >>> g = jax.jit(jax.shard_map(f, mesh=mesh, in_specs=spec, out_specs=spec))
    >>> g(jax.numpy.zeros((1, 4))).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    request = _check_call(z, axis, temperature, where)
    return request.restore(jax_sharded.softmax(*request[:4], _sharded_classes(axis_name)))


def log_softmax(
    z: Any, axis: Any = -1, *, axis_name: Any, temperature: Any = 1.0, where: Any = None
) -> Any:
    """Log-softmax of logits whose classes are divided over devices.

    Parameters
    ----------
    z, axis, axis_name, temperature, where
        As in :func:`softmax`.

    Returns
    -------
    jax.Array, shape of z
        Natural logarithms of the probabilities of the classes of this device.

    Raises
    ------
    TypeError, ValueError
        As :func:`softmax`.

    Examples
    --------
    >>> import jax
    >>> import logitlab.jax
    >>> z = jax.numpy.zeros((2, 2))  # one row, divided in two parts; vmap has named axes as well
    >>> f = lambda z: logitlab.jax.log_softmax(z, axis_name="classes")
    >>> round(float(jax.jit(jax.vmap(f, axis_name="classes"))(z)[0, 0]), 4)
    -1.3863
    """
    request = _check_call(z, axis, temperature, where)
    return request.restore(jax_sharded.log_softmax(*request[:4], _sharded_classes(axis_name)))


def logsumexp(
    z: Any,
    axis: Any = -1,
    *,
    axis_name: Any,
    temperature: Any = 1.0,
    where: Any = None,
    keepdims: bool = False,
) -> Any:
    """Log-sum-exp, T log sum exp(z/T), of logits whose classes are divided over devices.

    Parameters
    ----------
    z, axis, axis_name, temperature, where
        As in :func:`softmax`.
    keepdims : bool
        Keep the class axes with length 1.

    Returns
    -------
    jax.Array, shape of z without the class axes
        As of :func:`logitlab.logsumexp`, the same on all devices of `axis_name`.

    Raises
    ------
    TypeError, ValueError
        As :func:`softmax`; `keepdims` is not True or False.

    Examples
    --------
    >>> import jax
    >>> import logitlab.jax
    >>> z = jax.numpy.zeros((2, 2))  # one row, divided in two parts
    >>> f = lambda z: logitlab.jax.logsumexp(z, axis_name="classes")
    >>> round(float(jax.jit(jax.vmap(f, axis_name="classes"))(z)[0]), 4)
    1.3863
    """
    keepdims = _checks.boolean(keepdims, "keepdims")
    request = _check_call(z, axis, temperature, where)
    keepdims = keepdims and not request.no_axis
    return jax_sharded.logsumexp(*request[:4], keepdims, _sharded_classes(axis_name))


def entropy(
    z: Any, axis: int = -1, *, axis_name: Any, temperature: Any = 1.0, where: Any = None
) -> Any:
    """Shannon entropy, in nats, of distributions whose classes are divided over devices.

    Parameters
    ----------
    z
        As in :func:`softmax`.
    axis : int
        The class axis.
    axis_name, temperature, where
        As in :func:`softmax`.

    Returns
    -------
    jax.Array, shape of z without the class axis
        As of :func:`logitlab.entropy`, the same on all devices of `axis_name`.

    Raises
    ------
    TypeError, ValueError
        As :func:`softmax`.

    Examples
    --------
    >>> import jax
    >>> import logitlab.jax
    >>> z = jax.numpy.zeros((2, 2))  # one row, divided in two parts
    >>> f = lambda z: logitlab.jax.entropy(z, axis_name="classes")
    >>> round(float(jax.jit(jax.vmap(f, axis_name="classes"))(z)[0]), 4)
    1.3863
    """
    _check_type(z)
    _arrays.one_axis(axis, z.ndim)
    z, axes, t, where, _ = _arrays.request(z, axis, temperature, where)
    xp = _sharded_classes(axis_name)
    wide = _arrays.at_least_float32(z, xp)  # half types are computed in float32
    p, log_p = (f(wide, axes, t, where, xp) for f in (jax_sharded.softmax, jax_sharded.log_softmax))
    return entropy_of_probabilities(p, log_p, axes[0], xp).astype(z.dtype)


def cross_entropy(
    z: Any,
    y: Any,
    axis: int = -1,
    *,
    axis_name: Any,
    temperature: Any = 1.0,
    where: Any = None,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    ignore_index: int | Sequence[int] | None = None,
    reduction: Reduction = "mean",
) -> Any:
    """Cross-entropy with the softmax of logits whose classes are divided over devices.

    Parameters
    ----------
    z
        As in :func:`softmax`.
    y : array of int, shape of z without the class axis, or array of float, shape of z
        Labels, the same on all devices of `axis_name`: numbers among the classes of all devices,
        where those of the first device come first. Or the target probabilities of the classes of
        this device.
    axis : int
        The class axis.
    axis_name, temperature, where
        As in :func:`softmax`.
    label_smoothing, sample_weight, ignore_index, reduction
        As in :func:`logitlab.cross_entropy`. "mean" and "sum" are over the rows of this device.

    Returns
    -------
    jax.Array
        As of :func:`logitlab.cross_entropy`, the same on all devices of `axis_name`. A label that
        is out of range, where it cannot be refused, is ignored.

    Raises
    ------
    TypeError, ValueError
        As :func:`softmax` and :func:`logitlab.cross_entropy`.

    Examples
    --------
    >>> import jax
    >>> import logitlab.jax
    >>> z = jax.numpy.zeros((2, 1, 2))  # one row, divided in two parts
    >>> f = lambda z: logitlab.jax.cross_entropy(z, jax.numpy.array([3]), axis_name="classes")
    >>> round(float(jax.jit(jax.vmap(f, axis_name="classes"))(z)[0]), 4)
    1.3863
    """
    _check_type(z)
    xp = _sharded_classes(axis_name)
    arguments = check_arguments(
        z,
        y,
        axis,
        temperature,
        where,
        label_smoothing,
        sample_weight,
        ignore_index,
        reduction,
        shards=xp.shards,
    )
    loss = jax_sharded.target_loss(*arguments.request[:4], arguments.targets, xp)
    return reduce_rows(arguments, loss, reduction)


def sample(
    z: Any,
    n: int | None = None,
    axis: int = -1,
    *,
    axis_name: Any,
    temperature: Any = 1.0,
    where: Any = None,
    rng: Any,
    row_keys: Any = None,
) -> Any:
    """Samples, with replacement, of rows whose classes are divided over devices.

    The random numbers are those of :func:`logitlab.sample`, without x64 too. See the notes on when
    the samples are.

    Parameters
    ----------
    z
        As in :func:`softmax`.
    n : int, optional
        Number of samples of each row. If None, one sample of each row, without an axis for it.
    axis : int
        The class axis.
    axis_name, temperature, where
        As in :func:`softmax`.
    rng : int or traced integer
        The seed, equal on all devices of `axis_name`: ``jax.random.bits(key)`` of a key of JAX, for
        example.
    row_keys : array of int, shape of z without the class axis, optional
        The key of each row for its random numbers, as in :func:`logitlab.sample`; by default its
        flat index among the rows of this device. Where the rows are divided too, pass their numbers
        in the whole batch.

    Returns
    -------
    jax.Array of int, shape of z without the class axis, with n as a new last axis
        Numbers among the classes of all devices, the same on all devices of `axis_name`. -1 in a
        row without a distribution: with NaN, or without a class that is left.

    Raises
    ------
    TypeError, ValueError
        As :func:`softmax`; `rng` is neither an int nor a traced integer.

    Notes
    -----
    The weights exp((z - m)/T), at most 1, are computed in the widest type that JAX has enabled and
    rounded to multiples of 2^-f, f = 62 - floor(log2 K) for K classes on all devices. Their sums
    are exact: the samples do not depend on the order of summation, and a class of probability 0 is
    never sampled; nor is one whose weight is below 2^-f / 2 (1e-14 for 150 000 classes).

    :func:`logitlab.sample` adds float64 weights in float64. Its samples are the same unless a
    uniform random number falls between the two values of a sum. These are apart, relative to the
    total, by about 1e-7 without x64, as the weights are rounded to float32, and with x64 by at most
    K 2^-f / 2 (2e-9 for 150 000 classes).

    Examples
    --------
    >>> import jax
    >>> import logitlab.jax
    >>> z = jax.numpy.array([[2.0, 1.0, 3.0], [5.0, 4.0, -jax.numpy.inf]])  # a row in two parts
    >>> f = lambda z: logitlab.jax.sample(z, 10, axis_name="classes", rng=0)
    >>> jax.jit(jax.vmap(f, axis_name="classes"))(z)[0].tolist()
    [3, 3, 3, 3, 3, 3, 3, 4, 3, 3]
    """
    _check_type(z)
    count = 1 if n is None else _checks.integer(n, "n", 1)
    call = traced.check_call(z, axis, temperature, where, rng, row_keys)
    keys = call.key, call.row_keys
    xp = _sharded_classes(axis_name)
    return call.restore(jax_sampling.sample(*call.request[:4], count, *keys, xp), n)
