"""softmax, log_softmax and logsumexp compared with other libraries: times and errors."""

from typing import Any

import ml_dtypes
import numpy as np

import logitlab
from bench import peers
from bench.timing import interleaved

SHAPES = [
    (1, 10),
    (1, 128256),
    (64, 1000),
    (4096, 1000),
    (256, 128256),
    (8192, 12564),
    (100000, 10),
    (100000, 3),
    (1000000, 2),
    (32, 1000, 64),
]
QUICK = [(1, 10), (1, 128256), (64, 1000), (4096, 1000), (100000, 10)]
_ERROR_ENTRIES = 1 << 18  # entries of the rows on which errors are measured


def cases(quick: bool) -> list[tuple[str, float, tuple[int, ...]]]:
    """Type, standard deviation and shape of the logits."""
    if quick:
        return [("float32", 3.0, shape) for shape in QUICK]
    float32 = [("float32", spread, shape) for spread in (3.0, 30.0) for shape in SHAPES]
    others = [
        (dtype, 3.0, shape)
        for dtype in ("float64", "float16", "bfloat16")
        for shape in ((64, 1000), (4096, 1000), (256, 128256), (100000, 10))
    ]
    return float32 + others


def normal_logits(dtype: str, spread: float, shape: tuple[int, ...]) -> Any:
    """Normal logits of a dtype and a standard deviation."""
    z = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    z *= np.float32(spread)
    return z.astype(getattr(ml_dtypes, dtype, dtype), copy=False)


def worst_ulp(name: str, z: Any, axis: int, value: Any) -> float:
    """The largest error in ULP of a result on the first rows."""
    rows = max(1, _ERROR_ENTRIES // (z.size // len(z)))
    part, result = z[:rows], peers.as_numpy(value)[:rows].astype(np.longdouble)
    wide = np.longdouble if z.dtype == np.float64 else np.float64
    exact = getattr(logitlab, name)(part.astype(wide), axis).astype(np.longdouble)
    info = ml_dtypes.finfo(z.dtype)
    exponent = np.maximum(np.frexp(exact)[1] - 1, info.minexp) - int(info.nmant)
    return float(np.max(np.abs(result - exact) / np.ldexp(np.longdouble(1), exponent)))


def measure(name: str, quick: bool) -> list[dict[str, Any]]:
    """One row for each case: times in seconds and largest errors in ULP, by library."""
    rows = []
    for dtype, spread, shape in cases(quick):
        z = normal_logits(dtype, spread, shape)
        axis = 1
        calls = {peer: make(name, z, axis) for peer, make in peers.PEERS.items()}
        available = {peer: call for peer, call in calls.items() if call is not None}
        times = interleaved(available)
        errors = {
            peer: worst_ulp(name, z, axis, call())
            for peer, call in available.items()
            if peer != "copy"
        }
        rows.append(
            {"dtype": dtype, "spread": spread, "shape": shape, "times": times, "errors": errors}
        )
        best = min(t for peer, t in times.items() if peer.startswith("logitlab"))
        listing = "  ".join(f"{peer} {t / best:.2f}" for peer, t in times.items())
        print(f"{name} {dtype} {spread:g} {shape}: {best * 1e6:.0f} µs = 1; {listing}", flush=True)
    return rows
