"""Errors of the user: one line on standard error, exit status 2, nothing written."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from reports import run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_figures")]


def cases():
    """Name, arguments, and a part of the message."""
    yield "missing file", ["none.npy"], "none.npy: no such file"
    yield "empty file", ["blank.csv"], "blank.csv: the file must have rows, got an empty file"
    yield (
        "labels and logits swapped",
        ["three.npy", "--labels", "z.npy"],
        "got float64; three.npy may have the labels, and z.npy the logits",
    )
    yield "unknown file type", ["notes.txt"], "notes.txt: the file type must be one of .npy"
    yield "which array", ["two.npz"], "contains z, y; choose one with two.npz:NAME"
    yield "unknown name", ["two.npz:w"], "NAME must be one of z, y, got 'w'"
    yield "name in .npy", ["z.npy:z"], "a .npy file has no names, got 'z'"
    yield (
        "labels too short",
        ["z.npy", "--labels", "short.npy"],
        "short.npy: 2 rows, z.npy: 3 rows; they must have the same number of rows",
    )

    yield (
        "labels out of range",
        ["z.npy", "--labels", "high.npy"],
        "high.npy: the label of row 1 must be in 0 to 1 (z.npy has 2 classes), got 2",
    )
    yield (
        "labels of fewer classes",
        ["one.npy", "--labels", "high.npy"],
        "(one.npy has 2 classes), got 2",
    )
    yield (
        "labels with a gap",
        ["z.npy", "--labels", "gap.npy"],
        "gap.npy: the label of row 1 is missing",
    )
    yield "labels with a blank line", ["z.npy", "--labels", "gap.csv"], "gap.csv: line 3 is blank"
    yield "a folder", ["."], ".: the shards of a folder must be .npy or .parquet"
    yield "no class", ["thin.npy"], "thin.npy: logits must have a row and a class, got shape (3, 0)"
    yield "a name twice", ["twice.csv"], "twice.csv: column names must be distinct, got 'a' twice"
    yield "labels by a name twice", ["z.npy", "--labels", "twice.csv:a"], "got 'a' twice"
    yield "a name twice in .parquet", ["twice.parquet"], "column names must be distinct"
    yield (
        "labels are floats",
        ["z.npy", "--labels", "z.npy"],
        "labels must be integers or names, got float64",
    )
    yield "pickle", ["pickled.npy"], "contains pickled objects"
    yield "text", ["text.npy"], "must contain numbers, got text"
    yield "text in a table", ["words.csv"], "column 'b' must contain numbers, got string"
    yield "no dimension", ["flat.npy"], "logits must have a shape (rows, classes), got ()"
    yield "no rows", ["empty.npy"], "logits must have a row and a class, got shape (0, 2)"
    yield "no sum", ["z.npy", "--probabilities"], "row 0: probabilities must sum to 1, got 0"
    yield "negative", ["minus.npy", "--probabilities"], "row 1: probabilities must be >= 0"
    yield "not an array file", ["broken.npy"], "broken.npy: not a valid .npy file"
    yield "broken archive", ["broken.npz"], "broken.npz: not a valid .npz file"
    yield "broken parquet", ["broken.parquet"], "broken.parquet"
    yield "broken safetensors", ["broken.safetensors"], "broken.safetensors"
    yield "nothing but NaN", ["nan.npy"], "every row is NaN or all -inf"
    yield "labels alone", ["--labels", "high.npy"], "need LOGITS"
    yield "labels and targets", ["z.npy", "--labels", "high.npy", "--targets", "high.npy"], "one of"
    yield "models without labels", ["z.npy", "minus.npy"], "give --labels"
    yield "models of other rows", ["z.npy", "minus.npy", "--labels", "three.npy"], "the same rows"
    yield "out is a file", ["z.npy", "-o", "z.npy"], "z.npy: not a folder"


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    z = np.zeros((3, 2))
    np.save("z.npy", z)
    np.savez("two.npz", z=z, y=[0, 1, 0])
    np.save("short.npy", [0, 1])
    np.save("high.npy", [0, 2, 0])
    np.save("three.npy", [0, 1, 0])
    np.save("one.npy", z[:, :1])
    np.save("thin.npy", z[:, :0])
    np.save("gap.npy", [0, np.nan, 1])
    (tmp_path / "gap.csv").write_text("label\n0\n\n1\n0\n\n")
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n3,4\n")
    pa.parquet.write_table(pa.table([[1.0], [2.0]], ["a", "a"]), "twice.parquet")
    np.save("flat.npy", 1.0)
    np.save("empty.npy", np.empty((0, 2)))
    np.save("text.npy", np.array([["a", "b"]]))
    np.save("minus.npy", [[0.5, 0.5], [-0.5, 1.5]])
    np.save("nan.npy", np.full((2, 2), np.nan))
    np.save("pickled.npy", np.array([[{}, {}]], object), allow_pickle=True)
    (tmp_path / "blank.csv").touch()
    for name in ("broken.npy", "broken.npz", "broken.parquet", "broken.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps("broken"))
    (tmp_path / "notes.txt").write_text("1,2\n")
    (tmp_path / "words.csv").write_text("a,b\n1,x\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"), [pytest.param(a, m, id=name) for name, a, m in cases()]
)
def test_errors(files, arguments, message):
    """One line on standard error, status 2, nothing written."""
    before = sorted(files.rglob("*"))
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert sorted(files.rglob("*")) == before


def test_old_report_after_an_error(files):
    """After an error the files of the last run are unchanged."""
    assert run("z.npy").exit_code == 0
    before = (files / "logitlab-report" / "report.html").read_bytes()
    assert run("pickled.npy").exit_code == 2
    assert (files / "logitlab-report" / "report.html").read_bytes() == before
