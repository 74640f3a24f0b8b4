"""The softmax layer of a model: probabilities, derivatives, losses, sampling and calibration."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from logitlab import _registry
from logitlab._backends.native import get_num_threads, native_available, set_num_threads
from logitlab.calibration import (
    BetaCalibration,
    IsotonicCalibration,
    MatrixScaling,
    PlattScaling,
    StructuredMatrixScaling,
    StructuredVectorScaling,
    TemperatureScaling,
    VectorScaling,
    cross_fit,
    load_calibrator,
    select_calibrator,
)
from logitlab.decisions import (
    ConformalSets,
    SelectiveClassifier,
    adjust_prior,
    decide,
    estimate_prior,
    expected_cost,
    risk_coverage_curve,
)
from logitlab.decomposition import score_decomposition
from logitlab.derivatives import hessian, hessian_product, jacobian, jacobian_product
from logitlab.divergences import entropy, kl_divergence
from logitlab.groups import group_scores
from logitlab.importance import permutation_importance
from logitlab.linear_losses import linear_cross_entropy, linear_cross_entropy_and_grad
from logitlab.losses import cross_entropy, cross_entropy_and_grad
from logitlab.probabilities import log_softmax, logits, logsumexp, softmax
from logitlab.reliability import calibration_error, calibration_test, reliability_curve
from logitlab.resampling import bootstrap, calibration_error_interval
from logitlab.sampling import (
    Sampler,
    log_prob,
    mirostat,
    penalize,
    sample,
    sample_with_log_prob,
    sample_with_support,
    truncate,
    verify_draft,
)
from logitlab.scores import accuracy, brier_score, top_k_accuracy
from logitlab.smooth_calibration import smooth_calibration_error
from logitlab.support import Support
from logitlab.sweep import temperature_sweep

if TYPE_CHECKING:
    from logitlab.regression.cross_validation import SoftmaxRegressionCV
    from logitlab.regression.estimator import SoftmaxRegression
    from logitlab.regression.inference.results import Inference
    from logitlab.regression.path import softmax_regression_path
    from logitlab.tables.model import TableModel
    from logitlab.tables.saved import load_model

__all__ = [
    "BetaCalibration",
    "ConformalSets",
    "Inference",
    "IsotonicCalibration",
    "MatrixScaling",
    "PlattScaling",
    "Sampler",
    "SelectiveClassifier",
    "SoftmaxRegression",
    "SoftmaxRegressionCV",
    "StructuredMatrixScaling",
    "StructuredVectorScaling",
    "Support",
    "TableModel",
    "TemperatureScaling",
    "VectorScaling",
    "accuracy",
    "adjust_prior",
    "bootstrap",
    "brier_score",
    "calibration_error",
    "calibration_error_interval",
    "calibration_test",
    "check_sampler",
    "check_softmax",
    "cross_entropy",
    "cross_entropy_and_grad",
    "cross_fit",
    "decide",
    "entropy",
    "estimate_prior",
    "expected_cost",
    "get_num_threads",
    "group_scores",
    "hessian",
    "hessian_product",
    "jacobian",
    "jacobian_product",
    "kl_divergence",
    "linear_cross_entropy",
    "linear_cross_entropy_and_grad",
    "load_calibrator",
    "load_model",
    "log_prob",
    "log_softmax",
    "logits",
    "logsumexp",
    "mirostat",
    "native_available",
    "penalize",
    "permutation_importance",
    "reliability_curve",
    "risk_coverage_curve",
    "sample",
    "sample_with_log_prob",
    "sample_with_support",
    "score_decomposition",
    "select_calibrator",
    "set_num_threads",
    "smooth_calibration_error",
    "softmax",
    "softmax_regression_path",
    "temperature_sweep",
    "top_k_accuracy",
    "truncate",
    "verify_draft",
]


def _load_plot() -> ModuleType:
    from logitlab import plot

    return plot


def _load_torch_compile() -> ModuleType:
    from logitlab import _torch_compile

    return _torch_compile


def _load_parallel() -> ModuleType:
    from logitlab.parallel import _dtensor

    return _dtensor


def _load_formula() -> ModuleType:
    from logitlab.regression import formula

    return formula


_registry.register("formula", _load_formula)
_registry.register("parallel", _load_parallel)
_registry.register("plot", _load_plot)
_registry.register("torch_compile", _load_torch_compile)


_REGRESSION = {
    "Inference": "inference.results",
    "SoftmaxRegression": "estimator",
    "SoftmaxRegressionCV": "cross_validation",
    "softmax_regression_path": "path",
}


def __getattr__(name: str) -> Any:
    if name in _REGRESSION:
        # Loads scikit-learn, which the other functions do not need.
        return getattr(import_module(f"logitlab.regression.{_REGRESSION[name]}"), name)
    if name in ("TableModel", "load_model"):
        from logitlab.tables import saved  # which has both

        return getattr(saved, name)
    if name in ("check_sampler", "check_softmax"):
        from logitlab import laws

        return getattr(laws, name)
    # importlib.metadata takes longer to import than the rest of the package.
    if name == "__version__":
        from importlib.metadata import version

        return version("logitlab")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
