"""The arrays and the logits of one file."""

import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.layouts import along_axis, two_classes
from logitlab._app.io.lm_eval import SUFFIX, read_samples
from logitlab._app.io.source import (
    NUMBERS,
    Logits,
    UserError,
    catch_read_errors,
    memory_bytes,
    select_name,
)
from logitlab._app.io.tables import is_tabular, table_logits

_MAGIC = b"\x93NUMPY"
# The types of .safetensors files that NumPy, or ml_dtypes with NumPy, can hold.
_INTEGERS = [f"{sign}{bits}" for sign in "IU" for bits in (8, 16, 32, 64)]
_TENSORS = ["F16", "BF16", "F32", "F64", "BOOL", *_INTEGERS]


def read_array(path: Path, name: str | None, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    """One array of an array file; that of a .npy file may be a memory map."""
    kind = path.suffix.lower()
    with catch_read_errors(path):
        if kind == ".npy":
            if name is not None:
                raise UserError(f"{path}: a .npy file has no names, got {name!r}")
            with path.open("rb") as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    raise UserError(f"{path}: not a valid .npy file")
            array: NDArray[Any] = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
            return array if array.size else np.array(array)
        if kind == SUFFIX:
            raise UserError(f"{path}: a sample log is for LOGITS; it has no other arrays")
        if kind == ".npz":
            if not zipfile.is_zipfile(path):
                raise UserError(f"{path}: not a valid .npz file")
            # NumPy does not close the file of a damaged archive that it opens itself.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                name = select_name(path, name, archive.files)
                _check_size(path, archive.zip, name)
                return np.asarray(archive[name])
        from safetensors import safe_open

        with safe_open(path, "np") as tensors:
            name = select_name(path, name, list(tensors.keys()))
            kind = tensors.get_slice(name).get_dtype()
            if kind not in _TENSORS:
                types = ", ".join(_TENSORS)
                raise UserError(f"{path}: the type of {name!r} must be one of {types}, got {kind}")
            if kind == "BF16":
                import ml_dtypes  # noqa: F401  registers bfloat16 with NumPy
            return np.asarray(tensors.get_tensor(name))


def _check_size(path: Path, archive: zipfile.ZipFile, name: str) -> None:
    """Refuse an array that is larger than the memory of the machine: files can be compressed."""
    member = name if name in archive.namelist() else f"{name}.npy"
    size = archive.getinfo(member).file_size
    if size > memory_bytes():
        raise UserError(f"{path}: {name!r} has {size} bytes, more than the memory of this machine")


def dtype_label(dtype: np.dtype[Any]) -> str:
    return "text" if dtype.kind in "USO" else dtype.name


def open_file(
    path: Path,
    name: str | None,
    source: str,
    *,
    others: Sequence[str | None] = (),
    axis: int = -1,
    probabilities: bool | None = None,
    file: str = "",
    first: int = 0,
) -> Logits:
    """The logits of a file, which may have no rows; `others` are not classes.

    `source`, `file` and `first` are those of the result.
    """
    if path.suffix.lower() == SUFFIX:
        if name is not None or axis != -1 or probabilities:
            raise UserError(
                f"{source}: a sample log has neither names, axes nor probabilities; omit NAME, "
                "--axis and --probabilities"
            )
        logits = read_samples(path, source)
    elif is_tabular(path):
        if axis != -1:
            raise UserError(f"{source}: --axis is for arrays; the classes of a table are columns")
        logits = table_logits(path, name, others)
    else:
        place = str(path) if file else source
        z = read_array(path, name, "r")
        if z.dtype.kind not in NUMBERS and z.dtype.name != "bfloat16":
            raise UserError(f"{place}: must contain numbers, got {dtype_label(z.dtype)}")
        if z.ndim == 1 and probabilities is not None and axis in (0, -1):
            z, axis = z[:, None], -1
        if z.ndim < 2:
            raise UserError(f"{place}: logits must have a shape (rows, classes), got {z.shape}")
        logits = along_axis(place, z, axis)
    logits = replace(logits, source=source, file=file, first=first)
    if logits.classes == 1 and probabilities is not None:
        return two_classes(logits, probabilities)
    return logits
