"""The softmax layer of a model: everything between logits and a decision."""

from typing import Any

from logitlab.calibration import TemperatureScaling, cross_fit
from logitlab.probabilities import log_softmax, logits, logsumexp, softmax
from logitlab.scores import (
    accuracy,
    brier_score,
    calibration_error,
    entropy,
    reliability_curve,
)

__all__ = [
    "TemperatureScaling",
    "accuracy",
    "brier_score",
    "calibration_error",
    "cross_fit",
    "entropy",
    "log_softmax",
    "logits",
    "logsumexp",
    "reliability_curve",
    "softmax",
]


def __getattr__(name: str) -> Any:
    # The version is looked up on demand: importlib.metadata costs more than the rest of the import.
    if name == "__version__":
        from importlib.metadata import version

        return version("logitlab")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
