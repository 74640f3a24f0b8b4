"""`logitlab info`: the versions and settings that a bug report needs."""

from pathlib import Path
from typing import Any

from logitlab._app.io.outputs import catch_print_errors, print_line

# The array libraries that logitlab accepts, by the names of their packages.
_LIBRARIES = ("torch", "jax", "tensorflow", "tensorflow-cpu", "cupy", "dask", "array-api-strict")
_AVX512 = {"X86_V4", "AVX512_SKX"}  # in NumPy from 2.4 on, and before


def blas_advice(libraries: list[dict[str, Any]], features: list[str]) -> str | None:
    """How to make matrix products faster; None if the BLAS libraries use the whole processor.

    `libraries` are those of threadpoolctl, `features` those of the processor in NumPy's words.
    """
    slower = any(
        library["internal_api"] == "openblas" and library.get("architecture") == "Haswell"
        for library in libraries
    )
    if not slower or _AVX512.isdisjoint(features):
        return None
    return (
        "This processor has AVX-512, but OpenBLAS uses its kernels for Haswell (AVX2); the "
        "environment variable OPENBLAS_CORETYPE=SkylakeX makes matrix products faster."
    )


def _kernels() -> str:
    from logitlab._backends import native

    if not native.native_available():
        return "not compiled (formulas in NumPy)"
    return f"{native._native.isa}, {native.get_num_threads()} threads"


def lines() -> list[str]:
    """The lines that the command prints."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import numpy as np
    from threadpoolctl import threadpool_info

    values = {
        "logitlab": version("logitlab"),
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "kernels": _kernels(),
        "numpy": np.__version__,
    }
    for name in _LIBRARIES:
        try:
            values[name] = version(name)
        except PackageNotFoundError:
            continue
    libraries = [entry for entry in threadpool_info() if entry["user_api"] == "blas"]
    for entry in libraries:
        architecture = f", {entry['architecture']} kernels" if entry.get("architecture") else ""
        values[f"BLAS {Path(entry['filepath']).name}"] = (
            f"{entry['internal_api']} {entry['version']}{architecture}, "
            f"{entry['num_threads']} threads"
        )
    features: Any = np.show_config(mode="dicts")
    found = features.get("SIMD Extensions", {})
    advice = blas_advice(libraries, [*found.get("baseline", []), *found.get("found", [])])
    return [f"{name}: {value}" for name, value in values.items()] + ([advice] if advice else [])


def info() -> None:
    """Print versions and settings, for a bug report."""
    with catch_print_errors():
        for line in lines():
            print_line(line)
