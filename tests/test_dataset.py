"""Fits on the files of a dataset against the same rows in memory."""

import math

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, dataset, feather, parquet

from logitlab import SoftmaxRegression, softmax

pytestmark = pytest.mark.slow


def rows(n=3000, dtype=np.float64):
    rng = np.random.default_rng(3)
    X = (rng.standard_normal((n, 4)) * [1, 50, 0.1, 1] + [0, 900, 0, 2]).astype(dtype)
    z = (X - X.mean(axis=0)) / X.std(axis=0) @ rng.standard_normal((4, 3))
    y = np.array(["low", "mid", "top"])[(z + rng.gumbel(size=z.shape)).argmax(axis=1)]
    return X, y, rng.integers(0, 4, n).astype(float)


def table(X, y, weight):
    columns = {f"a{j}": column for j, column in enumerate(X.T)}
    return pa.table({**columns, "label": y, "weight": weight})


def in_files(folder, X, y, weight, write=parquet.write_table, suffix="parquet", **options):
    folder.mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(y)), 3)):
        write(table(X[part], y[part], weight[part]), folder / f"{number}.{suffix}", **options)
    return dataset.dataset(folder, format=suffix)


@pytest.mark.parametrize(
    ("write", "suffix", "options"),
    [
        (parquet.write_table, "parquet", {"row_group_size": 333}),
        (feather.write_feather, "feather", {"chunksize": 100}),
        (csv.write_csv, "csv", {}),
    ],
)
def test_same_fit_as_in_memory(tmp_path, write, suffix, options, monkeypatch):
    monkeypatch.setattr("logitlab.regression.dataset._MAX_BATCH_ROWS", 250)
    X, y, weight = rows()
    files = in_files(tmp_path / "rows", X, y, weight, write, suffix, **options)
    model = {"C": 0.3, "class_weight": "balanced", "tol": 1e-10}
    ours = SoftmaxRegression(**model).fit(files, "label", "weight")
    theirs = SoftmaxRegression(**model).fit(X, y, weight)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-7)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-7)
    assert ours.classes_.tolist() == ["low", "mid", "top"]
    assert ours.feature_names_in_.tolist() == ["a0", "a1", "a2", "a3"]
    assert ours.n_iter_[0] < 30


def test_elastic_net(tmp_path, monkeypatch):
    monkeypatch.setattr("logitlab.regression.dataset._MAX_BATCH_ROWS", 250)
    X, y, weight = rows(dtype=np.float32)
    files = in_files(tmp_path / "rows", X, y, weight)
    model = {"C": 0.01, "l1_ratio": 1.0, "tol": 1e-9}
    ours = SoftmaxRegression(**model).fit(files, "label", "weight")
    theirs = SoftmaxRegression(**model).fit(X, y, weight)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(ours.coef_ == 0, theirs.coef_ == 0)
    assert (theirs.coef_ == 0).any()


def test_weights_from_a_column_only_where_it_is_named(tmp_path):
    X, y, weight = rows()
    files = in_files(tmp_path / "rows", X, y, weight)
    model = SoftmaxRegression().fit(files, "label")
    assert model.feature_names_in_.tolist() == ["a0", "a1", "a2", "a3", "weight"]


def test_a_part_of_the_columns(tmp_path):
    """The schema of a dataset says which columns it has."""
    X, y, weight = rows()
    in_files(tmp_path / "rows", X, y, weight)
    schema = pa.schema([("a1", pa.float64()), ("label", pa.string())])
    files = dataset.dataset(tmp_path / "rows", schema=schema)
    model = SoftmaxRegression(tol=1e-10).fit(files, "label")
    np.testing.assert_allclose(
        model.coef_, SoftmaxRegression(tol=1e-10).fit(X[:, 1:2], y).coef_, rtol=1e-7
    )


def test_float32_is_computed_in_float32(tmp_path):
    X, y, weight = rows(dtype=np.float32)
    model = SoftmaxRegression().fit(
        in_files(tmp_path / "rows", X, y, weight).replace_schema(
            table(X, y, weight).schema.remove(5)
        ),
        "label",
    )
    assert model.coef_.dtype == np.float32
    np.testing.assert_allclose(model.coef_, SoftmaxRegression().fit(X, y).coef_, rtol=1e-2)


def test_predictions_of_a_table():
    X, y, weight = rows()
    frame = table(X, y, weight)
    model = SoftmaxRegression().fit(dataset.dataset(frame), "label", "weight")
    p = model.predict_proba(frame.select(["a0", "a1", "a2", "a3"]))
    z = X @ model.coef_.T + model.intercept_
    np.testing.assert_allclose(p, softmax(z), rtol=1e-12)


def test_a_constant_column_and_many_classes():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((4000, 2)), rng.integers(0, 300, 4000)
    X[:, 1] = 7
    frame = dataset.dataset(pa.table({"a": X[:, 0], "b": X[:, 1], "y": y}))
    ours = SoftmaxRegression(tol=1e-8).fit(frame, "y")
    np.testing.assert_allclose(
        ours.coef_, SoftmaxRegression(tol=1e-8).fit(X, y).coef_, rtol=1e-5, atol=1e-8
    )


def test_predict_takes_rows_in_memory():
    X, y, weight = rows(60)
    files = dataset.dataset(table(X, y, weight))
    model = SoftmaxRegression().fit(files, "label", "weight")
    with pytest.raises(TypeError, match=r"X must be rows in memory.*, got a dataset"):
        model.predict(files)
    batches = files.to_batches(columns=["a0", "a1", "a2", "a3"])
    predicted = [model.predict(pa.Table.from_batches([batch])) for batch in batches]
    np.testing.assert_array_equal(
        np.concatenate(predicted),
        model.classes_[(X @ model.coef_.T + model.intercept_).argmax(axis=1)],
    )


def changed(**columns):
    X, y, weight = rows(60)
    columns = {"a0": X[:, 0], "label": y, "weight": weight, **columns}
    return dataset.dataset(pa.table(columns))


@pytest.mark.parametrize(
    ("data", "y", "weight", "error", "message"),
    [
        (changed(), np.zeros(60), None, TypeError, "y must be the name of a column"),
        (changed(), None, None, TypeError, "y must be the name of a column"),
        (dataset.dataset(pa.table({"label": [0, 1]})), "label", None, ValueError, "column besides"),
        (changed(), "class", None, ValueError, "y must be a column of X, one of .*'class'"),
        (changed(), "label", "w", ValueError, "sample_weight must be a column of X.*'w'"),
        (changed(), "label", 2.0, TypeError, "sample_weight must be the name of a column"),
        (changed(a0=["x"] * 60), "label", "weight", TypeError, "numbers, got string.*'a0'"),
        (changed(a0=[None] + [1.0] * 59), "label", "weight", ValueError, "'a0'.*got null"),
        (changed(a0=[math.nan] + [1.0] * 59), "label", "weight", ValueError, "'a0' of X.*NaN"),
        (changed(label=[None] + ["b"] * 59), "label", None, ValueError, "'label'.*got null"),
        (changed(label=["b"] * 60), "label", "weight", ValueError, "at least 2 classes"),
        (changed(weight=[-1.0] * 60), "label", "weight", ValueError, "sample_weight"),
        (changed(label=np.linspace(0, 1, 60)), "label", "weight", ValueError, "continuous"),
        (dataset.dataset(table(*rows(5)).slice(0, 0)), "label", None, ValueError, "one row"),
    ],
)
def test_refused(data, y, weight, error, message):
    with pytest.raises(error, match=message):
        SoftmaxRegression().fit(data, y, weight)


def test_inference(tmp_path, monkeypatch):
    """Covariances, clusters across batches and effects are those of the rows in memory."""
    monkeypatch.setattr("logitlab.regression.dataset._MAX_BATCH_ROWS", 250)
    X, y, weight = rows()
    files = in_files(tmp_path / "rows", X, y, weight)
    groups = np.random.default_rng(0).integers(0, 40, len(y))
    model = {"C": math.inf, "tol": 1e-10}
    ours = SoftmaxRegression(**model).fit(files, "label", "weight")
    theirs = SoftmaxRegression(**model).fit(X, y, weight)
    for cov_type in ("nonrobust", "HC0", "cluster"):
        options = {"cov_type": cov_type, "groups": groups if cov_type == "cluster" else None}
        a, b = (fitted.inference(**options) for fitted in (ours, theirs))
        np.testing.assert_allclose(a.standard_error, b.standard_error, rtol=1e-7)
        assert a.groups == b.groups
    a, b = (inference.marginal_effects() for inference in (a, b))
    np.testing.assert_allclose(a.effect, b.effect, rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(a.standard_error, b.standard_error, rtol=1e-6)
    assert ours.summary().response == "label"
    assert ours.summary(files, "label", "weight").names[:4] == ["a0", "a1", "a2", "a3"]
    with pytest.raises(ValueError, match="influence needs rows in memory, got partitions"):
        ours.inference().influence()
