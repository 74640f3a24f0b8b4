"""SoftmaxRegression on Dask: two workers in processes of their own, one of which is killed."""

import os
import signal
import time

import numpy as np
import pandas as pd
import pytest

from logitlab import SoftmaxRegression
from logitlab.regression.engines import OnDask, WorkersLostError

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


def blocks(X, y, rows=700):
    return da.from_array(X, chunks=(rows, 3)), da.from_array(y, chunks=450)


def same(a, b, atol=1e-8):
    np.testing.assert_allclose(a.coef_, b.coef_, rtol=0, atol=atol)
    np.testing.assert_allclose(a.intercept_, b.intercept_, rtol=0, atol=atol)


# Before the fixture of the others.
def test_no_client():
    """Said, instead of another way to compute."""
    X, y = problem()
    with pytest.raises(ValueError, match="no Dask client"):
        SoftmaxRegression().fit(*blocks(X, y))


@pytest.mark.parametrize("k", [2, 4])
def test_arrays_in_blocks(client, k):
    """The coefficients of the fit in memory, with weights, whatever the blocks."""
    X, y = problem(k)
    weight = np.random.default_rng(0).random(len(y))
    options = {"tol": 1e-10, "class_weight": "balanced", "C": 0.3}
    here = SoftmaxRegression(**options).fit(X, y, weight)
    there = SoftmaxRegression(**options).fit(*blocks(X, y), da.from_array(weight, chunks=1000))
    same(there, here)
    assert there.n_iter_ == here.n_iter_
    assert there.n_features_in_ == 4
    assert (there.predict(X) == here.predict(X)).all()


def test_a_folder_of_parquet(client, tmp_path):
    """Data frames keep the names of their columns; the summary is that of the rows in memory."""
    X, y = problem(3)
    frame = pd.DataFrame(X, columns=list("abcd")).assign(label=np.array(["x", "y", "z"])[y])
    for part in range(3):
        frame[part::3].to_parquet(tmp_path / f"{part}.parquet")
    there = dd.read_parquet(tmp_path)
    whole = pd.concat([frame[part::3] for part in range(3)])
    options = {"tol": 1e-10, "C": np.inf}
    a = SoftmaxRegression(**options).fit(there[list("abcd")], there["label"])
    b = SoftmaxRegression(**options).fit(whole[list("abcd")], whole["label"])
    same(a, b)
    assert list(a.feature_names_in_) == list("abcd")
    assert list(a.classes_) == ["x", "y", "z"]
    table = a.summary(there[list("abcd")], there["label"])
    expected = b.summary(whole[list("abcd")], whole["label"])
    np.testing.assert_allclose(table.standard_error, expected.standard_error, rtol=1e-8)


def test_mistakes(client):
    """One clear error each."""
    X, y = problem()
    x, t = blocks(X, y)
    with pytest.raises(TypeError, match="y is a ndarray; accepted: a Dask collection"):
        SoftmaxRegression().fit(x, y)
    with pytest.raises(ValueError, match="y has 2000 rows, X has 3000"):
        SoftmaxRegression().fit(x, t[:2000])
    with pytest.raises(ValueError, match="one class"):
        SoftmaxRegression().fit(x, da.zeros_like(t))
    X[2000, 1] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        SoftmaxRegression().fit(*blocks(X, y))


def killing(client, monkeypatch, at, every):
    """Kill one worker, or every one, before an evaluation."""
    evaluate, seen = OnDask.loss_and_gradient, []

    def kill_first(self, *arguments):
        seen.append(len(seen))
        if len(seen) == at:
            pids = list(client.run(os.getpid).values())
            for pid in pids if every else pids[:1]:
                os.kill(pid, signal.SIGKILL)
        return evaluate(self, *arguments)

    monkeypatch.setattr(OnDask, "loss_and_gradient", kill_first)
    return seen


def test_a_worker_dies(client, monkeypatch):
    """The fit goes on from its last iterate with the workers that are left."""
    X, y = problem()
    here = SoftmaxRegression(tol=1e-10).fit(X, y)
    seen = killing(client, monkeypatch, at=5, every=False)
    there = SoftmaxRegression(tol=1e-10).fit(*blocks(X, y))
    same(there, here)
    assert len(seen) < 3 * len(there.loss_curve_)  # it did not begin anew


def test_all_workers_die(monkeypatch):
    """A clear error; the last iterate is where the next fit begins."""
    X, y = problem()
    model = SoftmaxRegression(warm_start=True, tol=1e-9)
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
    monkeypatch.setattr("logitlab.regression.engines._NOTICE", 2.0)
    with (
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster) as client,
    ):
        evaluate, seen = OnDask.loss_and_gradient, []

        def retire(self, *arguments):
            seen.append(0)
            if len(seen) == 9:
                cluster.scale(0)
                while client.scheduler_info()["workers"]:
                    time.sleep(0.1)
            return evaluate(self, *arguments)

        monkeypatch.setattr(OnDask, "loss_and_gradient", retire)
        with pytest.raises(WorkersLostError, match="warm_start"):
            model.fit(*blocks(X, y))
    kept = model.coef_.copy()
    assert (kept != 0).all()
    whole = SoftmaxRegression(tol=1e-9).fit(X, y)
    assert model.fit(X, y).n_iter_ < whole.n_iter_
    same(model, whole, atol=1e-6)
