"""Array libraries: makes arrays of a library from NumPy's, and converts results back."""

import functools
import importlib.util
import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab._arrays import dtype_name
from logitlab._exact.formats import Floats


class ArrayLibrary(NamedTuple):
    """Makes arrays of a library, and the Python source of such an array."""

    name: str
    from_numpy: Callable[[Any, str], Any]  # of a NumPy array and the name of the dtype
    from_numpy_source: Callable[[str, str], str]  # the same as source
    imports: str
    numpy_bfloat16: str = "bfloat16"  # the NumPy dtype from which bfloat16 arrays are made

    def _numpy_dtype_name(self, dtype: str) -> str:
        return self.numpy_bfloat16 if dtype == "bfloat16" else dtype

    def numpy_array(self, z: Floats, dtype: str) -> NDArray[Any]:
        """The NumPy array from which an array of a dtype is made."""
        return z.astype(numpy_dtype(self._numpy_dtype_name(dtype)))

    def numpy_source(self, expression: str, dtype: str) -> str:
        """The source of that NumPy array, from the source of its values."""
        dtype = self._numpy_dtype_name(dtype)
        module = "ml_dtypes" if dtype == "bfloat16" else "np"
        if expression.startswith("np.array(") and expression.find(")") == len(expression) - 1:
            return f"{expression[:-1]}, dtype={module}.{dtype})"
        return f"{expression}.astype({module}.{dtype})"


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """NumPy's dtype of that name; bfloat16 is that of ml_dtypes."""
    if dtype != "bfloat16":
        return np.dtype(dtype)
    import ml_dtypes

    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


def _numpy() -> ArrayLibrary:
    return ArrayLibrary("numpy", lambda z, dtype: z, lambda source, dtype: source, "")


def _torch(device: str = "cpu") -> ArrayLibrary:
    import torch

    to_device = "" if device == "cpu" else f".to({device!r})"

    def from_numpy(z: Any, dtype: str) -> Any:
        return torch.from_numpy(z).to(device=device, dtype=getattr(torch, dtype))

    def from_numpy_source(source: str, dtype: str) -> str:
        to_bfloat16 = ".bfloat16()" if dtype == "bfloat16" else ""
        return f"torch.from_numpy({source}){to_bfloat16}{to_device}"

    # torch does not accept the NumPy bfloat16 of ml_dtypes; float32 holds the same values.
    return ArrayLibrary("torch", from_numpy, from_numpy_source, "torch", numpy_bfloat16="float32")


def _jax() -> ArrayLibrary:
    import jax.numpy as jnp

    def from_numpy(z: Any, dtype: str) -> Any:
        x = jnp.asarray(z)
        if dtype_name(x.dtype) != dtype:
            raise TypeError(f"JAX converts {dtype} to {x.dtype}")
        return x

    return ArrayLibrary("jax", from_numpy, lambda s, dtype: f"jnp.asarray({s})", "jax.numpy as jnp")


def _tensorflow() -> ArrayLibrary:
    import tensorflow as tf

    return ArrayLibrary(
        "tensorflow",
        lambda z, dtype: tf.constant(z),
        lambda s, dtype: f"tf.constant({s})",
        "tensorflow as tf",
    )


def _cupy() -> ArrayLibrary:
    import cupy

    return ArrayLibrary(
        "cupy", lambda z, dtype: cupy.asarray(z), lambda s, dtype: f"cupy.asarray({s})", "cupy"
    )


_LIBRARIES: dict[str, Callable[..., ArrayLibrary]] = {
    "numpy": _numpy,
    "torch": _torch,
    "jax": _jax,
    "tensorflow": _tensorflow,
    "cupy": _cupy,
}


def array_library(name: str) -> ArrayLibrary:
    """The array library of that name; ``torch:cuda`` is torch on another device."""
    library, _, device = name.partition(":")
    if library not in _LIBRARIES or (device and library != "torch"):
        names = ", ".join(_LIBRARIES)
        raise ValueError(f"array_library must be one of {names} or torch:DEVICE, got {name!r}")
    return _LIBRARIES[library](device) if device else _LIBRARIES[library]()


def imported_libraries() -> list[str]:
    """The libraries to try on a function: NumPy and those that are imported already."""
    return [name for name in _LIBRARIES if name == "numpy" or name in sys.modules]


def to_float64(x: Any) -> tuple[Floats, str]:
    """An array of any library as float64, and the name of its dtype."""
    if hasattr(x, "detach"):
        dtype = dtype_name(x.dtype)
        return x.detach().double().cpu().numpy(), dtype
    x = x.get() if hasattr(x, "get") and hasattr(x, "device") else x
    array = np.asarray(x)
    if array.dtype == object:
        raise TypeError(f"the result must be an array of numbers, got {type(x).__name__}")
    return array.astype(np.float64), dtype_name(array.dtype)


def program(command: Sequence[str]) -> Callable[[Any], Any]:
    """A function that runs a program which reads an .npy file on stdin and writes one on stdout."""

    def run(z: Any) -> Any:
        stdin = io.BytesIO()
        np.save(stdin, z)
        process = subprocess.run(list(command), input=stdin.getvalue(), capture_output=True)
        if process.returncode:
            reason = process.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"exit status {process.returncode}: {''.join(reason)}")
        return np.load(io.BytesIO(process.stdout), allow_pickle=False)

    return run


def session_function(session: Any) -> tuple[Callable[[Any], Any], str]:
    """A function that runs an onnxruntime session of one input, and the dtype of that input."""
    (z_input,) = session.get_inputs()
    dtypes = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
    if z_input.type not in dtypes:
        raise TypeError(
            f"the input of the session must be one of {', '.join(dtypes)}, got {z_input.type}"
        )

    def run(z: Any) -> Any:
        return session.run(None, {z_input.name: z})[0]

    return run, dtypes[z_input.type]


@functools.cache
def has_ml_dtypes() -> bool:
    """Whether ml_dtypes, which has NumPy's bfloat16, is installed."""
    return importlib.util.find_spec("ml_dtypes") is not None
