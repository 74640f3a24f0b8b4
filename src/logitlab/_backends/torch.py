"""Tensors: those of the CPU through the kernels, everything else through the reference.

The reference runs on torch's own operations, so gradients, other devices, `torch.func` transforms
and compiled graphs go through it.
"""

from typing import Any

from logitlab._backends import torch_autograd, torch_kernels
from logitlab._backends.reference import centred, logits, one_minus
from logitlab._backends.targets import Targets
from logitlab._backends.torch_kernels import (
    covers_losses,
    jacobian,
    jacobian_product,
    readable,
    wants_gradient,
)

__all__ = [
    "centred",
    "jacobian",
    "jacobian_product",
    "linear_loss",
    "log_softmax",
    "logits",
    "logsumexp",
    "one_minus",
    "softmax",
    "target_loss",
    "total_linear_loss",
    "total_target_loss",
]


def _closed(z: Any, axis: tuple[int, ...], t: Any, where: Any) -> bool:
    """Whether a call wants a gradient that has its closed form."""
    return (
        wants_gradient(z, t) and len(axis) == 1 and z.shape[axis[0]] > 0 and readable(z, t, where)
    )


def _elementwise(name: str, z: Any, axis: tuple[int, ...], t: Any, where: Any, out: Any) -> Any:
    if out is None and _closed(z, axis, t, where):
        return torch_autograd.Closed.apply(name, z, axis[0], t, where)
    return getattr(torch_kernels, name)(z, axis, t, where, out)


def softmax(z: Any, axis: tuple[int, ...], temperature: Any, where: Any, out: Any) -> Any:
    return _elementwise("softmax", z, axis, temperature, where, out)


def log_softmax(z: Any, axis: tuple[int, ...], temperature: Any, where: Any, out: Any) -> Any:
    return _elementwise("log_softmax", z, axis, temperature, where, out)


def logsumexp(z: Any, axis: tuple[int, ...], temperature: Any, where: Any, keepdims: bool) -> Any:
    if _closed(z, axis, temperature, where):
        value = torch_autograd.Closed.apply("logsumexp", z, axis[0], temperature, where)
        return value if keepdims else value.squeeze(axis[0])
    return torch_kernels.logsumexp(z, axis, temperature, where, keepdims)


def target_loss(
    z: Any, axis: tuple[int, ...], temperature: Any, where: Any, targets: Targets, scale: Any
) -> tuple[Any, Any]:
    closed = scale is None and _closed(z, axis, temperature, where)
    if closed and covers_losses(z, z.shape[axis[0]], temperature, targets):
        return torch_autograd.TargetLoss.apply(z, axis[0], temperature, where, *targets), None
    return torch_kernels.target_loss(z, axis, temperature, where, targets, scale)


def total_target_loss(
    z: Any, axis: tuple[int, ...], temperature: Any, where: Any, targets: Targets, share: Any
) -> Any:
    """The sum of share times loss where a gradient of it is wanted, else None."""
    covered = _closed(z, axis, temperature, where) and not wants_gradient(share)
    if not covered or not covers_losses(z, z.shape[axis[0]], temperature, targets):
        return None
    return torch_autograd.total_target_loss(z, axis[0], temperature, where, targets, share)


def total_linear_loss(x: Any, weight: Any, bias: Any, targets: Targets, t: Any, share: Any) -> Any:
    """As :func:`total_target_loss`, of linear logits."""
    given = (x, weight, bias, t)
    covered = wants_gradient(*given) and readable(*given) and not wants_gradient(share)
    if not covered or not covers_losses(x, len(weight), t, targets):
        return None
    return torch_autograd.total_linear_loss(x, weight, bias, targets, t, share)


def linear_loss(
    x: Any, weight: Any, bias: Any, targets: Targets, t: Any, scale: Any, by_temperature: bool
) -> tuple[Any, Any]:
    given = (x, weight, bias, t)
    closed = scale is None and wants_gradient(*given) and readable(*given)
    if closed and covers_losses(x, len(weight), t, targets):
        loss = torch_autograd.LinearLoss.apply(x, weight, bias, t, targets.label, targets.smoothing)
        return loss, None
    return torch_kernels.linear_loss(x, weight, bias, targets, t, scale, by_temperature)
