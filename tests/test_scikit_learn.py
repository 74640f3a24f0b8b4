"""The estimators in scikit-learn: its own checks, pipelines, scorers and searches."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone, is_classifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted

import logitlab

CALIBRATORS = [
    logitlab.TemperatureScaling,
    logitlab.VectorScaling,
    logitlab.MatrixScaling,
    logitlab.IsotonicCalibration,
    logitlab.StructuredVectorScaling,
    logitlab.StructuredMatrixScaling,
]

REGRESSIONS = logitlab.SoftmaxRegression, logitlab.SoftmaxRegressionCV

_COLUMNS = "a label is the number of a column of z; the check has labels without a column"
_INTEGERS = "labels are integers; any other type of y is a TypeError"
_NOT_APPLICABLE = {
    "check_estimators_overwrite_params": _COLUMNS,
    "check_estimators_fit_returns_self": _COLUMNS,
    "check_readonly_memmap_input": _COLUMNS,
    "check_sample_weights_pandas_series": _COLUMNS,
    "check_sample_weights_not_an_array": _COLUMNS,
    "check_sample_weights_shape": _COLUMNS,
    "check_sample_weights_not_overwritten": _COLUMNS,
    "check_classifier_data_not_an_array": _COLUMNS,
    "check_fit2d_1feature": _COLUMNS,
    "check_classifiers_train": "the check has coordinates of points, which are no logits",
    "check_classifiers_one_label": _INTEGERS,
    "check_classifiers_classes": _INTEGERS,
    "check_classifiers_regression_target": _INTEGERS,
    "check_estimators_nan_inf": _INTEGERS,
    "check_supervised_y_no_nan": _INTEGERS,
    "check_requires_y_none": _INTEGERS,
    "check_supervised_y_2d": "y has the shape of z without its last axis",
    "check_fit2d_predict1d": "z has shape (..., K): one row is valid",
    "check_complex_data": "complex logits are a TypeError, as in every function of the library",
    "check_dtype_object": "objects are a TypeError, as in every function of the library",
    "check_estimators_empty_data_messages": "the check looks for scikit-learn's words",
}
_ROWS = "the penalty falls with the number of rows, which repeated rows increase"
_BY_CLASS = {
    logitlab.StructuredVectorScaling: {"check_sample_weight_equivalence_on_dense_data": _ROWS},
    logitlab.StructuredMatrixScaling: {"check_sample_weight_equivalence_on_dense_data": _ROWS},
    logitlab.MatrixScaling: {
        "check_sample_weight_equivalence_on_dense_data": "the check compares logits to a relative "
        "1e-7; the fit ends where the probabilities are exact to about 1e-9"
    },
}


def checks():
    """Every check for each estimator; those that do not apply are expected failures (strict)."""
    estimators = [make() for make in CALIBRATORS]
    estimators += [logitlab.SoftmaxRegression(), logitlab.SoftmaxRegression(l1_ratio=0.5)]
    estimators += [logitlab.SoftmaxRegressionCV(Cs=2, cv=2, tol=1e-10)]
    with warnings.catch_warnings():
        # The calibrators do not inherit from BaseEstimator: importing them does not load sklearn.
        warnings.filterwarnings("ignore", "Estimator .* does not inherit", UserWarning)
        for estimator in estimators:
            expected = {}
            if type(estimator) in CALIBRATORS:
                expected = _NOT_APPLICABLE | _BY_CLASS.get(type(estimator), {})
            yield from estimator_checks_generator(
                estimator, expected_failed_checks=expected, mark="xfail"
            )


def check_id(value):
    if callable(value):
        options = getattr(value, "keywords", None) or {}
        name = getattr(value, "func", value).__name__
        return ",".join([name, *(f"{k}={v}" for k, v in options.items() if k != "name")])
    return str(value) if isinstance(value, REGRESSIONS) else type(value).__name__


@pytest.mark.parametrize(("estimator", "check"), list(checks()), ids=check_id)
def test_estimator_checks(estimator, check):
    """Every check of scikit-learn for a classifier and transformer that applies passes."""
    check(estimator)


def overconfident(n=600, k=4, seed=0):
    """Logits at a true temperature of 2, with biased classes."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, k)) * 4
    return z, (z / 2 + np.linspace(-1, 1, k) + rng.gumbel(size=z.shape)).argmax(axis=1)


@pytest.mark.parametrize("make", CALIBRATORS)
def test_cross_val_score(make):
    """Scorers of predicted classes and of probabilities give the scores of a manual loop."""
    z, y = overconfident()
    folds = [(np.arange(0, 300), np.arange(300, 600)), (np.arange(300, 600), np.arange(300))]
    fitted = [make().fit(z[train], y[train]) for train, _ in folds]
    accuracies = cross_val_score(make(), z, y, scoring="accuracy", cv=folds)
    losses = cross_val_score(make(), z, y, scoring="neg_log_loss", cv=folds)
    for (_, test), one, accuracy, loss in zip(folds, fitted, accuracies, losses, strict=True):
        assert accuracy == np.mean(one.transform(z[test]).argmax(axis=1) == y[test])
        expected = logitlab.cross_entropy(one.transform(z[test]), y[test])
        assert -loss == pytest.approx(expected, rel=1e-12)
    assert (cross_val_score(make(), z, y, cv=folds) == accuracies).all()


@pytest.mark.parametrize("make", CALIBRATORS)
def test_pipeline(make):
    """A calibrator is the last step (a classifier) or an inner one (a transformer)."""
    z, y = overconfident()
    last = make_pipeline(FunctionTransformer(), make())
    expected = make().fit(z, y)
    np.testing.assert_array_equal(last.fit(z, y).predict_proba(z), expected.predict_proba(z))
    np.testing.assert_array_equal(last.transform(z), expected.transform(z))
    np.testing.assert_array_equal(last.predict(z), expected.predict(z))
    assert cross_val_score(last, z, y, scoring="neg_log_loss", error_score="raise").shape == (5,)
    assert is_classifier(last)
    inner = make_pipeline(make(), logitlab.SoftmaxRegression()).fit(z, y)
    assert inner.score(z, y) >= expected.score(z, y) - 0.05
    name = make.__name__.lower()
    weight = np.arange(len(y)) % 3
    weighted = make_pipeline(make()).fit(z, y, **{f"{name}__sample_weight": weight})
    direct = make().fit(z, y, weight)
    np.testing.assert_array_equal(weighted.predict_proba(z), direct.predict_proba(z))


def test_grid_search():
    """The ridge with the least log-loss on the held-out folds is selected."""
    z, y = overconfident()
    grid = {"ridge": [1e-3, 1e3]}
    search = GridSearchCV(logitlab.VectorScaling(), grid, scoring="neg_log_loss", cv=3).fit(z, y)
    assert search.best_params_ == {"ridge": 1e-3}
    assert search.best_estimator_.ridge == 1e-3
    proba = cross_val_predict(logitlab.VectorScaling(), z, y, method="predict_proba", cv=3)
    assert -search.best_score_ == pytest.approx(logitlab.cross_entropy(np.log(proba), y), rel=1e-9)


@pytest.mark.parametrize("make", CALIBRATORS)
def test_conventions(make):
    """Clones, representation, fitted attributes, fit_transform and score."""
    z, y = overconfident()
    weight = np.random.default_rng(1).random(len(y))
    calibrator = make()
    assert is_classifier(calibrator)
    assert repr(calibrator).startswith(f"{make.__name__}(")
    assert clone(calibrator).get_params() == calibrator.get_params()
    calibrated = calibrator.fit_transform(z, y, weight)
    np.testing.assert_array_equal(calibrated, make().fit(z, y, weight).transform(z))
    check_is_fitted(calibrator)
    assert calibrator.n_features_in_ == 4
    assert list(calibrator.classes_) == [0, 1, 2, 3]
    predicted = calibrator.predict(z)
    np.testing.assert_array_equal(predicted, calibrator.predict_proba(z).argmax(axis=1))
    assert calibrator.score(z, y) == pytest.approx(accuracy_score(y, predicted))
    expected = accuracy_score(y, predicted, sample_weight=weight)
    assert calibrator.score(z, y, weight) == pytest.approx(expected)
    with pytest.raises(ValueError, match=rf"parameter of {make.__name__} must be .*, got 'other'"):
        calibrator.set_params(other=1)


@pytest.mark.parametrize("make", CALIBRATORS)
def test_predict(make):
    """Classes of batches and of tensors; a row without a distribution has none."""
    z, y = overconfident()
    calibrator = make().fit(z, y)
    expected = calibrator.predict(z)
    np.testing.assert_array_equal(
        calibrator.predict(z.reshape(20, 30, 4)), expected.reshape(20, 30)
    )
    assert calibrator.predict(z[0]) == expected[0]
    tensor = calibrator.predict(torch.from_numpy(z))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), expected)
    z[7] = np.nan
    with pytest.raises(ValueError, match="row 7 of z has no predicted class"):
        calibrator.predict(z)
    if make not in (logitlab.MatrixScaling, logitlab.StructuredMatrixScaling):
        with pytest.raises(ValueError, match="row 1 of z has no predicted class"):
            calibrator.predict([[0, 0, 0, 1], [-np.inf] * 4])


@pytest.mark.parametrize("make", CALIBRATORS)
def test_containers(make):
    """Lists, data frames and series are taken; sparse matrices and 2-d weights are not."""
    z, y = overconfident()
    weight = np.arange(len(y)) % 3
    expected = make().fit(z, y, weight).transform(z)
    for rows, labels, weights in (
        (z.tolist(), y.tolist(), weight.tolist()),
        (pd.DataFrame(z), pd.Series(y), pd.Series(weight)),
        (z.reshape(20, 30, 4), y.reshape(20, 30), weight.reshape(20, 30)),
    ):
        calibrated = make().fit(rows, labels, weights).transform(z)
        np.testing.assert_array_equal(calibrated, expected)
    with pytest.raises(TypeError, match="z must be a dense array, got a sparse csr_array"):
        make().fit(sp.csr_array(z), y)
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(600,\)"):
        make().fit(z, y, weight[:, None])


@pytest.mark.parametrize("make", CALIBRATORS)
def test_another_number_of_classes(make):
    """Every method names the shape that it expects, and scikit-learn's wording."""
    calibrator = make().fit(*overconfident())
    for method in ("transform", "predict_proba", "predict"):
        with pytest.raises(
            ValueError, match=r"z must have shape \(\.\.\., 4\), got \(2, 3\): X has"
        ):
            getattr(calibrator, method)(np.zeros((2, 3)))
