"""Probabilities in bins: their edges, sums over them, and how far these are from what came true."""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from logitlab import _checks
from logitlab._rows import Floats, Integers

Strategy = Literal["uniform", "quantile"]
Norm = Literal[1, 2, "max"]


def equal_width(n_bins: int) -> Floats:
    """Edges of equally wide bins on [0, 1]."""
    return np.linspace(0, 1, _checks.integer(n_bins, "n_bins", 1) + 1)


def edges_of(p: Floats, n_bins: int, strategy: Strategy) -> Floats:
    edges = equal_width(n_bins)
    if strategy == "uniform":
        return edges
    if strategy != "quantile":
        raise ValueError(f"strategy is {strategy!r}; accepted: 'uniform', 'quantile'")
    edges = np.unique(np.quantile(p, edges))
    return edges if len(edges) > 1 else np.repeat(edges, 2)


def bins_of(edges: Floats, p: Floats) -> Integers:
    """The bin of each probability; one at the uppermost edge is in the last bin."""
    return np.clip(np.searchsorted(edges, p, side="right") - 1, 0, len(edges) - 2)


def bin_sums(edges: Floats, p: Floats, happened: NDArray[np.bool_]) -> Floats:
    """Rows, their summed probability, and the events that happened: shape (3, B), additive."""
    bins, size = bins_of(edges, p), len(edges) - 1
    weights = (None, p, happened)
    return np.stack([np.bincount(bins, w, minlength=size).astype(float) for w in weights])


def class_sums(edges: Floats, p: Floats, y: Integers) -> Floats:
    """As :func:`bin_sums`, of every class by itself: shape (3, K, B)."""
    classes, size = p.shape[-1], len(edges) - 1
    cells = bins_of(edges, p) + size * np.arange(classes)
    true = np.take_along_axis(cells, y[:, None], axis=-1)[:, 0]
    sums = [
        np.bincount(cells.reshape(-1), w, minlength=classes * size) for w in (None, p.reshape(-1))
    ]
    sums.append(np.bincount(true, minlength=classes * size))
    return np.stack(sums).astype(float).reshape(3, classes, size)


_erf = np.vectorize(math.erf, otypes=[float])


def gap_norm(sums: Floats, norm: Norm, debiased: bool = False) -> Any:
    """The error of what :func:`bin_sums` summed up, over the last axis."""
    rows, stated, happened = sums
    filled = rows > 0
    n = np.where(filled, rows, 1)
    gap, rate = np.abs(stated - happened) / n, happened / n
    if norm == "max":
        return gap.max(axis=-1)
    moment = gap**norm
    if debiased:
        # A bin of one row says nothing of its own variance: the largest there is.
        variance = np.where(rows > 1, rate * (1 - rate), 0.25) / np.maximum(n - 1, 1)
        if norm == 2:
            moment = moment - variance
        else:
            # |gap| less its bias: the mean of |X| - gap for X normal around the gap.
            sd = np.sqrt(np.where(variance > 0, variance, 1))
            folded = sd * math.sqrt(2 / math.pi) * np.exp(-0.5 * (gap / sd) ** 2)
            folded += gap * _erf(gap / (sd * math.sqrt(2)))
            moment = np.where(variance > 0, 2 * gap - folded, gap)
    total = np.sum(np.where(filled, rows * moment, 0), axis=-1) / rows.sum(axis=-1)
    return np.maximum(total, 0) ** (1 / norm)


def check_norm(norm: Norm, debiased: bool = False) -> None:
    if norm not in (1, 2, "max"):
        raise ValueError(f"norm is {norm!r}; accepted: 1, 2, 'max'")
    if debiased and norm == "max":
        raise ValueError("norm is 'max' with debiased=True; accepted: 1 and 2")
