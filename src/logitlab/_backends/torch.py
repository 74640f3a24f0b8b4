"""The backend of torch tensors: the compiled kernels on the CPU, the reference everywhere else.

Gradients on the CPU are in closed form. The reference uses torch operations, so that other devices
and `torch.func` transforms are supported as well.
"""

from typing import Any

import torch
from torch import Tensor

from logitlab._arrays import Array, Axes
from logitlab._backends import native, torch_autograd, torch_kernels, torch_losses
from logitlab._backends.linear_loss import Gradients
from logitlab._backends.reference import (
    centred,
    hessian_product,
    logits,
    one_minus,
    signed_logsumexp,
)
from logitlab._backends.targets import Targets
from logitlab._backends.torch_kernels import (
    covers_losses,
    jacobian,
    jacobian_product,
    readable,
    requires_gradient,
)

__all__ = [
    "centred",
    "hessian_product",
    "jacobian",
    "jacobian_product",
    "linear_loss",
    "log_softmax",
    "logits",
    "logsumexp",
    "one_minus",
    "plain_cross_entropy",
    "plain_log_softmax",
    "plain_logsumexp",
    "plain_softmax",
    "reduced_linear_loss",
    "reduced_target_loss",
    "signed_logsumexp",
    "softmax",
    "target_loss",
]


def _plain(name: str, z: Any, axis: Any, temperature: Any, where: Any) -> Tensor | None:
    """The result of the most common calls, without further checks; None for any other call."""
    if where is not None or not torch_kernels.is_plain(z, axis, temperature):
        return None
    if z.requires_grad and torch.is_grad_enabled():
        result: Tensor = torch_autograd.PlainSoftmaxFunction.apply(name, z, temperature)
        return result
    return torch_kernels.plain(name, z, temperature)


def plain_softmax(z: Any, axis: Any, temperature: Any, where: Any) -> Tensor | None:
    return _plain("softmax", z, axis, temperature, where)


def plain_log_softmax(z: Any, axis: Any, temperature: Any, where: Any) -> Tensor | None:
    return _plain("log_softmax", z, axis, temperature, where)


def plain_logsumexp(z: Any, axis: Any, temperature: Any, where: Any) -> Tensor | None:
    return _plain("logsumexp", z, axis, temperature, where)


def plain_cross_entropy(z: Any, y: Any, axis: Any, t: Any, with_gradient: bool) -> Any:
    """As :func:`native.plain_cross_entropy`."""
    if not torch_kernels.is_plain(z, axis, t) or not torch_kernels.is_plain_label(y):
        return None
    needs_gradient = z.requires_grad and torch.is_grad_enabled()
    if z.itemsize < 4 or (with_gradient and needs_gradient):
        return None
    result = native.plain_cross_entropy(
        z.detach().numpy(), y.numpy(), -1, t, with_gradient or needs_gradient
    )
    if result is None:
        return None
    if needs_gradient:
        loss, gradient = result
        return torch_losses.PlainMeanLoss.apply(z, y, t, loss.item(), torch.from_numpy(gradient))
    if with_gradient:
        loss, gradient = result
        return torch.tensor(loss.item(), dtype=z.dtype, device="cpu"), torch.from_numpy(gradient)
    return torch.tensor(result.item(), dtype=z.dtype, device="cpu")


def _needs_autograd(z: Tensor, axis: Axes, t: float | Tensor, where: Tensor | None) -> bool:
    """Whether a call needs a gradient that ``torch_autograd`` or ``torch_losses`` computes."""
    return (
        requires_gradient(z, t)
        and len(axis) == 1
        and z.shape[axis[0]] > 0
        and readable(z, t, where)
    )


def _elementwise(
    name: str, z: Array, axis: Axes, t: float | Array, where: Array | None, out: Array | None
) -> Array:
    if out is None and _needs_autograd(z, axis, t, where):
        return torch_autograd.SoftmaxFunction.apply(name, z, axis[0], t, where)
    return getattr(torch_kernels, name)(z, axis, t, where, out)


def softmax(
    z: Array, axis: Axes, temperature: float | Array, where: Array | None, out: Array | None
) -> Array:
    return _elementwise("softmax", z, axis, temperature, where, out)


def log_softmax(
    z: Array, axis: Axes, temperature: float | Array, where: Array | None, out: Array | None
) -> Array:
    return _elementwise("log_softmax", z, axis, temperature, where, out)


def logsumexp(
    z: Array, axis: Axes, temperature: float | Array, where: Array | None, keepdims: bool
) -> Array:
    if _needs_autograd(z, axis, temperature, where):
        value = torch_autograd.SoftmaxFunction.apply("logsumexp", z, axis[0], temperature, where)
        return value if keepdims else value.squeeze(axis[0])
    return torch_kernels.logsumexp(z, axis, temperature, where, keepdims)


def target_loss(
    z: Array,
    axis: Axes,
    temperature: float | Array,
    where: Array | None,
    targets: Targets,
    scale: float | Array | None,
) -> tuple[Array, Array | None]:
    needs_autograd = scale is None and _needs_autograd(z, axis, temperature, where)
    if needs_autograd and covers_losses(z, z.shape[axis[0]], temperature, targets):
        return torch_losses.RowLosses.apply(z, axis[0], temperature, where, *targets[:3]), None
    return torch_kernels.target_loss(z, axis, temperature, where, targets, scale)


def reduced_target_loss(
    z: Tensor,
    axis: Axes,
    temperature: float | Tensor,
    where: Tensor | None,
    targets: Targets,
    row_share: float | Tensor,
) -> Tensor | None:
    """The sum over the rows of row_share times loss if it needs a gradient, else None."""
    covered = _needs_autograd(z, axis, temperature, where) and not requires_gradient(row_share)
    if not covered or not covers_losses(z, z.shape[axis[0]], temperature, targets):
        return None
    return torch_losses.reduced_target_loss(z, axis[0], temperature, where, targets, row_share)


def reduced_linear_loss(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Targets,
    t: float | Tensor,
    row_share: float | Tensor,
) -> Tensor | None:
    """As :func:`reduced_target_loss`, for the logits of a linear layer."""
    inputs = (x, weight, bias, t)
    covered = requires_gradient(*inputs) and readable(*inputs) and not requires_gradient(row_share)
    if not covered or not covers_losses(x, len(weight), t, targets):
        return None
    return torch_losses.reduced_linear_loss(x, weight, bias, targets, t, row_share)


def linear_loss(
    x: Array,
    weight: Array,
    bias: Array | None,
    targets: Targets,
    t: float | Array,
    scale: float | Array | None,
    by_temperature: bool,
) -> tuple[Array, Gradients | None]:
    inputs = (x, weight, bias, t)
    needs_autograd = scale is None and requires_gradient(*inputs) and readable(*inputs)
    if needs_autograd and covers_losses(x, len(weight), t, targets):
        loss = torch_losses.LinearRowLosses.apply(
            x, weight, bias, t, targets.label, targets.smoothing, *targets[3:]
        )
        return loss, None
    return torch_kernels.linear_loss(x, weight, bias, targets, t, scale, by_temperature)
