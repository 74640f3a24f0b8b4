"""Tensors without gradients: the compiled kernels on the CPU, the reference everywhere else."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from logitlab._arrays import Array, Axes, dtype_name
from logitlab._backends import native, reference
from logitlab._backends.linear_loss import Gradients
from logitlab._backends.targets import Kept, Targets


def _is_plain_memory(x: Tensor) -> bool:
    """Whether a tensor is aligned CPU memory, which the kernels can read and write."""
    return (
        x.device.type == "cpu"
        and x.layout is torch.strided
        and type(x) in (torch.Tensor, torch.nn.Parameter)
        and not x.is_neg()
        and x.data_ptr() % x.itemsize == 0
    )


def requires_gradient(*tensors: Any) -> bool:
    """Whether autograd is recording operations of any of these tensors."""
    return torch.is_grad_enabled() and any(
        x.requires_grad for x in tensors if isinstance(x, torch.Tensor)
    )


def is_recording() -> bool:
    """Whether a tracer, a transform or a dispatch mode records or replaces operations of torch."""
    c = torch._C
    return (
        torch.compiler.is_compiling()
        or c._functorch.peek_interpreter_stack() is not None
        or c._len_torch_dispatch_stack() > 0
        or c._get_tracing_state() is not None
        or c._dispatch_tls_is_dispatch_key_included(c.DispatchKey.PreDispatch)
    )


def readable(z: Array, *others: Any) -> bool:
    """Whether the kernels can read the tensors among these: their memory is plain, and neither a
    tracer nor a transform nor a dispatch mode is active, which must see every operation."""
    return (
        native.native_available()
        and not is_recording()
        and forward_ad._current_level < 0
        and dtype_name(z.dtype) in native.KINDS
        and all(_is_plain_memory(x) for x in (z, *others) if isinstance(x, torch.Tensor))
    )


def _native_covers(z: Array, *others: Any) -> bool:
    return not requires_gradient(z, *others) and readable(z, *others)


def _memory(x: Array) -> Any:
    """The memory of a tensor as a NumPy array; that of bfloat16, which NumPy lacks, as int16."""
    if x is None or isinstance(x, float | tuple):
        return x
    x = x.detach()
    return (x.view(torch.int16) if x.dtype is torch.bfloat16 else x).numpy()


_ROW_FUNCTIONS = {"softmax": 0, "log_softmax": 1, "logsumexp": 2}
_SMALL = 1 << 16  # entries of a result that is never large
_KINDS = {getattr(torch, name): kind for name, kind in native.KINDS.items()}


def empty_like(z: Tensor) -> Tensor:
    """As :func:`torch.empty_like`, from :func:`native.large_bytes` if it is large."""
    if z.numel() >= _SMALL and z.is_contiguous():
        memory = native.large_bytes(z.nbytes)
        if memory is not None:
            return torch.from_numpy(memory).view(z.dtype).view(z.shape)
    return torch.empty_like(z, requires_grad=False)


def is_plain(z: Any, axis: Any, temperature: Any) -> bool:
    """Whether a call is one of the most common ones, which need no further checks: of a contiguous
    CPU tensor along its last axis, at a float temperature."""
    return (
        type(z) is torch.Tensor
        and z.dtype in _KINDS
        and native.native_available()
        and type(axis) is int
        and type(temperature) is float
        and temperature == temperature
        and z.is_cpu
        and z.layout is torch.strided
        and not z.is_nested
        and z.is_contiguous()
        and z.numel() > 0
        and z.ndim > 0
        and axis in (-1, z.ndim - 1)
        and not (z.itemsize < 4 and torch.is_autocast_enabled("cpu"))
        and not is_recording()
        and forward_ad._current_level < 0
        and not z.is_neg()
        and z.data_ptr() % z.itemsize == 0
    )


def is_plain_label(y: Any) -> bool:
    """Whether the labels of a plain call need no further checks but of their range."""
    return (
        type(y) is torch.Tensor
        and y.dtype is torch.int64
        and y.is_cpu
        and y.layout is torch.strided
        and y.is_contiguous()
    )


def plain(name: str, z: Tensor, temperature: float) -> Tensor:
    """softmax, log_softmax or logsumexp of a call that is plain."""
    shape = z.shape
    k = shape[-1]
    rows = z.numel() // k
    if name == "logsumexp":
        out = torch.empty(shape[:-1], dtype=z.dtype, device="cpu")
    else:
        out = empty_like(z)
    function, kind = _ROW_FUNCTIONS[name], _KINDS[z.dtype]
    native._native.rows(function, kind, z.data_ptr(), out.data_ptr(), rows, k, temperature)
    return out


def _elementwise(
    name: str, z: Array, axis: Axes, t: float | Array, where: Array | None, out: Array | None
) -> Array:
    if not _native_covers(z, t, where) or not (out is None or _is_plain_memory(out)):
        return getattr(reference, name)(z, axis, t, where, out)
    out = empty_like(z) if out is None else out
    kind = dtype_name(z.dtype)
    native.elementwise(name, kind, _memory(z), axis, _memory(t), _memory(where), _memory(out))
    return out


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
    if not _native_covers(z, temperature, where):
        return reference.logsumexp(z, axis, temperature, where, keepdims)
    kind = dtype_name(z.dtype)
    result = native.reduce_logsumexp(
        kind, _memory(z), axis, _memory(temperature), _memory(where), keepdims
    )
    return torch.from_numpy(np.asarray(result)).view(z.dtype)


def covers_losses(z: Array, classes: int, t: float | Array, targets: Targets) -> bool:
    """Whether the kernels compute the losses of such arguments and their gradients."""
    return (
        not requires_gradient(targets.distribution, targets.class_weight)
        and readable(z, t, targets.label, targets.distribution, targets.class_weight)
        and native.covers_losses(dtype_name(z.dtype), classes, _memory(t), targets)
    )


def _targets_memory(targets: Targets) -> Targets:
    """The targets as NumPy arrays, in at least float32."""
    y = targets.distribution
    y = y.float() if y is not None and y.itemsize < 4 else y
    label, class_weight = _memory(targets.label), _memory(targets.class_weight)
    kept = None if targets.kept is None else Kept(*map(_memory, targets.kept))
    return Targets(label, _memory(y), targets.smoothing, class_weight, kept)


def target_loss(
    z: Array,
    axis: Axes,
    temperature: float | Array,
    where: Array | None,
    targets: Targets,
    scale: float | Array | None,
) -> tuple[Array, Array | None]:
    covered = covers_losses(z, z.shape[axis[0]], temperature, targets)
    if not covered or not _native_covers(z, temperature, where, scale):
        return reference.target_loss(z, axis, temperature, where, targets, scale)
    return kernel_loss(z, axis, temperature, where, targets, scale)


def kernel_loss(
    z: Array,
    axis: Axes,
    temperature: float | Array,
    where: Array | None,
    targets: Targets,
    scale: float | Array | None,
) -> tuple[Array, Array | None]:
    """As :func:`target_loss`, for arguments that the kernels are known to cover."""
    out = None if scale is None else empty_like(z)
    t, where, scale, gradient = map(_memory, (temperature, where, scale, out))
    kind, targets = dtype_name(z.dtype), _targets_memory(targets)
    loss = native.row_losses(kind, _memory(z), axis, t, where, targets, scale, gradient)
    return torch.from_numpy(loss), out


def _covers_product(p: Array, slope: Array, *others: Any) -> bool:
    """Float32 and float64, and slopes that do not overflow in them."""
    return (
        _native_covers(p, slope, *others)
        and p.dtype in (torch.float32, torch.float64)
        and p.numel() > 0
        and bool((slope.abs() <= torch.finfo(p.dtype).max).all())
    )


def jacobian(p: Array, slope: Array) -> Array:
    if not _covers_product(p, slope):
        return reference.jacobian(p, slope)
    p = p.contiguous()
    out = torch.from_numpy(native.empty((*p.shape, p.shape[-1]), _memory(p).dtype))
    native.product("jacobian", *map(_memory, (p, p, None, slope, out)))
    return out


def jacobian_product(p: Array, v: Array, slope: Array) -> Array:
    if not _covers_product(p, slope, v):
        return reference.jacobian_product(p, v, slope)
    p, v = p.contiguous(), v.contiguous()
    native.product("softmax", *map(_memory, (p, v, None, slope, p)))
    return p


def linear_loss(
    x: Array,
    weight: Array,
    bias: Array | None,
    targets: Targets,
    t: float | Array,
    scale: float | Array | None,
    by_temperature: bool,
) -> tuple[Array, Gradients | None]:
    inputs = (x, weight, bias, t, scale)
    covered = covers_losses(x, len(weight), t, targets)
    if not covered or not _native_covers(*inputs) or x.itemsize < 4:
        return reference.linear_loss(x, weight, bias, targets, t, scale, by_temperature)
    # NumPy's matrix products are faster than torch's.
    x, weight, bias, t, scale = map(_memory, (x, weight, bias, t, scale))
    loss, gradients = native.linear_loss(
        x, weight, bias, _targets_memory(targets), t, scale, by_temperature
    )
    if gradients is not None:
        gradients = Gradients(*(g if g is None else torch.from_numpy(g) for g in gradients))
    return torch.from_numpy(loss), gradients


def penalize(
    z: Tensor,
    bias: Tensor | None,
    tokens: tuple[Any, Any, Any, Any],
    settings: tuple[Any, Any, Any],
) -> Tensor | None:
    """As `native_sampling.penalize`."""
    if not _native_covers(z, bias) or (bias is not None and bias.dtype not in _KINDS):
        return None
    z = z.contiguous()
    out = empty_like(z)
    rows, k = z.shape
    biases: tuple[Any, int] = None, 0
    if bias is not None:
        biases = _memory(bias.contiguous()), _KINDS[bias.dtype]
    memory = _memory(z), _memory(out)
    native._native.penalize(_KINDS[z.dtype], rows, k, *memory, True, *tokens, *biases, *settings)
    return out
