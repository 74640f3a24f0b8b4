"""Logits in the shapes that people have: one score of two classes, any class axis."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from reports import overwriting
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app
from logitlab._app.io import layouts
from logitlab._app.io.arrays import open_logits

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_figures")]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments):
    return CliRunner().invoke(app, overwriting(*arguments), catch_exceptions=False)


def succeeds(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(*arguments):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    return result.stderr


def binary(n=400):
    """Overconfident scores of class 1, and labels."""
    rng = np.random.default_rng(0)
    s = rng.normal(0, 3, n)
    return s, (rng.random(n) < 1 / (1 + np.exp(-s / 2))).astype(int)


def segmentation():
    """Logits (N, K, H, W) and labels (N, H, W), some of them -100."""
    rng = np.random.default_rng(1)
    z = rng.normal(0, 3, (3, 4, 5, 7)).astype(np.float32)
    y = (z / 2 + rng.gumbel(size=z.shape)).argmax(1)
    y[0, 0, :3] = -100
    return z, y


@pytest.mark.parametrize("form", ["flat", "column", "table"])
@pytest.mark.parametrize("probabilities", [False, True])
def test_one_score(form, probabilities):
    """The results are those of the rows [0, s]; apply takes the same scores."""
    s, y = binary()
    given = 1 / (1 + np.exp(-s)) if probabilities else s
    labels, data = "y.npy", "s.npy"
    np.save("y.npy", y)
    match form:
        case "flat":
            np.save("s.npy", given)
        case "column":
            np.save("s.npy", given[:, None])
        case "table":
            data, labels = "t.csv", "t.csv:label"
            pd.DataFrame({"score": given, "label": y == 1}).to_csv(data, index=False)
    options = ["--probabilities"] if probabilities else []
    printed = succeeds("calibrate", data, "--labels", labels, "--method", "temperature", *options)
    expected = "[1 - p, p]" if probabilities else "[0, s]"
    assert expected in printed.splitlines()[0]
    mapping = "False is class 0" if form == "table" else "0 and 1 are the classes"
    assert mapping in printed.splitlines()[1]
    values = json.loads(Path("logitlab-calibrator/report.json").read_text())
    z = np.column_stack([np.zeros(len(s)), s])
    assert values["accuracy"] == logitlab.accuracy(z, y)
    assert values["log_loss"] == pytest.approx(logitlab.cross_entropy(z, y), rel=1e-12)
    assert values["input_summary"]["looks_like_probabilities"] is False
    assert len(values["input_summary"]["notes"]) == 2
    np.save("new.npy", given[:5])
    succeeds("apply", "logitlab-calibrator", "new.npy", "-o", "p.npy")
    temperature = logitlab.TemperatureScaling().fit(z, y)
    np.testing.assert_allclose(np.load("p.npy"), temperature.predict_proba(z[:5]), rtol=1e-4)
    result = run("apply", "logitlab-calibrator", "new.npy")
    assert expected in result.stderr
    assert result.stdout.startswith('"predicted","confidence"')
    np.save("two.npy", z[:5])
    assert "must have one number for each row, the" in fails(
        "apply", "logitlab-calibrator", "two.npy"
    )


def test_one_score_is_not_two_columns():
    s, y = binary()
    np.savez("d.npz", z=np.column_stack([-s, s]), s=s, y=y)
    succeeds("calibrate", "d.npz:z", "--labels", "d.npz:y")
    assert "must have 2 columns of logits" in fails("apply", "logitlab-calibrator", "d.npz:s")


def test_probabilities_as_one_score():
    """Probabilities that are read as logits are a warning; logits that are not, an error."""
    s, y = binary()
    np.savez("d.npz", p=1 / (1 + np.exp(-s)), s=s, y=y, names=np.array(["a", "b"])[y])
    printed = succeeds("report", "d.npz:p", "--labels", "d.npz:y")
    assert printed.startswith("Warning: Every number is between 0 and 1: these look like prob")
    row = int(np.argmax((s < 0) | (s > 1)))
    message = fails("report", "d.npz:s", "--probabilities")
    assert f"row {row}: the probability of class 1 must be in 0 to 1, got {s[row]:g}" in message
    message = fails("report", "d.npz:s", "--labels", "d.npz:names")
    assert "d.npz:names: the label of row 0 must be 0 or 1, got" in message
    assert "write 1 for the class whose score d.npz:s has and 0 for the other" in message


@pytest.mark.parametrize("file", ["z.npy", "f.npy", "z.npz", "z.safetensors"])
@pytest.mark.parametrize("small", [False, True])
def test_class_axis(file, small, monkeypatch):
    """The blocks of any class axis are the rows of the moved array."""
    if small:  # a plane is more than a chunk
        monkeypatch.setattr(layouts, "_CHUNK", 12)
    z, _ = segmentation()
    np.save("z.npy", z)
    np.save("f.npy", np.asfortranarray(z))
    np.savez("z.npz", z=z)
    safetensors.numpy.save_file({"z": z}, "z.safetensors")
    for axis in range(-4, 4):
        logits = open_logits(file, axis=axis)
        expected = np.moveaxis(z, axis, -1)
        assert logits.shape == expected.shape
        rows = expected.reshape(-1, expected.shape[-1])
        np.testing.assert_array_equal(np.concatenate(list(logits.read())), rows)
        numbers = np.array([0, 7, len(rows) - 1])
        np.testing.assert_array_equal(logits.rows_at(numbers), rows[numbers])
        np.testing.assert_array_equal(logits.rows_at(3), rows[3])


def test_segmentation(monkeypatch):
    z, y = segmentation()
    np.savez("d.npz", z=z, y=y)
    np.save("z.npy", z)
    options = ("--labels", "d.npz:y", "--axis", 1, "--ignore-index", -100)
    printed = succeeds("report", "z.npy", *options)
    assert "The classes are along axis 1; the rows are the 105 positions" in printed
    values = json.loads(Path("logitlab-report/report.json").read_text())
    expected = logitlab.accuracy(z, y, axis=1, ignore_index=-100)
    assert (values["accuracy"], values["evaluated_rows"]) == (pytest.approx(expected), 102)
    assert values["input_summary"]["ignored_rows"] == 3
    succeeds("calibrate", "z.npy", *options, "--method", "temperature")
    calibrator = logitlab.load_calibrator("logitlab-calibrator/calibrator.safetensors")
    rows = np.moveaxis(z, 1, -1)
    p = calibrator.predict_proba(rows.reshape(-1, 4)).reshape(rows.shape)
    monkeypatch.setattr(layouts, "_CHUNK", 60)
    for axis in (1, 3):
        np.save("new.npy", np.moveaxis(rows, -1, axis))
        succeeds("apply", "logitlab-calibrator", "new.npy", "--axis", axis, "-o", "p.npy")
        expected = np.moveaxis(p, -1, axis)
        np.testing.assert_allclose(np.load("p.npy"), expected, rtol=1e-5, atol=1e-30)
    succeeds("apply", "logitlab-calibrator", "z.npy", "--axis", 1, "-o", "p.parquet")
    predicted = pq.read_table("p.parquet")["predicted"].to_numpy()
    np.testing.assert_array_equal(predicted, rows.argmax(-1).reshape(-1))


def test_token_logits():
    """(B, T, K) needs no axis, (B, K, T) has axis 1; the results are the same."""
    rng = np.random.default_rng(2)
    z = rng.normal(0, 2, (4, 30, 5))
    y = z.argmax(-1)
    y[rng.random(y.shape) < 0.4] = 0
    np.savez("d.npz", a=z, b=z.swapaxes(1, 2), y=y)
    found = []
    for name, options in (("a", ()), ("b", ("--axis", 1))):
        succeeds("report", f"d.npz:{name}", "--labels", "d.npz:y", *options)
        values = json.loads(Path("logitlab-report/report.json").read_text())
        found.append(values["evaluation"])
    assert found[0] == found[1]


def test_errors_of_axes():
    z, y = segmentation()
    np.savez("d.npz", z=z, y=y)
    pd.DataFrame(z[0, :, 0]).to_csv("t.csv", index=False)
    assert "--axis must be in -4 to 3, as the array has shape (3, 4, 5, 7), got 4" in fails(
        "report", "d.npz:z", "--axis", 4
    )
    assert "--axis is for arrays" in fails("report", "t.csv", "--axis", 1)
    assert "labels must have shape (3, 4, 5) as the rows" in fails(
        "report", "d.npz:z", "--labels", "d.npz:y"
    )


def test_how_labels_are_matched():
    """One line says it; labels that are neither all names nor all numbers are an error."""
    z = np.eye(3)[[0, 1, 2, 0]]
    pd.DataFrame(z, columns=["1", "2", "3"]).to_parquet("numbers.parquet")
    pd.DataFrame(z, columns=["cat", "dog", "eel"]).to_csv("names.csv", index=False)
    np.savez("y.npz", zero=[0, 1, 2, 0], one=[1, 2, 3, 1], names=["cat", "dog", "eel", "cat"])
    for file, name, line in (
        ("numbers.parquet", "one", "Labels: 3 values, matched to the columns of the same name."),
        ("names.csv", "names", "Labels: 3 values, matched to the columns of the same name."),
        ("names.csv", "zero", "Labels: column numbers, from 0 (column 'cat') to 2 ('eel')."),
    ):
        assert line in succeeds("report", file, "--labels", f"y.npz:{name}").splitlines()
    message = fails("report", "numbers.parquet", "--labels", "y.npz:zero")
    assert "the label of row 0 must be a column of numbers.parquet, got '0'" in message
