"""Cross-entropy of logits, and its gradient in closed form."""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from logitlab import _arrays, _checks, _dispatch
from logitlab._arrays import Array, DType, Namespace, Shape
from logitlab._backends.targets import Targets

Reduction = Literal["mean", "sum", "none"]


class LossArguments(NamedTuple):
    """The checked arguments of a cross-entropy."""

    request: _arrays.Request
    targets: Targets
    rows: Shape  # of the losses
    weight: Array | None  # of the rows, 0 in an ignored row; None where every row has weight 1
    xp: Namespace

    def without_class_axis(self, x: float | Array) -> float | Array:
        """A number, or an array that broadcasts against z, in the shape of the rows."""
        return x if isinstance(x, float) else self.xp.squeeze(x, axis=self.request.axes[0])


def check_options(label_smoothing: float, reduction: str) -> float:
    """The label smoothing, after a check of it and of the reduction."""
    _checks.choice(reduction, "reduction", ("mean", "sum", "none"))
    return _checks.real(label_smoothing, "label_smoothing", "in [0, 1]", lambda x: 0 <= x <= 1)


def check_sample_weight(
    sample_weight: Any,
    batch: Shape,
    z: Array,
    label: Array | None,
    ignore_index: Any,
    xp: Namespace,
) -> Array | None:
    """A weight for each row, 0 in an ignored row; None where every row has weight 1."""
    included = None if label is None or ignore_index is None else label >= 0
    if sample_weight is None:
        return None if included is None else xp.astype(included, _arrays.widest_float(xp, z))
    weight = _arrays.row_weights(sample_weight, batch, z)
    return weight if included is None else xp.where(xp.reshape(included, batch), weight, 0.0)


@np.errstate(all="ignore")
def check_arguments(
    z: Any,
    y: Any,
    axis: int,
    temperature: Any,
    where: Any,
    label_smoothing: float,
    sample_weight: Any,
    ignore_index: int | None,
    reduction: str,
) -> LossArguments:
    """Check the arguments of a cross-entropy and convert them to arrays of z's library."""
    smoothing = check_options(label_smoothing, reduction)
    if ignore_index is not None:
        ignore_index = _checks.integer(ignore_index, "ignore_index")
    z = _arrays.as_floating(z, "z")
    _arrays.one_axis(axis, z.ndim)
    xp = array_namespace(z)
    request = _arrays.request(z, axis, temperature, where)
    shape, class_axis = request.z.shape, request.axes[0]
    rows, k = (*shape[:class_axis], *shape[class_axis + 1 :]), shape[class_axis]
    batch = rows if z.ndim else ()
    y = _arrays.like(_arrays.as_array(y, "y"), z, xp, "y")
    dtype = _arrays.dtype_name(y.dtype)
    if tuple(y.shape) == tuple(z.shape) and dtype.startswith(("float", "bfloat")):
        _arrays.check_nonnegative(y, "y")
        if ignore_index is not None:
            raise ValueError(
                f"ignore_index must be None for target probabilities, got {ignore_index}"
            )
        distribution = _arrays.move_axis(xp.reshape(y, shape), class_axis, -1, xp)
        targets = Targets(distribution=distribution, smoothing=smoothing)
    else:
        alternative = ", or target probabilities of z's shape"
        label = _arrays.labels(y, batch, k, ignore_index, xp, alternative)
        targets = Targets(xp.reshape(label, rows), smoothing=smoothing)
    weight = check_sample_weight(sample_weight, batch, z, targets.label, ignore_index, xp)
    weight = weight if weight is None else xp.reshape(weight, rows)
    return LossArguments(request, targets, rows, weight, xp)


def _row_losses(arguments: LossArguments, scale: float | Array | None) -> tuple[Array, Array]:
    """The loss of each row, and unless `scale` is None its gradient times that."""
    z, axes, t, where, _ = arguments.request
    loss, gradient = _dispatch.backend(z).target_loss(z, axes, t, where, arguments.targets, scale)
    return loss, gradient


def reduce_losses(
    loss: Array, weight: Array | None, reduction: str, dtype: DType, xp: Namespace
) -> Array:
    """The weighted losses of the rows, their sum or their weighted mean."""
    dtype = _arrays.native_type(dtype)
    # A row of weight 0 is left out, even if its loss is infinite or NaN.
    weighted = loss if weight is None else xp.where(weight == 0, 0.0, weight * loss)
    if reduction == "none":
        return xp.astype(weighted, dtype, copy=False)
    total = xp.sum(weighted)
    if reduction == "mean":
        total = total / (math.prod(loss.shape) if weight is None else xp.sum(weight))
    return xp.astype(total, dtype, copy=False)


def _reduce(arguments: LossArguments, loss: Array, reduction: str) -> Array:
    dtype = arguments.request.z.dtype
    return reduce_losses(loss, arguments.weight, reduction, dtype, arguments.xp)


def row_shares(weight: Array | None, rows: Shape, reduction: str, xp: Namespace) -> float | Array:
    """The factor of each row's loss in the reduced loss: one number for all, or one for each."""
    if weight is None:
        n = math.prod(rows)
        return (1 / n if n else math.nan) if reduction == "mean" else 1.0
    return weight / xp.sum(weight) if reduction == "mean" else weight


@np.errstate(all="ignore")
def loss_value(arguments: LossArguments, reduction: str) -> Array:
    """The reduced loss."""
    z, axes, t, where, _ = arguments.request
    fused_loss = _dispatch.fused_loss(z, "reduced_target_loss")
    if fused_loss is not None and reduction != "none":
        shares = row_shares(arguments.weight, arguments.rows, reduction, arguments.xp)
        value = fused_loss(z, axes, t, where, arguments.targets, shares)
        if value is not None:
            return value
    return _reduce(arguments, _row_losses(arguments, None)[0], reduction)


@np.errstate(all="ignore")
def _gradient_scale(arguments: LossArguments, reduction: str) -> float | Array:
    """The factor of p - y in the gradient of each row: its share over T."""
    t = arguments.without_class_axis(arguments.request.temperature)
    if isinstance(t, float) and t == 0:
        return 0.0  # softmax has no derivative there; autograd continues with 0
    return row_shares(arguments.weight, arguments.rows, reduction, arguments.xp) / t


@np.errstate(all="ignore")
def loss_gradient(arguments: LossArguments, reduction: str, upstream: Array) -> Array:
    """The gradient by z for an upstream gradient: 0-d, or with "none" one for each row."""
    if reduction == "none":
        upstream = arguments.xp.reshape(upstream, arguments.rows)
    scale = _gradient_scale(arguments, reduction) * upstream
    return arguments.request.restore(_row_losses(arguments, scale)[1])


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
    r"""Cross-entropy between targets, labels or distributions, and the softmax of logits.

    :math:`-\sum_k y_k \log p_k` with p the softmax of z at the given temperature and
    0 log 0 = 0, in nats. Losses close to 0 keep their relative accuracy.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, of any kind that :func:`logitlab.softmax` takes.
    y : array of int, shape of z without the class axis, or array of float, shape of z
        Labels, 0 to K - 1; or the target probabilities of all classes, which are converted to the
        type of z (float32 for half types).
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one for each row.
    where : array of bool, optional
        Broadcasts to z. Classes where it is False are excluded.
    label_smoothing : float
        In [0, 1]: this share of the target of a row is spread evenly over the classes that are not
        excluded.
    sample_weight : array, shape of z without the class axis, optional
        Weight of each row, finite and >= 0.
    ignore_index : int, optional
        Rows with this label are ignored.
    reduction : {"mean", "sum", "none"}
        "mean" divides the weighted sum by the sum of the weights of the rows that are not ignored;
        it is NaN if that is 0.

    Returns
    -------
    array
        0-d, or with "none" of the shape of z without the class axis; in z's type.

    Raises
    ------
    TypeError
        `y` is neither integer labels nor target probabilities; an option has a wrong type: a
        boolean is not a number; as :func:`logitlab.softmax`.
    ValueError
        A label out of range; a shape that does not fit; a negative target; a weight that is
        negative or not finite; an option out of range; as :func:`logitlab.softmax`. The message
        names the first row.

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
    z = _dispatch.autocast("cross_entropy", z)
    if (compiled := _dispatch.compiled_functions(z)) is not None:
        return compiled.cross_entropy(
            z, y, axis, temperature, where, label_smoothing, sample_weight, ignore_index, reduction
        )
    arguments = check_arguments(
        z, y, axis, temperature, where, label_smoothing, sample_weight, ignore_index, reduction
    )
    return loss_value(arguments, reduction)


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
    r"""The loss of :func:`cross_entropy` and its gradient with respect to the logits.

    :math:`\partial L_n/\partial z_k = w_n (p_k - y_k)/T`, for "mean" divided by the sum of the
    weights.

    Parameters
    ----------
    z, y, axis, temperature, where, label_smoothing, sample_weight, ignore_index, reduction
        As in :func:`cross_entropy`; T is not 0. With "none" the gradient of each row is that of its
        own loss.

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
    given, z = z, _dispatch.autocast("cross_entropy", z)
    arguments = check_arguments(
        z, y, axis, temperature, where, label_smoothing, sample_weight, ignore_index, reduction
    )
    request = arguments.request
    _arrays.check_differentiable(request.temperature, arguments.xp)
    with np.errstate(all="ignore"):
        loss, gradient = _row_losses(arguments, _gradient_scale(arguments, reduction))
        gradient = request.restore(gradient)
        # Under autocast the loss is in float32, and the gradient in the type of z.
        gradient = gradient if z is given else gradient.to(given.dtype)
        return _reduce(arguments, loss, reduction), gradient
