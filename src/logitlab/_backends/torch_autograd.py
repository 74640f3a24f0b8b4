"""Tensors of the CPU with gradients: the kernels forward, the closed form backward.

Every function here is one of u = z/T. With d = dL/dz, dL/dT = sum d (m - z)/T for softmax,
log_softmax and the losses, whose d sums to 0 (m is the largest entry), and sum d (L - z)/T for
logsumexp. Where the gradient is to be differentiated itself, it is made of the same functions.
"""

from typing import Any

import torch

from logitlab._backends import native, torch_kernels
from logitlab._backends.targets import Targets, difference


def _held(t: Any) -> Any:
    return t if isinstance(t, float) else t.detach()


def _slope(t: Any) -> Any:
    """1/T; 0 at T = 0 and inf, where the derivative does not exist or is 0."""
    if isinstance(t, float):
        return 0.0 if t == 0 else 1 / t
    still = (t == 0) | torch.isinf(t)
    return torch.where(still, 0.0, 1 / torch.where(still, 1.0, t))


def _over(x: Any, t: Any) -> Any:
    """x/T, where 1/T may overflow: 0 stays 0."""
    slope = _slope(t)
    if isinstance(slope, float):
        if abs(slope) <= torch.finfo(x.dtype).max:
            return x * slope
        slope = x.new_tensor(slope)
    return torch.where((x == 0) & torch.isinf(slope), x, x * slope)


def _plain(g: Any) -> bool:
    """Whether what comes from above can go to a kernel: nothing is to be differentiated again, and
    no transform hangs on it."""
    functorch = torch._C._functorch
    return not (
        torch.is_grad_enabled()
        or functorch.is_functorch_wrapped_tensor(g)
        or functorch.is_legacy_batchedtensor(g)
    )


def _product(name: str, z: Any, p: Any, g: Any, axis: int, t: Any) -> Any:
    """The vector-Jacobian product of softmax or log_softmax, in the kernel; without p it finds that
    itself, where it can."""
    wide = z.dtype if z.dtype is torch.float64 else torch.float32
    stays = native.in_place(z.shape, axis)

    def lay(x: Any) -> Any:
        x = x if stays else x.movedim(axis, -1)
        return (x if x.dtype is wide else x.to(wide)).contiguous().resolve_neg()

    single = isinstance(t, float)
    if p is None and not (single and (not stays or z.shape[axis + 1 :].numel() == 1)):
        p = torch_kernels.softmax(z, (axis,), t, None, None)
    slope = _slope(t)
    if not single:
        slope = (slope if stays else slope.movedim(axis, -1)).detach().numpy()
    p, g, z = None if p is None else lay(p), lay(g), lay(z)
    dz = torch_kernels.new(g)
    # An address costs a tenth of an array.
    at_p = None if p is None else p.data_ptr()
    at = (at_p, g.data_ptr(), z.data_ptr(), slope, dz.data_ptr(), t if single else 1.0)
    native.product_at(name, g.itemsize, g.shape, axis if stays else -1, *at)
    return dz if stays else dz.movedim(-1, axis)


def _softmax(x: Any, g: Any, axis: int, t: Any, p: Any) -> Any:
    if _plain(g):
        return _product("softmax", x, p, g, axis, t)
    p = Closed.apply("softmax", x, axis, t, None)
    return _over(p * (g - (p * g).sum(axis, keepdim=True)), t)


def _log_softmax(x: Any, g: Any, axis: int, t: Any, p: Any) -> Any:
    if _plain(g):
        return _product("log_softmax", x, None, g, axis, t)
    p = Closed.apply("softmax", x, axis, t, None)
    g = torch.where(_still(x, axis, t), 0.0, g)
    return _over(g - p * g.sum(axis, keepdim=True), t)


def _logsumexp(x: Any, g: Any, axis: int, t: Any, p: Any) -> Any:
    p = Closed.apply("softmax", x, axis, t, None)
    return torch.where(torch.isinf(x), 0.0, g * p)


def _still(x: Any, axis: int, t: Any) -> Any:
    """What no finite change of the logits moves: excluded entries, and rows with +inf at T > 0."""
    infinite = torch.isinf(x)
    return infinite | ((x == torch.inf).any(axis, keepdim=True) & (t > 0))


_BACKWARD = {"softmax": _softmax, "log_softmax": _log_softmax, "logsumexp": _logsumexp}


def _by_temperature(dz: Any, x: Any, origin: Any, axis: int, t: Any) -> Any:
    """sum dz (origin - z)/T, in the shape of T."""
    infinite = torch.isinf(x)
    finite = torch.where(infinite, 0.0, x)
    term = torch.where(infinite, 0.0, dz * (torch.where(infinite, 0.0, origin) - finite))
    return (term.sum(axis, keepdim=True, dtype=t.dtype) * _slope(t)).sum_to_size(t.shape)


def by_temperature(dz: Any, x: Any, axis: int, t: Any) -> Any:
    """The same of functions whose dz sums to 0: from the largest entry, or from anywhere."""
    most = x.detach().amax(axis, keepdim=True)
    return _by_temperature(dz, x, torch.where(torch.isfinite(most), most, 0.0), axis, t)


class Closed(torch.autograd.Function):  # type: ignore[misc]
    """softmax, log_softmax or logsumexp (which keeps its axis) of one axis."""

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
        dz, dt = products(ctx.name, z, g, ctx.axis, t, where, ctx.needs_input_grad[3], p)
        return None, dz, None, dt, None


def products(
    name: str, z: Any, g: Any, axis: int, t: Any, where: Any, with_temperature: bool, p: Any = None
) -> tuple[Any, Any]:
    """The vector-Jacobian products by z and, if wanted, by T. `p` is the softmax if at hand."""
    x = z if where is None else torch.where(where, z, -torch.inf)
    if p is None and name == "softmax":
        p = Closed.apply("softmax", x, axis, t, None)
    dz = _BACKWARD[name](x, g, axis, t, p)
    dt = None
    if with_temperature:
        if name == "logsumexp":
            dt = _by_temperature(dz, x, Closed.apply(name, x, axis, t, None), axis, t)
        else:
            dt = by_temperature(dz, x, axis, t)
    if not _plain(g):
        dz = torch.where(_still(x, axis, t), 0.0, dz)
    return dz.to(z.dtype), dt


class TargetLoss(torch.autograd.Function):  # type: ignore[misc]
    """The losses of targets, one a row, in float64."""

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
        scale = g * _flat(_slope(t), axis)
        if _plain(g):
            dz = torch_kernels.target_loss(x, (axis,), t, None, targets, scale)[1]
        else:
            x = x if x.itemsize > 2 else x.float()
            last = x.detach().movedim(axis, -1)
            p = Closed.apply("softmax", x, axis, t, None).movedim(axis, -1)
            d = difference(p, targets.whole(last, None), torch).movedim(-1, axis)
            still = _still(x.detach(), axis, _held(t)) & (x.detach() != torch.inf)
            still = still if label is None else still | (label < 0).unsqueeze(axis)
            dz = torch.where(still, 0.0, d * scale.unsqueeze(axis))
        dt = by_temperature(dz, x, axis, t) if ctx.needs_input_grad[2] else None
        return dz.to(z.dtype), None, dt, None, None, None, None


class Total(torch.autograd.Function):  # type: ignore[misc]
    """The sum over the rows of their losses times their shares, 0-d.

    `solve(share, *inputs)` gives the losses and the gradients by the inputs in one sweep; the
    gradients are handed on by the first backward pass and made anew for another. `rows(*inputs)`
    gives the losses alone, differentiable twice. `held` is what both read besides: a change of it
    is noticed as one of the inputs is.
    """

    @staticmethod
    def forward(
        ctx: Any, solve: Any, rows: Any, held: Any, share: Any, dtype: Any, *inputs: Any
    ) -> Any:
        ctx.solve, ctx.rows = solve, rows
        given = share, *inputs
        ctx.floats = [x if isinstance(x, float) else None for x in given]
        ctx.save_for_backward(*(None if isinstance(x, float) else x for x in given), *held)
        loss, ctx.gradients = solve(*given)
        return _weighted(share, loss).to(dtype)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        # What is held comes after the inputs.
        both = zip(ctx.floats, ctx.saved_tensors, strict=False)
        share, *inputs = [f if x is None else x for f, x in both]
        given = (None,) * 5
        if torch.is_grad_enabled():
            total = _weighted(share, ctx.rows(*inputs))
            return *given, *_again(ctx.needs_input_grad[5:], inputs, total, g.to(total.dtype))
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            gradients = ctx.solve(share, *inputs)[1]
        if not _plain(g):
            return *given, *(x if x is None else x * g for x in gradients)
        if g.item() == 1:
            return *given, *gradients
        # A scaled loss is there to keep the small gradients of half types.
        if any(x is not None and x.itemsize < 4 for x in gradients):
            return *given, *ctx.solve(share * float(g), *inputs)[1]
        return *given, *(x if x is None else x * g for x in gradients)


def _weighted(share: Any, loss: Any) -> Any:
    """The sum of the losses that count, times their shares."""
    if isinstance(share, float):
        return loss.sum() * share
    return torch.where(share == 0, 0.0, share * loss).sum()


def _again(needs: Any, inputs: Any, value: Any, g: Any) -> list[Any]:
    """The gradients by the inputs, to be differentiated again."""
    wanted = [i for i, need in enumerate(needs) if need]
    found = torch.autograd.grad(value, [inputs[i] for i in wanted], g, create_graph=True)
    gradients: list[Any] = [None] * len(inputs)
    for i, gradient in zip(wanted, found, strict=True):
        gradients[i] = gradient
    return gradients


def _flat(x: Any, axis: int) -> Any:
    return x if isinstance(x, float) else x.squeeze(axis)


def total_target_loss(z: Any, axis: int, t: Any, where: Any, targets: Targets, share: Any) -> Any:
    by_t = not isinstance(t, float) and t.requires_grad

    def solve(share: Any, z: Any, t: Any) -> Any:
        x = z if where is None else torch.where(where, z, -torch.inf)
        scale = share * _flat(_slope(t), axis)
        loss, dz = torch_kernels.kernel_loss(x, (axis,), t, None, targets, scale)
        return loss, (dz, by_temperature(dz, x, axis, t) if by_t else None)

    def rows(z: Any, t: Any) -> Any:
        return TargetLoss.apply(z, axis, t, where, *targets)

    held = (where, targets.label, targets.distribution)
    return Total.apply(solve, rows, held, share, z.dtype, z, t)


def total_linear_loss(x: Any, weight: Any, bias: Any, targets: Targets, t: Any, share: Any) -> Any:
    by_t = not isinstance(t, float) and t.requires_grad

    def solve(share: Any, x: Any, weight: Any, bias: Any, t: Any) -> Any:
        scale = share * _flat(_slope(t), 1)
        return torch_kernels.linear_loss(x, weight, bias, targets, t, scale, by_t)

    def rows(x: Any, weight: Any, bias: Any, t: Any) -> Any:
        return LinearLoss.apply(x, weight, bias, t, targets.label, targets.smoothing)

    return Total.apply(solve, rows, (targets.label,), share, x.dtype, x, weight, bias, t)


class LinearLoss(torch.autograd.Function):  # type: ignore[misc]
    """The losses of labels under linear logits, one a row, in float64.

    The gradients are made in a second sweep when the weights of the rows are known: what is kept
    in between are the arguments.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Any, weight: Any, bias: Any, t: Any, label: Any, smoothing: float
    ) -> Any:
        ctx.t, ctx.smoothing = t if isinstance(t, float) else None, smoothing
        ctx.save_for_backward(x, weight, bias, label, None if isinstance(t, float) else t)
        targets = Targets(label, smoothing=smoothing)
        return torch_kernels.linear_loss(x, weight, bias, targets, t, None, False)[0]

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x, weight, bias, label, t = ctx.saved_tensors
        t = ctx.t if t is None else t
        targets = Targets(label, smoothing=ctx.smoothing)
        if not _plain(g):
            return _with_logits(ctx, x, weight, bias, t, targets, g)
        scale = g * _flat(_slope(t), 1)
        given = (x, weight, bias, targets, t, scale, ctx.needs_input_grad[3])
        return *torch_kernels.linear_loss(*given)[1], None, None


def _with_logits(ctx: Any, x: Any, weight: Any, bias: Any, t: Any, targets: Any, g: Any) -> Any:
    """The gradients by way of the whole logits, to be differentiated again."""
    z = x @ weight.T if bias is None else x @ weight.T + bias
    loss = TargetLoss.apply(z, 1, t, None, *targets)
    needs = ctx.needs_input_grad[:4]
    return *_again(needs, (x, weight, bias, t), loss, g), None, None
