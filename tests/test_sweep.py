"""temperature_sweep, and the command `logitlab sample`."""

import csv
import io
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import logitlab

Z = [2.0, 1.0, 3.0, 5.0, 4.0]


def test_temperature_sweep():
    """The probabilities of softmax, the counts of sample, the entropies and the plot."""
    t = [0.0, 0.1, 1.0, 10.0, np.inf, -1.0]
    sweep = logitlab.temperature_sweep(torch.tensor(Z), t, n=2000, rng=3)
    rows = np.broadcast_to(Z, (6, 5))
    samples = logitlab.sample(rows, 2000, temperature=t, rng=3)
    np.testing.assert_array_equal(sweep.probabilities, logitlab.softmax(rows, temperature=t))
    np.testing.assert_array_equal(sweep.entropy, logitlab.entropy(rows, temperature=t))
    for counts, row in zip(sweep.counts, samples, strict=True):
        np.testing.assert_array_equal(counts, np.bincount(row, minlength=5))
    assert (sweep.frequencies == sweep.counts / 2000).all()
    error = np.abs(sweep.frequencies - sweep.probabilities)
    assert (error <= 5 * sweep.standard_error).all()
    assert (error[0] == 0).all()
    ax = sweep.plot(names=list("abcde"), ax=Figure().add_subplot())
    assert len(ax.patches) == 30
    assert ax.texts[0].get_text() == "T = 0"


@pytest.mark.parametrize(
    ("m", "k", "length"),
    [(1, 20, 9), (2, 6, 1), (4, 5, 1), (5, 5, 8), (3, 20, 1), (12, 5, 1), (40, 3, 4)],
)
def test_texts_of_the_plot_do_not_overlap(m, k, length):
    """For few and many temperatures, classes and characters of a name."""
    z = np.random.default_rng(m).normal(0, 3, k)
    sweep = logitlab.temperature_sweep(z, np.geomspace(1e-3, 123.4, m), n=1000, rng=0)
    figure = Figure(layout="constrained")
    ax = sweep.plot(names=[f"{i:0{length}d}" for i in range(k)], ax=figure.add_subplot())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [t for t in (*ax.texts, *ax.get_xticklabels(), ax.xaxis.label) if t.get_text()]
    boxes = [t.get_window_extent(canvas.get_renderer()) for t in texts]
    for (i, a), (j, b) in itertools.combinations(enumerate(boxes), 2):
        width = min(a.x1, b.x1) - max(a.x0, b.x0)
        height = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(width, height) < 1, (texts[i], texts[j])
    shown = len(ax.patches) // m
    assert shown == k or f"{k - shown} less probable classes not shown" in ax.get_xlabel()


def test_temperature_sweep_errors():
    """Each message has the argument, the rule and the value."""
    with pytest.raises(ValueError, match=r"z must have shape \(K,\) .*, got shape \(1, 5\)"):
        logitlab.temperature_sweep([Z], [1.0])
    with pytest.raises(ValueError, match=r"^temperatures .*shape \(\)"):
        logitlab.temperature_sweep(Z, 1.0)
    with pytest.raises(ValueError, match=r"^temperature .*nan"):
        logitlab.temperature_sweep(Z, [np.nan])
    for n in (None, True, [3]):
        with pytest.raises(TypeError, match="n must be an int, got"):
            logitlab.temperature_sweep(Z, [1.0], n=n)
    with pytest.raises(
        ValueError, match="n must be <= 33333333 for 3 temperatures, got 1000000000"
    ):
        logitlab.temperature_sweep([0.0, 1.0], [0.5, 1.0, 2.0], n=10**9)
    with pytest.raises(ValueError, match="n must be >= 1, got 0"):
        logitlab.temperature_sweep(Z, [1.0], n=0)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-c", "from logitlab._app import main; main()", "sample", *arguments],
        capture_output=True,
        text=True,
    )


@pytest.fixture
def file(tmp_path):
    z = np.random.default_rng(0).standard_normal((400, 1000)).astype(np.float32)
    np.save(tmp_path / "z.npy", z)
    return tmp_path / "z.npy", z


def test_command_samples_as_the_library(file, tmp_path):
    """With truncation and log-probabilities, in several blocks, to Parquet, CSV and JSON."""
    from pyarrow import parquet

    path, z = file
    options = {"temperature": 0.7, "top_p": 0.9}
    index, log_prob = logitlab.sample_with_log_prob(z, 3, rng=1, **options)
    args = ["-n", "3", "--temperature", "0.7", "--top-p", "0.9", "--seed", "1", "--log-prob"]
    done = run(str(path), *args, "-o", str(tmp_path / "d.parquet"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "1200 samples" in done.stdout
    table = parquet.read_table(tmp_path / "d.parquet")
    assert table.column_names == ["row", "draw", "index", "log_prob"]
    np.testing.assert_array_equal(table["index"].to_numpy(), index.ravel())
    np.testing.assert_array_equal(table["log_prob"].to_numpy(), log_prob.ravel().astype(float))
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".logitlab")] == []
    lines = list(csv.DictReader(io.StringIO(run(str(path), *args).stdout)))
    assert [int(line["index"]) for line in lines] == index.ravel().tolist()
    assert [int(line["row"]) for line in lines[::3]] == list(range(400))
    objects = [json.loads(line) for line in run(str(path), *args, "--json").stdout.splitlines()]
    assert [o["index"] for o in objects] == index.tolist()


def test_command_gives_class_names(tmp_path):
    """They are the column names of a table."""
    (tmp_path / "z.csv").write_text("cat,dog\n9,0\n0,9\n")
    done = run(str(tmp_path / "z.csv"), "--temperature", "0", "--json")
    assert done.stdout.splitlines() == [
        '{"row": 0, "index": [0], "name": ["cat"]}',
        '{"row": 1, "index": [1], "name": ["dog"]}',
    ]


def test_command_errors(file, tmp_path):
    """One line on standard error, exit status 2 and no output file."""
    path, z = file
    z[300] = np.nan
    np.save(path, z)
    for arguments, text in (
        ([str(path), "-o", str(tmp_path / "d.csv")], "row 300 has no distribution"),
        ([str(path), "--top-k", "0"], "--top-k must be >= 1, got 0"),
        ([str(path), "-o", "x.txt"], "x.txt: the file type must be one of .csv, .parquet"),
        ([str(path), "--order", "hf"], "--order must be one of"),
        (["missing.npy"], "missing.npy: no such file"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["z.npy"]
