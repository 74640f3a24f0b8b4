"""The most common calls where the compiled kernels are missing: softmax, log_softmax and logsumexp
of plain NumPy arrays by the formulas of the reference, without the cases of a limit, in blocks of
rows that stay in a cache.

The functions take any arguments, as those of the native module with these names do, and return None
where they do not apply.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BLOCK = 1 << 15  # entries of a block of rows
_TYPES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))

# From z - m over T of some rows with a 0 at a largest entry m, the places of those entries, their
# weights, of which that entry has 0, and the sum of these: the results, beside m.
RowFunction = Callable[[Floats, NDArray[np.intp], Floats, Floats], Floats]


def _softmax(q: Floats, top: NDArray[np.intp], e: Floats, rest: Floats) -> Floats:
    np.put_along_axis(e, top, 1.0, -1)
    return np.divide(e, 1 + rest, out=e)


def _log_softmax(q: Floats, top: NDArray[np.intp], e: Floats, rest: Floats) -> Floats:
    return np.subtract(q, np.log1p(rest), out=q)


def _logsumexp(q: Floats, top: NDArray[np.intp], e: Floats, rest: Floats) -> Floats:
    return np.log1p(rest)


def _rows(function: RowFunction, z: NDArray[Any], t: float, out: NDArray[Any]) -> bool:
    """Write the results of rows; False where one has no finite largest entry, or a NaN."""
    wide = z.astype(np.float64)
    top = wide.argmax(axis=-1)[:, None]
    m = np.take_along_axis(wide, top, -1)
    if not np.isfinite(m).all():
        return False
    d = wide - m
    if z.dtype == np.float64:
        # The rounding error of a difference: D. E. Knuth, TAOCP 2, 4.2.2.
        m_virtual = wide - d
        error = (wide - (d + m_virtual)) + (m_virtual - m)
        error[~np.isfinite(error)] = 0
    q = d if t == 1 else np.divide(d, t, out=d)
    e = np.exp(q)
    if z.dtype == np.float64:
        e += e * error
    np.put_along_axis(e, top, 0.0, -1)
    rest = e.sum(axis=-1, keepdims=True)
    result = function(q, top, e, rest)
    out[...] = m + t * result if function is _logsumexp else result
    return True


def _plain(function: RowFunction, z: Any, axis: Any, temperature: Any) -> NDArray[Any] | None:
    if (
        type(z) is not np.ndarray
        or z.dtype not in _TYPES
        or type(axis) is not int
        or axis not in (-1, z.ndim - 1)
        or z.size == 0
        or type(temperature) is not float
        or not (temperature == 1 or (z.dtype != np.float64 and 1e-30 < temperature < 1e30))
    ):
        return None
    rows = z.reshape(-1, z.shape[-1])
    one = function is _logsumexp
    out = np.empty((len(rows), 1 if one else rows.shape[1]), z.dtype)
    step = max(1, _BLOCK // rows.shape[1])
    with np.errstate(all="ignore"):
        for start in range(0, len(rows), step):
            block = slice(start, start + step)
            if not _rows(function, rows[block], temperature, out[block]):
                return None
    return out.reshape(z.shape[:-1])[()] if one else out.reshape(z.shape)


def plain_softmax(z: Any, axis: Any, temperature: Any, where: Any) -> Any:
    return None if where is not None else _plain(_softmax, z, axis, temperature)


def plain_log_softmax(z: Any, axis: Any, temperature: Any, where: Any) -> Any:
    return None if where is not None else _plain(_log_softmax, z, axis, temperature)


def plain_logsumexp(z: Any, axis: Any, temperature: Any, where: Any) -> Any:
    return None if where is not None else _plain(_logsumexp, z, axis, temperature)
