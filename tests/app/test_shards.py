"""Folders of shards as LOGITS, labels and groups."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from reports import assert_close, labelled, overwriting, report
from typer.testing import CliRunner

from logitlab._app.cli import app
from logitlab._app.explore.datasets import read_dataset

pytestmark = pytest.mark.slow

# Shards of unequal sizes, one without rows, whose names are in another order as text.
BOUNDS = {"part-2": (0, 100), "part-9": (100, 100), "part-10": (100, 290), "part-21": (290, 300)}


def run(*arguments):
    result = CliRunner().invoke(app, overwriting(*arguments), catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def write_npy(folder, array):
    folder.mkdir()
    for name, (start, stop) in BOUNDS.items():
        np.save(folder / f"{name}.npy", array[start:stop])


def write_parquet(folder, table):
    folder.mkdir()
    for name, (start, stop) in BOUNDS.items():
        table[start:stop].to_parquet(folder / f"{name}.parquet")


@pytest.fixture
def files(tmp_path, monkeypatch, no_figures):
    """The same rows in files and in folders; z and y are the result."""
    monkeypatch.chdir(tmp_path)
    z, y = labelled()
    table = pd.DataFrame(z, columns=list("abcd"))
    table["label"], table["part"] = np.array(list("abcd"))[y], np.arange(300) % 3
    np.save("z.npy", z)
    np.save("y.npy", y)
    table.to_parquet("t.parquet")
    write_npy(tmp_path / "z", z)
    write_npy(tmp_path / "y", y)
    write_parquet(tmp_path / "t", table)
    for name in ("_SUCCESS", ".part-2.npy.crc", "_metadata"):
        (tmp_path / "z" / name).touch()
        (tmp_path / "t" / name).touch()
    return z, y


@pytest.mark.parametrize(
    ("of_folder", "of_file"),
    [
        (["z", "--labels", "y"], ["z.npy", "--labels", "y.npy"]),
        (["z", "--labels", "y.npy"], ["z.npy", "--labels", "y.npy"]),
        (
            ["t", "--labels", "t:label", "--group", "t:part"],
            ["t.parquet", "--labels", "t.parquet:label", "--group", "t.parquet:part"],
        ),
        (["t:a,b,c,d"], ["t.parquet:a,b,c,d"]),
        (["z", "--targets", "y"], ["z.npy", "--targets", "y.npy"]),
        (["z", "t:d,c,b,a", "--labels", "y"], ["z.npy", "t.parquet:d,c,b,a", "--labels", "y.npy"]),
    ],
)
def test_report(files, tmp_path, of_folder, of_file):
    """It is that of the same rows in one file."""
    results = []
    for arguments in (of_folder, of_file):
        code, _, error = run("report", *arguments, "-o", tmp_path / "out")
        assert code == 0, error
        text = (tmp_path / "out" / "report.json").read_text("utf-8")
        results.append(json.loads(text))
        for model in results[-1].get("models", results[-1:]):
            del model["source"]
    assert_close(*results)


def test_other_commands(files):
    """They read folders too."""
    options = ["-n", "2", "--seed", "0"]
    assert run("sample", "t:a,b,c,d", *options) == run("sample", "t.parquet:a,b,c,d", *options)
    a, b = (read_dataset(name, labels, False) for name, labels in (("z", "y"), ("z.npy", "y.npy")))
    np.testing.assert_array_equal(a.row(120), b.row(120))
    np.testing.assert_array_equal(a.labels, b.labels)


def test_axis(files, tmp_path):
    """The first axis that is not that of the classes counts the rows of all shards."""
    z = np.random.default_rng(0).standard_normal((300, 3, 2)).astype(np.float32)
    np.save("image.npy", z)
    write_npy(tmp_path / "image", z)
    np.save("labels.npy", np.zeros((300, 2), int))
    arguments = ["--axis", "1", "--labels", "labels.npy"]
    a, b = (report(tmp_path, name, *arguments) for name in ("image", "image.npy"))
    assert a["input_summary"]["notes"] == b["input_summary"]["notes"]
    del a["source"], b["source"]
    assert_close(a, b)
    assert run("calibrate", "image", *arguments, "-o", "c")[0] == 0
    assert run("apply", "c", "image", "--axis", "1", "-o", "p")[0] == 0
    assert run("apply", "c", "image", "--axis", "1", "-o", "whole.npy")[0] == 0
    parts = [np.load(tmp_path / "p" / f"{name}.npy") for name in BOUNDS]
    np.testing.assert_array_equal(np.concatenate(parts), np.load("whole.npy"))
    assert parts[0].shape == (100, 3, 2)


def test_one_score(files, tmp_path):
    """One number for each row, in shards of one axis; errors name the row and the shard."""
    p = np.linspace(0, 1, 300)
    np.save("p.npy", p)
    write_npy(tmp_path / "p", p)
    arguments = ["--labels", "two.npy", "--probabilities"]
    np.save("two.npy", (p > 0.3).astype(int))
    a, b = (report(tmp_path, name, *arguments) for name in ("p", "p.npy"))
    del a["source"], b["source"]
    assert_close(a, b)
    p[120] = 2
    write_npy(tmp_path / "wrong", p)
    code, _, error = run("report", "wrong", *arguments)
    assert code == 2
    assert "wrong: row 120 (row 20 of part-10.npy): the probability" in error


def test_apply(files, tmp_path):
    """The rows of the folder are those of the file; -o writes a file for each shard."""
    assert (
        run("calibrate", "t:a,b,c,d", "--labels", "t:label", "--coverage", "0.9", "-o", "c")[0] == 0
    )
    options = ["--probabilities"]
    _, of_folder, _ = run("apply", "c", "t:a,b,c,d", *options)
    _, of_file, _ = run("apply", "c", "t.parquet:a,b,c,d", *options)
    assert of_folder == of_file
    (tmp_path / "empty").mkdir()
    for out in ("new", "empty"):
        code, text, error = run("apply", "c", "t:a,b,c,d", *options, "-o", out)
        assert not error
        assert (code, text) == (0, f"Written: {out} (300 rows)\n")
        shards = {name: pd.read_parquet(tmp_path / out / f"{name}.parquet") for name in BOUNDS}
        assert sorted(p.stem for p in (tmp_path / out).iterdir()) == sorted(BOUNDS)
        assert [len(shard) for shard in shards.values()] == [100, 0, 190, 10]
        assert len({tuple(shard.columns) for shard in shards.values()}) == 1
    run("apply", "c", "t:a,b,c,d", *options, "-o", "whole.parquet")
    whole = pd.read_parquet("whole.parquet")
    found = pd.concat([shard for shard in shards.values() if len(shard)], ignore_index=True)
    pd.testing.assert_frame_equal(found, whole)
    assert not list(tmp_path.glob(".logitlab-*"))


def test_lists(files, tmp_path):
    """A column of lists: a shard without rows has the columns and types of the others."""
    z, y = files
    table = pd.DataFrame({"z": list(z.astype(np.float32)), "label": y})
    write_parquet(tmp_path / "lists", table)
    types = pa.schema([("z", pa.list_(pa.float32())), ("label", pa.int64())])
    pa.parquet.write_table(types.empty_table(), tmp_path / "lists" / "part-9.parquet")
    fit = ["calibrate", "lists:z", "--labels", "lists:label", "--method", "temperature"]
    assert run(*fit, "-o", "c")[0] == 0
    assert run("apply", "c", "lists:z", "-o", "out", "--probabilities") == (
        0,
        "Written: out (300 rows)\n",
        "",
    )
    schemas = [pa.parquet.read_schema(tmp_path / "out" / f"{name}.parquet") for name in BOUNDS]
    assert all(schema.equals(schemas[0]) for schema in schemas)


def test_apply_npy(files, tmp_path):
    """Shards of .npy files have the probabilities; a row that is refused leaves no folder."""

    assert run("calibrate", "z", "--labels", "y", "-o", "c", "--method", "temperature")[0] == 0
    assert run("apply", "c", "z", "-o", "out")[0] == 0
    assert run("apply", "c", "z.npy", "-o", "out.npy")[0] == 0
    parts = [np.load(tmp_path / "out" / f"{name}.npy") for name in BOUNDS]
    np.testing.assert_array_equal(np.concatenate(parts), np.load("out.npy"))
    code, _, error = run("apply", "c", "z", "-o", "other", "--top", "2")
    assert code == 2
    assert "other/part-2.npy: an .npy file holds all probabilities" in error
    p = np.full((300, 4), 0.25)
    write_npy(tmp_path / "p", p)
    calibrate = ["calibrate", "p", "--probabilities", "--labels", "y", "--method", "vector"]
    assert run(*calibrate, "-o", "v")[0] == 0
    p[292] = 1
    write_npy(tmp_path / "q", p)
    code, _, error = run("apply", "v", "q", "-o", "other")
    assert code == 2
    assert "q: row 292 (row 2 of part-21.npy): probabilities must sum to 1, got 4" in error
    assert not (tmp_path / "other").exists()
    assert not list(tmp_path.glob(".logitlab-*"))


def errors():
    """Name, what is done to the folders, arguments, part of the message."""
    yield "empty", lambda f: (f / "e").mkdir(), ["report", "e"], "e: the shards of a folder"
    yield (
        "mixed types",
        lambda f: pd.DataFrame({"a": [1]}).to_parquet(f / "z" / "x.parquet"),
        ["report", "z"],
        "must be of one type, got part-2.npy and x.parquet",
    )
    yield (
        "another file",
        lambda f: (f / "z" / "a.csv").touch(),
        ["report", "z"],
        "z: the shards of a folder must be .npy or .parquet files, got a.csv",
    )
    yield (
        "a folder in it",
        lambda f: (f / "z" / "a").mkdir(),
        ["report", "z"],
        "z: the shards of a folder must be .npy or .parquet files, got the folder a",
    )
    yield (
        "other classes",
        lambda f: np.save(f / "z" / "part-10.npy", np.zeros((3, 5))),
        ["report", "z"],
        "z/part-10.npy: the shards of a folder must have the same shape of a row: part-2.npy has "
        "(4,), got (5,)",
    )
    yield (
        "another type of number",
        lambda f: np.save(f / "z" / "part-10.npy", np.zeros((3, 4), np.float32)),
        ["report", "z"],
        "z/part-10.npy: the shards of a folder must have the same type: part-2.npy has float64, "
        "got float32",
    )
    yield (
        "other columns",
        lambda f: (
            pd.read_parquet(f / "t" / "part-21.parquet")
            .rename(columns={"b": "x"})
            .to_parquet(f / "t" / "part-21.parquet")
        ),
        ["report", "t", "--labels", "t:label", "--group", "t:part"],
        "t/part-21.parquet: the shards of a folder must have the same columns: part-2.parquet has "
        "a, b, c, d, got a, x, c, d",
    )
    yield (
        "other labels",
        lambda f: np.save(f / "y" / "part-21.npy", np.array(["0"] * 10)),
        ["report", "z", "--labels", "y"],
        "y/part-21.npy: the shards of a folder must have the same type: part-2.npy has int64, "
        "got text",
    )
    yield (
        "fewer labels",
        lambda f: (f / "y" / "part-21.npy").unlink(),
        ["report", "z", "--labels", "y"],
        "y: 290 rows, z: 300 rows; they must have the same number of rows",
    )
    yield (
        "damaged",
        lambda f: (f / "z" / "part-10.npy").write_bytes(b"no"),
        ["report", "z"],
        "z/part-10.npy: not a valid .npy file",
    )
    yield (
        "no rows",
        lambda f: [np.save(f / "z" / f"{name}.npy", np.zeros((0, 4))) for name in BOUNDS],
        ["report", "z"],
        "z: logits must have a row and a class, got shape (0, 4)",
    )
    yield (
        "report into the input",
        lambda f: None,
        ["report", "z", "-o", "z"],
        "z: the output folder must not be that of an input",
    )
    yield (
        "apply into a full folder",
        lambda f: None,
        ["apply", "y", "z", "-o", "t"],
        "t: the output folder must have no other files than those of z, got ",
    )
    yield (
        "apply into the input",
        lambda f: None,
        ["apply", "y", "z", "-o", "z/out"],
        "z/out: the output folder must not be in that of an input",
    )


@pytest.mark.parametrize(
    ("change", "arguments", "message"), [pytest.param(*case[1:], id=case[0]) for case in errors()]
)
def test_errors(files, tmp_path, change, arguments, message):
    """One line that names the shard; nothing is written."""
    change(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, out, error = run(*arguments)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert sorted(tmp_path.rglob("*")) == before


def test_changed_shard(files, tmp_path):
    """A shard that was changed after the start is an error: the numbers of rows were counted."""
    from logitlab._app.io.arrays import open_logits
    from logitlab._app.io.source import UserError

    logits = open_logits("z")
    np.save(tmp_path / "z" / "part-21.npy", np.zeros((20, 4)))
    blocks = logits.read()
    assert len(next(blocks)) == 100
    with pytest.raises(UserError, match=r"z/part-21.npy: the file was changed"):
        list(blocks)
