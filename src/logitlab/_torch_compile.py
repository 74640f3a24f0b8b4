"""Operators for torch.compile, which call the eager functions.

Each operator has a fake implementation, for shapes and types, and a backward operator with the
gradient in closed form. So a compiled graph has no break at them, and the compiler does not trace
into them. The public functions call the functions softmax, log_softmax, logsumexp, cross_entropy
and linear_cross_entropy of this module while torch.compile traces them.
"""

# mypy: disable-error-code="untyped-decorator"

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from logitlab import _arrays, _checks, _loss_arguments, linear_losses, losses, probabilities
from logitlab._backends import torch_autograd


@torch.compiler.disable(reason="logitlab: the function reads the values of its arguments")
def call_eagerly(function: Any, *args: Any, **kwargs: Any) -> Any:
    """A call that torch.compile does not trace."""
    return function(*args, **kwargs)


def _eager_linear_loss(*arguments: Any) -> Any:
    """A linear cross-entropy that is not traced."""
    checked = call_eagerly(linear_losses.check_arguments, *arguments)
    return call_eagerly(linear_losses.loss_value, checked, arguments[8])


def _as_floating(z: Tensor) -> Tensor:
    if z.dtype.is_complex:
        raise TypeError(f"z must be a real array, got {_arrays.dtype_name(z.dtype)}")
    return z if z.dtype.is_floating_point else z.double()


def _as_float(x: Any, name: str) -> float:
    if isinstance(x, bool):
        raise TypeError(f"{name} must be a real number, got {x}")
    return float(x)


def _refuse_gradient(required: bool, name: str) -> None:
    if required:
        raise NotImplementedError(
            f"{name} must not require a gradient under torch.compile, which does not compute it"
        )


@torch.library.custom_op("logitlab::probabilities", mutates_args=())
def _probabilities(
    name: str, z: Tensor, axis: int, t: float, rows: Tensor | None, where: Tensor | None
) -> Tensor:
    function: Any = getattr(probabilities, name)
    options = {"keepdims": True} if name == "logsumexp" else {}
    temperature = t if rows is None else rows
    value = function(z, axis, temperature=temperature, where=where, **options)
    return value.contiguous().clone() if value.is_set_to(z) else value.contiguous()


@_probabilities.register_fake
def _(name: Any, z: Any, axis: Any, t: Any, rows: Any, where: Any) -> Any:
    shape = list(z.shape)
    if name == "logsumexp":
        shape[axis] = 1
    return z.new_empty(shape)


@torch.library.custom_op("logitlab::probabilities_backward", mutates_args=())
def _probabilities_backward(
    name: str,
    z: Tensor,
    g: Tensor,
    axis: int,
    t: float,
    rows: Tensor | None,
    where: Tensor | None,
) -> tuple[Tensor, Tensor]:
    temperature = t if rows is None else rows.double().unsqueeze(axis)
    dz, dt = torch_autograd.softmax_gradients(
        name, z, g, axis, temperature, where, rows is not None
    )
    if rows is None or dt is None:
        return dz.contiguous(), torch.empty(0)
    return dz.contiguous(), dt.squeeze(axis).to(rows.dtype)


@_probabilities_backward.register_fake
def _(name: Any, z: Any, g: Any, axis: Any, t: Any, rows: Any, where: Any) -> Any:
    return z.new_empty(z.shape), torch.empty(0) if rows is None else rows.new_empty(rows.shape)


def _save_probabilities(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.name, z, ctx.axis, ctx.t, rows, where = inputs
    ctx.save_for_backward(z, rows, where)


def _backward_probabilities(ctx: Any, g: Any) -> Any:
    z, rows, where = ctx.saved_tensors
    dz, dt = _probabilities_backward(ctx.name, z, g, ctx.axis, ctx.t, rows, where)
    return None, dz, None, None, None if rows is None else dt, None


_probabilities.register_autograd(_backward_probabilities, setup_context=_save_probabilities)


def _apply_probabilities(
    name: str, z: Tensor, axis: Any, temperature: Any, where: Tensor | None
) -> Tensor:
    """The operator over any axes, which logsumexp keeps with length 1."""
    z = _as_floating(z)
    ndim = max(z.ndim, 1)
    x = z if z.ndim else z[None]
    axes = list(_arrays.class_axes(axis, ndim))
    batch = [a for a in range(ndim) if a not in axes]
    order = batch + axes
    rows, t = None, 1.0
    if isinstance(temperature, torch.Tensor):
        rows = temperature.expand([x.shape[a] for a in batch]).contiguous()
    else:
        t = _as_float(temperature, "temperature")
    if where is not None:
        where = where.expand(x.shape).permute(order).flatten(len(batch)).contiguous()
    permuted = x.permute(order)
    flat = permuted.flatten(len(batch)).contiguous()
    value = _probabilities(name, flat, len(batch), t, rows, where)
    if name == "logsumexp":
        value = value.reshape([*value.shape[:-1], *[1] * len(axes)])
    else:
        value = value.reshape(permuted.shape)
    value = value.permute([order.index(a) for a in range(ndim)])
    return value if z.ndim else value[0]


def softmax(z: Any, axis: Any, temperature: Any, where: Any, empty: str) -> Any:
    p = _apply_probabilities("softmax", z, axis, temperature, where)
    if empty == "nan":
        return p
    axes = _arrays.class_axes(axis, z.ndim)
    has_nan = probabilities.contains_nan(z, axes, where, torch)
    return probabilities.zero_unless(has_nan, p, torch)


def log_softmax(z: Any, axis: Any, temperature: Any, where: Any) -> Any:
    return _apply_probabilities("log_softmax", z, axis, temperature, where)


def logsumexp(z: Any, axis: Any, temperature: Any, where: Any, keepdims: bool) -> Any:
    value = _apply_probabilities("logsumexp", z, axis, temperature, where)
    if keepdims or not z.ndim:
        return value
    return value.squeeze(_arrays.class_axes(axis, z.ndim))


@torch.library.custom_op("logitlab::cross_entropy", mutates_args=())
def _cross_entropy(
    z: Tensor,
    y: Tensor,
    axis: int,
    t: float,
    rows: Tensor | None,
    where: Tensor | None,
    smoothing: float,
    sample_weight: Tensor | None,
    ignore_index: Sequence[int] | None,
    reduction: str,
    weight: Tensor | None,
) -> Tensor:
    arguments = _loss_arguments.check_arguments(
        z, y, axis, t if rows is None else rows, where, smoothing, sample_weight, ignore_index,
        reduction, weight,
    )  # fmt: skip
    return losses.loss_value(arguments, reduction)


@_cross_entropy.register_fake
def _(
    z: Any,
    y: Any,
    axis: Any,
    t: Any,
    rows: Any,
    where: Any,
    s: Any,
    w: Any,
    i: Any,
    r: Any,
    weight: Any,
) -> Any:
    shape = list(z.shape)
    del shape[axis]
    return z.new_empty(shape if r == "none" else ())


@torch.library.custom_op("logitlab::cross_entropy_backward", mutates_args=())
def _cross_entropy_backward(
    g: Tensor,
    z: Tensor,
    y: Tensor,
    axis: int,
    t: float,
    rows: Tensor | None,
    where: Tensor | None,
    smoothing: float,
    sample_weight: Tensor | None,
    ignore_index: Sequence[int] | None,
    reduction: str,
    weight: Tensor | None,
) -> tuple[Tensor, Tensor]:
    arguments = _loss_arguments.check_arguments(
        z, y, axis, t if rows is None else rows, where, smoothing, sample_weight, ignore_index,
        reduction, weight,
    )  # fmt: skip
    dz = losses.loss_gradient(arguments, reduction, g)
    if rows is None:
        return dz.contiguous(), torch.empty(0)
    x = z if where is None else torch.where(where, z, -torch.inf)
    dt = torch_autograd.temperature_gradient(dz, x, axis, rows.double().unsqueeze(axis))
    return dz.contiguous(), dt.squeeze(axis).to(rows.dtype)


@_cross_entropy_backward.register_fake
def _(g: Any, z: Any, y: Any, axis: Any, t: Any, rows: Any, *rest: Any) -> Any:
    return z.new_empty(z.shape), torch.empty(0) if rows is None else rows.new_empty(rows.shape)


def _save_cross_entropy(ctx: Any, inputs: Any, output: Any) -> None:
    z, y, axis, t, rows, where, smoothing, sample_weight, ignore_index, reduction, weight = inputs
    ctx.save_for_backward(z, y, rows, where, sample_weight, weight)
    ctx.rest = axis, t, smoothing, ignore_index, reduction


def _backward_cross_entropy(ctx: Any, g: Any) -> Any:
    _refuse_gradient(ctx.needs_input_grad[1], "y")
    _refuse_gradient(ctx.needs_input_grad[7], "sample_weight")
    _refuse_gradient(ctx.needs_input_grad[10], "weight")
    z, y, rows, where, sample_weight, weight = ctx.saved_tensors
    axis, t, smoothing, ignore_index, reduction = ctx.rest
    dz, dt = _cross_entropy_backward(
        g, z, y, axis, t, rows, where, smoothing, sample_weight, ignore_index, reduction, weight
    )
    return dz, None, None, None, None if rows is None else dt, *[None] * 6


_cross_entropy.register_autograd(_backward_cross_entropy, setup_context=_save_cross_entropy)


@torch.library.custom_op("logitlab::linear_cross_entropy", mutates_args=())
def _linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    bias: Tensor | None,
    t: float,
    rows: Tensor | None,
    smoothing: float,
    sample_weight: Tensor | None,
    ignore_index: Sequence[int] | None,
    reduction: str,
    class_weight: Tensor | None,
) -> Tensor:
    arguments = linear_losses.check_arguments(
        x, weight, y, bias, t if rows is None else rows, smoothing, sample_weight, ignore_index,
        reduction, class_weight,
    )  # fmt: skip
    return linear_losses.loss_value(arguments, reduction)


@_linear_cross_entropy.register_fake
def _(
    x: Any, w: Any, y: Any, b: Any, t: Any, rows: Any, s: Any, sw: Any, i: Any, r: Any, cw: Any
) -> Any:
    return x.new_empty(y.shape if r == "none" else ())


@torch.library.custom_op("logitlab::linear_cross_entropy_backward", mutates_args=())
def _linear_cross_entropy_backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    bias: Tensor | None,
    t: float,
    rows: Tensor | None,
    smoothing: float,
    sample_weight: Tensor | None,
    ignore_index: Sequence[int] | None,
    reduction: str,
    class_weight: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    arguments = linear_losses.check_arguments(
        x, weight, y, bias, t if rows is None else rows, smoothing, sample_weight, ignore_index,
        reduction, class_weight,
    )  # fmt: skip
    dx, dweight, dbias, dt = linear_losses.loss_gradients(arguments, reduction, g, rows is not None)
    dbias = torch.empty(0) if dbias is None else dbias
    dt = torch.empty(0) if rows is None else dt.reshape(rows.shape).to(rows.dtype)
    return dx, dweight, dbias, dt


@_linear_cross_entropy_backward.register_fake
def _(g: Any, x: Any, weight: Any, y: Any, bias: Any, t: Any, rows: Any, *rest: Any) -> Any:
    dbias = torch.empty(0) if bias is None else bias.new_empty(bias.shape)
    dt = torch.empty(0) if rows is None else rows.new_empty(rows.shape)
    return x.new_empty(x.shape), weight.new_empty(weight.shape), dbias, dt


def _save_linear(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, y, bias, t, rows, smoothing, sample_weight, ignore_index, reduction, cw = inputs
    ctx.save_for_backward(x, weight, y, bias, rows, sample_weight, cw)
    ctx.rest = t, smoothing, ignore_index, reduction


def _backward_linear(ctx: Any, g: Any) -> Any:
    _refuse_gradient(ctx.needs_input_grad[7], "sample_weight")
    _refuse_gradient(ctx.needs_input_grad[10], "class_weight")
    x, weight, y, bias, rows, sample_weight, class_weight = ctx.saved_tensors
    t, smoothing, ignore_index, reduction = ctx.rest
    dx, dweight, dbias, dt = _linear_cross_entropy_backward(
        g, x, weight, y, bias, t, rows, smoothing, sample_weight, ignore_index, reduction,
        class_weight,
    )  # fmt: skip
    dbias, dt = None if bias is None else dbias, None if rows is None else dt
    return dx, dweight, None, dbias, None, dt, *[None] * 5


_linear_cross_entropy.register_autograd(_backward_linear, setup_context=_save_linear)


def _split_temperature(temperature: Any, batch: Any) -> tuple[float, Tensor | None]:
    """T as a number and None, or as 1 and a tensor of one for each row."""
    if isinstance(temperature, Tensor):
        return 1.0, temperature.expand(batch).contiguous()
    return _as_float(temperature, "temperature"), None


def cross_entropy(
    z: Any,
    y: Any,
    axis: int,
    temperature: Any,
    where: Any,
    label_smoothing: float,
    sample_weight: Any,
    ignore_index: Any,
    reduction: str,
    weight: Tensor | None,
) -> Any:
    z = _as_floating(z)
    _arrays.one_axis(axis, z.ndim)
    if not z.ndim:  # K = 1
        z, y = z[None], y[None] if y.is_floating_point() else y
    axis %= z.ndim
    t, rows = _split_temperature(temperature, [n for i, n in enumerate(z.shape) if i != axis])
    smoothing = _as_float(label_smoothing, "label_smoothing")
    ignore = None if ignore_index is None else list(_checks.integers(ignore_index, "ignore_index"))
    return _cross_entropy(
        z, y, axis, t, rows, where, smoothing, sample_weight, ignore, reduction, weight
    )


def linear_cross_entropy(
    x: Any,
    weight: Any,
    y: Any,
    bias: Any,
    temperature: Any,
    smoothing: float,
    sample_weight: Any,
    ignore_index: Any,
    reduction: str,
    class_weight: Any,
    support: Any,
) -> Any:
    if support is not None:  # whose size depends on its values
        return _eager_linear_loss(
            x, weight, y, bias, temperature, smoothing, sample_weight, ignore_index, reduction,
            class_weight, support,
        )  # fmt: skip
    t, rows = _split_temperature(temperature, x.shape[:-1])
    smoothing = _as_float(smoothing, "label_smoothing")
    ignore = None if ignore_index is None else list(_checks.integers(ignore_index, "ignore_index"))
    return _linear_cross_entropy(
        x, weight, y, bias, t, rows, smoothing, sample_weight, ignore, reduction,
        class_weight,
    )  # fmt: skip
