"""Cross-entropy of a linear model's logits, which never exist as a whole."""

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from logitlab import _arrays, _dispatch
from logitlab._backends.targets import Targets
from logitlab.losses import Reduction, checked_options, checked_weights, reduced, share


class _Problem(NamedTuple):
    """A checked call: x, weight and bias wide enough to work in."""

    x: Any
    weight: Any
    bias: Any
    targets: Targets  # labels
    temperature: Any  # a float, or (N, 1)
    row_weight: Any  # None where all count alike
    dtype: Any
    xp: Any


def _native(x: Any) -> Any:
    """In the machine's byte order."""
    return x.astype(_arrays.native_type(x.dtype), copy=False) if isinstance(x, np.ndarray) else x


def _matrix(x: Any, name: str) -> Any:
    x = _native(_arrays.as_floating(x, name))
    if x.ndim != 2:
        raise ValueError(f"{name} has {x.ndim} dimensions; accepted: 2")
    return x


@np.errstate(all="ignore")
def checked(
    x: Any,
    weight: Any,
    y: Any,
    bias: Any,
    temperature: Any,
    label_smoothing: float,
    sample_weight: Any,
    ignore_index: int | None,
    reduction: str,
) -> _Problem:
    smoothing = checked_options(label_smoothing, reduction)
    x = _matrix(x, "x")
    xp = array_namespace(x)
    weight = _arrays.like(_matrix(weight, "weight"), x, xp, "weight")
    (n, d), (k, columns) = x.shape, weight.shape
    if columns != d:
        raise ValueError(
            f"weight has shape {(k, columns)}; accepted: (K, {d}), as x has {d} columns"
        )
    if bias is not None:
        bias = _arrays.like(_native(_arrays.as_floating(bias, "bias")), x, xp, "bias")
        if tuple(bias.shape) != (k,):
            raise ValueError(
                f"bias has shape {tuple(bias.shape)}; accepted: ({k},), one for each class"
            )
    for name, other in (("weight", weight), ("bias", bias)):
        if other is not None and other.dtype != x.dtype:
            raise TypeError(
                f"{name} has type {_arrays.dtype_name(other.dtype)}; accepted: that of x, "
                f"{_arrays.dtype_name(x.dtype)}"
            )
    t = _arrays.request(x, 1, temperature, None).temperature
    if not isinstance(t, float):
        t = xp.broadcast_to(t, (n, 1))
    y = _arrays.like(_arrays.as_array(y, "y"), x, xp, "y")
    label = _arrays.labels(y, (n,), k, ignore_index, xp)
    row_weight = checked_weights(sample_weight, (n,), x, label, ignore_index, xp)
    dtype = x.dtype
    x, weight = _arrays.at_least_float32(x, xp), _arrays.at_least_float32(weight, xp)
    bias = None if bias is None else _arrays.at_least_float32(bias, xp)
    return _Problem(x, weight, bias, Targets(label, smoothing=smoothing), t, row_weight, dtype, xp)


@np.errstate(all="ignore")
def _solved(
    q: _Problem, reduction: str, upstream: Any, by_temperature: bool = False
) -> tuple[Any, Any]:
    """The loss, and unless `upstream` is None its gradients times that."""
    xp, t = q.xp, q.temperature
    scale = None
    if upstream is not None:
        shares = share(q.row_weight, q.x.shape[:1], reduction, xp)
        scale = shares / (t if isinstance(t, float) else t[:, 0]) * upstream
        if not isinstance(scale, float):
            scale = xp.broadcast_to(scale, q.x.shape[:1])
    loss, gradients = _dispatch.backend(q.x).linear_loss(
        q.x, q.weight, q.bias, q.targets, t, scale, by_temperature
    )
    value = reduced(loss, q.row_weight, reduction, q.dtype, xp)
    if gradients is not None:
        gradients = tuple(g if g is None else xp.astype(g, q.dtype, copy=False) for g in gradients)
    return value, gradients


@np.errstate(all="ignore")
def value_of(q: _Problem, reduction: str) -> Any:
    total = _dispatch.total(q.x, "total_linear_loss")
    if total is not None and reduction != "none":
        shares = share(q.row_weight, q.x.shape[:1], reduction, q.xp)
        value = total(q.x, q.weight, q.bias, q.targets, q.temperature, shares)
        if value is not None:
            return q.xp.astype(value, q.dtype, copy=False)
    return _solved(q, reduction, None)[0]


def gradients_of(q: _Problem, reduction: str, upstream: Any, by_temperature: bool) -> Any:
    """By x, the weight, the bias and, if wanted, the temperature of each row, (N, 1)."""
    return _solved(q, reduction, upstream, by_temperature)[1]


def linear_cross_entropy(
    x: Any,
    weight: Any,
    y: Any,
    *,
    bias: Any = None,
    temperature: Any = 1.0,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> Any:
    r"""Cross-entropy of labels with the logits :math:`z = x\,W^\top + b`, without holding them.

    The logits are made, used and forgotten by blocks of rows: the memory beyond the arguments is
    a small part of the N x K numbers.

    Parameters
    ----------
    x : array, shape (N, D)
        Features of the rows.
    weight : array, shape (K, D)
        One row for each class; of x's kind and type.
    y : array of int, shape (N,)
        Labels, 0 to K - 1.
    bias : array, shape (K,), optional
        Added to the logits.
    temperature : float or array, shape (N,)
        T, as in :func:`logitlab.softmax`.
    label_smoothing, sample_weight, ignore_index, reduction
        As in :func:`logitlab.cross_entropy`.

    Returns
    -------
    array
        0-d, or with "none" of shape (N,); in nats, in x's type. A tensor has its gradients.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.cross_entropy`; shapes or types that do not fit together.

    References
    ----------
    E. Wijmans et al., "Cut your losses in large-vocabulary language models", ICLR 2025, for the
    use of it.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> x, weight = np.eye(2), np.array([[2.0, 0.0], [0.0, 2.0]])
    >>> float(logitlab.linear_cross_entropy(x, weight, [0, 1]).round(4))
    0.1269
    """
    if (graph := _dispatch.graph(x)) is not None:
        return graph.linear_cross_entropy(
            x,
            weight,
            y,
            bias,
            temperature,
            label_smoothing,
            sample_weight,
            ignore_index,
            reduction,
        )
    q = checked(
        x,
        weight,
        y,
        bias,
        temperature,
        label_smoothing,
        sample_weight,
        ignore_index,
        reduction,
    )
    return value_of(q, reduction)


def linear_cross_entropy_and_grad(
    x: Any,
    weight: Any,
    y: Any,
    *,
    bias: Any = None,
    temperature: Any = 1.0,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> tuple[Any, tuple[Any, Any, Any]]:
    r"""The loss of :func:`linear_cross_entropy` and its gradients, in one sweep.

    With :math:`G = \partial L/\partial z` as in :func:`logitlab.cross_entropy_and_grad`, they are
    :math:`G W` by x, :math:`G^\top x` by the weight and the sum of G's rows by the bias.

    Parameters
    ----------
    x, weight, y, bias, temperature, label_smoothing, sample_weight, ignore_index, reduction
        As in :func:`linear_cross_entropy`; T not 0. With "none" the gradients are those of the sum.

    Returns
    -------
    loss : array
        As :func:`linear_cross_entropy`.
    gradients : tuple of array
        By x (N, D), by the weight (K, D), and by the bias (K,) or None without one.

    Raises
    ------
    TypeError, ValueError
        As :func:`linear_cross_entropy`; a temperature of 0.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> x, weight = np.eye(2), np.zeros((2, 2))
    >>> loss, (dx, dweight, dbias) = logitlab.linear_cross_entropy_and_grad(x, weight, [0, 1])
    >>> dweight
    array([[-0.25,  0.25],
           [ 0.25, -0.25]])
    """
    q = checked(
        x,
        weight,
        y,
        bias,
        temperature,
        label_smoothing,
        sample_weight,
        ignore_index,
        reduction,
    )
    _arrays.check_differentiable(q.temperature, q.xp)
    loss, gradients = _solved(q, reduction, 1.0)
    return loss, gradients[:3]
