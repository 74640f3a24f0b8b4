"""Log-probabilities of tokens, over all classes or over those that a truncation kept."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from logitlab import _arrays, _dispatch
from logitlab.probabilities import log_softmax
from logitlab.sampling.calls import take_classes, to_library_of
from logitlab.support import Support, row_label, support_mask


def log_prob_of_classes(
    z: Any, axis: int, temperature: Any, where: Any, classes: NDArray[np.int64]
) -> Any:
    """The log-probabilities of classes, (..., n), of each row."""
    log_p = log_softmax(z, axis, temperature=temperature, where=where)
    xp = array_namespace(log_p)
    log_p = xp.moveaxis(log_p, axis, -1) if log_p.ndim else log_p[None]
    return take_classes(log_p, to_library_of(log_p, classes), xp)


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
    if support is None and (sharded := _dispatch.sharded("log_prob", z, axis)) is not None:
        return sharded(z, tokens, axis=axis, temperature=temperature, where=where)
    z = _arrays.as_floating(z, "z")
    if support is not None:
        where = support_mask(z, axis, where, support)
    request = _arrays.request(z, axis, temperature, where)
    _arrays.one_axis(axis, z.ndim)
    batch = tuple(n for a, n in enumerate(request.z.shape) if a not in request.axes)
    classes = _check_tokens(tokens, batch, request.z.shape[request.axes[0]])
    several = classes if classes.ndim > len(batch) else classes[..., None]
    found = log_prob_of_classes(z, axis, temperature, where, several)
    return _arrays.scalar(array_namespace(z).reshape(found, classes.shape))
