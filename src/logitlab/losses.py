"""Cross-entropy of logits, with its gradient in closed form."""

from typing import Any, Literal, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from logitlab import arrays
from logitlab.probabilities import log_softmax

Reduction = Literal["mean", "sum", "none"]


class _Problem(NamedTuple):
    """A checked call, with the classes last."""

    log_p: Any  # (..., K)
    targets: Any  # (..., K): the distribution that log_p is judged by
    label: Any  # where the label is, or None for target probabilities
    weight: Any  # (...): of the rows; 0 where a row is ignored
    kept: Any  # (...): the rows that are not ignored
    temperature: Any
    xp: Any
    dtype: Any


def _classes_last(x: Any, axis: int, xp: Any) -> Any:
    return x[None] if x.ndim == 0 else xp.moveaxis(x, axis, -1)


def _labels(
    y: Any, batch: tuple[int, ...], k: int, ignore_index: int | None, xp: Any
) -> tuple[Any, Any]:
    """Integer labels, checked (0 where a row is ignored), and the rows that are not ignored."""
    if not arrays.dtype_name(y.dtype).startswith(("int", "uint")):
        raise TypeError(
            f"y has type {arrays.dtype_name(y.dtype)}; accepted: integer labels, or target "
            "probabilities of z's shape"
        )
    if tuple(y.shape) != batch:
        raise ValueError(
            f"y has shape {tuple(y.shape)}; accepted: labels of shape {batch}, or target "
            "probabilities of z's shape"
        )
    y = arrays.integers(y, xp)
    ignored = y == ignore_index if ignore_index is not None else y != y
    bad = ~ignored & ((y < 0) | (y >= k))
    if arrays.any_of(bad, xp):
        row = arrays.first_true(bad, xp)
        value = int(xp.reshape(y, (-1,))[row])
        raise ValueError(f"y is {value} in row {row}; accepted: 0 to {k - 1}, as z has {k} classes")
    return xp.where(ignored, xp.zeros_like(y), y), ~ignored


@np.errstate(all="ignore")
def _problem(
    z: Any,
    y: Any,
    axis: int,
    temperature: Any,
    where: Any,
    label_smoothing: float,
    sample_weight: Any,
    ignore_index: int | None,
    reduction: str,
) -> _Problem:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is {reduction!r}; accepted: 'mean', 'sum', 'none'")
    smoothing = float(label_smoothing)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"label_smoothing is {smoothing}; accepted: 0 to 1")
    z = arrays.as_floating(z, "z")
    arrays.one_axis(axis, z.ndim)
    xp = array_namespace(z)
    call = arrays.request(z, axis, temperature, where)
    wide = arrays.at_least_float32(z, xp)
    log_p = log_softmax(wide, axis, temperature=temperature, where=where)
    log_p = _classes_last(log_p, axis, xp)
    batch, k = tuple(log_p.shape[:-1]), log_p.shape[-1]
    batch = batch if z.ndim else ()
    y = arrays.like(arrays.as_array(y, "y"), z, xp, "y")
    label = None
    if tuple(y.shape) == tuple(z.shape) and arrays.dtype_name(y.dtype).startswith(
        ("float", "bfloat")
    ):
        arrays.check_not_negative(y, "y")
        if ignore_index is not None:
            raise ValueError("ignore_index goes with integer labels, not with target probabilities")
        targets = _classes_last(xp.astype(y, log_p.dtype), axis, xp)
        kept = xp.ones(targets.shape[:-1], dtype=xp.bool, device=getattr(z, "device", None))
    else:
        place, kept = _labels(y, batch, k, ignore_index, xp)
        label = xp.arange(k, device=getattr(z, "device", None)) == place[..., None]
        targets = xp.astype(label, log_p.dtype)
    if smoothing:
        # Spread over the classes that are not excluded.
        left = xp.astype(log_p != -xp.inf, log_p.dtype)
        spread = left / xp.sum(left, axis=-1, keepdims=True)
        targets = (1 - smoothing) * targets + smoothing * spread
    weight = xp.ones_like(log_p[..., 0])
    if sample_weight is not None:
        given = arrays.like(
            arrays.as_floating(sample_weight, "sample_weight"), z, xp, "sample_weight"
        )
        if tuple(given.shape) != batch:
            raise ValueError(
                f"sample_weight has shape {tuple(given.shape)}; accepted: one weight for each row, "
                f"shape {batch}"
            )
        arrays.check_not_negative(given, "sample_weight")
        weight = weight * xp.astype(given, log_p.dtype)
    weight = xp.where(kept, weight, 0.0)
    t = call.temperature
    t = t if isinstance(t, float) else xp.astype(_classes_last(t, axis, xp), log_p.dtype)
    return _Problem(log_p, targets, label, weight, kept, t, xp, z.dtype)


@np.errstate(all="ignore")
def _loss(q: _Problem, reduction: str) -> Any:
    xp = q.xp
    # 0 log 0 = 0: a target of 0 on an excluded class costs nothing.
    cost = xp.where(q.targets == 0, 0.0, -q.targets * q.log_p)
    rows = xp.where(q.kept, q.weight * xp.sum(cost, axis=-1), 0.0)
    if reduction == "none":
        return xp.astype(rows, q.dtype, copy=False)
    total = xp.sum(rows)
    if reduction == "mean":
        total = total / xp.sum(q.weight)
    return xp.astype(total, q.dtype, copy=False)


def cross_entropy(
    z: Any,
    y: Any,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> Any:
    r"""Cross-entropy of labels, or of target distributions, with the softmax of logits.

    :math:`-\sum_k y_k \log p_k` with p the softmax of z at the given temperature and
    0 log 0 = 0, in nats; exact to the last places where it is tiny.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, of any kind that :func:`logitlab.softmax` takes.
    y : array of int, shape of z without the class axis, or array of float, shape of z
        Labels, 0 to K - 1; or the target probabilities of every class.
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one for each row.
    where : array of bool, optional
        Broadcasts to z. Classes where it is False are excluded.
    label_smoothing : float
        This share of every target is spread evenly over the classes that are not excluded.
    sample_weight : array, shape of z without the class axis, optional
        Weight of each row, 0 and up.
    ignore_index : int, optional
        Rows with this label count for nothing.
    reduction : {"mean", "sum", "none"}
        "mean" divides the weighted sum by the weights of the rows not ignored (NaN without any).

    Returns
    -------
    array
        0-d, or with "none" of the shape of z without the class axis; in z's type.

    Raises
    ------
    TypeError
        Labels that are no integers; as :func:`logitlab.softmax`.
    ValueError
        A label out of range (the first such row is named); shapes that do not fit; as
        :func:`logitlab.softmax`.

    References
    ----------
    C. M. Bishop, "Pattern recognition and machine learning", Springer, 2006, section 4.3.4.

    Examples
    --------
    >>> import logitlab
    >>> float(logitlab.cross_entropy([[0.0, 0.0], [2.0, 0.0]], [1, 0]).round(4))
    0.41
    >>> f"{logitlab.cross_entropy([[30.0, 0.0]], [0]):.10g}"
    '9.357622969e-14'
    """
    q = _problem(
        z, y, axis, temperature, where, label_smoothing, sample_weight, ignore_index, reduction
    )
    return _loss(q, reduction)


def cross_entropy_and_grad(
    z: Any,
    y: Any,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> tuple[Any, Any]:
    r"""The loss of :func:`cross_entropy` and its gradient by the logits.

    :math:`\partial L_n/\partial z_k = w_n (p_k - y_k)/T`, over the sum of the weights for "mean".

    Parameters
    ----------
    z, y, axis, temperature, where, label_smoothing, sample_weight, ignore_index, reduction
        As in :func:`cross_entropy`; T not 0. With "none" each row's gradient is of its own loss.

    Returns
    -------
    loss : array
        As :func:`cross_entropy`.
    gradient : array, shape of z
        0 at excluded classes and in ignored rows.

    Raises
    ------
    TypeError, ValueError
        As :func:`cross_entropy`; a temperature of 0.

    Examples
    --------
    >>> import logitlab
    >>> loss, gradient = logitlab.cross_entropy_and_grad([[0.0, 0.0]], [1])
    >>> gradient
    array([[ 0.5, -0.5]])
    """
    q = _problem(
        z, y, axis, temperature, where, label_smoothing, sample_weight, ignore_index, reduction
    )
    xp = q.xp
    arrays.check_differentiable(q.temperature, xp)
    with np.errstate(all="ignore"):
        p = xp.exp(q.log_p)
        if q.label is not None and not label_smoothing:
            # p - 1 at the label is less the sum of the others.
            others = xp.sum(xp.where(q.label, 0.0, p), axis=-1, keepdims=True)
            difference = xp.where(q.label, -others, p)
        else:
            difference = p * xp.sum(q.targets, axis=-1, keepdims=True) - q.targets
        weight = q.weight / xp.sum(q.weight) if reduction == "mean" else q.weight
        gradient = difference / q.temperature * weight[..., None]
        dead = ~q.kept[..., None] | (q.log_p == -xp.inf)
        gradient = xp.astype(xp.where(dead, 0.0, gradient), q.dtype, copy=False)
    shape = np.shape(z)
    if not shape:
        return _loss(q, reduction), gradient[..., 0]
    return _loss(q, reduction), xp.moveaxis(gradient, -1, axis)
