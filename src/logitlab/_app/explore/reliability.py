"""Rows with labels, judged at the temperature of the page."""

import math
from functools import cache
from typing import Any

import numpy as np

from logitlab._app.explore.datasets import Rows
from logitlab._app.explore.state import State
from logitlab.calibration import TemperatureScaling
from logitlab.losses import cross_entropy
from logitlab.reliability import calibration_error, reliability_curve

_TEMPERATURES = np.geomspace(0.1, 10, 33)


@cache
def _losses(rows: Rows) -> dict[str, Any]:
    """The log-loss over temperatures, and where it is least; computed once."""
    judged = rows.judged
    assert judged is not None
    losses = [cross_entropy(judged.z, judged.y, temperature=t) for t in _TEMPERATURES]
    found: dict[str, Any] = {"temperatures": _TEMPERATURES, "losses": np.array(losses, float)}
    try:
        best = TemperatureScaling().fit(judged.z, judged.y).temperature_
    except ValueError as error:
        return {**found, "failure": str(error)}
    least = float(cross_entropy(judged.z, judged.y, temperature=best))
    return {**found, "best": best, "least": least}


def judgement(state: State) -> dict[str, Any]:
    """The reliability diagram and the log-loss at the temperature T/c."""
    judged = state.rows.judged
    if judged is None:
        return {"refused": "The rows have no labels; start with --labels to see this."}
    t = state.temperature / state.scale
    if not 0 < t < math.inf:
        raise ValueError("The diagram needs a temperature that is positive and finite.")
    z = judged.z / t
    curve = reliability_curve(z, judged.y)
    return {
        "rows": len(judged.y),
        "of": judged.of,
        "t": t,
        "edges": curve.edges,
        "counts": curve.counts,
        "confidence": curve.confidence,
        "accuracy": curve.accuracy,
        "low": curve.low,
        "high": curve.high,
        "error": calibration_error(z, judged.y),
        "loss": float(cross_entropy(judged.z, judged.y, temperature=t)),
        **_losses(state.rows),
    }
