"""CPU tensors with gradients: the compiled kernels forward, gradients in closed form backward.

All functions depend on z/T. With d = dL/dz, dL/dT is sum d (m - z)/T for softmax, log_softmax and
the losses, whose d sums to 0 (m is the largest entry), and sum d (logsumexp - z)/T for logsumexp.
A gradient that is differentiated again is computed by the differentiable functions of this module.
"""

from typing import Any

import torch
from torch import Tensor

from logitlab._backends import native, torch_kernels


def slope_of(t: Any) -> Any:
    """1/T; 0 at T = 0 and inf, where the derivative does not exist or is 0."""
    if isinstance(t, float):
        return 0.0 if t == 0 else 1 / t
    is_limit = (t == 0) | torch.isinf(t)
    return torch.where(is_limit, 0.0, 1 / torch.where(is_limit, 1.0, t))


def divide_by_temperature(x: Tensor, t: Any) -> Tensor:
    """x/T, where 1/T may overflow: 0 stays 0."""
    slope = slope_of(t)
    if isinstance(slope, float):
        if abs(slope) <= torch.finfo(x.dtype).max:
            return x * slope
        slope = x.new_tensor(slope)
    return torch.where((x == 0) & torch.isinf(slope), x, x * slope)


def kernels_accept(g: Tensor) -> bool:
    """Whether the kernels can take an upstream gradient: it is neither differentiated again nor
    recorded by a tracer nor wrapped by a transform."""
    return not (torch.is_grad_enabled() or torch_kernels.is_recording() or _is_wrapped(g))


def _has_layout_of(x: Tensor, g: Tensor) -> bool:
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
    slope = slope_of(t)
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
    if kernels_accept(g):
        return _kernel_product("softmax", x, p, g, axis, t)
    p = SoftmaxFunction.apply("softmax", x, axis, t, None)
    unit = _unit(torch.where(p == 0, 0.0, g), axis, 16)
    g = g * unit
    return divide_by_temperature(p * (g - (p * g).sum(axis, keepdim=True)), t) / unit


def _log_softmax_backward(x: Tensor, g: Tensor, axis: int, t: Any, p: Tensor | None) -> Tensor:
    if kernels_accept(g):
        return _kernel_product("log_softmax", x, None, g, axis, t)
    p = SoftmaxFunction.apply("softmax", x, axis, t, None)
    g = torch.where(_is_constant(x, axis, t), 0.0, g)
    unit = _unit(g, axis, 2.0 ** x.shape[axis].bit_length() * 16)
    g = g * unit
    return divide_by_temperature(g - p * g.sum(axis, keepdim=True), t) / unit


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
    return (term.sum(axis, keepdim=True, dtype=t.dtype) * slope_of(t)).sum_to_size(t.shape)


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


class PlainSoftmaxFunction(torch.autograd.Function):  # type: ignore[misc]
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
            and _has_layout_of(z, g)
            and (p is None or _has_layout_of(p, g))
        ):
            dz = torch_kernels.empty_like(g)
            k = g.shape[-1]
            p_address = None if p is None else p.data_ptr()
            arrays = p_address, g.data_ptr(), z.data_ptr(), dz.data_ptr()
            native.products(name, z.itemsize == 8, g.numel() // k, k, 1, *arrays, slope_of(t), t)
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
    if not kernels_accept(g):
        dz = torch.where(_is_constant(x, axis, t), 0.0, dz)
    return dz.to(z.dtype), dt
