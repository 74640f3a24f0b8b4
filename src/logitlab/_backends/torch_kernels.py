"""Tensors of the CPU through the kernels, without gradients; others through the reference."""

from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from logitlab._arrays import dtype_name
from logitlab._backends import native, reference
from logitlab._backends.linear_loss import Gradients
from logitlab._backends.targets import Targets


def _is_memory(x: Any) -> bool:
    """Whether a tensor is plain memory, aligned."""
    return (
        x.device.type == "cpu"
        and x.layout is torch.strided
        and type(x) in (torch.Tensor, torch.nn.Parameter)
        and not x.is_neg()
        and x.data_ptr() % x.itemsize == 0
    )


def wants_gradient(*tensors: Any) -> bool:
    return torch.is_grad_enabled() and any(
        x.requires_grad for x in tensors if isinstance(x, torch.Tensor)
    )


def readable(z: Any, *others: Any) -> bool:
    """Whether the kernels can read these (floats and None among them aside): no tracer and no
    transform is at work."""
    return (
        native.native_available()
        and not torch.compiler.is_compiling()
        and forward_ad._current_level < 0
        and torch._C._functorch.peek_interpreter_stack() is None
        and dtype_name(z.dtype) in native.KINDS
        and all(_is_memory(x) for x in (z, *others) if isinstance(x, torch.Tensor))
    )


def _native_covers(z: Any, *others: Any) -> bool:
    return not wants_gradient(z, *others) and readable(z, *others)


def _memory(x: Any) -> Any:
    """The tensor's memory as a NumPy array; NumPy has no bfloat16, so its bits."""
    if x is None or isinstance(x, float | tuple):
        return x
    x = x.detach()
    return (x.view(torch.int16) if x.dtype is torch.bfloat16 else x).numpy()


def new(z: Any) -> Any:
    """As :func:`torch.empty_like`, of kept memory where it is large."""
    if z.is_contiguous() and (kept := native.large_bytes(z.nbytes)) is not None:
        return torch.from_numpy(kept).view(z.dtype).view(z.shape)
    return torch.empty_like(z, requires_grad=False)


def _elementwise(name: str, z: Any, axis: tuple[int, ...], t: Any, where: Any, out: Any) -> Any:
    if not _native_covers(z, t, where) or not (out is None or _is_memory(out)):
        return getattr(reference, name)(z, axis, t, where, out)
    out = new(z) if out is None else out
    kind = dtype_name(z.dtype)
    native.elementwise(name, kind, _memory(z), axis, _memory(t), _memory(where), _memory(out))
    return out


def softmax(z: Any, axis: tuple[int, ...], temperature: Any, where: Any, out: Any) -> Any:
    return _elementwise("softmax", z, axis, temperature, where, out)


def log_softmax(z: Any, axis: tuple[int, ...], temperature: Any, where: Any, out: Any) -> Any:
    return _elementwise("log_softmax", z, axis, temperature, where, out)


def logsumexp(z: Any, axis: tuple[int, ...], temperature: Any, where: Any, keepdims: bool) -> Any:
    if not _native_covers(z, temperature, where):
        return reference.logsumexp(z, axis, temperature, where, keepdims)
    kind = dtype_name(z.dtype)
    result = native.reduced(kind, _memory(z), axis, _memory(temperature), _memory(where), keepdims)
    return torch.from_numpy(np.asarray(result)).view(z.dtype)


def covers_losses(z: Any, classes: int, t: Any, targets: Targets) -> bool:
    """Whether the kernels have the losses of such arguments and the gradients that are wanted."""
    return (
        not wants_gradient(targets.distribution)
        and readable(z, t, targets.label, targets.distribution)
        and native.covers_losses(dtype_name(z.dtype), classes, _memory(t), targets)
    )


def _read(targets: Targets) -> Targets:
    """As memory, wide enough for the kernels."""
    y = targets.distribution
    y = y.float() if y is not None and y.itemsize < 4 else y
    return targets._replace(label=_memory(targets.label), distribution=_memory(y))


def target_loss(
    z: Any, axis: tuple[int, ...], temperature: Any, where: Any, targets: Targets, scale: Any
) -> tuple[Any, Any]:
    covered = covers_losses(z, z.shape[axis[0]], temperature, targets)
    if not covered or not _native_covers(z, temperature, where, scale):
        return reference.target_loss(z, axis, temperature, where, targets, scale)
    return kernel_loss(z, axis, temperature, where, targets, scale)


def kernel_loss(
    z: Any, axis: tuple[int, ...], temperature: Any, where: Any, targets: Targets, scale: Any
) -> tuple[Any, Any]:
    """As :func:`target_loss`, of what the kernels are known to cover."""
    out = None if scale is None else new(z)
    t, where, scale, to = map(_memory, (temperature, where, scale, out))
    kind = dtype_name(z.dtype)
    loss = native.losses(kind, _memory(z), axis, t, where, _read(targets), scale, to)
    return torch.from_numpy(loss), out


def _covers_product(p: Any, slope: Any, *others: Any) -> bool:
    """Float32 and float64, and slopes that do not overflow in them."""
    return (
        _native_covers(p, slope, *others)
        and p.dtype in (torch.float32, torch.float64)
        and p.numel() > 0
        and bool((slope.abs() <= torch.finfo(p.dtype).max).all())
    )


def jacobian(p: Any, slope: Any) -> Any:
    if not _covers_product(p, slope):
        return reference.jacobian(p, slope)
    p = p.contiguous()
    out = torch.from_numpy(native.empty((*p.shape, p.shape[-1]), _memory(p).dtype))
    native.product("jacobian", *map(_memory, (p, p, None, slope, out)))
    return out


def jacobian_product(p: Any, v: Any, slope: Any) -> Any:
    if not _covers_product(p, slope, v):
        return reference.jacobian_product(p, v, slope)
    p, v = p.contiguous(), v.contiguous()
    native.product("softmax", *map(_memory, (p, v, None, slope, p)))
    return p


def linear_loss(
    x: Any, weight: Any, bias: Any, targets: Targets, t: Any, scale: Any, by_temperature: bool
) -> tuple[Any, Any]:
    given = (x, weight, bias, t, scale)
    covered = covers_losses(x, len(weight), t, targets)
    if not covered or not _native_covers(*given) or x.itemsize < 4:
        return reference.linear_loss(x, weight, bias, targets, t, scale, by_temperature)
    # NumPy's products are the faster ones.
    x, weight, bias, t, scale = map(_memory, (x, weight, bias, t, scale))
    loss, gradients = native.linear_loss(x, weight, bias, _read(targets), t, scale, by_temperature)
    if gradients is not None:
        gradients = Gradients(*(g if g is None else torch.from_numpy(g) for g in gradients))
    return torch.from_numpy(loss), gradients
