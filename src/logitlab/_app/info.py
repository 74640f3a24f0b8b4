"""`logitlab info`: the versions and settings that a bug report needs."""

from pathlib import Path
from typing import Any

from logitlab._app.io.outputs import catch_print_errors, print_line
from logitlab._app.io.source import pluralize

# The packages that logitlab uses or accepts arrays of, by their names.
_PACKAGES = (
    *("array-api-compat", "typer", "rich", "scipy", "scikit-learn", "pyarrow", "narwhals"),
    *("matplotlib", "safetensors", "torch", "jax", "tensorflow", "tensorflow-cpu", "cupy"),
    *("cupy-cuda12x", "cupy-cuda13x", "dask", "pandas", "polars", "array-api-strict"),
)
_INSTRUCTION_SETS = {
    "v2": "x86-64-v2 (SSE4.2)",
    "v3": "x86-64-v3 (AVX2)",
    "v4": "x86-64-v4 (AVX-512)",
    "neon": "64-bit Arm (NEON)",
}
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
    isa = _INSTRUCTION_SETS.get(native._native.isa, native._native.isa)
    return f"{isa}, {pluralize(native.get_num_threads(), 'thread')}"


def _blas_libraries() -> list[dict[str, Any]] | None:
    """The BLAS libraries in the process; None without the package that finds them."""
    try:
        from threadpoolctl import threadpool_info
    except ModuleNotFoundError:
        return None
    return [entry for entry in threadpool_info() if entry["user_api"] == "blas"]


def lines() -> list[str]:
    """The lines that the command prints."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import numpy as np

    values = {
        "logitlab": version("logitlab"),
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "kernels": _kernels(),
        "numpy": np.__version__,
    }
    for name in _PACKAGES:
        try:
            values[name] = version(name)
        except PackageNotFoundError:
            continue
    libraries = _blas_libraries()
    config: Any = np.show_config(mode="dicts")
    if libraries is None:  # what NumPy was built with
        blas = config.get("Build Dependencies", {}).get("blas", {})
        values["BLAS"] = f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
    for entry in libraries or ():
        architecture = f", {entry['architecture']} kernels" if entry.get("architecture") else ""
        values[f"BLAS {Path(entry['filepath']).name}"] = (
            f"{entry['internal_api']} {entry['version']}{architecture}, "
            f"{pluralize(entry['num_threads'], 'thread')}"
        )
    found = config.get("SIMD Extensions", {})
    advice = blas_advice(libraries or [], [*found.get("baseline", []), *found.get("found", [])])
    return [f"{name}: {value}" for name, value in values.items()] + ([advice] if advice else [])


def info() -> None:
    """Print versions and settings, for a bug report."""
    with catch_print_errors():
        for line in lines():
            print_line(line)
