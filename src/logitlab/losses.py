"""Cross-entropy of logits, with its gradient in closed form."""

import math
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from logitlab import _arrays, _dispatch
from logitlab._backends.targets import Targets

Reduction = Literal["mean", "sum", "none"]


class _Problem(NamedTuple):
    """A checked call."""

    request: _arrays.Request
    targets: Targets
    rows: tuple[int, ...]
    weight: Any  # of the rows, 0 where a row is ignored; None where all count alike
    xp: Any

    def a_row(self, x: Any) -> Any:
        """What stands for a row, or broadcasts against z, in the shape of the rows."""
        return x if isinstance(x, float) else self.xp.squeeze(x, axis=self.request.axes[0])


def checked_options(label_smoothing: float, reduction: str) -> float:
    """The smoothing; refuse what is out of range."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is {reduction!r}; accepted: 'mean', 'sum', 'none'")
    if not isinstance(label_smoothing, Real):
        raise TypeError(f"label_smoothing must be a real number, not {label_smoothing!r}")
    smoothing = float(label_smoothing)
    if not 0 <= smoothing <= 1:
        raise ValueError(f"label_smoothing is {smoothing}; accepted: 0 to 1")
    return smoothing


def checked_weights(
    given: Any, batch: tuple[int, ...], z: Any, label: Any, ignore_index: int | None, xp: Any
) -> Any:
    """A weight for each row, 0 where it is ignored; None where all count alike."""
    wide = _arrays.widest_float(xp, z)
    kept = None if label is None or ignore_index is None else label >= 0
    if given is None:
        return None if kept is None else xp.astype(kept, wide)
    given = _arrays.like(_arrays.as_floating(given, "sample_weight"), z, xp, "sample_weight")
    if tuple(given.shape) != batch:
        raise ValueError(
            f"sample_weight has shape {tuple(given.shape)}; accepted: one weight for each row, "
            f"shape {batch}"
        )
    _arrays.check_not_negative(given, "sample_weight")
    weight = xp.astype(given, wide)
    return weight if kept is None else xp.where(xp.reshape(kept, batch), weight, 0.0)


@np.errstate(all="ignore")
def checked(
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
    smoothing = checked_options(label_smoothing, reduction)
    z = _arrays.as_floating(z, "z")
    _arrays.one_axis(axis, z.ndim)
    xp = array_namespace(z)
    request = _arrays.request(z, axis, temperature, where)
    shape, at = request.z.shape, request.axes[0]
    rows, k = (*shape[:at], *shape[at + 1 :]), shape[at]
    batch = rows if z.ndim else ()
    y = _arrays.like(_arrays.as_array(y, "y"), z, xp, "y")
    kind = _arrays.dtype_name(y.dtype)
    if tuple(y.shape) == tuple(z.shape) and kind.startswith(("float", "bfloat")):
        _arrays.check_not_negative(y, "y")
        if ignore_index is not None:
            raise ValueError("ignore_index goes with integer labels, not with target probabilities")
        distribution = _arrays.moved(xp.reshape(y, shape), at, -1, xp)
        targets = Targets(distribution=distribution, smoothing=smoothing)
    else:
        or_else = ", or target probabilities of z's shape"
        label = _arrays.labels(y, batch, k, ignore_index, xp, or_else)
        targets = Targets(xp.reshape(label, rows), smoothing=smoothing)
    weight = checked_weights(sample_weight, batch, z, targets.label, ignore_index, xp)
    weight = weight if weight is None else xp.reshape(weight, rows)
    return _Problem(request, targets, rows, weight, xp)


def _rows(q: _Problem, scale: Any) -> tuple[Any, Any]:
    """The loss of every row, and unless `scale` is None its gradient times that."""
    z, axes, t, where, _ = q.request
    return _dispatch.backend(z).target_loss(z, axes, t, where, q.targets, scale)  # type: ignore[no-any-return]


def reduced(loss: Any, weight: Any, reduction: str, dtype: Any, xp: Any) -> Any:
    """The losses of the rows, weighted, as the caller wants them."""
    dtype = _arrays.native_type(dtype)
    # A row of weight 0 counts for nothing, whatever it costs.
    rows = loss if weight is None else xp.where(weight == 0, 0.0, weight * loss)
    if reduction == "none":
        return xp.astype(rows, dtype, copy=False)
    total = xp.sum(rows)
    if reduction == "mean":
        total = total / (math.prod(loss.shape) if weight is None else xp.sum(weight))
    return xp.astype(total, dtype, copy=False)


def _reduced(q: _Problem, loss: Any, reduction: str) -> Any:
    return reduced(loss, q.weight, reduction, q.request.z.dtype, q.xp)


def share(weight: Any, rows: tuple[int, ...], reduction: str, xp: Any) -> Any:
    """What the loss of a row counts for in the whole: a float, or one for each row."""
    if weight is None:
        n = math.prod(rows)
        return (1 / n if n else math.nan) if reduction == "mean" else 1.0
    return weight / xp.sum(weight) if reduction == "mean" else weight


@np.errstate(all="ignore")
def value_of(q: _Problem, reduction: str) -> Any:
    z, axes, t, where, _ = q.request
    total = _dispatch.total(z, "total_target_loss")
    if total is not None and reduction != "none":
        shares = share(q.weight, q.rows, reduction, q.xp)
        value = total(z, axes, t, where, q.targets, shares)
        if value is not None:
            return value
    return _reduced(q, _rows(q, None)[0], reduction)


@np.errstate(all="ignore")
def _scale(q: _Problem, reduction: str) -> Any:
    t = q.a_row(q.request.temperature)
    if isinstance(t, float) and t == 0:
        return 0.0  # where softmax jumps, autograd goes on with nothing
    return share(q.weight, q.rows, reduction, q.xp) / t


@np.errstate(all="ignore")
def gradient_of(q: _Problem, reduction: str, upstream: Any) -> Any:
    """The gradient times one of the loss: a scalar, or with "none" one for each row."""
    if reduction == "none":
        upstream = q.xp.reshape(upstream, q.rows)
    scale = _scale(q, reduction) * upstream
    return q.request.restore(_rows(q, scale)[1])


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
        Labels, 0 to K - 1; or the target probabilities of every class, taken in z's type (float32
        for half types).
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
    if (graph := _dispatch.graph(z)) is not None:
        return graph.cross_entropy(
            z, y, axis, temperature, where, label_smoothing, sample_weight, ignore_index, reduction
        )
    q = checked(
        z, y, axis, temperature, where, label_smoothing, sample_weight, ignore_index, reduction
    )
    return value_of(q, reduction)


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
    q = checked(
        z, y, axis, temperature, where, label_smoothing, sample_weight, ignore_index, reduction
    )
    _arrays.check_differentiable(q.request.temperature, q.xp)
    with np.errstate(all="ignore"):
        loss, gradient = _rows(q, _scale(q, reduction))
        return _reduced(q, loss, reduction), q.request.restore(gradient)
