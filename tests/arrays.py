"""Arrays of special values, shapes and layouts, which every function is tested on."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import torch

inf, nan = np.inf, np.nan
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64)]
TEMPERATURES = [1.0, 0.3, 2.5, 1e-3, 1e3, 1e-300, 1e300, 5e-324, 0.0, inf, -1.0, -0.7, -inf]

ROWS = [
    [0.0],
    [-5.0],
    [inf],
    [-inf],
    [nan],
    [0.0, 0.0],
    [1.0, 2.0, 3.0],
    [3.0, 1.0, 3.0, 3.0],
    [0.0, -20.0],
    [-0.0, 0.0, 1e-30],
    [1000.0, 2000.0, 5000.0],
    [-1000.0, -2000.0, -5000.0],
    [0.0, -87.0, -88.0, -100.0, -103.0, -104.0, -110.0],
    [0.0, -708.0, -740.0, -745.0, -746.0, -800.0],
    [6e4, -6e4, 0.0],
    [1e30, -1e30, 3.0],
    [-inf, 1.0, 2.0],
    [-inf, -inf, 7.0],
    [-inf, -inf, -inf],
    [inf, 1.0, 2.0],
    [inf, inf, -inf, 0.0],
    [inf, -inf],
    [nan, 1.0, 2.0],
    [1.0, inf, nan],
    [-inf, nan],
    [5e-324, 1e-310, 0.0],
    [1.0, 1.0000001, 0.9999999],
]
FLOAT64_ROWS = [[1e308, -1e308], [1.7e308, 1.7e308, -1.7e308], [1e-308, 2e-308, -3e-308]]


class Case(NamedTuple):
    name: str
    z: np.ndarray
    axis: int


def rows(dtype: np.dtype) -> Iterator[np.ndarray]:
    """Single rows of special values, in a type."""
    with np.errstate(all="ignore"):
        for row in ROWS + (FLOAT64_ROWS if dtype == np.float64 else []):
            yield np.array(row).astype(dtype)


def normal(
    shape: tuple[int, ...], dtype: np.dtype, scale: float = 3.0, seed: int = 0
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * scale).astype(dtype)


def cases(dtype: np.dtype) -> Iterator[Case]:
    """Arrays of many shapes and layouts, with rows of special values among random ones."""
    for n, k in itertools.product((1, 2, 3, 17, 40), (1, 2, 3, 5, 8, 15, 16, 17, 31, 64, 100, 333)):
        yield Case(f"{n}x{k}", normal((n, k), dtype), -1)
    for k in (1000, 4096, 5003, 40001):
        yield Case(f"3x{k}", normal((3, k), dtype), -1)
    yield Case("wide", normal((5, 300), dtype, 30.0), -1)
    yield Case("very wide", normal((5, 300), dtype, 300.0), -1)
    mixed = normal((40, 7), dtype)
    with np.errstate(all="ignore"):
        for i, row in enumerate(ROWS):
            mixed[i, : len(row)] = np.array(row).astype(dtype)
    yield Case("special rows", mixed, -1)
    yield Case("special columns", np.ascontiguousarray(mixed.T), 0)
    yield Case("first axis", normal((9, 20), dtype), 0)
    yield Case("middle axis", normal((3, 11, 20), dtype), 1)
    yield Case("middle axis of many", normal((2, 200, 70), dtype), -2)
    yield Case("fortran", np.asfortranarray(normal((12, 33), dtype)), -1)
    yield Case("strided", normal((12, 66), dtype)[::2, ::3], -1)
    yield Case("negative strides", normal((12, 33), dtype)[::-1, ::-1], -1)
    yield Case("transposed", normal((4, 5, 6), dtype).transpose(2, 0, 1), 1)
    yield Case("broadcast", np.broadcast_to(normal((1, 9), dtype), (4, 9)), -1)
    if dtype != BFLOAT16:
        yield Case("byte-swapped", normal((5, 9), dtype).astype(dtype.newbyteorder()), -1)
    yield Case("zero rows", np.empty((0, 5), dtype), -1)
    yield Case("zero classes", np.empty((5, 0), dtype), -1)
    yield Case("zero classes, first", np.empty((0, 5), dtype), 0)
    yield Case("0-d", np.array(3.0).astype(dtype), -1)
    yield Case("1-d", normal((50,), dtype), -1)
    yield Case("4-d", normal((2, 3, 4, 5), dtype), -1)


def tiny(dtype: np.dtype) -> np.ndarray:
    """The smallest positive number of a type."""
    return (
        np.nextafter(np.zeros((), dtype), np.ones((), dtype))
        if dtype != BFLOAT16
        else (np.array(2.0**-133).astype(dtype))
    )


def finfo(dtype: np.dtype) -> Any:
    """The limits of a type, bfloat16 included."""
    return ml_dtypes.finfo(dtype)


def tensor(x: np.ndarray) -> Any:
    """A torch tensor of the same values and type, bfloat16 included."""
    if x.dtype == BFLOAT16:
        return torch.from_numpy(x.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(x)


def floats(x: Any) -> np.ndarray:
    """The values of an array of any library as float64."""
    if isinstance(x, torch.Tensor):
        return x.detach().double().numpy()
    return np.asarray(x).astype(float)
