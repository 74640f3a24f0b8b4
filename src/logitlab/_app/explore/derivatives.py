"""The Jacobian of the probabilities, and the gradient of the log-loss."""

import math
from typing import Any

import numpy as np

from logitlab._app.explore.state import Row, State
from logitlab._rows import Floats, Integers
from logitlab.derivatives import jacobian_product
from logitlab.losses import cross_entropy_and_grad
from logitlab.plot.canvas import ranking_logits
from logitlab.plot.matrix import jacobian_rows

_MAX_CLASSES = 12  # of the heat map
_MANY_CLASSES = 2000  # for more classes the curve has fewer points


def _sums_without_rounding(x: Floats) -> Floats:
    """Sums over the last axis; 0 if a sum is a rounding error."""
    total = x.sum(axis=-1)
    return np.where(np.abs(total) > 1e-12 * np.abs(x).sum(axis=-1), total, 0.0)


def jacobian(state: State, row: Row, indices: Integers) -> dict[str, Any]:
    """The Jacobian of the classes shown, and its size as a function of a further scale."""
    finite = row.truncated > -np.inf
    indices = indices[finite[indices]][:_MAX_CLASSES]
    t = row.temperature
    if math.isinf(t):
        raise ValueError("At an infinite temperature every entry of the Jacobian is 0.")
    rows = jacobian_rows(row.truncated, indices, t)
    scales = np.geomspace(1 / 64, 64, 61 if len(row.z) <= _MANY_CLASSES else 13)
    top = np.zeros(len(row.z))
    top[int(np.argmax(ranking_logits(row.truncated, t)))] = 1
    # Scaling z by c is a temperature of T/c: J is that at T/c, times c.
    shape = (len(scales), len(row.z))
    product = jacobian_product(
        np.broadcast_to(row.truncated, shape), np.broadcast_to(top, shape), temperature=t / scales
    )
    return {
        "indices": indices,
        "entries": rows[:, indices],
        "sums": _sums_without_rounding(rows),
        "bound": 0.25 / abs(t),
        "scales": scales,
        # In units of 1/T: at most 1/4.
        "max_entries": np.max(np.abs(product), axis=-1) * np.abs(t / scales),
    }


def gradient(state: State, row: Row, indices: Integers, true_class: int | None) -> dict[str, Any]:
    """The log-loss of a label and its gradient (p - y)/T, without truncation."""
    label = next((k for k in (state.label, true_class) if k is not None), 0)
    loss, grad = cross_entropy_and_grad(row.scaled, np.int64(label), temperature=state.temperature)
    shown = indices[:_MAX_CLASSES]
    shown = shown if label in shown else np.append(shown, label)
    return {
        "label": label,
        "loss": float(loss),
        "indices": shown,
        "gradient": grad[shown],
        "sum": _sums_without_rounding(grad),
    }
