"""Decisions from calibrated logits: costs, rejection, class frequencies and prediction sets."""

from logitlab.decisions.costs import decide, expected_cost
from logitlab.decisions.priors import PriorEstimate, adjust_prior, estimate_prior

__all__ = [
    "PriorEstimate",
    "adjust_prior",
    "decide",
    "estimate_prior",
    "expected_cost",
]
