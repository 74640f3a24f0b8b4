"""Reliability and log-loss of the rows with labels, as functions of the temperature."""

import math
from functools import cache
from typing import Any

import numpy as np

from logitlab._app.explore.datasets import Dataset
from logitlab._app.explore.state import State
from logitlab.calibration import TemperatureScaling
from logitlab.losses import cross_entropy
from logitlab.reliability import calibration_error, reliability_curve

_TEMPERATURES = np.geomspace(0.1, 10, 33)


@cache
def _losses(dataset: Dataset) -> dict[str, Any]:
    """The log-loss at each temperature, and its minimum; computed once."""
    rows = dataset.labelled_rows
    assert rows is not None
    losses = [cross_entropy(rows.z, rows.y, temperature=t) for t in _TEMPERATURES]
    result: dict[str, Any] = {"temperatures": _TEMPERATURES, "losses": np.array(losses, float)}
    try:
        best = TemperatureScaling().fit(rows.z, rows.y).temperature_
    except ValueError as error:
        return {**result, "failure": str(error)}
    minimum = float(cross_entropy(rows.z, rows.y, temperature=best))
    return {**result, "best_temperature": best, "minimum": minimum}


def reliability(state: State) -> dict[str, Any]:
    """The reliability diagram and the log-loss at the temperature T/c."""
    rows = state.dataset.labelled_rows
    if rows is None:
        return {"unavailable": "The rows have no labels; start with --labels to see this."}
    t = state.temperature / state.scale
    if not 0 < t < math.inf:
        raise ValueError("The diagram needs a positive, finite temperature.")
    z = rows.z / t
    curve = reliability_curve(z, rows.y)
    return {
        "rows": len(rows.y),
        "total_rows": rows.total,
        "temperature": t,
        "edges": curve.edges,
        "counts": curve.counts,
        "confidence": curve.confidence,
        "accuracy": curve.accuracy,
        "low": curve.low,
        "high": curve.high,
        "calibration_error": calibration_error(z, rows.y),
        "loss": float(cross_entropy(rows.z, rows.y, temperature=t)),
        **_losses(state.dataset),
    }
