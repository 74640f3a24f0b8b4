"""Layouts of logits other than rows of classes: another class axis, one score for two classes."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.source import Logits, UserError, change_check, in_file, in_memory
from logitlab._rows import blocks

_CHUNK = 1 << 24  # entries that are transposed at a time


def along_axis(source: str, z: NDArray[Any], axis: int) -> Logits:
    """The logits of an array, or of a memory map, with classes along `axis`."""
    if not -z.ndim <= axis < z.ndim:
        raise UserError(
            f"{source}: --axis must be in {-z.ndim} to {z.ndim - 1}, as the array has shape "
            f"{z.shape}, got {axis}"
        )
    last = np.moveaxis(z, axis, -1)
    if z.flags.c_contiguous and not last.flags.c_contiguous:
        logits = _transposed(source, z, axis % z.ndim)
    elif isinstance(last, np.memmap) and (last.ndim == 2 or last.flags.c_contiguous):
        logits = in_file(source, last)
    else:
        logits = in_memory(source, np.asarray(last))
    return replace(logits, axis=axis % z.ndim)


def _no_check() -> None:
    """An array in memory does not change."""


def _transposed(source: str, z: NDArray[Any], axis: int) -> Logits:
    """The logits of a C-contiguous array with other axes after the class axis.

    Blocks are transposed one by one: the whole array never is.
    """
    k, inner = z.shape[axis], math.prod(z.shape[axis + 1 :])
    planes = z.reshape(math.prod(z.shape[:axis]), k, inner)
    path = Path(str(z.filename)) if isinstance(z, np.memmap) else None
    check_unchanged = _no_check if path is None else change_check(path)

    def planes_at(outer: slice) -> NDArray[Any]:
        found: NDArray[Any] = planes[outer]
        if path is None or not isinstance(z, np.memmap):
            return found
        # A map of its own: the pages that were read do not stay in the memory of the process.
        offset = z.offset + outer.start * planes.strides[0]
        return np.memmap(path, z.dtype, "r", offset, found.shape)

    def chunk(outer: slice, part: slice) -> NDArray[Any]:
        check_unchanged()
        rows = np.array(planes_at(outer)[:, :, part].swapaxes(1, 2), order="C")
        check_unchanged()
        return rows.reshape(-1, k)

    def read() -> Iterator[NDArray[Any]]:
        for outer in blocks(len(planes), k * inner, _CHUNK):
            for part in blocks(inner, k, _CHUNK):
                rows = chunk(outer, part)
                yield from (rows[block] for block in blocks(*rows.shape))

    def rows_at(numbers: Any) -> NDArray[Any]:
        check_unchanged()
        return np.array(planes[numbers // inner, :, numbers % inner])

    shape = (*z.shape[:axis], *z.shape[axis + 1 :], k)
    return Logits(source, shape, z.dtype, None, read, rows_at)


def two_classes(logits: Logits, probabilities: bool) -> Logits:
    """The logits of two classes from a score of class 1: a row is [0, s], or [1 - p, p]."""

    def read() -> Iterator[NDArray[Any]]:
        start = 0
        for block in logits.read():
            score = block[:, 0]
            if not probabilities:
                yield np.stack([np.zeros_like(score), score], axis=-1)
                continue
            score = score.astype(np.float64)
            if (outside := (score < 0) | (score > 1)).any():
                row = int(outside.argmax())
                raise UserError(
                    f"{logits.place(start + row)}: the probability of class 1 must be in 0 to 1, "
                    f"got {score[row]:g}"
                )
            yield np.stack([1 - score, score], axis=-1)
            start += len(score)

    shape = (*logits.shape[:-1], 2)
    return replace(logits, shape=shape, names=None, read=read, rows_at=None, one_score=True)


def describe_layout(logits: Logits, probabilities: bool) -> list[str]:
    """How rows and classes are read from the file, where that is not a table of both."""
    found = []
    if logits.one_score:
        found.append(
            "One number for each row: the probability p of class 1; its row is [1 - p, p]."
            if probabilities
            else "One number for each row: the logit s of class 1; its row is [0, s]."
        )
    batch = logits.shape[:-1]
    if len(batch) > 1:
        axis = logits.axis if logits.axis >= 0 else len(batch)
        found.append(
            f"The classes are along axis {axis}; the rows are the {logits.rows} positions of "
            f"the other axes, of shape {batch}, in C order."
        )
    return found
