"""No function changes its arguments: they are frozen, and compared before and after each call."""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import logitlab
from logitlab import plot

RNG = np.random.default_rng(0)
Z = RNG.normal(0, 3, (40, 4))
OTHER = RNG.normal(0, 3, (40, 4))
Y = np.arange(40) % 4
WEIGHT = RNG.uniform(0.5, 2, 40)
WHERE = RNG.random((40, 4)) < 0.8
WHERE[:, 0] = True
TARGET = np.full((40, 4), 0.25)
T = RNG.uniform(0.5, 2, 40)
HEAD = RNG.normal(0, 1, (4, 3))
X = RNG.normal(0, 1, (40, 3))
BIAS = RNG.normal(0, 1, 4)

# Each function with its array arguments, positional and by name.
ARRAY_CALLS = {
    "softmax": (logitlab.softmax, (Z,), {"temperature": T, "where": WHERE}),
    "log_softmax": (logitlab.log_softmax, (Z,), {"temperature": T, "where": WHERE}),
    "logsumexp": (logitlab.logsumexp, (Z,), {"temperature": T, "where": WHERE}),
    "logits": (logitlab.logits, (TARGET,), {}),
    "jacobian": (logitlab.jacobian, (Z,), {"temperature": T, "where": WHERE}),
    "jacobian_product": (logitlab.jacobian_product, (Z, OTHER), {"temperature": T}),
    "hessian": (logitlab.hessian, (Z,), {"temperature": T, "where": WHERE}),
    "hessian_product": (logitlab.hessian_product, (Z, OTHER, Z), {"temperature": T}),
    "cross_entropy": (logitlab.cross_entropy, (Z, Y), {"temperature": T, "sample_weight": WEIGHT}),
    "cross_entropy of distributions": (logitlab.cross_entropy, (Z, TARGET), {"temperature": T}),
    "cross_entropy_and_grad": (
        logitlab.cross_entropy_and_grad,
        (Z, Y),
        {"temperature": T, "sample_weight": WEIGHT},
    ),
    "linear_cross_entropy": (logitlab.linear_cross_entropy, (X, HEAD, Y), {"bias": BIAS}),
    "linear_cross_entropy_and_grad": (
        logitlab.linear_cross_entropy_and_grad,
        (X, HEAD, Y),
        {"bias": BIAS, "temperature": T, "sample_weight": WEIGHT},
    ),
    "truncate": (logitlab.truncate, (Z,), {"temperature": T, "where": WHERE}),
    "penalize": (
        logitlab.penalize,
        (Z, np.zeros((len(Z), 3), int)),
        {"repetition_penalty": T, "logit_bias": Z},
    ),
    "sample": (logitlab.sample, (Z,), {"temperature": T, "where": WHERE, "row_keys": Y}),
    "sample_with_log_prob": (logitlab.sample_with_log_prob, (Z,), {"temperature": T}),
    "sample_with_support": (logitlab.sample_with_support, (Z,), {"where": WHERE, "row_keys": Y}),
    "log_prob": (logitlab.log_prob, (Z, Y), {"temperature": T, "where": WHERE}),
    "verify_draft": (
        logitlab.verify_draft,
        (Z.reshape(20, 2, 4), Z[:20, None], Y[:20, None]),
        {"row_keys": Y[:20], "temperature": T[:20]},
    ),
    "Support": (logitlab.Support, (np.array([0, 2]), np.array([0, 1, 2]), (2, 3)), {}),
    "entropy": (logitlab.entropy, (Z,), {"temperature": T, "where": WHERE}),
    "kl_divergence": (logitlab.kl_divergence, (Z, OTHER), {"temperature": T}),
    "expected_cost": (logitlab.expected_cost, (Z, HEAD.T), {"temperature": T}),
    "decide": (logitlab.decide, (Z, HEAD.T), {"temperature": T}),
    "adjust_prior": (logitlab.adjust_prior, (Z, TARGET[0], TARGET[1]), {}),
}
NUMPY_CALLS = {
    "temperature_sweep": (logitlab.temperature_sweep, (Z[0], T), {}),
    "accuracy": (logitlab.accuracy, (Z, Y), {"sample_weight": WEIGHT}),
    "brier_score": (logitlab.brier_score, (Z, Y), {"sample_weight": WEIGHT}),
    "calibration_error": (logitlab.calibration_error, (Z, Y), {"sample_weight": WEIGHT}),
    "calibration_error_interval": (
        logitlab.calibration_error_interval,
        (Z, Y),
        {"sample_weight": WEIGHT},
    ),
    "calibration_test": (logitlab.calibration_test, (Z, Y), {}),
    "reliability_curve": (logitlab.reliability_curve, (Z, Y), {"sample_weight": WEIGHT}),
    "smooth_calibration_error": (
        logitlab.smooth_calibration_error,
        (Z, Y),
        {"sample_weight": WEIGHT},
    ),
    "score_decomposition": (logitlab.score_decomposition, (Z, Y), {"sample_weight": WEIGHT}),
    "top_k_accuracy": (logitlab.top_k_accuracy, (Z, Y, 2), {"sample_weight": WEIGHT}),
    "bootstrap": (logitlab.bootstrap, (Z, Y), {"other": OTHER}),
    "risk_coverage_curve": (logitlab.risk_coverage_curve, (Z, Y), {}),
    "estimate_prior": (logitlab.estimate_prior, (Z, TARGET[0]), {}),
}
CALIBRATORS = [
    "TemperatureScaling",
    "VectorScaling",
    "MatrixScaling",
    "IsotonicCalibration",
    "StructuredVectorScaling",
    "StructuredMatrixScaling",
]


def frozen(x, order="C"):
    copied = np.array(x, order=order)
    copied.setflags(write=False)
    return copied


def run(function, args, options, convert):
    args = [convert(x) if isinstance(x, np.ndarray) else x for x in args]
    options = {name: convert(x) for name, x in options.items()}
    before = copy.deepcopy((args, options))
    function(*args, **options)
    for was, now in zip((*before[0], *before[1].values()), (*args, *options.values()), strict=True):
        np.testing.assert_array_equal(np.asarray(was), np.asarray(now))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", [*ARRAY_CALLS, *NUMPY_CALLS])
def test_arrays(name, order):
    """NumPy arrays that cannot be written to, in either order."""
    function, args, options = {**ARRAY_CALLS, **NUMPY_CALLS}[name]
    run(function, args, options, lambda x: frozen(x, order))


@pytest.mark.parametrize("name", ARRAY_CALLS)
def test_tensors(name):
    """Tensors of the CPU."""
    function, args, options = ARRAY_CALLS[name]
    run(function, args, options, lambda x: torch.from_numpy(np.array(x)))


@pytest.mark.parametrize("name", CALIBRATORS)
def test_calibrators(name):
    """Calibrators leave the logits, labels and weights of fit and transform as they are."""
    z, y, weight = frozen(Z), frozen(Y), frozen(WEIGHT)
    calibrator = getattr(logitlab, name)().fit(z, y, sample_weight=weight)
    calibrator.transform(z)
    calibrator.predict_proba(z)
    logitlab.cross_fit(getattr(logitlab, name)(), z, y)
    np.testing.assert_array_equal(z, Z)
    np.testing.assert_array_equal(y, Y)
    np.testing.assert_array_equal(weight, WEIGHT)


@pytest.mark.parametrize("name", ["SelectiveClassifier", "ConformalSets"])
def test_decisions(name):
    """Fits and predictions of decisions leave the logits and labels as they are."""
    z, y = frozen(Z), frozen(Z.argmax(axis=1))
    model = getattr(logitlab, name)(0.5).fit(z, y)
    model.predict(z)
    np.testing.assert_array_equal(z, Z)
    np.testing.assert_array_equal(y, Z.argmax(axis=1))


def sparse_matrices():
    """Matrices in canonical form, with duplicate entries, and with unsorted indices."""
    dense = np.array([[1.0, 2], [2, 0.5], [3, -1], [-1, 1], [-2, 3], [0.5, -2]])
    twice = np.repeat(dense.ravel() / 2, 2), np.repeat(np.tile([0, 1], 6), 2), np.arange(7) * 4
    unsorted = dense[:, ::-1].ravel(), np.tile([1, 0], 6), np.arange(7) * 2
    for kind in (sp.csr_matrix, sp.csr_array):
        yield dense, kind(dense)
        yield dense, kind(twice, shape=dense.shape)
        yield dense, kind(unsorted, shape=dense.shape)
    yield dense, sp.csc_matrix(sp.csr_matrix(twice, shape=dense.shape))
    columns = np.repeat(dense.T.ravel() / 2, 2), np.repeat(np.tile(np.arange(6), 2), 2), [0, 12, 24]
    yield dense, sp.csc_matrix(columns, shape=dense.shape)


@pytest.mark.parametrize("writeable", [True, False])
def test_sparse_matrices(writeable):
    """SoftmaxRegression reads duplicate and unsorted entries, changes none, and fits the matrix."""
    y = np.array([0, 1, 1, 0, 1, 0])
    for dense, matrix in sparse_matrices():
        for part in (matrix.data, matrix.indices, matrix.indptr):
            part.setflags(write=writeable)
        before = matrix.data.copy(), matrix.indices.copy(), matrix.indptr.copy()
        model = logitlab.SoftmaxRegression().fit(matrix, y)
        expected = logitlab.SoftmaxRegression().fit(dense, y)
        np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-5)
        np.testing.assert_allclose(
            model.predict_proba(matrix), expected.predict_proba(dense), rtol=1e-5
        )
        for was, now in zip(before, (matrix.data, matrix.indices, matrix.indptr), strict=True):
            np.testing.assert_array_equal(was, now)


def test_frames():
    """SoftmaxRegression leaves data frames and series as they are."""
    frame, y = pd.DataFrame(X, columns=list("abc")), pd.Series(Y)
    weight = pd.Series(WEIGHT)
    before = frame.copy(), y.copy(), weight.copy()
    model = logitlab.SoftmaxRegression().fit(frame, y, sample_weight=weight)
    model.predict_proba(frame)
    model.decision_function(frame)
    for was, now in zip(before, (frame, y, weight), strict=True):
        assert was.equals(now)


PLOT_CALLS = {
    "probabilities": (Z[0],),
    "scaling": (Z[0], 0.5),
    "jacobian": (Z[0],),
    "sampling": (Z[0],),
    "temperature_curves": (Z[0],),
    "simplex": (Z[0, :3],),
    "stability": (Z[0],),
    "outcome_bars": (list("abcd"), TARGET[0], TARGET[1]),
    "class_gaps": (list("abcd"), Z[0], np.abs(Z[1])),
    "forest": (list("abcd"), Z[0], Z[0] - 1, Z[0] + 1),
    "reliability": (Z, Y),
}


@pytest.mark.parametrize("name", PLOT_CALLS)
def test_plots(name):
    """Plots of arrays that cannot be written to."""
    before = [np.array(x) for x in PLOT_CALLS[name]]
    args = [frozen(x) if isinstance(x, np.ndarray) else x for x in PLOT_CALLS[name]]
    getattr(plot, name)(*args)
    plt.close("all")
    for was, now in zip(before, args, strict=True):
        np.testing.assert_array_equal(was, now)


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with (
        distributed.LocalCluster(processes=False, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize("sparse", [False, True])
def test_dask(client, sparse):
    """SoftmaxRegression leaves the partitions of Dask, in the memory of a worker, as they are."""
    da = pytest.importorskip("dask.array")
    parts = [client.persist(da.from_array(x, chunks=(20, *x.shape[1:]))) for x in (X, Y, WEIGHT)]
    if sparse:
        parts[0] = client.persist(parts[0].map_blocks(sp.csr_matrix))
    model = logitlab.SoftmaxRegression(class_weight="balanced").fit(*parts)
    expected = logitlab.SoftmaxRegression(class_weight="balanced").fit(X, Y, WEIGHT)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-5, atol=1e-7)
    for was, part in zip((X, Y, WEIGHT), parts, strict=True):
        blocks = client.gather(client.compute(list(np.ravel(part.to_delayed()))))
        now = [block.toarray() if sp.issparse(block) else block for block in blocks]
        np.testing.assert_array_equal(np.concatenate(now), was)


def test_dask_arguments(client):
    """Text among the features, missing labels and bad weights are errors, as in memory."""
    dd = pytest.importorskip("dask.dataframe")
    frame = pd.DataFrame({"a": X[:, 0], "b": ["x"] * 40, "y": Y, "w": WEIGHT})
    frame["missing"] = pd.Series([0.0, None, 1.0, 1.0] * 10)
    data = dd.from_pandas(frame, npartitions=2)
    fit = logitlab.SoftmaxRegression().fit
    with pytest.raises(TypeError, match=r"X must hold numbers, got .* in column 'b'"):
        fit(data[["a", "b"]], data["y"])
    with pytest.raises(ValueError, match="y must have no missing values, got nan in row 1"):
        fit(data[["a"]], data["missing"])
    for bad in (-1.0, np.inf):
        with pytest.raises(ValueError, match="sample_weight must be finite and >= 0, got"):
            fit(data[["a"]], data["y"], data["w"] * bad)
