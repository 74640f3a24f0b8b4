"""Scores and calibrators of Dask arrays, against the same rows as NumPy arrays."""

import os
import signal
import threading
import time
import tracemalloc

import numpy as np
import pytest

import logitlab
from logitlab._distributed.dask import _chunk_sources
from logitlab.resampling import ScoreSums
from test_row_shards import OPTIONS, SCORES, all_rows, results

pytestmark = pytest.mark.slow

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
dd = pytest.importorskip("dask.dataframe")
distributed = pytest.importorskip("distributed")

N = 3000
CHUNKS = {
    "one": ((N, 5), N, N),
    "many": ((400, 2), 700, 900),
    "uneven": (((1, 2999), 5), (2999, 1), N),
}


def chunked(chunks, *arrays):
    return [da.from_array(a, chunks=c) for a, c in zip(arrays, CHUNKS[chunks], strict=False)]


FUNCTIONS = {
    "softmax": logitlab.softmax,
    "log_softmax": logitlab.log_softmax,
    "logsumexp": logitlab.logsumexp,
    "logsumexp, keepdims": lambda *a, **k: logitlab.logsumexp(*a, keepdims=True, **k),
    "entropy": logitlab.entropy,
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_functions_of_chunks(dtype, axis):
    """As of NumPy arrays: any chunks, masks and temperatures, hostile rows."""
    rng = np.random.default_rng(0)
    z = (rng.standard_normal((10, 6, 9)) * 4).astype(dtype)
    z[3, 2], z[5, 1, 3], z[7, 0, 2], z[9, 1] = -np.inf, np.nan, np.inf, 2
    chunked = da.from_array(z, chunks=(4, 4, 5))
    batch = np.delete(z.shape, axis)
    t, mask = np.exp(rng.standard_normal(batch)), rng.random(z.shape) < 0.7
    t_chunks, mask_chunks = da.from_array(t, chunks=3), da.from_array(mask, chunks=(6, 3, 2))
    for temperature, of_chunks in ((1.0, 1.0), (0.0, 0.0), (-2.0, -2.0), (t, t), (t, t_chunks)):
        for where, where_chunks in ((None, None), (mask, mask_chunks), (mask[0], mask[0])):
            for name, function in FUNCTIONS.items():
                expected = function(z, axis, temperature=temperature, where=where)
                found = function(chunked, axis, temperature=of_chunks, where=where_chunks)
                assert isinstance(found, da.Array)
                assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
                rtol = 2e-3 if dtype == "float16" else 1e-6
                np.testing.assert_allclose(
                    found.compute(), expected, rtol=rtol, atol=1e-6, err_msg=name
                )


@pytest.mark.parametrize("axis", [0, -1])
def test_cross_entropy_of_chunks(axis):
    """As of NumPy arrays, with all options."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((10, 6, 9)) * 4
    batch = tuple(np.delete(z.shape, axis))
    y = rng.integers(0, z.shape[axis], batch)
    y[0, 0] = -1
    weight, mask = rng.random(batch), rng.random(z.shape) < 0.9
    chunks, y_chunks = da.from_array(z, chunks=(4, 4, 5)), da.from_array(y, chunks=4)
    for settings in (
        {},
        {"label_smoothing": 0.1, "sample_weight": weight},
        {"reduction": "none", "where": mask},
        {"reduction": "sum", "temperature": 0.7},
        {"weight": rng.random(z.shape[axis])},
    ):
        for labels in (y, y_chunks):
            expected = logitlab.cross_entropy(z, y, axis, ignore_index=-1, **settings)
            found = logitlab.cross_entropy(chunks, labels, axis, ignore_index=-1, **settings)
            assert isinstance(found, da.Array)
            np.testing.assert_allclose(found.compute(), expected, rtol=1e-12)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", SCORES)
def test_scores_and_fits(name, option):
    """They do not depend on the chunks, with weights and ignored labels."""
    arrays = all_rows(N)
    expected = results(name, option, *arrays)
    for chunks in CHUNKS:
        found = results(name, option, *chunked(chunks, *arrays))
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12, err_msg=chunks)


@pytest.mark.parametrize("cv", [2, 5])
@pytest.mark.parametrize("option", OPTIONS)
def test_cross_fit(option, cv):
    """A Dask array of the same calibrated logits, with NaN in the rows that are left out."""
    z, y, weight = all_rows(N, np.float32)
    for calibrator in (logitlab.TemperatureScaling(), logitlab.VectorScaling()):
        settings, of_chunks = dict(OPTIONS[option], cv=cv), dict(OPTIONS[option], cv=cv)
        z_chunks, y_chunks, weight_chunks = chunked("many", z, y, weight)
        if "sample_weight" in settings:
            settings["sample_weight"], of_chunks["sample_weight"] = weight, weight_chunks
        expected = logitlab.cross_fit(calibrator, z, y, **settings)
        found = logitlab.cross_fit(calibrator, z_chunks, y_chunks, **of_chunks)
        assert isinstance(found, da.Array)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.compute(), expected, rtol=2e-7)


def test_cross_fit_needs_a_calibrator_and_a_number_of_folds():
    class Other:
        def fit(self, z, y): ...
        def transform(self, z): ...

    class Splitter:
        def split(self, z, y): ...

    z, y = chunked("many", *all_rows(N)[:2])
    with pytest.raises(TypeError, match=r"calibrator must be one of logitlab .* got a Other"):
        logitlab.cross_fit(Other(), z, y)
    with pytest.raises(TypeError, match=r"cv must be an int for a Dask array, got .*Splitter"):
        logitlab.cross_fit(logitlab.TemperatureScaling(), z, y, cv=Splitter())


def test_other_axes_and_tables():
    """The class axis may be any; labels may be of another kind, and logits a table."""
    z, y, _ = all_rows(N)
    expected = logitlab.brier_score(z, y), logitlab.TemperatureScaling().fit(z, y).temperature_
    grid = da.from_array(z.reshape(30, 100, 5).swapaxes(1, 2), chunks=(7, 2, 30))
    labels = y.reshape(30, 100)
    assert logitlab.brier_score(grid, labels, axis=1) == pytest.approx(expected[0], rel=1e-13)
    found = logitlab.TemperatureScaling().fit(grid, labels, axis=-2).temperature_
    assert found == pytest.approx(expected[1], rel=1e-13)
    calibrated = logitlab.cross_fit(logitlab.TemperatureScaling(), grid, labels, axis=1)
    in_memory = logitlab.cross_fit(logitlab.TemperatureScaling(), z, y)
    rows = np.moveaxis(calibrated.compute(), 1, -1).reshape(N, 5)
    np.testing.assert_allclose(rows, in_memory, rtol=1e-13)
    pandas = pytest.importorskip("pandas")
    table = dd.from_pandas(pandas.DataFrame(z).assign(y=y), npartitions=4)
    assert logitlab.brier_score(table[[*range(5)]], table["y"]) == pytest.approx(expected[0])
    assert isinstance(logitlab.softmax(table[[*range(5)]]), da.Array)
    assert logitlab.brier_score(table[[*range(5)]], list(y)) == pytest.approx(expected[0])
    empty = da.from_array(z, chunks=((0, 1000, 0, 2000, 0), 5))
    assert logitlab.brier_score(empty, y) == pytest.approx(expected[0])


def test_errors_name_the_row():
    """Of all rows: the first of several, and of labels before that of logits."""
    z, y, weight = all_rows(N)
    wrong, bad = y.copy(), z.copy()
    wrong[[2500, 2000]] = 9, 7
    bad[[2700, 1700]] = np.nan
    z_chunks, y_chunks, weight_chunks = chunked("many", z, y, weight)
    bad_chunks, wrong_chunks = chunked("many", bad, wrong)
    plus_infinity = da.where(da.arange(N, chunks=999)[:, None] == 2345, np.inf, z_chunks)
    cases = [
        (z_chunks, wrong_chunks, {}, "y must be from 0 to 4, .* got 7 in row 2000"),
        (bad_chunks, wrong_chunks, {}, "got 7 in row 2000"),
        (bad_chunks, y_chunks, {}, "row 1700 of z "),
        (plus_infinity, y_chunks, {}, "row 2345 of z holds [+]inf"),
        (z_chunks, y_chunks[:5], {}, r"y must be labels of shape \(3000,\), got shape \(5,\)"),
        (z_chunks, y_chunks, {"sample_weight": -weight_chunks}, "must be finite and >= 0, got -"),
        (z_chunks, y_chunks, {"sample_weight": 0 * weight_chunks}, "not zero in every row"),
        (z_chunks, y_chunks, {"sample_weight": weight[:3]}, r"must have shape \(3000,\)"),
        (z_chunks, y_chunks, {"ignore_index": range(5)}, "y must have a row that is not ignored"),
        (z_chunks[z_chunks[:, 0] > 0], y, {}, r"known sizes, .*; call compute_chunk_sizes\(\)"),
        (z_chunks[:0], y[:0], {}, r"z must hold at least one row .* got shape \(0, 5\)"),
    ]
    for logits, labels, options, message in cases:
        with pytest.raises(ValueError, match=message):
            logitlab.VectorScaling().fit(logits, labels, **options)
        if "inf" not in message:
            with pytest.raises(ValueError, match=message):
                logitlab.bootstrap(logits, labels, **options)
    with pytest.raises(TypeError, match="y must be integer labels, got float64"):
        logitlab.accuracy(z_chunks, y_chunks.astype(float))


def test_logits_are_not_in_one_place():
    """The memory of a fit is that of a few chunks."""
    rows, classes = 1_000_000, 20

    def block(block_info=None):
        (start, end), _ = block_info[None]["array-location"]
        rng = np.random.default_rng(start)
        return rng.standard_normal((end - start, classes))

    z = da.map_blocks(block, chunks=((10_000,) * 100, (classes,)), dtype=float)
    y = da.random.default_rng(0).integers(0, classes, rows, chunks=10_000)
    tracemalloc.start()
    try:
        logitlab.TemperatureScaling().fit(z, y)
        logitlab.brier_score(z, y)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < rows * classes * 8 / 2


@pytest.mark.parametrize("start", [0, 1, 2, 3, 4, 17, 16385, 99_999])
def test_random_groups_of_a_part(start):
    """The groups of rows in the bootstrap do not depend on the blocks."""
    rows = 100_000
    whole = ScoreSums(rows, 15, np.dtype(float))._group
    for end in (start + 1, min(start + 6, rows), rows):
        part = ScoreSums(rows, 15, np.dtype(float), part=slice(start, end))._group
        np.testing.assert_array_equal(part, whole[start:end])


# The other tests use a scheduler in this process, which is faster.
@pytest.fixture(scope="module")
def client():
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


def test_scores_and_fits_on_workers(client):
    """As of a scheduler in this process."""
    arrays = all_rows(N)
    for name in ("brier_score", "isotonic curve", "two models", "temperature", "vector", "score"):
        found = results(name, "weights", *chunked("many", *arrays))
        expected = results(name, "weights", *arrays)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12, err_msg=name)
    z, y, _ = chunked("many", *arrays)
    found = logitlab.brier_score(z.persist(), y.persist())
    assert found == pytest.approx(logitlab.brier_score(*arrays[:2]), rel=1e-13)


def test_chunks_of_their_own_are_computed_where_they_are_used(client):
    """Their logits go to no other task; those of chunks that share data may."""
    z = da.map_blocks(slow_block, chunks=((1000,) * 3, (5,)), dtype=float)
    assert all(isinstance(source, bytes) for source in _chunk_sources(2 * z + 1))
    of_large_data = da.concatenate([da.from_array(np.ones((5000, 5)) * i) for i in range(3)])
    assert not any(isinstance(source, bytes) for source in _chunk_sources(of_large_data))
    shared = da.from_delayed(dask.delayed(np.ones)((3000, 5)), (3000, 5), float).rechunk((1000, 5))
    assert not any(isinstance(source, bytes) for source in _chunk_sources(shared))


def test_errors_of_workers(client):
    """They are those of this process."""
    z, y, _ = all_rows(N)
    z[[2700, 1700]] = np.nan
    for call in (logitlab.accuracy, logitlab.TemperatureScaling().fit):
        with pytest.raises(ValueError, match=r"^row 1700 of z .*no.* distribution"):
            call(*chunked("many", z, y))


def slow_block(block_info=None):
    """Rows that take time, so that a worker can be killed."""
    start, end = block_info[None]["array-location"][0]
    time.sleep(0.05)
    return all_rows(N)[0][start:end]


def test_a_worker_is_killed(client):
    """Its rows are computed again; the result is the same."""
    z, y, _ = all_rows(N)
    expected = logitlab.TemperatureScaling().fit(z, y).temperature_
    slow = da.map_blocks(slow_block, chunks=((100,) * 30, (5,)), dtype=float)
    processes = [worker["pid"] for worker in client.run(lambda: {"pid": os.getpid()}).values()]
    timer = threading.Timer(1.0, os.kill, (processes[0], signal.SIGKILL))
    timer.start()
    found = logitlab.TemperatureScaling().fit(slow, da.from_array(y, chunks=100)).temperature_
    timer.join()
    assert found == pytest.approx(expected, rel=1e-12)
    client.wait_for_workers(2, timeout=30)
    assert processes[0] not in client.run(os.getpid).values()
