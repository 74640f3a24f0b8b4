"""Kinds of arrays, the class axis, ignored rows and weights, in everything that takes logits."""

import dataclasses

import dask.array as da
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import logitlab

CALIBRATORS = [
    logitlab.TemperatureScaling,
    logitlab.VectorScaling,
    logitlab.MatrixScaling,
    logitlab.IsotonicCalibration,
    logitlab.StructuredVectorScaling,
    logitlab.StructuredMatrixScaling,
    logitlab.PlattScaling,
    logitlab.BetaCalibration,
]
BINARY = (logitlab.PlattScaling, logitlab.BetaCalibration)
by_calibrator = pytest.mark.parametrize("kind", CALIBRATORS, ids=lambda kind: kind.__name__)


def rows(k=3, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (240, k))
    return z, (z / 2 + rng.gumbel(size=z.shape)).argmax(1)


def rows_of(kind):
    return rows(2 if kind in BINARY else 3)


def parameters(fitted):
    """The fitted numbers of an estimator."""
    found = [getattr(fitted, name) for name in sorted(vars(fitted)) if name.endswith("_")]
    return [np.asarray(x) for x in found if x is not None]


def values(result):
    """A score, curve, interval or fitted estimator as a list of arrays."""
    if dataclasses.is_dataclass(result):
        return [np.asarray(getattr(result, f.name)) for f in dataclasses.fields(result)]
    if isinstance(result, dict):
        return [np.asarray(interval) for interval in result.values()]
    return parameters(result) if hasattr(result, "get_params") else [np.asarray(result)]


def with_scores(function, **options):
    return lambda z, y, **rows: function(z, y, **options, **rows)


WEIGHTED = {
    "cross_entropy": with_scores(logitlab.cross_entropy),
    "accuracy": with_scores(logitlab.accuracy),
    "top_k_accuracy": with_scores(logitlab.top_k_accuracy, k=2),
    "brier_score": with_scores(logitlab.brier_score),
    "calibration_error": with_scores(logitlab.calibration_error, debiased=True),
    "classwise": with_scores(logitlab.calibration_error, classwise=True, strategy="quantile"),
    "calibration_test": with_scores(logitlab.calibration_test, n_resamples=99),
    "reliability_curve": with_scores(logitlab.reliability_curve),
    "isotonic curve": with_scores(logitlab.reliability_curve, strategy="isotonic"),
    "score_decomposition": with_scores(logitlab.score_decomposition),
    "smooth_calibration_error": with_scores(logitlab.smooth_calibration_error),
    "bootstrap": with_scores(logitlab.bootstrap, n_resamples=99),
    "risk_coverage_curve": with_scores(logitlab.risk_coverage_curve),
    "TemperatureScaling": lambda z, y, **rows: logitlab.TemperatureScaling().fit(z, y, **rows),
    "score": lambda z, y, **rows: FITTED.score(z, y, **rows),
}
LABELLED = {
    **WEIGHTED,
    "SelectiveClassifier": lambda z, y, **rows: logitlab.SelectiveClassifier(0.6).fit(z, y, **rows),
    "ConformalSets": lambda z, y, **rows: logitlab.ConformalSets().fit(z, y, **rows),
    "empirical_coverage": lambda z, y, **rows: RANKED_SETS.empirical_coverage(z, y, **rows),
}
# Fitted on other rows: none of those above is at a threshold, where rounding decides.
FITTED = logitlab.VectorScaling().fit(*rows(seed=1))
SETS = logitlab.ConformalSets().fit(*rows(seed=1))
RANKED_SETS = logitlab.ConformalSets(0.7, score="aps").fit(*rows(seed=1))
CLASSIFIER = logitlab.SelectiveClassifier(0.6).fit(*rows(seed=1))
COSTS = [[0.0, 1, 2], [3, 0, 1], [1, 1, 0]]
# Functions of logits alone. Their results have the class axis, or are without it.
FULL = {
    "softmax": logitlab.softmax,
    "sets": SETS.predict,
    "ranked sets": RANKED_SETS.predict,
    "adjust_prior": lambda z, **rows: logitlab.adjust_prior(z, [1, 2, 3], [3, 2, 1], **rows),
    "expected_cost": lambda z, **rows: logitlab.expected_cost(z, COSTS, **rows),
}
REDUCED = {
    "predict": FITTED.predict,
    "entropy": logitlab.entropy,
    "accepts": CLASSIFIER.accepts,
    "classify": CLASSIFIER.predict,
    "set_sizes": SETS.set_sizes,
    "decide": lambda z, **rows: logitlab.decide(z, COSTS, reject_cost=0.4, **rows),
}


def frame(z):
    return pd.DataFrame(z, columns=[f"class {k}" for k in range(np.shape(z)[1])])


def lists(z):
    """A column of lists, as Parquet stores rows of logits."""
    return pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), z.shape[1])


KINDS = {
    "list": (np.ndarray.tolist, list),
    "pandas": (frame, pd.Series),
    "pandas, other index": (
        lambda z: frame(z).set_index(np.arange(len(z))[::-1]),
        lambda y: pd.Series(y, index=np.arange(len(y)) + 7),
    ),
    "pandas, nullable": (
        lambda z: frame(z).astype("Float64"),
        lambda y: pd.Series(y).convert_dtypes(),
    ),
    "polars": (lambda z: pl.DataFrame(frame(z)), pl.Series),
    "polars, lists": (lambda z: pl.Series(z.tolist(), dtype=pl.List(pl.Float64)), pl.Series),
    "Arrow": (lambda z: pa.Table.from_pandas(frame(z)), pa.array),
    "Arrow, batch": (lambda z: pa.RecordBatch.from_pandas(frame(z)), pa.array),
    "Arrow, lists": (lists, lambda y: pa.chunked_array([y[:100], y[100:]])),
    "Arrow, chunks": (lambda z: pa.chunked_array([lists(z[:50]), lists(z[50:])]), pa.array),
    "torch": (torch.tensor, torch.tensor),
    "torch, NumPy labels": (torch.tensor, np.asarray),
    "jax": (jnp.asarray, jnp.asarray),
    "dask": (
        lambda z: da.from_array(z, chunks=(70, 2)),
        lambda y: da.from_array(y, chunks=100),
    ),
}
by_kind = pytest.mark.parametrize("name", KINDS)


def assert_equal(result, expected, rtol=1e-6):
    for a, b in zip(values(result), values(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@by_kind
def test_scores_and_fits_of_other_kinds(name):
    """As of NumPy arrays, with weights of the same kind."""
    to_logits, to_labels = KINDS[name]
    z, y = rows()
    weight = np.random.default_rng(1).random(len(y))
    if name == "jax":
        z, weight = z.astype(np.float32), weight.astype(np.float32)
    for call in LABELLED.values():
        assert_equal(call(to_logits(z), to_labels(y)), call(z, y))
    for call in WEIGHTED.values():
        given = call(to_logits(z), to_labels(y), sample_weight=to_labels(weight))
        assert_equal(given, call(z, y, sample_weight=weight))


@by_kind
@by_calibrator
def test_calibrators_of_other_kinds(name, kind):
    """The fit, and what it gives for new logits."""
    to_logits, to_labels = KINDS[name]
    z, y = rows_of(kind)
    expected, fitted = kind().fit(z, y), kind().fit(to_logits(z), to_labels(y))
    tolerance = 1e-3 if name == "jax" else 1e-9
    assert_equal(fitted, expected, tolerance)
    for method in ("transform", "predict_proba"):
        result = getattr(expected, method)(to_logits(z))
        np.testing.assert_allclose(result, getattr(expected, method)(z), atol=1e-5)
    np.testing.assert_array_equal(expected.predict(to_logits(z)), expected.predict(z))
    assert isinstance(result, torch.Tensor) == name.startswith("torch")


@by_kind
def test_functions_of_other_kinds(name):
    """Decisions, sets and probabilities."""
    z, _ = rows()
    for call in (*FULL.values(), *REDUCED.values()):
        np.testing.assert_allclose(call(KINDS[name][0](z)), call(z), atol=1e-5)


@pytest.mark.parametrize("name", LABELLED)
def test_class_axis_and_ignored_rows(name):
    """Segmentation logits (N, K, H, W) give the result of their labelled rows alone."""
    z, y = rows()
    y[::7] = -100
    images = np.moveaxis(z.reshape(4, 10, 6, 3), -1, 1).copy()
    images[np.moveaxis(np.broadcast_to((y == -100).reshape(4, 10, 6, 1), (4, 10, 6, 3)), -1, 1)] = (
        np.nan
    )
    maps = y.reshape(4, 10, 6)
    result = LABELLED[name](images, maps, axis=1, ignore_index=-100)
    assert_equal(result, LABELLED[name](z[y >= 0], y[y >= 0]))
    with pytest.raises(ValueError, match=r"y must be from 0 to 2, as z has 3 classes, got -100"):
        LABELLED[name](images, maps, axis=1)
    # An error counts all rows.
    images[0, :, 0, 2] = np.nan
    if name not in ("cross_entropy", "MatrixScaling"):
        with pytest.raises(ValueError, match=r"row 2\b"):
            LABELLED[name](images, maps, axis=1, ignore_index=-100)


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights(name):
    """Only their ratios matter, and a row of weight 0 is left out."""
    z, y = rows()
    weight = np.random.default_rng(1).integers(1, 4, len(y)) * 1.0
    weight[::5] = 0
    kept = weight > 0
    expected = WEIGHTED[name](z[kept], y[kept], sample_weight=weight[kept])
    assert_equal(WEIGHTED[name](z, y, sample_weight=weight), expected)
    assert_equal(WEIGHTED[name](z, y, sample_weight=2 * weight), expected)
    if name not in ("calibration_test", "reliability_curve"):  # rounding changes random numbers
        assert_equal(WEIGHTED[name](z, y, sample_weight=np.full(len(y), 0.3)), WEIGHTED[name](z, y))


@by_calibrator
def test_calibrators_take_the_class_axis(kind):
    """In every method: as with the class axis last."""
    z, y = rows_of(kind)
    y[::7] = -100
    k = z.shape[1]
    images, maps = np.moveaxis(z.reshape(4, 10, 6, k), -1, 1), y.reshape(4, 10, 6)
    expected = kind().fit(z[y >= 0], y[y >= 0])
    fitted = kind().fit(images, maps, axis=1, ignore_index=-100)
    assert_equal(fitted, expected, 1e-12)
    for method in ("transform", "predict_proba"):
        result = getattr(fitted, method)(images, axis=1)
        assert result.shape == images.shape
        at_end = getattr(expected, method)(z).reshape(4, 10, 6, k)
        np.testing.assert_allclose(result, np.moveaxis(at_end, -1, 1), rtol=1e-12)
    both = kind().fit_transform(images, maps, axis=1, ignore_index=-100)
    np.testing.assert_array_equal(both, fitted.transform(images, axis=1))
    np.testing.assert_array_equal(fitted.predict(images, axis=1).reshape(-1), fitted.predict(z))
    score = fitted.score(images, maps, axis=1, ignore_index=-100)
    assert score == np.mean(fitted.predict(z)[y >= 0] == y[y >= 0])
    with pytest.raises(
        ValueError, match=rf"z must have {k} classes on axis 2, got \(4, {k}, 10, 6"
    ):
        fitted.transform(images, axis=2)
    with pytest.raises(TypeError, match="axis must be an int, got None"):
        fitted.transform(images, axis=None)


@pytest.mark.parametrize("name", [*FULL, *REDUCED])
def test_functions_take_the_class_axis(name):
    z, _ = rows()
    images = np.moveaxis(z.reshape(4, 10, 6, 3), -1, 1)
    call = {**FULL, **REDUCED}[name]
    expected = call(z)
    result = call(images, axis=1)
    if name in FULL:
        assert result.shape == images.shape
        result = np.moveaxis(result, 1, -1)
    np.testing.assert_allclose(result.reshape(expected.shape), expected, rtol=1e-12)


def test_cross_fit_leaves_rows_out():
    """They are in no fold, and NaN in the result; weights are passed to the fit."""
    z, y = rows()
    y[::7] = -100
    weight = np.random.default_rng(1).integers(0, 3, len(y))
    kept = (y >= 0) & (weight > 0)
    images, maps = np.moveaxis(z.reshape(4, 10, 6, 3), -1, 1), y.reshape(4, 10, 6)
    scaling = logitlab.VectorScaling()
    result = logitlab.cross_fit(
        scaling, images, maps, 1, sample_weight=weight.reshape(maps.shape), ignore_index=-100
    )
    assert result.shape == images.shape
    result = np.moveaxis(result, 1, -1).reshape(-1, 3)
    assert np.isnan(result[~kept]).all()
    expected = logitlab.cross_fit(scaling, z[kept], y[kept], sample_weight=weight[kept])
    np.testing.assert_allclose(result[kept], expected, rtol=1e-9)
    z[2] = np.inf, 0, 0
    with pytest.raises(ValueError, match=r"row 2 of z holds \+inf"):
        logitlab.cross_fit(scaling, z, y, ignore_index=-100)


def test_estimated_prior_takes_the_class_axis():
    z, _ = rows()
    images = np.moveaxis(z.reshape(4, 10, 6, 3), -1, 1)
    result = logitlab.estimate_prior(images, [1, 1, 1], axis=1, n_resamples=5)
    np.testing.assert_allclose(result.prior, logitlab.estimate_prior(z, [1, 1, 1]).prior)


def test_weighted_risk_coverage_curve():
    """Whole weights are repeated rows, except for the area, which needs rows."""
    z, y = rows()
    z = np.round(z)
    weight = np.random.default_rng(1).integers(1, 4, len(y))
    weighted = logitlab.risk_coverage_curve(z, y, sample_weight=weight)
    repeated = logitlab.risk_coverage_curve(np.repeat(z, weight, 0), np.repeat(y, weight))
    for name in ("thresholds", "coverage", "error"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name))
    assert weighted.area == pytest.approx(repeated.area, rel=0.02)


def test_weighted_bootstrap():
    """Weights of 0 and 1 are a selection of rows; the values are the weighted scores."""
    z, y = rows()
    weight = np.random.default_rng(1).random(len(y))
    intervals = logitlab.bootstrap(z, y, sample_weight=weight)
    for name in ("accuracy", "brier_score", "calibration_error"):
        expected = getattr(logitlab, name)(z, y, sample_weight=weight)
        assert intervals[name].value == pytest.approx(expected)
    assert intervals["log_loss"].value == pytest.approx(
        float(logitlab.cross_entropy(z, y, sample_weight=weight))
    )
    plain = logitlab.bootstrap(z, y)
    width = {n: i.high - i.low for n, i in intervals.items()}
    ratio = width["accuracy"] / (plain["accuracy"].high - plain["accuracy"].low)
    # The effective number of rows of uniform weights is 3/4 of them.
    assert ratio == pytest.approx(np.sqrt(4 / 3), rel=0.15)


def test_weighted_calibration_test():
    """The p-values of calibrated rows are uniform, whatever the weights."""
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(200):
        z = rng.normal(0, 2, (150, 2))
        y = logitlab.sample(z, rng=rng)
        weight = rng.gamma(0.5, size=150)
        test = logitlab.calibration_test(z, y, sample_weight=weight, n_resamples=99, rng=rng)
        p_values.append(test.p_value)
        assert test.error == pytest.approx(logitlab.calibration_error(z, y, sample_weight=weight))
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.07)
    assert np.mean(np.array(p_values) < 0.1) == pytest.approx(0.1, abs=0.06)


@by_calibrator
def test_tensors_stay_on_their_device(kind):
    """A meta tensor has no values: it could not be copied to the memory of the CPU."""
    z, y = rows_of(kind)
    fitted = kind().fit(z, y)
    meta = torch.empty(6, z.shape[1], device="meta")
    for method in (fitted.transform, fitted.predict_proba, fitted.predict):
        assert method(meta).device.type == "meta"


@pytest.mark.parametrize("name", [*FULL, *REDUCED])
def test_results_stay_on_their_device(name):
    """As of calibrators."""
    meta = torch.empty(6, 3, device="meta")
    assert {**FULL, **REDUCED}[name](meta).device.type == "meta"
