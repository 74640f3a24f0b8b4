"""Decisions from calibrated logits: costs, rejection, class frequencies and prediction sets."""

from logitlab.decisions.conformal import ConformalSets
from logitlab.decisions.costs import decide, expected_cost
from logitlab.decisions.priors import PriorEstimate, adjust_prior, estimate_prior
from logitlab.decisions.selective import (
    RiskCoverageCurve,
    SelectiveClassifier,
    risk_coverage_curve,
)

__all__ = [
    "ConformalSets",
    "PriorEstimate",
    "RiskCoverageCurve",
    "SelectiveClassifier",
    "adjust_prior",
    "decide",
    "estimate_prior",
    "expected_cost",
    "risk_coverage_curve",
]
