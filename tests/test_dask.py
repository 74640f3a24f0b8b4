"""SoftmaxRegression on Dask: two worker processes, one of which is killed."""

import os
import signal
import time

import numpy as np
import pandas as pd
import pytest

import logitlab
from logitlab import SoftmaxRegression
from logitlab.regression.engines import DaskEngine, WorkersLostError

da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


def problem(k=4, n=3000, d=4):
    rng = np.random.default_rng(k)
    X = rng.standard_normal((n, d)) * [1, 100, 0.01, 1] + [0, 500, 0, 1]
    z = (X - X.mean(axis=0)) / X.std(axis=0) @ rng.standard_normal((d, k))
    return X, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


def chunked(X, y, rows=700):
    return da.from_array(X, chunks=(rows, 3)), da.from_array(y, chunks=450)


def assert_same_fit(a, b, atol=1e-8):
    np.testing.assert_allclose(a.coef_, b.coef_, rtol=0, atol=atol)
    np.testing.assert_allclose(a.intercept_, b.intercept_, rtol=0, atol=atol)


# Runs before the fixture creates a client.
def test_no_client():
    """It is an error; the rows are not collected."""
    X, y = problem()
    with pytest.raises(ValueError, match="needs a Dask client, got none"):
        SoftmaxRegression().fit(*chunked(X, y))


@pytest.mark.parametrize("k", [2, 4])
def test_chunked_arrays(client, k):
    """The coefficients are those of the fit in memory, with weights and any chunks."""
    X, y = problem(k)
    weight = np.random.default_rng(0).random(len(y))
    options = {"tol": 1e-10, "class_weight": "balanced", "C": 0.3}
    in_memory = SoftmaxRegression(**options).fit(X, y, weight)
    on_workers = SoftmaxRegression(**options).fit(
        *chunked(X, y), da.from_array(weight, chunks=1000)
    )
    assert_same_fit(on_workers, in_memory)
    assert on_workers.n_iter_ == in_memory.n_iter_
    assert on_workers.n_features_in_ == 4
    assert (on_workers.predict(X) == in_memory.predict(X)).all()


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("k", [2, 4])
def test_elastic_net(client, k, grouped):
    """Coefficients, zeros, iterations and the duality gap are those of the fit in memory."""
    X, y = problem(k)
    X, weight = X.astype(np.float32), np.random.default_rng(0).random(len(y))
    options = {"tol": 1e-8, "C": 0.02, "l1_ratio": 0.8, "grouped": grouped}
    in_memory = SoftmaxRegression(**options).fit(X, y, weight)
    on_workers = SoftmaxRegression(**options).fit(
        *chunked(X, y), da.from_array(weight, chunks=1000)
    )
    assert_same_fit(on_workers, in_memory, atol=1e-7)
    np.testing.assert_array_equal(on_workers.coef_ == 0, in_memory.coef_ == 0)
    assert (in_memory.coef_ == 0).any()
    assert on_workers.n_iter_ == in_memory.n_iter_
    assert on_workers.dual_gap_ <= 1e-8 * on_workers.loss_curve_[-1]


def test_parquet(client, tmp_path):
    """Data frames keep the names of their columns; the summary is that of the rows in memory."""
    X, y = problem(3)
    frame = pd.DataFrame(X, columns=list("abcd")).assign(label=np.array(["x", "y", "z"])[y])
    for part in range(3):
        frame[part::3].to_parquet(tmp_path / f"{part}.parquet")
    data = dd.read_parquet(tmp_path)
    whole = pd.concat([frame[part::3] for part in range(3)])
    options = {"tol": 1e-10, "C": np.inf}
    a = SoftmaxRegression(**options).fit(data[list("abcd")], data["label"])
    b = SoftmaxRegression(**options).fit(whole[list("abcd")], whole["label"])
    assert_same_fit(a, b)
    assert list(a.feature_names_in_) == list("abcd")
    assert list(a.classes_) == ["x", "y", "z"]
    table = a.summary(data[list("abcd")], data["label"])
    expected = b.summary(whole[list("abcd")], whole["label"])
    np.testing.assert_allclose(table.standard_error, expected.standard_error, rtol=1e-8)


@pytest.mark.parametrize("k", [2, 4])
def test_inference(client, k):
    """Covariances, clusters across partitions, effects and tests are those of rows in memory."""
    X, y = problem(k)
    X[:, 3] = X[:, 3] > 1
    rng = np.random.default_rng(0)
    weight, groups = rng.random(len(y)), rng.integers(0, 40, len(y))
    options = {"tol": 1e-10, "C": np.inf}
    in_memory = SoftmaxRegression(**options).fit(X, y, weight)
    on_workers = SoftmaxRegression(**options).fit(
        *chunked(X, y), da.from_array(weight, chunks=1000)
    )
    lazy = da.from_array(groups, chunks=999)
    for arguments, theirs in (
        ({"cov_type": "nonrobust"}, {}),
        ({"cov_type": "HC1"}, {}),
        ({"cov_type": "cluster"}, {"groups": groups}),
        ({"cov_type": "cluster"}, {"groups": lazy}),
    ):
        ours = {"groups": groups} if theirs else {}
        a = on_workers.inference(**arguments, **theirs)
        b = in_memory.inference(**arguments, **ours)
        np.testing.assert_allclose(a.standard_error, b.standard_error, rtol=1e-7)
        assert a.groups == b.groups
        for at, dummy in (("overall", True), ("mean", False)):
            effects = [inference.marginal_effects(at, dummy=dummy) for inference in (a, b)]
            for name in ("effect", "standard_error"):
                first, second = (getattr(table, name) for table in effects)
                np.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-10)
        tests = [inference.wald_test("x1") for inference in (a, b)]
        assert tests[0].statistic == pytest.approx(tests[1].statistic, rel=1e-6)
        assert a.bic == pytest.approx(b.bic, rel=1e-10)
        upper = [inference.predict(X[:5]).upper for inference in (a, b)]
        np.testing.assert_allclose(*upper, rtol=1e-7)
    if k == 2:
        assert a.pseudo_r2("tjur") == pytest.approx(b.pseudo_r2("tjur"), rel=1e-8)
    for method, name in (
        (a.residuals, "residuals"),
        (a.influence, "influence"),
        (lambda: a.score_test(X[:, :1]), "score_test"),
        (lambda: a.marginal_effects("median"), "at='median'"),
    ):
        with pytest.raises(ValueError, match=f"{name} needs rows in memory, got partitions"):
            method()


def test_refused_collections(client):
    """Mixed kinds, other rows, one class, NaN."""
    X, y = problem()
    x, labels = chunked(X, y)
    with pytest.raises(TypeError, match="y must be a Dask collection, as X is one, got a ndarray"):
        SoftmaxRegression().fit(x, y)
    with pytest.raises(ValueError, match="y must have 3000 rows, as X, got 2000"):
        SoftmaxRegression().fit(x, labels[:2000])
    with pytest.raises(ValueError, match="one class"):
        SoftmaxRegression().fit(x, da.zeros_like(labels))
    X[2000, 1] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        SoftmaxRegression().fit(*chunked(X, y))


def kill_workers(client, monkeypatch, at):
    """Kill one worker before evaluation `at`; return the list of evaluations."""
    evaluate, evaluations = DaskEngine.loss_and_gradient, []

    def kill_first(self, *arguments):
        evaluations.append(None)
        if len(evaluations) == at:
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        return evaluate(self, *arguments)

    monkeypatch.setattr(DaskEngine, "loss_and_gradient", kill_first)
    return evaluations


def test_lost_worker(client, monkeypatch):
    """The fit continues from its last iterate on the remaining worker."""
    X, y = problem()
    in_memory = SoftmaxRegression(tol=1e-10).fit(X, y)
    evaluations = kill_workers(client, monkeypatch, at=5)
    on_workers = SoftmaxRegression(tol=1e-10).fit(*chunked(X, y))
    assert_same_fit(on_workers, in_memory)
    assert len(evaluations) < 3 * len(on_workers.loss_curve_)  # it did not restart


def test_all_workers_lost(monkeypatch):
    """It is an error; the next fit with warm_start starts at the last iterate."""
    X, y = problem()
    model = SoftmaxRegression(warm_start=True, tol=1e-9)
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
    monkeypatch.setattr("logitlab.regression.engines._TIMEOUT", 2.0)
    with (
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster) as client,
    ):
        evaluate, evaluations = DaskEngine.loss_and_gradient, []

        def retire(self, *arguments):
            evaluations.append(None)
            if len(evaluations) == 9:
                cluster.scale(0)
                while client.scheduler_info()["workers"]:
                    time.sleep(0.1)
            return evaluate(self, *arguments)

        monkeypatch.setattr(DaskEngine, "loss_and_gradient", retire)
        with pytest.raises(WorkersLostError, match="warm_start"):
            model.fit(*chunked(X, y))
    kept = model.coef_.copy()
    assert (kept != 0).all()
    whole = SoftmaxRegression(tol=1e-9).fit(X, y)
    assert model.fit(X, y).n_iter_ < whole.n_iter_
    assert_same_fit(model, whole, atol=1e-6)


def test_functions_of_logits_on_dask_arrays():
    """Products and sampled log-probabilities are those of NumPy arrays, and stay Dask arrays."""
    rng = np.random.default_rng(0)
    z, u, v = rng.standard_normal((3, 6, 5))
    where = rng.random((6, 5)) < 0.8
    chunks = (2, 5)
    functions = {
        "jacobian_product": lambda z, u, v, where: logitlab.jacobian_product(z, v, where=where),
        "hessian_product": lambda z, u, v, where: logitlab.hessian_product(z, u, v, where=where),
        "sample": lambda z, u, v, where: logitlab.sample_with_log_prob(z, rng=0, top_k=3)[1],
        "samples": lambda z, u, v, where: logitlab.sample_with_log_prob(z, 4, rng=0, where=where)[
            1
        ],
        "logsumexp": lambda z, u, v, where: logitlab.logsumexp(z, b=u * u),
        "softmax": lambda z, u, v, where: logitlab.softmax(z, where=where, empty="zero"),
    }
    arguments = z, u, v, where
    lazy = [da.from_array(x, chunks=chunks) for x in arguments]
    for name, function in functions.items():
        result = function(*lazy)
        assert isinstance(result, da.Array), name
        np.testing.assert_allclose(result.compute(), function(*arguments), rtol=1e-12, atol=1e-14)
