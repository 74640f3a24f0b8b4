"""Cross-entropy of logits, and its gradient in closed form."""

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array

from logitlab import _arrays, _dispatch, _labels
from logitlab._arrays import Array
from logitlab._distributed import RowShard, gather_numbers
from logitlab._loss_arguments import (
    LossArguments,
    Reduction,
    check_arguments,
    reduce_rows,
    row_shares,
)
from logitlab.support import Support, support_mask


def _row_losses(arguments: LossArguments, scale: float | Array | None) -> tuple[Array, Array]:
    """The loss of each row, and unless `scale` is None its gradient times that."""
    z, axes, t, where, _ = arguments.request
    loss, gradient = _dispatch.backend(z).target_loss(z, axes, t, where, arguments.targets, scale)
    return loss, gradient


def _shares(arguments: LossArguments, reduction: str) -> float | Array:
    _, _, rows, weight, divisor, xp = arguments
    return row_shares(weight, rows, reduction, xp, divisor)


@np.errstate(all="ignore")
def loss_value(arguments: LossArguments, reduction: str) -> Array:
    """The reduced loss."""
    z, axes, t, where, _ = arguments.request
    fused_loss = _dispatch.fused_loss(z, "reduced_target_loss")
    if fused_loss is not None and reduction != "none":
        shares = _shares(arguments, reduction)
        value = fused_loss(z, axes, t, where, arguments.targets, shares)
        if value is not None:
            return value
    return reduce_rows(arguments, _row_losses(arguments, None)[0], reduction)


def _gradient_scale(arguments: LossArguments, reduction: str) -> float | Array:
    """The factor of p - y in the gradient of each row: its share over T."""
    t = arguments.without_class_axis(arguments.request.temperature)
    if isinstance(t, float) and t == 0:
        return 0.0  # softmax has no derivative there; autograd continues with 0
    return _shares(arguments, reduction) / t


@np.errstate(all="ignore")
def loss_gradient(arguments: LossArguments, reduction: str, upstream: Array) -> Array:
    """The gradient by z for an upstream gradient: 0-d, or with "none" one for each row."""
    if reduction == "none":
        upstream = arguments.xp.reshape(upstream, arguments.rows)
    scale = _gradient_scale(arguments, reduction) * upstream
    return arguments.request.restore(_row_losses(arguments, scale)[1])


def _plain_loss(
    z: Any, y: Any, axis: Any, temperature: Any, options: tuple[Any, ...], *, with_gradient: bool
) -> Any:
    """The result of a call without options in one step, or None for other calls."""
    *arrays, label_smoothing, reduction = options
    plain = (
        all(option is None for option in arrays)
        and type(label_smoothing) is float
        and label_smoothing == 0
        and reduction == "mean"
    )
    return _dispatch.plain_loss(z, y, axis, temperature, with_gradient) if plain else None


def cross_entropy(
    z: Any,
    y: Any,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    support: Support | None = None,
    weight: Any = None,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    ignore_index: int | Sequence[int] | None = None,
    reduction: Reduction = "mean",
) -> Any:
    r"""Cross-entropy between targets, labels or distributions, and the softmax of logits.

    :math:`-\sum_k w_k y_k \log p_k` with p the softmax of z at the given temperature, w the weights
    of the classes and 0 log 0 = 0, in nats. Losses close to 0 keep their relative accuracy.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, of any kind that :func:`logitlab.softmax` takes. With a
        :class:`logitlab.parallel.RowShard` the loss is that of the rows of all ranks, and the
        gradient is that of this loss by the logits of the rank.
    y : array of int, shape of z without the class axis, or array of float, shape of z
        Labels, 0 to K - 1; or the target probabilities of all classes, which are converted to the
        type of z (float32 for half types).
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one for each row.
    where : array of bool, optional
        Broadcasts to z. Classes where it is False are excluded.
    support : Support, optional
        The classes of each row that a truncation kept, as of :func:`sample_with_support`; the
        others are excluded, as by `where`: the loss of a label outside of it is inf.
    weight : array, shape (K,), optional
        Weight of each class, finite and >= 0: the target of a class is multiplied by it.
    label_smoothing : float
        In [0, 1]: this share of the target of a row is spread evenly over the classes that are not
        excluded.
    sample_weight : array, shape of z without the class axis, optional
        Weight of each row, finite and >= 0.
    ignore_index : int or sequence of int, optional
        Rows with this label, or with one of these, are ignored.
    reduction : {"mean", "sum", "none"}
        "mean" divides the weighted sum by the sum of the weights of the rows that are not ignored;
        the weight of a row with a label includes that of its class. It is NaN if the sum is 0: the
        mean of no rows is not a number, whereas their sum is 0.

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
    if support is not None:
        rows = z.z if isinstance(z, RowShard) else z
        where = support_mask(rows, axis, where, support)
    options = (where, weight, sample_weight, ignore_index, label_smoothing, reduction)
    loss = _plain_loss(z, y, axis, temperature, options, with_gradient=False)
    if loss is not None:
        return loss
    settings = {
        "axis": axis,
        "temperature": temperature,
        "where": where,
        "label_smoothing": label_smoothing,
        "sample_weight": sample_weight,
        "ignore_index": ignore_index,
        "reduction": reduction,
        "weight": weight,
    }
    if isinstance(z, RowShard):
        return _loss_of_ranks(z, y, settings)
    if (sharded := _dispatch.sharded("cross_entropy", z, axis)) is not None:
        return sharded(z, y, **settings)
    z = _dispatch.autocast("cross_entropy", z)
    if (compiled := _dispatch.compiled_functions(z)) is not None:
        return compiled.cross_entropy(z, y, **settings)
    return loss_value(check_arguments(z, y, **settings), reduction)


def _loss_of_ranks(shard: RowShard, y: Any, settings: dict[str, Any]) -> Any:
    """The loss of the rows of all ranks; its gradient is by the logits of this rank."""
    reduction = settings["reduction"]

    def of_rank() -> tuple[str, tuple[float, ...], Any]:
        """The loss of this rank, and the sum of its weights: times a power of two, and that."""
        arguments = check_arguments(shard.z, y, **settings)
        loss = cross_entropy(shard.z, y, **settings)
        text = _common_settings(arguments, settings)
        if reduction != "mean":
            return text, (_as_number(loss) if reduction == "sum" else 0.0,), loss
        weight = arguments.weight if arguments.divisor is None else arguments.divisor
        total, exponent = float(math.prod(arguments.rows)), 0
        if weight is not None:
            a, b = _labels.weight_scale(weight, arguments.xp)
            total = _as_number(arguments.xp.sum(weight * a * b))
            exponent = -math.frexp(a)[1] - math.frexp(b)[1] + 2
        if not total:  # the mean of no rows is NaN, their sum is 0
            loss = cross_entropy(shard.z, y, **settings | {"reduction": "sum"})
        return text, (_as_number(loss), total, exponent), loss

    loss, ranks = gather_numbers(shard, of_rank)
    if reduction == "none":
        return loss
    share = 1.0
    if reduction == "sum":
        value = math.fsum(of_one for (of_one,) in ranks)
    else:
        largest = max(exponent for _, _, exponent in ranks)
        means = [mean for mean, _, _ in ranks]
        weights = [math.ldexp(total, int(exponent - largest)) for _, total, exponent in ranks]
        shares = np.asarray(weights) / (sum(weights) or math.nan)
        value = float(np.sum(shares * np.where(shares == 0, 0.0, means)))
        share = float(shares[shard.rank])
    xp = array_namespace(loss)
    if not is_torch_array(loss):
        return _arrays.scalar(xp.asarray(value, dtype=loss.dtype))
    own = loss * share  # has the gradient
    return own + xp.where(xp.isfinite(own), value - own, value).detach()


def _as_number(x: Any) -> float:
    return float(x.detach() if is_torch_array(x) else x)


def _common_settings(arguments: LossArguments, settings: dict[str, Any]) -> str:
    """What must be the same on all ranks, as text."""
    request, weight = arguments.request, settings["weight"]
    parts = [f"{request.z.shape[request.axes[0]]} classes of {request.z.dtype}"]
    parts += [
        f"{name} {settings[name]}" for name in ("reduction", "label_smoothing", "ignore_index")
    ]
    if isinstance(request.temperature, float):  # else one for each row
        parts.append(f"temperature {request.temperature}")
    if weight is not None:
        values = np.asarray(_arrays.on_host(_arrays.as_array(weight, "weight")), np.float64)
        parts.append(f"weight of checksum {zlib.crc32(values.tobytes()):08x}")
    parts += [f"with {name}" for name in ("sample_weight", "where") if settings[name] is not None]
    return ", ".join(parts)


def cross_entropy_and_grad(
    z: Any,
    y: Any,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    support: Support | None = None,
    weight: Any = None,
    label_smoothing: float = 0.0,
    sample_weight: Any = None,
    ignore_index: int | Sequence[int] | None = None,
    reduction: Reduction = "mean",
) -> tuple[Any, Any]:
    r"""The loss of :func:`cross_entropy` and its gradient with respect to the logits.

    :math:`\partial L_n/\partial z_k = w_n (p_k - y_k)/T`, for "mean" divided by the sum of the
    weights. p is :func:`logitlab.softmax`, in a row with a logit of +inf as well.

    Parameters
    ----------
    z, y, axis, temperature, where, support, weight
        As in :func:`cross_entropy`; T is not 0.
    label_smoothing, sample_weight, ignore_index, reduction
        As in :func:`cross_entropy`. With "none" the gradient of each row is that of its
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
    if support is not None:
        where = support_mask(z, axis, where, support)
    options = (where, weight, sample_weight, ignore_index, label_smoothing, reduction)
    result: tuple[Any, Any] | None = _plain_loss(
        z, y, axis, temperature, options, with_gradient=True
    )
    if result is not None:
        return result
    given, z = z, _dispatch.autocast("cross_entropy", z)
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
        weight,
    )
    request = arguments.request
    _arrays.check_differentiable(request.temperature, arguments.xp)
    with np.errstate(all="ignore"):
        loss, gradient = _row_losses(arguments, _gradient_scale(arguments, reduction))
        gradient = request.restore(gradient)
        # Under autocast the loss is in float32, and the gradient in the type of z.
        gradient = gradient if z is given else gradient.to(given.dtype)
        return reduce_rows(arguments, loss, reduction), gradient
