"""Truncation of distributions (top-k, top-p, min-p) and sampling from the softmax of logits."""

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from numpy.typing import NDArray

from logitlab import _arrays, _checks, _dispatch
from logitlab._backends import native_sampling
from logitlab._backends.reference_sampling import STAGES, Cut, Words
from logitlab.probabilities import log_softmax

ORDERS = {
    "transformers": ("temperature", "top_k", "top_p", "min_p"),
    "vllm": ("temperature", "min_p", "top_k", "top_p"),
    "llama.cpp": ("top_k", "top_p", "min_p", "temperature"),
}
_LARGEST_KEY = 2**64 - 1
# Those whose raw numbers have 64 bits.
_WORD_GENERATORS = (
    np.random.PCG64,
    np.random.PCG64DXSM,
    np.random.Philox,
    np.random.SFC64,
)
_NO_REPLACEMENT = 0x5851F42D  # xor-ed into the key, so that both kinds of sampling differ


def _check_order(order: Any) -> tuple[str, ...]:
    if isinstance(order, str) and order in ORDERS:
        return ORDERS[order]
    if isinstance(order, tuple | list) and sorted(map(str, order)) == sorted(STAGES):
        return tuple(order)
    names = ", ".join(map(repr, ORDERS))
    raise ValueError(f"order must be {names} or a permutation of {STAGES}, got {order!r}")


def _check_truncation(top_k: Any, top_p: Any, min_p: Any, order: Any) -> Cut:
    """The checked truncation; None for a stage that keeps every class."""
    if top_k is not None:
        top_k = _checks.integer(top_k, "top_k", 1)
    if top_p is not None:
        top_p = _checks.real(top_p, "top_p", "in (0, 1]", lambda x: 0 < x <= 1)
    if min_p is not None:
        min_p = _checks.real(min_p, "min_p", "in [0, 1]", lambda x: 0 <= x <= 1)
    return Cut(
        _check_order(order), top_k, None if top_p == 1 else top_p, None if min_p == 0 else min_p
    )


def _generator_key(rng: Any) -> tuple[int, int]:
    """The two 32-bit words of the key of the counter-based generator."""
    is_seed = hasattr(rng, "__index__") and np.ndim(rng) == 0 and not _checks.is_boolean(rng)
    rng = _checks.integer(rng, "rng") if is_seed else rng
    if rng is None or (is_seed and rng >= 0):
        a, b = np.random.SeedSequence(None if rng is None else int(rng)).generate_state(2)
        return int(a), int(b)
    if isinstance(rng, np.random.Generator):
        word = _random_word(rng)
    elif type(rng).__module__.partition(".")[0] == "torch" and hasattr(rng, "initial_seed"):
        import torch

        shape = (1,)
        low, high = -(2**63), 2**63 - 1
        word = int(torch.randint(low, high, shape, generator=rng, device=rng.device)[0])
    else:
        raise (ValueError if is_seed else TypeError)(
            "rng must be None, an int >= 0, a numpy.random.Generator or a torch.Generator, "
            f"got {rng!r}"
        )
    return word & 0xFFFFFFFF, word >> 32 & 0xFFFFFFFF


def _random_word(rng: np.random.Generator) -> int:
    """The next 64 random bits of a generator."""
    if type(rng.bit_generator) in _WORD_GENERATORS:
        return int(rng.bit_generator.random_raw())  # the same number, and faster
    return int(rng.integers(0, 2**64, dtype=np.uint64))


def _check_row_keys(row_keys: Any, batch: tuple[int, ...]) -> Words:
    """One 64-bit key for each row: by default its flat index."""
    if row_keys is None:
        return np.arange(int(np.prod(batch)), dtype=np.uint64)
    keys = _arrays.on_host(_arrays.as_array(row_keys, "row_keys"), "row_keys")
    dtype = keys.dtype
    if dtype.kind == "f" and isinstance(row_keys, list | tuple):
        # So NumPy converts a list with integers above 2^63.
        keys = np.array(row_keys, object)
    integral = keys.dtype.kind in "iu" or all(type(key) is int for key in keys.flat)
    if not integral:
        raise TypeError(f"row_keys must be an integer array, got {dtype}")
    if tuple(keys.shape) != batch:
        raise ValueError(f"row_keys must have the batch shape {batch} of z, got shape {keys.shape}")
    keys = keys.reshape(-1)
    if keys.dtype.kind != "u" and (outside := (keys < 0) | (keys > _LARGEST_KEY)).any():
        row = int(outside.argmax())
        raise ValueError(f"row_keys must be from 0 to 2**64 - 1, got {keys[row]} in row {row}")
    return np.ascontiguousarray(keys.astype(np.uint64))


class _Call(NamedTuple):
    request: _arrays.Request
    batch: tuple[int, ...]
    arguments: tuple[Any, int, Any, Any]  # z, axis, temperature and where, as NumPy arrays


def _check_call(z: Any, axis: Any, temperature: Any, where: Any) -> _Call:
    z = _arrays.as_floating(z, "z")
    _arrays.one_axis(axis, z.ndim)
    request = _arrays.request(z, axis, temperature, where)
    batch = tuple(n for a, n in enumerate(request.z.shape) if a not in request.axes)
    t = request.temperature
    if not isinstance(t, float):
        # The kernels read float64, which some libraries have not enabled.
        t = _arrays.on_host(t, "temperature").astype(np.float64, copy=False)
    mask = None if request.where is None else _arrays.on_host(request.where, "where")
    return _Call(request, batch, (_arrays.on_host(request.z), request.axes[0], t, mask))


def _to_library_of(z: Any, x: NDArray[Any]) -> Any:
    """A NumPy array as an array of the library and on the device of z."""
    if isinstance(z, np.ndarray):
        return x
    if is_torch_array(z):
        import torch

        return torch.from_numpy(x).to(z.device)
    return array_namespace(z).asarray(x, device=getattr(z, "device", None))


def _take_classes(x: Any, classes: Any, xp: Any) -> Any:
    """The entries of x, (..., K), at these classes, (..., n)."""
    if hasattr(xp, "take_along_axis"):
        return xp.take_along_axis(x, classes, axis=-1)
    all_classes = xp.arange(x.shape[-1])  # Dask
    columns = [classes[..., j : j + 1] for j in range(classes.shape[-1])]
    taken = [xp.sum(xp.where(all_classes == c, x, 0.0), axis=-1) for c in columns]
    return xp.stack(taken, axis=-1)


def _sample_indices(
    call: _Call, n: Any, cut: Cut, replacement: Any, rng: Any, row_keys: Any
) -> NDArray[np.int64]:
    """Sampled indices of shape batch + (n,), or of the batch shape if n is None."""
    count = 1 if n is None else _checks.integer(n, "n", 1)
    replacement = _checks.boolean(replacement, "replacement")
    keys = _check_row_keys(row_keys, call.batch)
    if count * len(keys) >= 2**60:
        raise MemoryError(f"{len(keys)} x {count} samples do not fit in memory")
    a, b = _generator_key(rng)
    key = (a if replacement else a ^ _NO_REPLACEMENT, b)
    indices = native_sampling.sample(*call.arguments, cut, count, replacement, key, keys)

    def row_label(flat: int) -> str:
        index = tuple(map(int, np.unravel_index(flat, call.batch)))
        return f"row {index[0] if len(index) == 1 else index}" if index else "z"

    # The backends write -1 where no category is left.
    if (missing := indices[:, 0] < 0).any():
        row = row_label(int(np.argmax(missing)))
        raise ValueError(f"{row} has no distribution: it contains NaN, or no category is left")
    if not replacement and (missing := indices[:, -1] < 0).any():
        flat = int(np.argmax(missing))
        size = int((indices[flat] >= 0).sum())
        raise ValueError(
            f"n must be <= {size} without replacement, got {count}: "
            f"{row_label(flat)} has {size} categories"
        )
    return indices.reshape(call.batch if n is None else (*call.batch, count))


@_dispatch.breaks_graph
def truncate(
    z: Any,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    order: Any = "transformers",
    where: Any = None,
) -> Any:
    r"""Logits with the classes that top-k, top-p and min-p remove set to -inf.

    The stages apply one after another: each uses the distribution, renormalized, of the classes
    that the stages before it kept.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, in any array type that :func:`logitlab.softmax` accepts.
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one value for each row. It affects what `top_p` and `min_p` keep; at T < 0
        the smallest logits are the most probable. The result contains entries of z, not of z/T.
    top_k : int, optional
        Keep the k most probable classes and all that are tied with the k-th, k >= 1.
    top_p : float, optional
        Keep the smallest set of most probable classes whose total probability is at least p, in
        (0, 1]. Of equal logits, those of lower index come first. 1 keeps all classes.
    min_p : float, optional
        Keep the classes whose probability is at least `min_p` times the largest, in [0, 1].
    order : {"transformers", "vllm", "llama.cpp"} or tuple of str
        Order of the stages. transformers: temperature, top_k, top_p, min_p. vLLM: temperature,
        min_p, top_k, top_p. llama.cpp: top_k, top_p, min_p, temperature. A tuple is a permutation
        of the four names.
    where : array of bool, optional
        Broadcasts to z. Classes where it is False are excluded: they are -inf in the result.

    Returns
    -------
    array, shape of z
        Of the array type and dtype of z. In a row without a distribution (NaN, or no class left)
        only the classes excluded by `where` are -inf.

    Raises
    ------
    TypeError
        `top_k` is not an int, `top_p` or `min_p` is not a real number; as :func:`logitlab.softmax`.
    ValueError
        `top_k` is below 1, `top_p` outside (0, 1], `min_p` outside [0, 1], `order` is unknown; as
        :func:`logitlab.softmax`.

    References
    ----------
    A. Fan, M. Lewis and Y. Dauphin, "Hierarchical neural story generation", ACL 2018 (top-k).
    A. Holtzman, J. Buys, L. Du, M. Forbes and Y. Choi, "The curious case of neural text
    degeneration", ICLR 2020 (top-p). M. Nguyen et al., "Turning up the heat: min-p sampling for
    creative and coherent LLM outputs", ICLR 2025.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.truncate([1.0, 4.0, 2.0, 2.0], top_k=2)
    array([-inf,   4.,   2.,   2.])
    >>> logitlab.truncate([1.0, 4.0, 2.0, 2.0], top_p=0.8)
    array([-inf,   4.,   2., -inf])
    """
    cut = _check_truncation(top_k, top_p, min_p, order)
    call = _check_call(z, axis, temperature, where)
    request = call.request
    xp = array_namespace(request.z)
    kept = _to_library_of(request.z, native_sampling.keep(*call.arguments, cut))
    device = getattr(request.z, "device", None)
    excluded = xp.asarray(-xp.inf, dtype=request.z.dtype, device=device)
    truncated = xp.where(kept, request.z, excluded)
    return request.restore(truncated)


@_dispatch.breaks_graph
def sample(
    z: Any,
    n: int | None = None,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    order: Any = "transformers",
    where: Any = None,
    replacement: bool = True,
    rng: Any = None,
    row_keys: Any = None,
) -> Any:
    r"""Samples from the categorical distribution softmax(z / T) of each row.

    Inverse-CDF sampling with one 64-bit uniform random number a sample. Sample j of a row depends
    only on the row, its key, the seed and j: not on the batch, the threads or the machine. A
    category of probability 0 is never sampled. The number of categories is not limited.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, in any array type that :func:`logitlab.softmax` accepts.
    n : int, optional
        Number of samples of each row. If None, one sample of each row, without an axis for it.
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one value for each row. T = 0 samples uniformly from the tied maxima.
    top_k, top_p, min_p, order
        Truncation before sampling, as in :func:`truncate`.
    where : array of bool, optional
        Broadcasts to z. Classes where it is False are never sampled.
    replacement : bool
        Whether to sample with replacement. Without, the n categories of a row are distinct and in
        the order of successive draws.
    rng : int, numpy.random.Generator, torch.Generator or None
        An int is a seed: every call returns the same samples. A Generator advances, so that the
        next call returns other samples. None uses a random seed.
    row_keys : array of int, shape of z without the class axis, optional
        The key of each row for its random numbers; by default its flat index in the batch. The
        parts of a split batch give the samples of the whole batch if every row keeps its key.

    Returns
    -------
    array of int64, shape of z without the class axis, with n as a new last axis
        Indices along the class axis, in the array type and on the device of z.

    Raises
    ------
    TypeError
        As :func:`truncate`; `rng` is of another type.
    ValueError
        A row contains NaN or has no category left (the error names the first); `n` is larger than
        the number of categories left, without replacement; as :func:`truncate`.

    Notes
    -----
    The random number generator is Philox4x32-10 (J. K. Salmon et al., "Parallel random numbers: as
    easy as 1, 2, 3", SC11, 2011). Sampling without replacement takes the n largest values of z/T
    plus Gumbel noise (W. Kool, H. van Hoof and M. Welling, "Stochastic beams and where to find
    them", ICML 2019).

    Examples
    --------
    >>> import logitlab
    >>> logitlab.sample([2.0, 1.0, 3.0, 5.0, 4.0], 10, rng=0)
    array([3, 3, 3, 3, 3, 3, 3, 4, 3, 3])
    >>> logitlab.sample([[1.0, 2.0], [5.0, 0.0]], temperature=0)
    array([1, 0])
    >>> logitlab.sample([2.0, 1.0, 3.0, 5.0, 4.0], 3, replacement=False, rng=0)
    array([3, 4, 2])
    """
    given = any(x is not None for x in (n, top_k, top_p, min_p, where, row_keys))
    has_options = given or replacement is not True or order != "transformers"
    # A call of which nothing else can fail, so that one key is drawn.
    if not has_options and native_sampling.covers_plain_sample(z, axis, temperature):
        found = native_sampling.plain_sample(z, axis, temperature, _generator_key(rng))
        if found is not None:
            return found
    cut = _check_truncation(top_k, top_p, min_p, order)
    call = _check_call(z, axis, temperature, where)
    indices = _sample_indices(call, n, cut, replacement, rng, row_keys)
    return _arrays.scalar(_to_library_of(call.request.z, indices))


@_dispatch.breaks_graph
def sample_with_log_prob(
    z: Any,
    n: int | None = None,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    order: Any = "transformers",
    where: Any = None,
    replacement: bool = True,
    rng: Any = None,
    row_keys: Any = None,
) -> tuple[Any, Any]:
    r"""Samples as of :func:`sample`, and the log-probabilities of the sampled categories.

    Parameters
    ----------
    z, n, axis, temperature, top_k, top_p, min_p, order, where, replacement, rng, row_keys
        As in :func:`sample`.

    Returns
    -------
    indices : array of int64
        As of :func:`sample`.
    log_prob : array, same shape
        Natural logarithms, in the dtype of z, of the probabilities after truncation and
        temperature. Without replacement too they are those of a single draw. For torch tensors
        they are differentiable.

    Raises
    ------
    TypeError, ValueError
        As :func:`sample`.

    Examples
    --------
    >>> import logitlab
    >>> index, log_prob = logitlab.sample_with_log_prob([1.0, 4.0, 4.0, 2.0], top_k=2, rng=0)
    >>> print(index, log_prob.round(4))
    2 -0.6931
    """
    cut = _check_truncation(top_k, top_p, min_p, order)
    call = _check_call(z, axis, temperature, where)
    indices = _sample_indices(call, n, cut, replacement, rng, row_keys)
    request = call.request
    xp = array_namespace(request.z)
    kept = where
    if cut.filters():
        mask = native_sampling.keep(*call.arguments, cut)
        kept = request.restore(_to_library_of(request.z, mask))
    log_p = log_softmax(request.restore(request.z), axis, temperature=temperature, where=kept)
    log_p = xp.moveaxis(log_p[None] if request.no_axis else log_p, axis, -1)
    log_p = xp.reshape(log_p, (*call.batch, log_p.shape[-1]))
    count = 1 if n is None else indices.shape[-1]
    positions = _to_library_of(request.z, indices.reshape(*call.batch, count))
    log_prob = xp.reshape(_take_classes(log_p, positions, xp), indices.shape)
    return _arrays.scalar(_to_library_of(request.z, indices)), _arrays.scalar(log_prob)
