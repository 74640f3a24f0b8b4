"""Draws from softmax: any temperature, any truncation, the same on every machine."""

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from numpy.typing import NDArray

from logitlab import _arrays, _checks
from logitlab._backends import native_sampling
from logitlab._backends.reference_sampling import STAGES, Cut, Words
from logitlab.probabilities import log_softmax

ORDERS = {
    "transformers": ("temperature", "top_k", "top_p", "min_p"),
    "vllm": ("temperature", "min_p", "top_k", "top_p"),
    "llama.cpp": ("top_k", "top_p", "min_p", "temperature"),
}
_DISTINCT = 0x5851F42D  # tells the key of draws without replacement from that of the others


def _order(order: Any) -> tuple[str, ...]:
    if isinstance(order, str) and order in ORDERS:
        return ORDERS[order]
    if isinstance(order, tuple | list) and sorted(map(str, order)) == sorted(STAGES):
        return tuple(order)
    names = ", ".join(map(repr, ORDERS))
    raise ValueError(f"order is {order!r}; accepted: {names}, or {STAGES} in any order")


def _cut(top_k: Any, top_p: Any, min_p: Any, order: Any) -> Cut:
    """The checked truncation; what cuts nothing is left out."""
    k, p, least = top_k, top_p, min_p
    if k is not None:
        k = _checks.integer(k, "top_k", 1)
    if p is not None:
        p = _checks.real(p, "top_p", "in (0, 1]", lambda x: 0 < x <= 1)
    if least is not None:
        least = _checks.real(least, "min_p", "in [0, 1]", lambda x: 0 <= x <= 1)
    return Cut(_order(order), k, None if p == 1 else p, None if least == 0 else least)


def _key(rng: Any) -> tuple[int, int]:
    """The two words of the generator's key."""
    if rng is None or isinstance(rng, int | np.integer):
        if rng is not None and rng < 0:
            raise ValueError(f"rng is {rng}; accepted: an int from 0 up, or a generator")
        a, b = np.random.SeedSequence(None if rng is None else int(rng)).generate_state(2)
        return int(a), int(b)
    if isinstance(rng, np.random.Generator):
        word = int(rng.integers(0, 2**64, dtype=np.uint64))
    elif type(rng).__module__.partition(".")[0] == "torch" and hasattr(rng, "initial_seed"):
        import torch

        at = (1,)
        word = int(torch.randint(-(2**63), 2**63 - 1, at, generator=rng, device=rng.device)[0])
    else:
        raise TypeError(
            f"rng is a {type(rng).__name__}; accepted: None, an int, a numpy.random.Generator or a "
            "torch.Generator"
        )
    return word & 0xFFFFFFFF, word >> 32 & 0xFFFFFFFF


def _row_keys(row_keys: Any, batch: tuple[int, ...]) -> Words:
    if row_keys is None:
        return np.arange(int(np.prod(batch)), dtype=np.uint64)
    keys = _arrays.on_host(_arrays.as_array(row_keys, "row_keys"))
    if keys.dtype.kind not in "iu":
        raise TypeError(f"row_keys has type {keys.dtype}; accepted: integers")
    if tuple(keys.shape) != batch:
        raise ValueError(
            f"row_keys has shape {keys.shape}; accepted: one for each row of z, shape {batch}"
        )
    return np.ascontiguousarray(keys.astype(np.uint64).reshape(-1))


class _Call(NamedTuple):
    request: _arrays.Request
    batch: tuple[int, ...]
    arguments: tuple[Any, int, Any, Any]  # z, axis, temperature and where, as NumPy sees them


def _call(z: Any, axis: Any, temperature: Any, where: Any) -> _Call:
    z = _arrays.as_floating(z, "z")
    _arrays.one_axis(axis, z.ndim)
    q = _arrays.request(z, axis, temperature, where)
    batch = tuple(n for a, n in enumerate(q.z.shape) if a not in q.axes)
    t = q.temperature
    if not isinstance(t, float):
        # Some libraries have no float64 enabled, which is what the kernels read.
        t = _arrays.on_host(t).astype(np.float64, copy=False)
    mask = None if q.where is None else _arrays.on_host(q.where)
    host = (_arrays.on_host(q.z), q.axes[0], t, mask)
    return _Call(q, batch, host)


def _scalar(x: Any) -> Any:
    """As NumPy's reductions, a 0-d NumPy array is delivered as a scalar."""
    return x[()] if isinstance(x, np.ndarray) and x.ndim == 0 else x


def _like(found: NDArray[Any], z: Any) -> Any:
    """A NumPy result in z's kind, on its device."""
    if isinstance(z, np.ndarray):
        return found
    if is_torch_array(z):
        import torch

        return torch.from_numpy(found).to(z.device)
    return array_namespace(z).asarray(found, device=getattr(z, "device", None))


def _indices(
    call: _Call, n: Any, cut: Cut, replacement: bool, rng: Any, row_keys: Any
) -> NDArray[np.int64]:
    """Of shape batch + (n,); batch where n is None."""
    count = 1 if n is None else _checks.integer(n, "n", 1)
    keys = _row_keys(row_keys, call.batch)
    a, b = _key(rng)
    key = (a if replacement else a ^ _DISTINCT, b)
    found = native_sampling.sample(*call.arguments, cut, count, replacement, key, keys)

    def first(bad: Any) -> str:
        place = np.unravel_index(int(np.argmax(bad)), call.batch)
        return f"row {place[0] if len(place) == 1 else tuple(map(int, place))}" if place else "z"

    if (bad := found[:, 0] < 0).any():
        raise ValueError(
            f"{first(bad)} has no distribution to draw from: it holds NaN, or nothing is left"
        )
    if not replacement and (bad := found[:, -1] < 0).any():
        size = int((found[np.argmax(bad)] >= 0).sum())
        raise ValueError(f"n is {count}; {first(bad)} has {size} categories to draw from")
    return found.reshape(call.batch if n is None else (*call.batch, count))


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
    r"""Logits with what a truncation cuts at -inf.

    Each stage looks at the distribution that the stages before it left.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, of any kind that :func:`logitlab.softmax` takes.
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one for each row. It decides what `top_p` and `min_p` keep; at T < 0 small
        logits are the large ones. The result is z itself, not z/T.
    top_k : int, optional
        Keeps the k largest logits and every tie of the k-th.
    top_p : float, optional
        Keeps the smallest set of largest logits (equal ones by lower index) whose mass is at
        least p, in (0, 1]; 1 keeps all.
    min_p : float, optional
        Keeps what is at least `min_p` times as probable as the most probable, in [0, 1].
    order : {"transformers", "vllm", "llama.cpp"} or tuple of str
        In which order the stages apply: transformers' is temperature, top_k, top_p, min_p;
        vLLM's temperature, min_p, top_k, top_p; llama.cpp's top_k, top_p, min_p, temperature. A
        tuple names all four in any order.
    where : array of bool, optional
        Broadcasts to z. Classes where it is False are excluded: -inf.

    Returns
    -------
    array, shape of z
        Of z's kind and type. A row without a distribution (NaN, or nothing left) loses only what
        `where` excludes.

    Raises
    ------
    TypeError
        `top_k` is not an int; as :func:`logitlab.softmax`.
    ValueError
        `top_k` below 1, `top_p` outside (0, 1], `min_p` outside [0, 1], an unknown order; as
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
    cut = _cut(top_k, top_p, min_p, order)
    call = _call(z, axis, temperature, where)
    q = call.request
    xp = array_namespace(q.z)
    kept = _like(native_sampling.keep(*call.arguments, cut), q.z)
    return q.restore(xp.where(kept, q.z, xp.asarray(-xp.inf, dtype=q.z.dtype)))


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
    r"""Categories drawn from the softmax of logits.

    By inverse CDF, with one 64-bit uniform a draw. Draw j of row r is a function of that row, the
    seed, the row's key and j alone: not of the batch, the threads or the machine. A category of
    probability 0 is never drawn, and there may be any number of categories.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, of any kind that :func:`logitlab.softmax` takes.
    n : int, optional
        Draws from each row; without it one, and no axis for it.
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one for each row. T = 0 draws evenly among tied maxima.
    top_k, top_p, min_p, order
        What is cut before drawing, as in :func:`truncate`.
    where : array of bool, optional
        Broadcasts to z. Classes where it is False are never drawn.
    replacement : bool
        Whether a category may come twice. Without replacement the n categories are in the order
        in which they would be drawn one after another.
    rng : int, numpy.random.Generator, torch.Generator or None
        An int repeats its draws on every call. A Generator gives a fresh key and advances. None
        draws anew.
    row_keys : array of int, shape of z without the class axis, optional
        The identity of each row for its random numbers, by default its number in the batch (in C
        order). A batch cut in two draws what the whole would have drawn if each row keeps its key.

    Returns
    -------
    array of int64, shape of z without the class axis, with n as a new last axis
        Of z's kind, on its device.

    Raises
    ------
    TypeError
        As :func:`truncate`; an `rng` of another kind.
    ValueError
        A row with NaN, or with nothing left (the first is named); without replacement, n larger
        than the number of categories left; as :func:`truncate`.

    Notes
    -----
    The random numbers are Philox4x32-10 of J. K. Salmon et al., "Parallel random numbers: as easy
    as 1, 2, 3", SC11 (2011). Without replacement: the n largest of z/T plus Gumbel noise, W. Kool,
    H. van Hoof and M. Welling, "Stochastic beams and where to find them", ICML 2019.

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
    cut = _cut(top_k, top_p, min_p, order)
    call = _call(z, axis, temperature, where)
    found = _indices(call, n, cut, replacement, rng, row_keys)
    return _scalar(_like(found, call.request.z))


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
    r"""Categories drawn as by :func:`sample`, and the logarithms of their probabilities.

    Parameters
    ----------
    z, n, axis, temperature, top_k, top_p, min_p, order, where, replacement, rng, row_keys
        As in :func:`sample`.

    Returns
    -------
    indices : array of int64
        What :func:`sample` gives.
    log_prob : array, same shape
        Natural logarithms in z's type, of the distribution after truncation and temperature:
        that from which a single draw is made, without replacement too. For torch tensors it is
        part of the graph.

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
    cut = _cut(top_k, top_p, min_p, order)
    call = _call(z, axis, temperature, where)
    found = _indices(call, n, cut, replacement, rng, row_keys)
    q = call.request
    xp = array_namespace(q.z)
    kept = where
    if cut.filters():
        kept = q.restore(_like(native_sampling.keep(*call.arguments, cut), q.z))
    log_p = log_softmax(q.restore(q.z), axis, temperature=temperature, where=kept)
    last = xp.moveaxis(log_p[None] if q.no_axis else log_p, axis, -1)
    rows = xp.reshape(last, (*call.batch, last.shape[-1]))
    draws = 1 if n is None else found.shape[-1]
    places = _like(found.reshape(*call.batch, draws), q.z)
    drawn = xp.reshape(xp.take_along_axis(rows, places, axis=-1), found.shape)
    return _scalar(_like(found, q.z)), _scalar(drawn)
