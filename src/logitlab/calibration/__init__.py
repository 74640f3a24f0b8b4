"""Calibration: probabilities that come true as often as they say."""

from logitlab.calibration.cross import cross_fit, split
from logitlab.calibration.temperature import TemperatureScaling, TemperatureSearch

__all__ = ["TemperatureScaling", "TemperatureSearch", "cross_fit", "split"]
