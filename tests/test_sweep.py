"""temperature_sweep, and the command that draws from a file."""

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
    """Every temperature: probabilities of softmax, counts of sample, entropy."""
    t = [0.0, 0.1, 1.0, 10.0, np.inf, -1.0]
    sweep = logitlab.temperature_sweep(torch.tensor(Z), t, n=2000, rng=3)
    rows = np.broadcast_to(Z, (6, 5))
    drawn = logitlab.sample(rows, 2000, temperature=t, rng=3)
    np.testing.assert_array_equal(sweep.probabilities, logitlab.softmax(rows, temperature=t))
    np.testing.assert_array_equal(sweep.entropy, logitlab.entropy(rows, temperature=t))
    for counts, row in zip(sweep.counts, drawn, strict=True):
        np.testing.assert_array_equal(counts, np.bincount(row, minlength=5))
    assert (sweep.frequencies == sweep.counts / 2000).all()
    off = np.abs(sweep.frequencies - sweep.probabilities)
    assert (off <= 5 * sweep.standard_error).all()
    assert (off[0] == 0).all()
    ax = sweep.plot(names=list("abcde"), ax=Figure().add_subplot())
    assert len(ax.patches) == 30
    assert ax.texts[0].get_text() == "T = 0"


@pytest.mark.parametrize(
    ("m", "k", "letters"),
    [(1, 20, 9), (2, 6, 1), (4, 5, 1), (5, 5, 8), (3, 20, 1), (12, 5, 1), (40, 3, 4)],
)
def test_nothing_written_in_its_picture_runs_together(m, k, letters):
    """Whatever the number of temperatures and classes."""
    z = np.random.default_rng(m).normal(0, 3, k)
    sweep = logitlab.temperature_sweep(z, np.geomspace(1e-3, 123.4, m), n=1000, rng=0)
    figure = Figure(layout="constrained")
    ax = sweep.plot(names=[f"{i:0{letters}d}" for i in range(k)], ax=figure.add_subplot())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    written = [t for t in (*ax.texts, *ax.get_xticklabels(), ax.xaxis.label) if t.get_text()]
    boxes = [t.get_window_extent(canvas.get_renderer()) for t in written]
    for (i, one), (j, other) in itertools.combinations(enumerate(boxes), 2):
        wide = min(one.x1, other.x1) - max(one.x0, other.x0)
        high = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(wide, high) < 1, (written[i], written[j])
    shown = len(ax.patches) // m
    assert shown == k or f"{k - shown} less probable ones not drawn" in ax.get_xlabel()


def test_temperature_sweep_errors():
    """One line that names the argument."""
    with pytest.raises(ValueError, match=r"z has shape \(1, 5\)"):
        logitlab.temperature_sweep([Z], [1.0])
    with pytest.raises(ValueError, match=r"temperatures must be a list of numbers, got shape \(\)"):
        logitlab.temperature_sweep(Z, 1.0)
    with pytest.raises(ValueError, match="temperature must hold numbers"):
        logitlab.temperature_sweep(Z, [np.nan])


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


def test_the_command_draws_what_the_library_draws(file, tmp_path):
    """In more than one block, with truncation and log-probabilities, to a file and to a pipe."""
    from pyarrow import parquet

    path, z = file
    options = {"temperature": 0.7, "top_p": 0.9}
    index, log_prob = logitlab.sample_with_log_prob(z, 3, rng=1, **options)
    given = ["-n", "3", "--temperature", "0.7", "--top-p", "0.9", "--seed", "1", "--log-prob"]
    done = run(str(path), *given, "-o", str(tmp_path / "d.parquet"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "1200 draws" in done.stdout
    table = parquet.read_table(tmp_path / "d.parquet")
    assert table.column_names == ["row", "draw", "index", "log_prob"]
    np.testing.assert_array_equal(table["index"].to_numpy(), index.ravel())
    np.testing.assert_array_equal(table["log_prob"].to_numpy(), log_prob.ravel().astype(float))
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".logitlab")] == []
    lines = list(csv.DictReader(io.StringIO(run(str(path), *given).stdout)))
    assert [int(line["index"]) for line in lines] == index.ravel().tolist()
    assert [int(line["row"]) for line in lines[::3]] == list(range(400))
    objects = [json.loads(line) for line in run(str(path), *given, "--json").stdout.splitlines()]
    assert [o["index"] for o in objects] == index.tolist()


def test_the_command_gives_names(tmp_path):
    """Where the file has column names."""
    (tmp_path / "z.csv").write_text("cat,dog\n9,0\n0,9\n")
    done = run(str(tmp_path / "z.csv"), "--temperature", "0", "--json")
    assert done.stdout.splitlines() == [
        '{"row": 0, "index": [0], "name": ["cat"]}',
        '{"row": 1, "index": [1], "name": ["dog"]}',
    ]


def test_mistakes_are_one_line(file, tmp_path):
    """And exit status 2; nothing is left behind."""
    path, z = file
    z[300] = np.nan
    np.save(path, z)
    for arguments, text in (
        ([str(path), "-o", str(tmp_path / "d.csv")], "row 300 has no distribution to draw from"),
        ([str(path), "--top-k", "0"], "--top-k must be >= 1, got 0"),
        ([str(path), "-o", "x.txt"], "x.txt: unknown kind of file; accepted: .csv, .parquet"),
        ([str(path), "--order", "hf"], "order is 'hf'"),
        (["missing.npy"], "missing.npy: no such file"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["z.npy"]
