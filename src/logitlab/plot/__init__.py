"""Every picture: each function draws on `ax` (a new one if None) and returns it.

Colours come from matplotlib's own settings (text, axes, the first two of the colour cycle), so a
style applies; what two colours tell apart, hatching, dashes or words tell apart too. A figure made
here shows itself as SVG in a notebook.
"""

from logitlab.plot.classes import probabilities, scaling
from logitlab.plot.matrix import jacobian
from logitlab.plot.samples import outcome_bars, sampling, temperature_sweep
from logitlab.plot.stability import stability
from logitlab.plot.summaries import (
    class_gaps,
    distribution,
    over_time,
    reliability,
    reliability_diagram,
    temperature_summary,
)
from logitlab.plot.temperature import simplex, temperature_curves

__all__ = [
    "class_gaps",
    "distribution",
    "jacobian",
    "outcome_bars",
    "over_time",
    "probabilities",
    "reliability",
    "reliability_diagram",
    "sampling",
    "scaling",
    "simplex",
    "stability",
    "temperature_curves",
    "temperature_summary",
    "temperature_sweep",
]
