"""Arrays that have no values to read: a tracer records the operations on them, or a transform
replaces them."""

import sys
from typing import Any

_TRACING_MODES = ("FAKE", "PROXY", "FUNCTIONAL")


def _tensor_has_values(x: Any, torch: Any) -> bool:
    c = torch._C
    return not (
        x.is_meta
        or type(x).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
        or torch._is_functional_tensor(x)
        or c._functorch.is_functorch_wrapped_tensor(x)
        or c._functorch.is_legacy_batchedtensor(x)
        or c._get_tracing_state() is not None
        or c._dispatch_tls_is_dispatch_key_included(c.DispatchKey.PreDispatch)
        or (c._len_torch_dispatch_stack() > 0 and _in_tracing_mode(c))
    )


def _in_tracing_mode(c: Any) -> bool:
    keys = (getattr(c._TorchDispatchModeKey, name) for name in _TRACING_MODES)
    return any(c._get_dispatch_mode(key) is not None for key in keys)


def has_values(x: Any) -> bool:
    """Whether the entries of an array can be read now, and a result of them is not recorded as a
    constant. True while torch.compile traces: it breaks the graph where values are read."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(x, torch.Tensor):
        return torch.compiler.is_dynamo_compiling() or _tensor_has_values(x, torch)
    return not is_traced_by_jax(x)


def is_traced_by_jax(*arguments: Any) -> bool:
    """Whether a function of JAX traces some of the arguments."""
    jax = sys.modules.get("jax")
    return jax is not None and any(isinstance(x, jax.core.Tracer) for x in arguments)


def check_values(x: Any, name: str) -> None:
    """Refuse an array without values."""
    if not has_values(x):
        raise TypeError(
            f"{name} must have values, which this function reads, got a traced or meta "
            f"{type(x).__name__}; call the function outside of jit, vmap, traces and fake modes"
        )
