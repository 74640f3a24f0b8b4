"""`logitlab report --group`: scores of the rows of each group."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from reports import Page, labelled, run

import logitlab

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def table(tmp_path, monkeypatch):
    """Logits, labels and groups in one table."""
    monkeypatch.chdir(tmp_path)
    z, y = labelled(700)
    site = np.array(["north", "<b>", "tiny"])[np.digitize(np.arange(700), [300, 690])]
    z[5] = np.nan
    frame = pd.DataFrame(z, columns=["a", "b", "c", "d"]).assign(
        y=np.array(list("abcd"))[y], site=site, code=[f"{i:04d}" for i in range(700)]
    )
    frame.to_csv("t.csv", index=False)
    return z, y, site


def test_groups(table):
    """The values are those of the library; groups of few rows are marked."""
    z, y, site = table
    options = ("t.csv:a,b,c,d", "--labels", "t.csv:y", "--group", "t.csv:site")
    result = run(*options)
    assert result.exit_code == 0, result.output
    values = json.loads(Path("logitlab-report/report.json").read_text())["groups"]
    assert values["column"] == "site"
    keep = np.arange(700) != 5
    expected = logitlab.group_scores(z[keep], y[keep], site[keep])
    assert values["scores"].keys() == expected.keys()
    for name, scores in expected.items():
        found = values["scores"][name]
        assert found["rows"] == scores.rows
        for key, score in (("accuracy", "accuracy"), ("ece", "calibration_error")):
            assert found[key][0] == pytest.approx(scores.intervals[score].value, rel=1e-12)
        # A row that is excluded changes the random resamples, not what they estimate.
        np.testing.assert_allclose(found["log_loss"], scores.intervals["log_loss"], atol=0.05)
    assert "tiny *" in result.stdout
    assert "north *" not in result.stdout
    text = Path("logitlab-report/report.html").read_text("utf-8")
    Page(text)
    assert "Calibration by group: site" in text
    assert "&lt;b&gt;" in text
    assert "<th>&lt;b&gt;</th>" in text


def test_the_column_of_groups_is_no_class(table, no_figures):
    """Columns of labels and groups are left out of the logits."""
    frame = pd.read_csv("t.csv").drop(columns=["code"]).assign(site=table[2] == "tiny")
    frame.to_parquet("p.parquet")
    result = run("p.parquet", "--labels", "p.parquet:y", "--group", "p.parquet:site")
    assert result.exit_code == 0, result.output
    values = json.loads(Path("logitlab-report/report.json").read_text())
    assert values["classes"] == 4
    assert list(values["groups"]["scores"]) == ["False", "True"]


def test_arrays(no_figures):
    """Groups have the shape of the labels; a group without rows has a note alone."""
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(4, 3, 10)), rng.integers(0, 3, (4, 10))
    groups = np.arange(4).repeat(10).reshape(4, 10)
    y[2] = -100
    np.savez("d.npz", z=z, y=y, g=groups, short=groups[0])
    options = ("d.npz:z", "--axis", 1, "--labels", "d.npz:y", "--ignore-index", -100)
    assert run(*options, "--group", "d.npz:g").exit_code == 0
    report = json.loads(Path("logitlab-report/report.json").read_text())
    note = "Groups of g whose rows are all ignored or excluded: '2'."
    assert note in report["input_summary"]["notes"]
    values = report["groups"]["scores"]
    assert {name: scores["rows"] for name, scores in values.items()} == dict.fromkeys("013", 10)
    message = run(*options, "--group", "d.npz:short").stderr
    assert "groups must have shape (4, 10) as the rows of d.npz:z, got (10,)" in message


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npy"])
def test_missing_group(table, suffix):
    """An empty cell is as little a group as NaN is."""
    site = table[2]
    site[7] = ""
    frame = pd.DataFrame({"site": np.where(site == "", None, site), "x": 0})
    spec = {"csv": "g.csv:site", "parquet": "g.parquet:site", "npy": "g.npy"}[suffix]
    match suffix:
        case "csv":
            frame.to_csv("g.csv", index=False)
        case "parquet":
            frame.to_parquet("g.parquet")
        case "npy":
            np.save("g.npy", site)
    result = run("t.csv:a,b,c,d", "--labels", "t.csv:y", "--group", spec)
    assert result.exit_code == 2
    assert "the group of row 7 is missing" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["t.csv:a,b,c,d", "--group", "t.csv:site"],
            "--group adds scores of each",
        ),
        (
            ["t.csv:a,b,c,d", "--labels", "t.csv:y", "--group", "t.csv:code"],
            "t.csv:code: groups must have at most 50 distinct values, got 700",
        ),
        (["t.csv:a,b,c,d", "--labels", "t.csv:y", "--group", "t.csv:w"], "NAME must be one of"),
        (
            ["t.csv:a,b", "t.csv:a,b", "--labels", "t.csv:y", "--group", "t.csv:site"],
            "--group is for one file of LOGITS, got several",
        ),
        (["--group", "t.csv:site"], "need LOGITS"),
    ],
)
def test_errors(arguments, message):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
