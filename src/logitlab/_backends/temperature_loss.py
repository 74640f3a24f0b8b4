"""The log-loss of labelled rows and its derivatives by 1/T: the kernel, or the formulas."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._arrays import dtype_name
from logitlab._backends import native, reference

_BLOCK_SIZE = 1 << 18  # entries that the formulas process at a time


@np.errstate(all="ignore")
def formulas(z: NDArray[Any], y: NDArray[np.int64], t: float) -> NDArray[np.float64]:
    """As :func:`moments`, for rows of any magnitude."""
    wide = z.astype(np.float64)
    row_max = wide.max(axis=-1, keepdims=True)

    def at_label(a: NDArray[np.float64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = np.take_along_axis(a, y[:, None], axis=-1)[:, 0]
        return values

    # The difference of halves does not overflow. The loss of a row with +inf is the same at any T.
    x = 2 * ((wide / 2 - row_max / 2) / t)
    x = np.where(np.isposinf(row_max), 0.0, x)
    loss = -at_label(reference.log_softmax(wide, (1,), t, None, None))
    p = reference.softmax(wide, (1,), t, None, None)
    x_possible = np.where(p > 0, x, 0.0)
    mean = np.sum(p * x_possible, axis=-1)
    variance = np.sum(p * (x_possible - mean[:, None]) ** 2, axis=-1)
    gap = at_label(wide) - row_max[:, 0]
    return np.stack([loss, mean - at_label(x), variance, np.nan_to_num(gap, nan=0.0)], axis=-1)


def moments(z: NDArray[Any], y: NDArray[np.int64], t: float) -> NDArray[np.float64]:
    """The log-loss l(beta) of each row at T = 1/beta, beta l', beta^2 l'', and z_y - max z.

    z has shape (n, K), y has n labels in range, t is positive and finite. The result is (n, 4).
    """
    dtype = dtype_name(z.dtype)
    if dtype not in ("float32", "float64"):
        z = z.astype(np.float32 if dtype in ("float16", "bfloat16") else np.float64)
        dtype = dtype_name(z.dtype)
    out = np.full((len(z), 4), np.nan)
    if native.native_available():
        z = native.contiguous(z, z.dtype.newbyteorder("="))
        y = native.contiguous(y, np.dtype(np.int64))
        native._native.moments(native.KINDS[dtype], z, y, t, out)
    # The kernel leaves NaN in rows that it does not cover.
    missing = np.flatnonzero(np.isnan(out[:, 0]))
    step = max(1, _BLOCK_SIZE // z.shape[1])
    for start in range(0, len(missing), step):
        rows = missing[start : start + step]
        out[rows] = formulas(z[rows], y[rows], t)
    return out
