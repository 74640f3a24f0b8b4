"""CPU tensors with gradients: the compiled kernels forward, gradients in closed form backward.

All functions depend on z/T. With d = dL/dz, dL/dT is sum d (m - z)/T for softmax, log_softmax and
the losses, whose d sums to 0 (m is the largest entry), and sum d (logsumexp - z)/T for logsumexp.
A gradient that is differentiated again is computed by the differentiable functions of this module.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from logitlab._backends import native, torch_kernels
from logitlab._backends.targets import Targets, residual


def _slope(t: Any) -> Any:
    """1/T; 0 at T = 0 and inf, where the derivative does not exist or is 0."""
    if isinstance(t, float):
        return 0.0 if t == 0 else 1 / t
    is_limit = (t == 0) | torch.isinf(t)
    return torch.where(is_limit, 0.0, 1 / torch.where(is_limit, 1.0, t))


def _divide_by_temperature(x: Tensor, t: Any) -> Tensor:
    """x/T, where 1/T may overflow: 0 stays 0."""
    slope = _slope(t)
    if isinstance(slope, float):
        if abs(slope) <= torch.finfo(x.dtype).max:
            return x * slope
        slope = x.new_tensor(slope)
    return torch.where((x == 0) & torch.isinf(slope), x, x * slope)


def _kernels_accept(g: Tensor) -> bool:
    """Whether the kernels can take an upstream gradient: it is neither differentiated again nor
    recorded by a tracer nor wrapped by a transform."""
    return not (torch.is_grad_enabled() or torch_kernels.is_recording() or _is_wrapped(g))


def _is_laid_out_as(x: Tensor, g: Tensor) -> bool:
    """Whether x is contiguous, as g is, and of its type, shape and device."""
    same: bool = x.is_contiguous() and x.is_cpu and x.dtype is g.dtype and x.shape == g.shape
    return same and not x.is_neg() and x.data_ptr() % x.itemsize == 0


def _is_wrapped(x: Tensor) -> bool:
    """Whether a transform has wrapped a tensor."""
    functorch = torch._C._functorch
    wrapped: bool = functorch.is_functorch_wrapped_tensor(x) or functorch.is_legacy_batchedtensor(x)
    return wrapped


def _kernel_product(name: str, z: Tensor, p: Tensor | None, g: Tensor, axis: int, t: Any) -> Tensor:
    """The vector-Jacobian product of softmax or log_softmax, by the kernel.

    Without p, the kernel computes it itself if T is a number and the classes are last.
    """
    dtype = z.dtype if z.dtype is torch.float64 else torch.float32
    keeps_axis = native.product_takes_axis(z.shape, axis)

    def prepare(x: Tensor) -> Tensor:
        x = x if keeps_axis else x.movedim(axis, -1)
        return (x if x.dtype is dtype else x.to(dtype)).contiguous().resolve_neg()

    single = isinstance(t, float)
    if p is None and not (single and (not keeps_axis or z.shape[axis + 1 :].numel() == 1)):
        p = torch_kernels.softmax(z, (axis,), t, None, None)
    slope = _slope(t)
    if not single:
        slope = (slope if keeps_axis else slope.movedim(axis, -1)).detach().numpy()
    p, g, z = None if p is None else prepare(p), prepare(g), prepare(z)
    dz = torch_kernels.empty_like(g)
    # Passing an address takes a tenth of the time of passing an array.
    p_address = None if p is None else p.data_ptr()
    rest = (p_address, g.data_ptr(), z.data_ptr(), slope, dz.data_ptr(), t if single else 1.0)
    native.product_at(name, g.itemsize, g.shape, axis if keeps_axis else -1, *rest)
    return dz if keeps_axis else dz.movedim(-1, axis)


def _unit(g: Tensor, axis: int, factor: float) -> float | Tensor:
    """A power of two: 1, or 1/factor in a row whose entries times that may overflow.

    Half types, in which that would cost digits, are not scaled.
    """
    if g.itemsize < 4:
        return 1.0
    largest = g.abs().amax(axis, keepdim=True)
    limit = torch.finfo(g.dtype).max / factor
    return torch.where(largest > limit, 1 / factor, torch.ones_like(largest))


def _softmax_backward(x: Tensor, g: Tensor, axis: int, t: Any, p: Tensor | None) -> Tensor:
    if _kernels_accept(g):
        return _kernel_product("softmax", x, p, g, axis, t)
    p = SoftmaxFunction.apply("softmax", x, axis, t, None)
    unit = _unit(torch.where(p == 0, 0.0, g), axis, 16)
    g = g * unit
    return _divide_by_temperature(p * (g - (p * g).sum(axis, keepdim=True)), t) / unit


def _log_softmax_backward(x: Tensor, g: Tensor, axis: int, t: Any, p: Tensor | None) -> Tensor:
    if _kernels_accept(g):
        return _kernel_product("log_softmax", x, None, g, axis, t)
    p = SoftmaxFunction.apply("softmax", x, axis, t, None)
    g = torch.where(_is_constant(x, axis, t), 0.0, g)
    unit = _unit(g, axis, 2.0 ** x.shape[axis].bit_length() * 16)
    g = g * unit
    return _divide_by_temperature(g - p * g.sum(axis, keepdim=True), t) / unit


def _logsumexp_backward(x: Tensor, g: Tensor, axis: int, t: Any, p: Tensor | None) -> Tensor:
    p = SoftmaxFunction.apply("softmax", x, axis, t, None)
    return torch.where(torch.isinf(x), 0.0, g * p)


def _is_constant(x: Tensor, axis: int, t: Any) -> Tensor:
    """Mask of the entries whose result no finite change of the logits affects: excluded ones, and
    rows with +inf at T > 0."""
    infinite = torch.isinf(x)
    return infinite | ((x == torch.inf).any(axis, keepdim=True) & (t > 0))


_BACKWARD = {
    "softmax": _softmax_backward,
    "log_softmax": _log_softmax_backward,
    "logsumexp": _logsumexp_backward,
}


def _gradient_from_origin(dz: Tensor, x: Tensor, origin: Tensor, axis: int, t: Tensor) -> Tensor:
    """sum dz (origin - z)/T, in the shape of T."""
    infinite = torch.isinf(x)
    finite = torch.where(infinite, 0.0, x)
    constant = infinite | ((dz == 0) & torch.isinf(origin))  # 0 times an infinite distance is 0
    term = torch.where(constant, 0.0, dz * (torch.where(infinite, 0.0, origin) - finite))
    return (term.sum(axis, keepdim=True, dtype=t.dtype) * _slope(t)).sum_to_size(t.shape)


def temperature_gradient(dz: Tensor, x: Tensor, axis: int, t: Tensor) -> Tensor:
    """The gradient by T of functions whose dz sums to 0, so that a finite origin is arbitrary."""
    row_max = x.detach().amax(axis, keepdim=True)
    infinite = (row_max == torch.inf) & (t.detach() > 0)  # at T < 0, +inf is excluded
    origin = torch.where(torch.isfinite(row_max) | infinite, row_max, 0.0)
    return _gradient_from_origin(dz, x, origin, axis, t)


class SoftmaxFunction(torch.autograd.Function):  # type: ignore[misc]
    """softmax, log_softmax or logsumexp over one axis, which logsumexp keeps."""

    @staticmethod
    def forward(ctx: Any, name: str, z: Any, axis: int, t: Any, where: Any) -> Any:
        x = z if where is None else torch.where(where, z, -torch.inf)
        if name == "logsumexp":
            value = torch_kernels.logsumexp(x, (axis,), t, None, True)
        else:
            value = getattr(torch_kernels, name)(x, (axis,), t, None, None)
        ctx.name, ctx.axis = name, axis
        ctx.t = t if isinstance(t, float) else None
        ctx.save_for_backward(
            z, where, value if name == "softmax" else None, None if isinstance(t, float) else t
        )
        return value

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        z, where, p, t = ctx.saved_tensors
        t = ctx.t if t is None else t
        dz, dt = softmax_gradients(ctx.name, z, g, ctx.axis, t, where, ctx.needs_input_grad[3], p)
        return None, dz, None, dt, None


class PlainFunction(torch.autograd.Function):  # type: ignore[misc]
    """As :class:`SoftmaxFunction`, of the calls that :func:`torch_kernels.is_plain` accepts."""

    @staticmethod
    def forward(ctx: Any, name: str, z: Any, t: float) -> Tensor:
        value = torch_kernels.plain(name, z, t)
        ctx.name, ctx.t = name, t
        ctx.save_for_backward(z, value if name == "softmax" else None)
        return value

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        z, p = ctx.saved_tensors
        name, t = ctx.name, ctx.t
        if name == "logsumexp":
            g = g.unsqueeze(-1)
        elif (
            z.itemsize >= 4
            and g.dtype is z.dtype
            and not torch.is_grad_enabled()
            and not _is_wrapped(g)
            and torch_kernels.is_plain(g, -1, t)
            # What hooks of saved tensors return may be in another layout.
            and _is_laid_out_as(z, g)
            and (p is None or _is_laid_out_as(p, g))
        ):
            dz = torch_kernels.empty_like(g)
            k = g.shape[-1]
            p_address = None if p is None else p.data_ptr()
            arrays = p_address, g.data_ptr(), z.data_ptr(), dz.data_ptr()
            native.products(name, z.itemsize == 8, g.numel() // k, k, 1, *arrays, _slope(t), t)
            return None, dz, None
        return None, softmax_gradients(name, z, g, z.ndim - 1, t, None, False, p)[0], None


def softmax_gradients(
    name: str,
    z: Tensor,
    g: Tensor,
    axis: int,
    t: Any,
    where: Tensor | None,
    by_temperature: bool,
    p: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The gradients by z and by T, for the upstream gradient g; `p` is the softmax, if known."""
    x = z if where is None else torch.where(where, z, -torch.inf)
    if p is None and name == "softmax":
        p = SoftmaxFunction.apply("softmax", x, axis, t, None)
    dz = _BACKWARD[name](x, g, axis, t, p)
    dt = None
    if by_temperature:
        if name == "logsumexp":
            dt = _gradient_from_origin(
                dz, x, SoftmaxFunction.apply(name, x, axis, t, None), axis, t
            )
        else:
            dt = temperature_gradient(dz, x, axis, t)
    if not _kernels_accept(g):
        dz = torch.where(_is_constant(x, axis, t), 0.0, dz)
    return dz.to(z.dtype), dt


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
        scale = g * _per_row(_slope(t), axis)
        if _kernels_accept(g):
            dz: Any = torch_kernels.target_loss(x, (axis,), t, None, targets, scale)[1]
        else:
            x = x if x.itemsize > 2 else x.float()
            last = x.detach().movedim(axis, -1)
            p = SoftmaxFunction.apply("softmax", x, axis, t, None).movedim(axis, -1)
            d = residual(p, targets.probabilities(last, None), torch).movedim(-1, axis)
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
        if not _kernels_accept(g):
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
        if not _kernels_accept(g) or g.item() != 1:
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
        scale = row_share * _per_row(_slope(t), axis)
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
        scale = row_share * _per_row(_slope(t), 1)
        return torch_kernels.linear_loss(x, weight, bias, targets, t, scale, by_temperature)

    def row_losses(x: Tensor, weight: Tensor, bias: Tensor | None, t: Any) -> Any:
        label, _, smoothing, class_weight = targets
        return LinearRowLosses.apply(x, weight, bias, t, label, smoothing, class_weight)

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
    ) -> Any:
        ctx.t, ctx.smoothing = t if isinstance(t, float) else None, smoothing
        tensor_t = None if isinstance(t, float) else t
        ctx.save_for_backward(x, weight, bias, label, tensor_t, class_weight)
        targets = Targets(label, None, smoothing, class_weight)
        return torch_kernels.linear_loss(x, weight, bias, targets, t, None, False)[0]

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x, weight, bias, label, t, class_weight = ctx.saved_tensors
        t = ctx.t if t is None else t
        targets = Targets(label, None, ctx.smoothing, class_weight)
        if not _kernels_accept(g):
            return _gradients_from_logits(ctx, x, weight, bias, t, targets, g)
        scale = g * _per_row(_slope(t), 1)
        by_temperature = ctx.needs_input_grad[3]
        gradients: Any = torch_kernels.linear_loss(
            x, weight, bias, targets, t, scale, by_temperature
        )[1]
        return *gradients, None, None, None


def _gradients_from_logits(
    ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, t: Any, targets: Targets, g: Tensor
) -> Any:
    """The gradients by way of the whole logits, which can be differentiated again."""

    def row_losses(x: Tensor, weight: Tensor, bias: Tensor | None, t: Any) -> Tensor:
        z = x @ weight.T if bias is None else x @ weight.T + bias
        of_rows = targets if targets.class_weight is None else targets.weighted(z.detach())
        loss: Tensor = RowLosses.apply(z, 1, t, None, *of_rows[:3])
        return loss

    inputs = (x, weight, bias, t)
    gradients = _differentiable_gradients(ctx.needs_input_grad[:4], inputs, row_losses, g)
    return *gradients, None, None, None
