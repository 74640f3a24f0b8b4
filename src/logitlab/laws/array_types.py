"""Array kinds: how logits become an array of a library, and its results NumPy's again."""

import functools
import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from logitlab._arrays import dtype_name
from logitlab._exact.formats import Values


class Kind(NamedTuple):
    """One array library."""

    name: str
    make: Callable[[Any, str], Any]  # a NumPy array and the type's name -> an array
    text: Callable[[str, str], str]  # the source of a NumPy array -> the source of an array
    imports: str
    bfloat16: str = "bfloat16"  # the NumPy type that bfloat16 is brought in

    def numpy(self, z: Any, dtype: str) -> Any:
        """The NumPy array that an array of a type is made from."""
        return z.astype(numpy_type(self.bfloat16 if dtype == "bfloat16" else dtype))

    def source(self, expression: str, dtype: str) -> str:
        """The source of that NumPy array, from the source of its values."""
        dtype = self.bfloat16 if dtype == "bfloat16" else dtype
        module = "ml_dtypes" if dtype == "bfloat16" else "np"
        if expression.startswith("np.array(") and expression.find(")") == len(expression) - 1:
            return f"{expression[:-1]}, dtype={module}.{dtype})"
        return f"{expression}.astype({module}.{dtype})"


def numpy_type(dtype: str) -> Any:
    """NumPy's type of that name; bfloat16 is that of ml_dtypes."""
    if dtype != "bfloat16":
        return np.dtype(dtype)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def _numpy() -> Kind:
    return Kind("numpy", lambda z, dtype: z, lambda source, dtype: source, "")


def _torch(device: str = "cpu") -> Kind:
    import torch

    place = "" if device == "cpu" else f".to({device!r})"

    def make(z: Any, dtype: str) -> Any:
        return torch.from_numpy(z).to(device=device, dtype=getattr(torch, dtype))

    def text(source: str, dtype: str) -> str:
        half = ".bfloat16()" if dtype == "bfloat16" else ""
        return f"torch.from_numpy({source}){half}{place}"

    # NumPy's bfloat16 is unknown to torch; float32 holds its values.
    return Kind("torch", make, text, "torch", bfloat16="float32")


def _jax() -> Kind:
    import jax.numpy as jnp

    def make(z: Any, dtype: str) -> Any:
        x = jnp.asarray(z)
        if dtype_name(x.dtype) != dtype:
            raise TypeError(f"JAX holds {dtype} as {x.dtype}")
        return x

    return Kind("jax", make, lambda s, dtype: f"jnp.asarray({s})", "jax.numpy as jnp")


def _tensorflow() -> Kind:
    import tensorflow as tf

    return Kind(
        "tensorflow",
        lambda z, dtype: tf.constant(z),
        lambda s, dtype: f"tf.constant({s})",
        "tensorflow as tf",
    )


def _cupy() -> Kind:
    import cupy

    return Kind(
        "cupy", lambda z, dtype: cupy.asarray(z), lambda s, dtype: f"cupy.asarray({s})", "cupy"
    )


_KINDS: dict[str, Callable[..., Kind]] = {
    "numpy": _numpy,
    "torch": _torch,
    "jax": _jax,
    "tensorflow": _tensorflow,
    "cupy": _cupy,
}


def kind(name: str) -> Kind:
    """The kind of that name; ``torch:cuda`` is torch on another device."""
    library, _, device = name.partition(":")
    if library not in _KINDS or (device and library != "torch"):
        accepted = ", ".join(_KINDS)
        raise ValueError(f"kind is {name!r}; accepted: {accepted} and torch:DEVICE")
    return _KINDS[library](device) if device else _KINDS[library]()


def loaded() -> list[str]:
    """The kinds a function may take: NumPy's first, and those of the libraries in use."""
    return [name for name in _KINDS if name == "numpy" or name in sys.modules]


def to_values(x: Any) -> tuple[Values, str]:
    """An array of any kind as float64 values, and the name of its type."""
    if hasattr(x, "detach"):
        dtype = dtype_name(x.dtype)
        return x.detach().double().cpu().numpy(), dtype
    x = x.get() if hasattr(x, "get") and hasattr(x, "device") else x
    array = np.asarray(x)
    if array.dtype == object:
        raise TypeError(f"the result is a {type(x).__name__}, not an array of numbers")
    return array.astype(np.float64), dtype_name(array.dtype)


def program(command: Sequence[str]) -> Callable[[Any], Any]:
    """The function of a program that reads an .npy file on stdin and writes one on stdout."""

    def run(z: Any) -> Any:
        given = io.BytesIO()
        np.save(given, z)
        done = subprocess.run(list(command), input=given.getvalue(), capture_output=True)
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"exit status {done.returncode}: {''.join(reason)}")
        return np.load(io.BytesIO(done.stdout), allow_pickle=False)

    return run


def session(session: Any) -> tuple[Callable[[Any], Any], str]:
    """The function of an onnxruntime session with one input, and the type that it takes."""
    (given,) = session.get_inputs()
    types = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
    if given.type not in types:
        raise TypeError(f"the session's input is a {given.type}; accepted: {', '.join(types)}")

    def run(z: Any) -> Any:
        return session.run(None, {given.name: z})[0]

    return run, types[given.type]


@functools.cache
def has_bfloat16() -> bool:
    """Whether NumPy's bfloat16 is installed."""
    import importlib.util

    return importlib.util.find_spec("ml_dtypes") is not None
