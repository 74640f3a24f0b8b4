"""Losses of CPU tensors with gradients: the compiled kernels, and closed forms by way of
:mod:`torch_autograd` for gradients that are differentiated again."""

from collections.abc import Callable
from typing import Any

import torch
from array_api_compat import array_namespace
from torch import Tensor

from logitlab._backends import native, torch_kernels
from logitlab._backends.targets import Kept, Targets, residual
from logitlab._backends.torch_autograd import (
    SoftmaxFunction,
    kernels_accept,
    slope_of,
    temperature_gradient,
)


class RowLosses(torch.autograd.Function):  # type: ignore[misc]
    """The losses of targets, one for each row, in float64."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Any,
        axis: int,
        t: Any,
        where: Any,
        label: Any,
        distribution: Any,
        smoothing: Any,
    ) -> Any:
        ctx.axis, ctx.t, ctx.smoothing = axis, t if isinstance(t, float) else None, smoothing
        ctx.save_for_backward(z, where, label, distribution, None if isinstance(t, float) else t)
        targets = Targets(label, distribution, smoothing)
        return torch_kernels.target_loss(z, (axis,), t, where, targets, None)[0]

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        z, where, label, distribution, t = ctx.saved_tensors
        targets = Targets(label, distribution, ctx.smoothing)
        t, axis = ctx.t if t is None else t, ctx.axis
        x = z if where is None else torch.where(where, z, -torch.inf)
        scale = g * _per_row(slope_of(t), axis)
        if kernels_accept(g):
            dz: Any = torch_kernels.target_loss(x, (axis,), t, None, targets, scale)[1]
        else:
            x = x if x.itemsize > 2 else x.float()
            last = x.detach().movedim(axis, -1)
            p = SoftmaxFunction.apply("softmax", x, axis, t, None).movedim(axis, -1)
            y = targets.probabilities(last, None, array_namespace(last))
            d = residual(p, y, torch).movedim(-1, axis)
            excluded_infinity = (x == torch.inf) & (t < 0)
            constant = (x == -torch.inf) | excluded_infinity
            constant = constant if label is None else constant | (label < 0).unsqueeze(axis)
            dz = torch.where(constant, 0.0, d * scale.unsqueeze(axis))
        dt = temperature_gradient(dz, x, axis, t) if ctx.needs_input_grad[2] else None
        return dz.to(z.dtype), None, dt, None, None, None, None


class ReducedLoss(torch.autograd.Function):  # type: ignore[misc]
    """The 0-d sum over the rows of their losses times their shares.

    `evaluate(row_share, *inputs)` returns the losses and the gradients by the inputs, computed
    together. The first backward pass uses these gradients; a later one computes them again.
    `row_losses(*inputs)` returns the losses only, differentiable twice. `constants` are the other
    tensors that both read: autograd raises an error if they are changed before the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        evaluate: Callable[..., Any],
        row_losses: Callable[..., Any],
        constants: tuple[Tensor | None, ...],
        dtype: torch.dtype,
        row_share: Any,
        *inputs: Any,
    ) -> Tensor:
        ctx.evaluate, ctx.row_losses = evaluate, row_losses
        arguments = row_share, *inputs
        ctx.floats = [x if isinstance(x, float) else None for x in arguments]
        tensors = (None if isinstance(x, float) else x for x in arguments)
        ctx.save_for_backward(*tensors, *constants)
        loss, ctx.gradients = evaluate(*arguments)
        return _weighted_sum(row_share, loss).to(dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        # The constants come after the arguments and are not needed here.
        arguments = zip(ctx.floats, ctx.saved_tensors, strict=False)
        row_share, *inputs = [f if x is None else x for f, x in arguments]
        no_gradients = (None,) * 5
        # A tracer cannot record the kernels, which compute the gradients of a later pass.
        is_recorded = ctx.gradients is None and torch_kernels.is_recording()
        if torch.is_grad_enabled() or is_recorded:
            gradients = _differentiable_gradients(
                ctx.needs_input_grad[5:],
                inputs,
                lambda *x: _weighted_sum(row_share, ctx.row_losses(*x)),
                g,
            )
            return *no_gradients, *gradients
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            gradients = ctx.evaluate(row_share, *inputs)[1]
        if not kernels_accept(g):
            return *no_gradients, *(x if x is None else x * g for x in gradients)
        if g.item() == 1:
            return *no_gradients, *gradients
        # A loss is scaled so that small gradients do not underflow in half types.
        if any(x is not None and x.itemsize < 4 for x in gradients):
            return *no_gradients, *ctx.evaluate(row_share * float(g), *inputs)[1]
        return *no_gradients, *(x if x is None else x * g for x in gradients)


class PlainMeanLoss(torch.autograd.Function):  # type: ignore[misc]
    """The mean loss of labels along the last axis, given with its gradient.

    The first backward pass uses the gradient; others compute it again.
    """

    @staticmethod
    def forward(ctx: Any, z: Any, y: Any, t: float, loss: float, gradient: Tensor) -> Tensor:
        ctx.t, ctx.gradient = t, gradient
        ctx.save_for_backward(z, y)
        return torch.tensor(loss, dtype=z.dtype, device="cpu")

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        z, y = ctx.saved_tensors
        gradient, ctx.gradient = ctx.gradient, None
        if torch.is_grad_enabled() or (gradient is None and torch_kernels.is_recording()):

            def mean_loss(z: Tensor) -> Tensor:
                losses = RowLosses.apply(z, z.ndim - 1, ctx.t, None, y, None, 0.0)
                return _weighted_sum(1 / y.numel(), losses)

            [gradient] = _differentiable_gradients((True,), (z,), mean_loss, g)
            return gradient, None, None, None, None
        if gradient is None:
            arrays = z.detach().contiguous().numpy(), y.contiguous().numpy()
            gradient = torch.from_numpy(native.plain_cross_entropy(*arrays, -1, ctx.t, True)[1])
        if not kernels_accept(g) or g.item() != 1:
            gradient = gradient * g
        return gradient, None, None, None, None


def _weighted_sum(row_share: float | Tensor, loss: Tensor) -> Tensor:
    """The sum of row_share times loss, without the rows whose share is 0."""
    if isinstance(row_share, float):
        total = loss.sum()
        return torch.where(torch.isinf(total), (loss * row_share).sum(), total * row_share)
    return torch.where(row_share == 0, 0.0, row_share * loss).sum()


def _differentiable_gradients(
    needed: Any, inputs: Any, function: Callable[..., Tensor], g: Tensor
) -> list[Any]:
    """The gradients by the inputs that need one, which can be differentiated again."""
    indices = [i for i, need in enumerate(needed) if need]
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        value = function(*inputs)
        results = torch.autograd.grad(
            value, [inputs[i] for i in indices], g.to(value.dtype), create_graph=True
        )
    gradients: list[Any] = [None] * len(inputs)
    for i, gradient in zip(indices, results, strict=True):
        gradients[i] = gradient if differentiable else gradient.detach()
    return gradients


def _per_row(x: Any, axis: int) -> Any:
    """A factor that broadcasts against z, without the class axis."""
    return x if isinstance(x, float) else x.squeeze(axis)


def reduced_target_loss(
    z: Tensor, axis: int, t: Any, where: Tensor | None, targets: Targets, row_share: Any
) -> Tensor:
    """The differentiable sum over the rows of row_share times loss."""
    by_temperature = not isinstance(t, float) and t.requires_grad

    def evaluate(row_share: Any, z: Tensor, t: Any) -> Any:
        x = z if where is None else torch.where(where, z, -torch.inf)
        scale = row_share * _per_row(slope_of(t), axis)
        loss, dz = torch_kernels.kernel_loss(x, (axis,), t, None, targets, scale)
        return loss, (dz, temperature_gradient(dz, x, axis, t) if by_temperature else None)

    def row_losses(z: Tensor, t: Any) -> Any:
        return RowLosses.apply(z, axis, t, where, *targets[:3])

    constants = (where, targets.label, targets.distribution)
    return ReducedLoss.apply(evaluate, row_losses, constants, z.dtype, row_share, z, t)


def reduced_linear_loss(
    x: Tensor, weight: Tensor, bias: Tensor | None, targets: Targets, t: Any, row_share: Any
) -> Tensor:
    """As :func:`reduced_target_loss`, for the logits of a linear layer."""
    by_temperature = not isinstance(t, float) and t.requires_grad

    def evaluate(row_share: Any, x: Tensor, weight: Tensor, bias: Tensor | None, t: Any) -> Any:
        scale = row_share * _per_row(slope_of(t), 1)
        return torch_kernels.linear_loss(x, weight, bias, targets, t, scale, by_temperature)

    def row_losses(x: Tensor, weight: Tensor, bias: Tensor | None, t: Any) -> Any:
        label, _, smoothing, class_weight, kept = targets
        return LinearRowLosses.apply(x, weight, bias, t, label, smoothing, class_weight, kept)

    constants = (targets.label, targets.class_weight)
    inputs = (x, weight, bias, t)
    return ReducedLoss.apply(evaluate, row_losses, constants, x.dtype, row_share, *inputs)


class LinearRowLosses(torch.autograd.Function):  # type: ignore[misc]
    """The losses of labels with the logits of a linear layer, one for each row, in float64.

    The gradients depend on the upstream gradient of each row, so the backward pass computes the
    logits again: only the arguments are kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Any,
        weight: Any,
        bias: Any,
        t: Any,
        label: Any,
        smoothing: float,
        class_weight: Any,
        kept: Kept | None,
    ) -> Any:
        ctx.t, ctx.smoothing, ctx.kept = t if isinstance(t, float) else None, smoothing, kept
        tensor_t = None if isinstance(t, float) else t
        ctx.save_for_backward(x, weight, bias, label, tensor_t, class_weight)
        targets = Targets(label, None, smoothing, class_weight, kept)
        return torch_kernels.linear_loss(x, weight, bias, targets, t, None, False)[0]

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x, weight, bias, label, t, class_weight = ctx.saved_tensors
        t = ctx.t if t is None else t
        targets = Targets(label, None, ctx.smoothing, class_weight, ctx.kept)
        if not kernels_accept(g):
            return _gradients_from_logits(ctx, x, weight, bias, t, targets, g)
        scale = g * _per_row(slope_of(t), 1)
        by_temperature = ctx.needs_input_grad[3]
        gradients: Any = torch_kernels.linear_loss(
            x, weight, bias, targets, t, scale, by_temperature
        )[1]
        return *gradients, *[None] * 4


def _gradients_from_logits(
    ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, t: Any, targets: Targets, g: Tensor
) -> Any:
    """The gradients by way of the whole logits, which can be differentiated again."""

    def row_losses(x: Tensor, weight: Tensor, bias: Tensor | None, t: Any) -> Tensor:
        z = x @ weight.T if bias is None else x @ weight.T + bias
        if targets.kept is not None:
            z = torch.where(targets.kept.mask(len(weight)), z, -torch.inf)
        of_rows = targets if targets.class_weight is None else targets.weighted(z.detach())
        loss: Tensor = RowLosses.apply(z, 1, t, None, *of_rows[:3])
        return loss

    inputs = (x, weight, bias, t)
    gradients = _differentiable_gradients(ctx.needs_input_grad[:4], inputs, row_losses, g)
    return *gradients, *[None] * 4
