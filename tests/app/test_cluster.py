"""Folders of shards on the workers of a Dask cluster."""

import json
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from reports import assert_close, overwriting
from typer.testing import CliRunner

import logitlab
from logitlab._app import cluster, main
from logitlab._app.cli import app
from logitlab._app.io.passes import Passes, untracked
from logitlab._app.io.source import in_memory
from logitlab._app.report import analysis

pytestmark = pytest.mark.slow

distributed = pytest.importorskip("distributed")

SHARDS = 20  # more than one task merges
ROWS = 17_000  # more than the groups of the bootstrap


def run(*arguments):
    result = CliRunner().invoke(app, overwriting(*arguments), catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def scheduler():
    """The address of a cluster of two worker processes."""
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with distributed.LocalCluster(**options) as workers:
        yield workers.scheduler_address


def write_shards(folder, array):
    folder.mkdir(parents=True)
    for i, part in enumerate(np.array_split(array, SHARDS)):
        np.save(folder / f"{i}.npy", part)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with shards of logits, some without a distribution, labels, groups and tokens."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    z = rng.standard_normal((ROWS, 3)).astype(np.float32) * 4
    y = (z / 2 + rng.gumbel(size=z.shape)).argmax(axis=1)
    other = z + rng.standard_normal(z.shape).astype(np.float32)
    z[5::1000, 1] = np.nan
    z[7::500] = -np.inf
    z[9::300, 0] = -np.inf
    y[9::300] = 2
    y[11::50] = -100
    write_shards(folder / "z", z)
    write_shards(folder / "other", other)
    write_shards(folder / "y", y)
    p = np.exp(other / 2) / np.exp(other / 2).sum(axis=1, keepdims=True)
    write_shards(folder / "p", p)
    (folder / "t").mkdir()
    table = pd.DataFrame(other, columns=list("abc"))
    table["label"], table["group"] = np.array(list("abc"))[y.clip(0)], rng.integers(0, 3, ROWS)
    for i, rows in enumerate(np.array_split(np.arange(ROWS), SHARDS)):
        table.iloc[rows].to_parquet(folder / "t" / f"{i}.parquet")
    write_shards(folder / "image", np.stack([other, other + 1], axis=2))
    write_shards(folder / "image-labels", np.stack([y.clip(0), y.clip(0)], axis=1))
    return folder


@pytest.fixture
def files(data, monkeypatch, no_figures):
    monkeypatch.chdir(data)
    return data


@pytest.mark.parametrize(
    "arguments",
    [
        ["z", "--labels", "y", "--ignore-index", "-100"],
        ["t", "--labels", "t:label", "--group", "t:group"],
        ["z", "other", "--labels", "y", "--ignore-index", "-100"],
        ["p", "--probabilities"],
        ["image", "--axis", "1", "--labels", "image-labels"],
    ],
)
def test_report(files, tmp_path, scheduler, monkeypatch, arguments):
    """The numbers are those of one process; samples have fewer rows than the folder."""
    monkeypatch.setattr(analysis, "FIT_ELEMENTS", 9000)
    monkeypatch.setattr(analysis, "_SAMPLE_ELEMENTS", 3000)
    results = []
    for options in ([], ["--scheduler", scheduler]):
        code, _, error = run("report", *arguments, *options, "-o", tmp_path)
        assert (code, error) == (0, "")
        results.append(json.loads((tmp_path / "report.json").read_text("utf-8")))
    assert_close(*results)


def test_tokens(files, tmp_path, scheduler):
    """The log-probability and the rank of every token."""
    tables = []
    for options in ([], ["--scheduler", scheduler]):
        out = tmp_path / str(len(options))
        assert run("report", "t:a,b,c", "--targets", "t:label", *options, "-o", out)[0] == 0
        tables.append((out / "tokens.csv").read_text("utf-8"))
    assert tables[0] == tables[1]
    assert tables[0].count("\n") == ROWS + 1


def test_calibrate_and_apply(files, tmp_path, scheduler):
    """The calibrator and the files of the shards are those of one process."""
    cluster_options = ["--scheduler", scheduler]
    fit = [
        "calibrate",
        "t:a,b,c",
        "--labels",
        "t:label",
        "--method",
        "temperature",
        "--coverage",
        "0.9",
    ]
    assert run(*fit, "-o", tmp_path / "a")[0] == 0
    assert run(*fit, *cluster_options, "-o", tmp_path / "b")[0] == 0
    a, b = ((tmp_path / name / "calibrator.safetensors").read_bytes() for name in "ab")
    assert a == b
    command = ["apply", tmp_path / "a", "t:a,b,c", "--probabilities"]
    assert run(*command, "-o", tmp_path / "one")[0] == 0
    code, out, error = run(*command, *cluster_options, "-o", tmp_path / "several")
    assert (code, out, error) == (0, f"Written: {tmp_path / 'several'} ({ROWS} rows)\n", "")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "several").iterdir())
    assert len(names) == SHARDS
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "several" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "one", "several"]


def test_error_of_the_first_shard(files, tmp_path, scheduler):
    """Of several rows that are refused, the first one is named, as in one process."""
    p = np.full((ROWS, 3), 1 / 3)
    p[[16_990, 4000, 9000]] = 1
    write_shards(tmp_path / "p", p)
    command = ["report", tmp_path / "p", "--probabilities", "-o", tmp_path / "out"]
    expected = run(*command)
    assert "row 4000 (row 600 of 4.npy): probabilities must sum" in expected[2]
    assert run(*command, "--scheduler", scheduler) == expected
    assert not (tmp_path / "out").exists()
    z = np.zeros((ROWS, 3))
    z[[16_000, 5000], 0] = -np.inf
    write_shards(tmp_path / "z", z)
    np.save(tmp_path / "y.npy", np.zeros(ROWS, int))
    command = ["report", tmp_path / "z", "--labels", tmp_path / "y.npy", "-o", tmp_path / "out"]
    assert run(*command, "--scheduler", scheduler)[0] == 0
    result = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    failure = result["evaluation"]["calibrator_failures"]["temperature"]
    assert failure.startswith("row 5000 has the logit -inf for its label")


def first_pass(z, part=slice(None)):
    """The sums of the first pass over some of the rows, of which none is in the samples."""
    rows = len(z)
    setup = analysis._Setup(z.shape, z.dtype, True, False, [rows])
    source = replace(in_memory("z", z[part]), first=part.start or 0)
    values = {
        "sampled": np.zeros(rows, bool),
        "label": (np.arange(rows) % 3).astype(np.int8),
        "fold": np.arange(rows) % 2,
        "fitted": np.zeros(rows, bool),
        "group": np.zeros(rows, np.uint8),
        "resampled": np.zeros(rows, np.uint16),
    }
    arrays = {name: array[part] for name, array in values.items()}
    return Passes(source, False, untracked).run(partial(analysis._FirstPass, setup), "", **arrays)


def logits(rows):
    return np.random.default_rng(0).standard_normal((rows, 3)) * np.linspace(1, 9, rows)[:, None]


def test_sums_without_rows():
    """The results of workers do not grow with the number of rows."""
    small, large = (len(pickle.dumps(first_pass(logits(rows)))) for rows in (20_000, 40_000))
    assert abs(large - small) < 2000


def test_merged_sums():
    """Those of ranges of rows are those of all rows; the parts are not changed."""
    z = logits(20_000)
    example = first_pass(z).example_row
    z[[example, 17_000]] = z[[17_000, example]]  # not in the first part
    whole = first_pass(z)
    assert whole.example_row == 17_000
    parts = [first_pass(z, slice(start, start + 5000)) for start in range(0, 20_000, 5000)]
    before = pickle.dumps(parts)
    merged = cluster.merged_sums(parts)
    assert pickle.dumps(parts) == before
    assert merged.input_summary == whole.input_summary
    assert merged.example_row == whole.example_row
    np.testing.assert_array_equal(merged.example, whole.example)
    for a, b in zip(merged.over_steps.curve(), whole.over_steps.curve(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert merged.shifted_hits == whole.shifted_hits > 0
    assert merged.scores.misclassifications() == whole.scores.misclassifications()


def test_local(files, tmp_path, monkeypatch):
    """A cluster of this machine, which ends with the command."""
    monkeypatch.setattr("dask.system.CPU_COUNT", 1)
    code, out, error = run("report", "other", "--scheduler", "local", "-o", tmp_path)
    assert (code, error) == (0, "")
    assert "Written" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["report", "z", "--scheduler", "tcp://127.0.0.1:1"],
            "--scheduler tcp://127.0.0.1:1: no Dask scheduler found: Timed out",
        ),
        (["report", "z", "--scheduler", "nowhere"], "no Dask scheduler found: missing port"),
        (["report", "z/1.npy", "--scheduler", "local"], "z/1.npy: --scheduler is for a folder"),
        (
            ["calibrate", "z/1.npy", "--labels", "y/1.npy", "--scheduler", "local"],
            "z/1.npy: --scheduler is for a folder of shards, got a file",
        ),
        (
            ["apply", "c.safetensors", "z", "--scheduler", "local"],
            "--scheduler writes a file for each shard; -o must be a folder, got None",
        ),
    ],
)
def test_errors(files, tmp_path, monkeypatch, arguments, message):
    """One line, nothing written."""
    monkeypatch.setattr(cluster, "_CONNECT_TIMEOUT", 1)
    calibrator = logitlab.TemperatureScaling().fit(np.eye(3), [0, 1, 1])
    calibrator.save(files / "c.safetensors")
    before = sorted(files.iterdir())
    code, out, error = run(*arguments)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert sorted(files.iterdir()) == before


def test_missing_dask(files, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setattr(sys, "argv", ["logitlab", "report", "z", "--scheduler", "local"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as error:
        main()
    expected = "distributed is not installed; run: pip install 'logitlab[dask]'"
    assert error.value.code == 2
    assert capsys.readouterr().err == f"logitlab: {expected}\n"


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.fixture
def killable(tmp_path):
    """The address of a scheduler, and two worker processes that nobody starts again."""
    file = tmp_path / "scheduler.json"
    arguments = ["--scheduler-file", str(file)]
    no_dashboard = ["--no-dashboard"]
    processes = [
        start("distributed.cli.dask_scheduler", "--port", "0", *no_dashboard, *arguments),
    ]
    worker = ["distributed.cli.dask_worker", "--no-nanny", "--nthreads", "1", *no_dashboard]
    try:
        processes += [start(*worker, *arguments) for _ in range(2)]
        end = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < end
            time.sleep(0.1)
        address = json.loads(file.read_text("utf-8"))["address"]
        with distributed.Client(address, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
        file.unlink()
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait(10)


def run_and_kill(worker, folder, *arguments):
    """Run `apply`, and kill a worker when the first file is written."""
    result = []
    thread = threading.Thread(target=lambda: result.append(run(*arguments)))
    thread.start()
    end = time.monotonic() + 60
    while not list(folder.glob(".logitlab-*/*.npy")):
        assert time.monotonic() < end
        time.sleep(0.001)
    worker.kill()
    worker.wait(10)
    assert not result  # the command was running
    thread.join(120)
    (found,) = result
    return found


def test_killed_workers(tmp_path, killable, monkeypatch, no_figures):
    """The tasks of a lost worker are computed again; without workers nothing is written."""
    address, workers = killable
    monkeypatch.setattr(cluster, "_NO_WORKERS_TIMEOUT", 2.0)
    z = np.random.default_rng(0).standard_normal((1_000_000, 5)).astype(np.float32)
    write_shards(tmp_path / "z", z)
    calibrator = logitlab.TemperatureScaling().fit(z[:9], z[:9].argmin(axis=1))
    calibrator.save(tmp_path / "c.safetensors")
    before = sorted(path.name for path in tmp_path.iterdir())
    command = ["apply", tmp_path / "c.safetensors", tmp_path / "z"]
    assert run(*command, "-o", tmp_path / "one")[0] == 0
    on_workers = [*command, "--scheduler", address, "-o"]
    found = run_and_kill(workers[0], tmp_path, *on_workers, tmp_path / "several")
    assert found == (0, f"Written: {tmp_path / 'several'} (1000000 rows)\n", "")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "several" / path.name).read_bytes()
    assert len(list((tmp_path / "several").iterdir())) == SHARDS
    found = run_and_kill(workers[1], tmp_path, *on_workers, tmp_path / "other")
    lost = (2, "", f"logitlab: --scheduler {address}: all workers are lost\n")
    assert found == lost
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "one", "several"])
    report = ["report", tmp_path / "z", "--scheduler", address, "-o", tmp_path / "report"]
    assert run(*report) == lost
    assert not (tmp_path / "report").exists()
