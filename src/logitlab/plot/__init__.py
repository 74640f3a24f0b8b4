"""Plots: each function draws on `ax` (axes of a new figure if None) and returns it.

Colors come from the settings of matplotlib (text, axes and the first two colors of the color
cycle), so a style applies. Hatching, dashes or labels distinguish what two colors distinguish. A
figure created here is displayed as SVG in a notebook.
"""

from logitlab.plot.classes import probabilities, scaling
from logitlab.plot.estimates import forest
from logitlab.plot.matrix import jacobian
from logitlab.plot.samples import outcome_bars, sampling, temperature_sweep
from logitlab.plot.stability import stability
from logitlab.plot.summaries import (
    class_gaps,
    distribution,
    over_time,
    reliability,
    reliability_diagram,
    risk_coverage,
    temperature_summary,
)
from logitlab.plot.temperature import simplex, temperature_curves

__all__ = [
    "class_gaps",
    "distribution",
    "forest",
    "jacobian",
    "outcome_bars",
    "over_time",
    "probabilities",
    "reliability",
    "reliability_diagram",
    "risk_coverage",
    "sampling",
    "scaling",
    "simplex",
    "stability",
    "temperature_curves",
    "temperature_summary",
    "temperature_sweep",
]
