"""The log-loss of labelled rows and its derivatives in 1/T: the kernel, or the formulas."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._arrays import dtype_name
from logitlab._backends import native, reference

_BLOCK = 1 << 18  # entries that the formulas work on at a time


@np.errstate(all="ignore")
def formulas(z: NDArray[Any], y: NDArray[np.int64], t: float) -> NDArray[np.float64]:
    """As :func:`moments`, of rows of any magnitude."""
    wide = z.astype(np.float64)
    top = wide.max(axis=-1, keepdims=True)
    label = y[:, None]
    # Halves do not overflow. An infinite row costs the same at every T.
    x = 2 * ((wide / 2 - top / 2) / t)
    x = np.where(np.isposinf(top), 0.0, x)
    loss = -np.take_along_axis(reference.log_softmax(wide, (1,), t, None, None), label, axis=-1)[
        :, 0
    ]
    p = reference.softmax(wide, (1,), t, None, None)
    true = np.take_along_axis(x, label, axis=-1)[:, 0]
    counted = np.where(p > 0, x, 0.0)
    mean = np.sum(p * counted, axis=-1)
    curvature = np.sum(p * (counted - mean[:, None]) ** 2, axis=-1)
    below = np.take_along_axis(wide, label, axis=-1)[:, 0] - top[:, 0]
    return np.stack([loss, mean - true, curvature, np.nan_to_num(below, nan=0.0)], axis=-1)


def moments(z: NDArray[Any], y: NDArray[np.int64], t: float) -> NDArray[np.float64]:
    """Of each row: log-loss at T = 1/beta, beta and beta^2 times its derivatives, z_y - max z.

    z of shape (n, K), y of n labels in range, t positive and finite; the result (n, 4).
    """
    kind = dtype_name(z.dtype)
    if kind not in ("float32", "float64"):
        z = z.astype(np.float32 if kind in ("float16", "bfloat16") else np.float64)
        kind = dtype_name(z.dtype)
    out = np.full((len(z), 4), np.nan)
    if native.native_available():
        z = np.ascontiguousarray(z, z.dtype.newbyteorder("="))
        native._native.moments(native.KINDS[kind], z, np.ascontiguousarray(y), t, out)
    odd = np.flatnonzero(np.isnan(out[:, 0]))
    step = max(1, _BLOCK // z.shape[1])
    for start in range(0, len(odd), step):
        rows = odd[start : start + step]
        out[rows] = formulas(z[rows], y[rows], t)
    return out
