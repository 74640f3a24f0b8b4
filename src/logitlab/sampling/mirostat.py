"""Mirostat: sampling with a truncation that is controlled to a target surprise."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays, _checks, _dispatch
from logitlab.sampling.calls import Call, check_call, to_library_of
from logitlab.sampling.sampler import Sampler

_LARGEST_LOGITS = 100  # from which version 1 estimates the exponent of Zipf's law


def _check_mu(mu: Any, batch: tuple[int, ...]) -> NDArray[np.float64]:
    values = _arrays.on_host(_arrays.as_floating(mu, "mu"), "mu").astype(np.float64)
    try:
        values = np.broadcast_to(values, batch)
    except ValueError:
        raise ValueError(
            f"mu must be a number or broadcast to the batch shape {batch} of z, "
            f"got shape {values.shape}"
        ) from None
    if (nan := np.isnan(values)).any():
        index = tuple(map(int, np.unravel_index(int(np.argmax(nan)), batch)))
        raise ValueError(
            f"mu must not be nan{f', got nan in {_checks.row_label(index)}' if index else ''}"
        )
    return values


@np.errstate(all="ignore")
def _top_k(call: Call, mu: NDArray[np.float64]) -> NDArray[np.int64]:
    """The number of classes of each row that have the surprise mu by Zipf's law (version 1)."""
    z, axis, t, where = call.arguments
    x = z.astype(np.float64) if where is None else np.where(where, z, -np.inf).astype(np.float64)
    x = np.moveaxis(np.where(x == -np.inf, x, x / t), axis, -1)
    classes = x.shape[-1]
    m = min(_LARGEST_LOGITS, classes)
    top = -np.sort(-x, axis=-1)[..., :m]
    log_ratio = top[..., :-1] - top[..., 1:]
    log_ratio = np.where(np.isfinite(log_ratio), log_ratio, 0.0)
    i = np.arange(m - 1)
    weight = np.log((i + 2) / (i + 1)) * np.isfinite(top[..., 1:])
    s = np.sum(weight * log_ratio, axis=-1) / np.sum(weight**2, axis=-1)
    excess = s - 1
    # Where the exponent is 1: the limit of (1 - K^-excess)/excess.
    norm = np.where(
        excess == 0,
        math.log(max(classes, 2)),
        -np.expm1(-excess * math.log(max(classes, 1))) / excess,
    )
    k = (np.exp2(mu) / norm) ** (1 / s)
    return np.asarray(np.clip(np.nan_to_num(k, nan=1.0), 1, max(classes, 1)), np.int64)


@_dispatch.breaks_graph
def mirostat(
    z: Any,
    mu: Any,
    axis: int = -1,
    *,
    tau: float,
    eta: float,
    version: int = 2,
    temperature: Any = 1.0,
    where: Any = None,
    rng: Any = None,
    row_keys: Any = None,
) -> tuple[Any, Any]:
    r"""One sample of each row with the Mirostat truncation, and the new state mu.

    Version 2 keeps the classes whose surprise, -log2 p, is at most mu. Version 1 keeps the k most
    probable, where k is estimated from mu and the 100 largest logits by Zipf's law. At least the
    most probable class is kept. After the sample, mu is lowered by `eta` times the difference of
    its surprise, under the truncated distribution, from `tau`.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, in any array type that :func:`logitlab.softmax` accepts.
    mu : float or array
        The state, in bits: a number, or one for each row. A sequence starts with 2 tau.
    axis : int
        The class axis.
    tau : float
        The target surprise in bits, >= 0.
    eta : float
        The learning rate, >= 0.
    version : {1, 2}
        The version of the algorithm.
    temperature : float or array
        T: a scalar, or one value for each row.
    where : array of bool, optional
        Broadcasts to z. Classes where it is False are never sampled.
    rng, row_keys
        As in :func:`sample`.

    Returns
    -------
    tokens : array of int64, shape of z without the class axis
        The sampled classes.
    mu : array of float64, same shape
        The new state of each row.

    Raises
    ------
    TypeError, ValueError
        `tau` or `eta` is negative or infinite, `version` is unknown, `mu` does not broadcast to the
        rows or is NaN; as :func:`sample`.

    References
    ----------
    S. Basu, G. S. Ramachandran, N. S. Keskar and L. R. Varshney, "Mirostat: a neural text decoding
    algorithm that directly controls perplexity", ICLR 2021. The surprise is that of llama.cpp.

    Examples
    --------
    >>> import logitlab
    >>> z = [[1.0, 4.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]]
    >>> tokens, mu = logitlab.mirostat(z, 6.0, tau=3.0, eta=0.1, rng=0)
    >>> print(tokens, mu.round(2))
    [1 2] [6.26 6.1 ]
    """
    tau, eta = (
        _checks.real(x, name, "finite and >= 0", lambda x: 0 <= x < math.inf)
        for name, x in (("tau", tau), ("eta", eta))
    )
    version = _checks.choice(version, "version", (1, 2))
    call = check_call(z, axis, temperature, where)
    state = _check_mu(mu, call.batch)
    if version == 1:
        sampler = Sampler(temperature=temperature, top_k=_top_k(call, state))
    else:
        # p >= 2^-mu, or the most probable class.
        sampler = Sampler(temperature=temperature, epsilon=np.minimum(1.0, np.exp2(-state)))
    tokens, log_prob = sampler.sample_with_log_prob(
        z, axis=axis, where=where, rng=rng, row_keys=row_keys
    )
    surprise = _arrays.on_host(log_prob).astype(np.float64) / -math.log(2)
    state = np.asarray(state - eta * (surprise - tau))
    return tokens, _arrays.scalar(to_library_of(call.request.z, state))
