"""Calibrators of logits, and their cross-fitted evaluation."""

from logitlab.calibration.affine import MatrixScaling, VectorScaling
from logitlab.calibration.binary import BetaCalibration, PlattScaling
from logitlab.calibration.cross_fit import cross_fit, random_folds
from logitlab.calibration.isotonic import IsotonicCalibration
from logitlab.calibration.saved import load_calibrator
from logitlab.calibration.selection import Selection, select_calibrator
from logitlab.calibration.structured import StructuredMatrixScaling, StructuredVectorScaling
from logitlab.calibration.temperature import TemperatureScaling, TemperatureSearch

__all__ = [
    "BetaCalibration",
    "IsotonicCalibration",
    "MatrixScaling",
    "PlattScaling",
    "Selection",
    "StructuredMatrixScaling",
    "StructuredVectorScaling",
    "TemperatureScaling",
    "TemperatureSearch",
    "VectorScaling",
    "cross_fit",
    "load_calibrator",
    "random_folds",
    "select_calibrator",
]
