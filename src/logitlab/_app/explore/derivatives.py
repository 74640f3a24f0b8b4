"""How the probabilities answer to the logits, and the gradient of the log-loss."""

import math
from typing import Any

import numpy as np

from logitlab._app.explore.state import Row, State
from logitlab._rows import Floats, Integers
from logitlab.derivatives import jacobian_product
from logitlab.losses import cross_entropy_and_grad
from logitlab.plot.canvas import ranking_logits
from logitlab.plot.matrix import jacobian_rows

_ROOM = 12  # classes of the heat map
_LONG = 2000  # classes from which on the fading is computed at fewer points


def _sums(x: Floats) -> Floats:
    """0 where only rounding is left."""
    total = x.sum(axis=-1)
    return np.where(np.abs(total) > 1e-12 * np.abs(x).sum(axis=-1), total, 0.0)


def jacobian(state: State, row: Row, place: Integers) -> dict[str, Any]:
    """Rows of the Jacobian for the classes shown, and how it fades as the scale grows."""
    finite = row.kept > -np.inf
    place = place[finite[place]][:_ROOM]
    t = state.temperature
    if math.isinf(t):
        raise ValueError("At an infinite temperature no probability answers: every entry is 0.")
    rows = jacobian_rows(row.kept, place, t)
    scales = np.geomspace(1 / 64, 64, 61 if len(row.z) <= _LONG else 13)
    top = np.zeros(len(row.z))
    top[int(np.argmax(ranking_logits(row.kept, t)))] = 1
    # Scaling z by c is a temperature of T/c: J is that at T/c, times c.
    shape = (len(scales), len(row.z))
    answer = jacobian_product(
        np.broadcast_to(row.kept, shape), np.broadcast_to(top, shape), temperature=t / scales
    )
    return {
        "place": place,
        "entries": rows[:, place],
        "sums": _sums(rows),
        "largest": 0.25 / abs(t),
        "scales": scales,
        # In units of 1/T, where 1/4 is the most there can be.
        "fading": np.max(np.abs(answer), axis=-1) * np.abs(t / scales),
    }


def gradient(state: State, row: Row, place: Integers, true: int | None) -> dict[str, Any]:
    """The log-loss of a label and its gradient, p - y at T = 1, before any truncation."""
    label = state.label if state.label is not None else true if true is not None else 0
    loss, slope = cross_entropy_and_grad(row.scaled, np.int64(label), temperature=state.temperature)
    shown = place if len(place) <= _ROOM else place[:_ROOM]
    shown = shown if label in shown else np.append(shown, label)
    return {
        "label": label,
        "loss": float(loss),
        "place": shown,
        "gradient": slope[shown],
        "sum": _sums(slope),
    }
