"""The checked arguments of a call, and its results in the array library of the caller."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from numpy.typing import NDArray

from logitlab import _arrays, _checks
from logitlab._backends.reference_sampling import Words
from logitlab.sampling.draws import Key
from logitlab.sampling.settings import rows_of


class Call(NamedTuple):
    """The checked arguments of a call."""

    request: _arrays.Request
    batch: tuple[int, ...]
    arguments: tuple[Any, int, Any, Any]  # z, axis, temperature and where, as NumPy arrays

    def row_label(self, flat: int) -> str:
        """The words for the row of this number."""
        index = tuple(map(int, np.unravel_index(flat, self.batch)))
        return _checks.row_label(index) if index else "z"


class Draws(NamedTuple):
    """The random numbers of a call."""

    key: Key
    row_keys: Words
    n: int
    has_xtc: NDArray[np.bool_] | None  # (rows, 1) or (rows, count): whether XTC is applied


def check_call(z: Any, axis: Any, temperature: Any, where: Any) -> Call:
    z = _arrays.as_floating(z, "z")
    _arrays.one_axis(axis, z.ndim)
    request = _arrays.request(z, axis, temperature, where)
    batch = tuple(n for a, n in enumerate(request.z.shape) if a not in request.axes)
    t = request.temperature
    if not isinstance(t, float):
        # The kernels read float64, which some libraries have not enabled.
        t = _arrays.on_host(t, "temperature").astype(np.float64, copy=False)
    mask = None if request.where is None else _arrays.on_host(request.where, "where")
    return Call(request, batch, (_arrays.on_host(request.z), request.axes[0], t, mask))


def check_dynamic_temperature(call: Call, width: Any) -> None:
    """Refuse rows of a negative temperature whose `dynatemp_range` is above 0."""
    width = rows_of("dynatemp_range", width, call.batch)
    _, axis, t, _ = call.arguments
    if isinstance(t, np.ndarray):
        t = np.broadcast_to(np.take(t, 0, axis), call.batch).reshape(-1)
    if (negative := np.atleast_1d((t < 0) & (width > 0))).any():
        flat = int(np.argmax(negative))
        t, row = (t[flat], f" in {call.row_label(flat)}") if np.ndim(t) else (t, "")
        raise ValueError(f"temperature must be >= 0 if dynatemp_range > 0, got {t}{row}")


def to_library_of(z: Any, x: NDArray[Any]) -> Any:
    """A NumPy array as an array of the library and on the device of z."""
    if isinstance(z, np.ndarray):
        return x
    if is_torch_array(z):
        import torch

        return torch.from_numpy(x).to(z.device)
    return array_namespace(z).asarray(x, device=getattr(z, "device", None))


def with_probability(kept: NDArray[np.bool_], call: Call) -> NDArray[np.bool_]:
    """The kept classes without those that have probability 0 at any precision."""
    z, axis, t, _ = call.arguments
    kept = kept & (z != -np.inf)
    infinite = kept & (z == np.inf)
    if infinite.any():
        # At T >= 0, all of the probability; at T < 0, none.
        kept &= np.where(t < 0, ~infinite, infinite | ~infinite.any(axis=axis, keepdims=True))
    if np.any(t == 0):
        largest = np.max(np.where(kept, z, -np.inf), axis=axis, keepdims=True, initial=-np.inf)
        kept &= (t != 0) | (z == largest)
    return kept


def take_classes(x: Any, classes: Any, xp: Any) -> Any:
    """The entries of x, (..., K), at these classes, (..., n)."""
    if hasattr(xp, "take_along_axis"):
        return xp.take_along_axis(x, classes, axis=-1)
    all_classes = xp.arange(x.shape[-1])  # Dask
    columns = [classes[..., j : j + 1] for j in range(classes.shape[-1])]
    taken = [xp.sum(xp.where(all_classes == c, x, 0.0), axis=-1) for c in columns]
    return xp.stack(taken, axis=-1)


def check_samples(indices: NDArray[np.int64], call: Call, replacement: bool) -> None:
    """Refuse rows in which the backends found no category, or too few: -1."""
    if (missing := indices[:, 0] < 0).any():
        row = call.row_label(int(np.argmax(missing)))
        raise ValueError(f"{row} has no distribution: it contains NaN, or no category is left")
    if not replacement and (missing := indices[:, -1] < 0).any():
        flat = int(np.argmax(missing))
        size = int((indices[flat] >= 0).sum())
        raise ValueError(
            f"n must be <= {size} without replacement, got {indices.shape[1]}: "
            f"{call.row_label(flat)} has {size} categories"
        )


def for_decisions(has_xtc: Any, compute: Callable[[Any], Any], xp: Any, like: Any) -> Any:
    """`compute` of the rows to which XTC is applied; where that differs by sample, of both."""
    if has_xtc is None or has_xtc.shape[1] == 1:
        return compute(None if has_xtc is None else has_xtc[:, 0])
    every = np.ones(len(has_xtc), bool)
    with_xtc, without = compute(every), compute(~every)
    return xp.where(to_library_of(like, has_xtc.reshape(with_xtc.shape)), with_xtc, without)
