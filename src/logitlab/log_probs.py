"""Samples with the classes that they were sampled from, and log-probabilities under these."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from logitlab import _arrays, _dispatch
from logitlab._backends import native_sampling
from logitlab.probabilities import log_softmax
from logitlab.sampling import (
    _check_call,
    _check_truncation,
    _sample_indices,
    _take_classes,
    _to_library_of,
)
from logitlab.support import Support, row_label, support_mask


def _check_tokens(tokens: Any, batch: tuple[int, ...], k: int) -> NDArray[np.int64]:
    """One token of each row or several, as NumPy integers."""
    tokens = _arrays.on_host(_arrays.as_array(tokens, "tokens"), "tokens")
    if tokens.dtype.kind not in "iu" and tokens.size:
        raise TypeError(f"tokens must be an integer array, got {_arrays.dtype_name(tokens.dtype)}")
    if tokens.shape[: len(batch)] != batch or tokens.ndim - len(batch) not in (0, 1):
        raise ValueError(
            f"tokens must have the batch shape {batch} of z, or that and an axis for several "
            f"tokens of a row, got shape {tokens.shape}"
        )
    invalid = (tokens < 0) | (tokens >= k)
    if invalid.any():
        flat = int(np.argmax(invalid))
        row = row_label(flat * int(np.prod(batch)) // tokens.size, batch)
        token = tokens.reshape(-1)[flat]
        raise ValueError(f"tokens must be from 0 to {k - 1}, got {token} in {row}")
    return np.asarray(tokens, np.int64)


@_dispatch.breaks_graph
def log_prob(
    z: Any,
    tokens: Any,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    support: Support | None = None,
) -> Any:
    r"""Log-probabilities of given tokens, as :func:`sample_with_log_prob` returns them.

    With the logits and the temperature of a sample and the support of
    :func:`sample_with_support`, they are equal to those of :func:`sample_with_log_prob` to the
    last bit: the importance ratio of an unchanged policy is 1.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, in any array type that :func:`logitlab.softmax` accepts.
    tokens : array of int, shape of z without the class axis, or with an axis appended
        One token of each row, or several.
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one value for each row.
    where : array of bool, optional
        Broadcasts to z. Classes where it is False are excluded.
    support : Support, optional
        The classes of each row that a truncation kept; the others are excluded.

    Returns
    -------
    array, shape of tokens
        Natural logarithms, in the dtype of z: -inf for a token that is excluded, NaN in a row that
        has no distribution. For torch tensors they are differentiable.

    Raises
    ------
    TypeError
        `tokens` are not integers, `support` is not a :class:`Support`; as
        :func:`logitlab.softmax`.
    ValueError
        A token is not from 0 to K - 1; a support of other rows or another number of classes; as
        :func:`logitlab.softmax`.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> z = np.array([[2.0, 1.0, 0.5, -1.0], [0.0, 3.0, 0.0, 1.0]])
    >>> tokens, support = logitlab.sample_with_support(z, top_k=2, rng=0)
    >>> logitlab.log_prob(z, tokens, support=support).round(4)
    array([-0.3133, -0.1269])
    """
    z = _arrays.as_floating(z, "z")
    if support is not None:
        where = support_mask(z, axis, where, support)
    request = _arrays.request(z, axis, temperature, where)
    class_axis = _arrays.one_axis(axis, z.ndim) and request.axes[0]
    batch = tuple(n for a, n in enumerate(request.z.shape) if a not in request.axes)
    classes = _check_tokens(tokens, batch, request.z.shape[request.axes[0]])
    log_p = log_softmax(z, axis, temperature=temperature, where=where)
    return _arrays.scalar(_take(log_p, class_axis, classes, batch))


def _take(log_p: Any, axis: Any, classes: NDArray[np.int64], batch: tuple[int, ...]) -> Any:
    """The log-probabilities of the classes."""
    xp = array_namespace(log_p)
    log_p = xp.moveaxis(log_p, axis, -1) if log_p.ndim else log_p[None]
    positions = _to_library_of(log_p, classes.reshape(*batch, -1))
    return xp.reshape(_take_classes(log_p, positions, xp), classes.shape)


@_dispatch.breaks_graph
def sample_with_support(
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
) -> tuple[Any, Support]:
    r"""Samples as of :func:`sample`, and the classes that they were sampled from.

    The trainer of a policy evaluates its log-probabilities over the classes that the truncation of
    the sampler kept, whatever its own logits are: see :func:`log_prob`.

    Parameters
    ----------
    z, n, axis, temperature, top_k, top_p, min_p, order, where, replacement, rng, row_keys
        As in :func:`sample`.

    Returns
    -------
    tokens : array of int64
        As of :func:`sample`.
    support : Support
        The classes of each row that remain after truncation, but those with a logit of -inf. Of
        tensors for a tensor, else of NumPy arrays.

    Raises
    ------
    TypeError, ValueError
        As :func:`sample`.

    Examples
    --------
    >>> import logitlab
    >>> tokens, support = logitlab.sample_with_support([[1.0, 4.0, 4.0, 2.0]], top_k=2, rng=0)
    >>> tokens, support.indices
    (array([2]), array([1, 2], dtype=int32))
    """
    cut = _check_truncation(top_k, top_p, min_p, order)
    call = _check_call(z, axis, temperature, where)
    indices = _sample_indices(call, n, cut, replacement, rng, row_keys)
    host, class_axis, *_ = call.arguments
    mask = native_sampling.keep(*call.arguments, cut) & (host != -np.inf)
    support = Support.from_mask(_to_library_of(call.request.z, mask), class_axis)
    return _arrays.scalar(_to_library_of(call.request.z, indices)), support
