"""`logitlab fit` and `logitlab predict`, and what every command refuses to write."""

import csv
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app
from logitlab._app.fit.features import read_table


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def frame(n=800, seed=0):
    rng = np.random.default_rng(seed)
    held = pd.DataFrame(
        {
            "income": rng.lognormal(10, 1, n),
            "age": rng.integers(18, 80, n),
            "city": rng.choice(["Oslo", "Bergen", "Tromsø"], n),
            "kind": pd.Categorical(rng.choice(list("abc"), n)),
            "member": rng.random(n) < 0.5,
        }
    )
    z = np.stack([np.log(held.income) - 10, (held.age - 40) / 20, (held.city == "Oslo") * 2.0], 1)
    held["risk"] = np.array(["low", "mid", "high"])[(z + rng.gumbel(size=z.shape)).argmax(1)]
    return held


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    frame().to_parquet(folder / "t.parquet")
    done = run("fit", folder / "t.parquet", "--target", "risk", "-o", folder / "m", "--json")
    assert done.exit_code == 0, done.output
    return folder, json.loads(done.stdout)


def test_the_model_of_a_pipeline(fitted):
    """The probabilities of scikit-learn's encoder and regression on the same rows, calibrated."""
    folder, found = fitted
    held = frame()
    rows, judged = train_test_split(
        np.arange(len(held)), test_size=0.2, random_state=0, stratify=held.risk
    )
    rows = np.sort(rows)
    encoder = make_column_transformer(
        (OneHotEncoder(), ["city", "kind"]), remainder="passthrough", sparse_threshold=0
    )
    peer = make_pipeline(encoder, LogisticRegression(solver="newton-cholesky", tol=1e-10))
    X = held.drop(columns="risk")
    peer.fit(X.iloc[rows], held.risk[rows])
    done = run("predict", folder / "m", folder / "t.parquet", "-o", folder / "p.csv")
    assert done.exit_code == 0, done.output
    ours = pd.read_csv(folder / "p.csv")
    assert list(ours.columns) == ["label", "high", "low", "mid"]
    expected = logitlab.softmax(peer.decision_function(X), temperature=found["temperature"])
    np.testing.assert_allclose(ours[["high", "low", "mid"]], expected, rtol=0, atol=1e-4)
    assert (ours.label == ours[["high", "low", "mid"]].idxmax(axis=1)).all()
    assert found["rows"] == len(judged)
    assert found["accuracy"] == pytest.approx((ours.label == held.risk)[judged].mean())


def test_what_is_written(fitted):
    """Plain tensors with JSON, a line for each coefficient, and the report."""
    folder, _ = fitted
    assert {p.name for p in (folder / "m").iterdir()} == {
        "model.safetensors",
        "coefficients.csv",
        "report.html",
        "report.json",
    }
    tensors = safetensors.numpy.load_file(folder / "m" / "model.safetensors")
    assert tensors["coef"].shape == (3, 9)
    with (folder / "m" / "coefficients.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * (9 + 1)
    assert float(rows[1]["coef"]) == tensors["coef"][0, 1]
    assert "city=Tromsø" in [row["name"] for row in rows]


def test_columns_are_matched_by_name(fitted):
    """In any order, beside others, from a folder or a .csv file; a missing one is named."""
    folder, _ = fitted
    held = frame(50, seed=1)
    held.insert(0, "note", "unused")
    (folder / "parts").mkdir()
    held[held.columns[::-1]].iloc[:20].to_parquet(folder / "parts" / "0.parquet")
    held[held.columns[::-1]].iloc[20:].to_parquet(folder / "parts" / "1.parquet")
    held.to_csv(folder / "t.csv")
    for table, out in (("parts", "a.parquet"), ("t.csv", "b.parquet")):
        done = run("predict", folder / "m", folder / table, "-o", folder / out)
        assert done.exit_code == 0, done.output
    a, b = pd.read_parquet(folder / "a.parquet"), pd.read_parquet(folder / "b.parquet")
    pd.testing.assert_frame_equal(a, b)
    held.drop(columns=["age", "city"]).to_csv(folder / "less.csv")
    done = run("predict", folder / "m", folder / "less.csv", "-o", folder / "no.csv")
    assert done.exit_code == 2
    assert "no column 'age', 'city'" in done.stderr
    assert not (folder / "no.csv").exists()


def test_text_that_the_fit_has_not_seen(fitted):
    """It is said, and counts as none of the categories."""
    folder, _ = fitted
    held = frame(5)
    held["city"] = "Paris"
    held.to_csv(folder / "paris.csv")
    done = run("predict", folder / "m", folder / "paris.csv", "-o", folder / "paris.parquet")
    assert done.exit_code == 0
    assert "column 'city': 5 rows" in done.stderr


def test_gaps(tmp_path):
    """Refused by name, or filled by median and mode; the model then fills them too."""
    held = frame()
    held.loc[5:9, "income"] = np.nan
    held.loc[7, "city"] = None
    held.to_csv(tmp_path / "gaps.csv")
    done = run("fit", tmp_path / "gaps.csv", "--target", "risk", "-o", tmp_path / "m")
    assert done.exit_code == 2
    assert "'income' is missing in 5 rows, first in row 5; fit with --impute" in done.stderr
    done = run("fit", tmp_path / "gaps.csv", "--target", "risk", "-o", tmp_path / "m", "--impute")
    assert done.exit_code == 0, done.output
    done = run("predict", tmp_path / "m", tmp_path / "gaps.csv", "-o", tmp_path / "p.csv")
    assert done.exit_code == 0, done.output
    assert pd.read_csv(tmp_path / "p.csv").notna().all(axis=None)


def test_standard_errors(tmp_path):
    """Without penalty the coefficients come with their errors, relative to base and category."""
    frame().to_csv(tmp_path / "t.csv", index=False)
    done = run("fit", tmp_path / "t.csv", "--target", "risk", "-o", tmp_path / "m", "-C", "inf")
    assert done.exit_code == 0, done.output
    rows = pd.read_csv(tmp_path / "m" / "coefficients.csv")
    assert list(rows.name[:3]) == ["income", "age", "city=Oslo"]
    assert set(rows["class"]) == {"low", "mid"}
    row = rows[(rows["class"] == "low") & (rows.name == "age")].iloc[0]
    assert row.z == pytest.approx(row.coef / row.standard_error)
    done = run("predict", tmp_path / "m", tmp_path / "t.csv", "-o", tmp_path / "p.csv")
    assert done.stderr == ""  # the category without a feature is known


def test_numbers_and_flags_as_classes(tmp_path):
    """Two classes of integers or booleans keep their kind."""
    for values, kind in (([3, 7], "int64"), ([True, False], "bool")):
        held = frame(200)
        held["risk"] = np.where(held.income > 20000, *values)
        held.loc[::9, "risk"] = values[0]
        held.to_parquet(tmp_path / "t.parquet")
        done = run("fit", tmp_path / "t.parquet", "--target", "risk", "-o", tmp_path / "m")
        assert done.exit_code == 0, done.output
        run("predict", tmp_path / "m", tmp_path / "t.parquet", "-o", tmp_path / "p.parquet")
        assert str(pd.read_parquet(tmp_path / "p.parquet").label.dtype) == kind


def test_a_class_called_label(tmp_path):
    """Every column of the predictions has a name of its own."""
    held = frame(200)
    held["risk"] = np.where(held.income > 20000, "label", "label_")
    held.to_parquet(tmp_path / "t.parquet")
    run("fit", tmp_path / "t.parquet", "--target", "risk", "-o", tmp_path / "m")
    done = run("predict", tmp_path / "m", tmp_path / "t.parquet", "-o", tmp_path / "p.parquet")
    assert done.exit_code == 0, done.output
    assert list(pd.read_parquet(tmp_path / "p.parquet")) == ["label__", "label", "label_"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(extra=1), "0.parquet: has no column 'extra', but FOLDER/1.parquet has"),
        (lambda t: t.drop(columns="age"), "1.parquet: has no column 'age', but FOLDER/0.parquet"),
        (lambda t: t.drop(columns="risk"), "1.parquet: has no column 'risk', but"),
        (lambda t: t.assign(age="old"), "1.parquet: Unable to merge: Field age has incompatible"),
    ],
)
def test_the_files_of_a_folder_have_the_same_columns(tmp_path, change, message):
    """One that differs is named, and so is the column."""
    held = frame(100)
    held.to_parquet(tmp_path / "0.parquet")
    change(held).to_parquet(tmp_path / "1.parquet")
    done = run("fit", tmp_path, "--target", "risk", "-o", tmp_path / "m")
    assert done.exit_code == 2
    assert f"logitlab: FOLDER/{message}" in done.stderr.replace(str(tmp_path), "FOLDER")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_a_type_that_holds_the_values_of_all_files(tmp_path):
    """Whole numbers in the first file, fractions in the next; folders that name a column."""
    parts = [frame(100), frame(100, seed=1)]
    parts[1]["age"] += 0.5
    for i, part in enumerate(parts):
        (tmp_path / f"year={i}").mkdir()
        part.to_parquet(tmp_path / f"year={i}" / "part.parquet")
    (tmp_path / "._hidden.parquet").write_bytes(b"no table")
    table = read_table(tmp_path).to_pandas()
    assert table.age.tolist() == [*parts[0].age, *parts[1].age]
    assert table.year.tolist() == [0] * 100 + [1] * 100


def _damaged(about, key):
    return {
        "no version": {k: v for k, v in about.items() if k != "version"},
        "other version": about | {"version": 9},
        "a list": [1, 2],
        "a class too few": about | {"classes": about["classes"][1:]},
        "half a column": about | {"columns": [{"name": "x"}]},
        "no temperature": about | {"temperature": None},
        "temperature 0": about | {"temperature": 0},
    }[key]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("no version", "a damaged model: what it says of itself is incomplete"),
        ("other version", "has version 9; known: 1"),
        ("a list", "a damaged model: what it says"),
        ("a class too few", "intercepts of shape (3,) and temperature"),
        ("half a column", "a damaged model: what it says"),
        ("no temperature", "a damaged model: what it says"),
        ("temperature 0", "and temperature 0.0 for 3 classes and 9 features"),
        (None, "a damaged model: what it says"),
    ],
)
def test_damaged_models(fitted, tmp_path, key, message):
    """One line that names the file."""
    folder, _ = fitted
    path = folder / "m" / "model.safetensors"
    with safetensors.safe_open(path, "np") as held:
        about = json.loads(held.metadata()["logitlab"])
    text = "{" if key is None else json.dumps(_damaged(about, key))
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors", {"logitlab": text})
    done = run("predict", tmp_path / "m.safetensors", folder / "t.parquet")
    assert done.exit_code == 2
    assert done.stderr.startswith(f"logitlab: {tmp_path}/m.safetensors: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "no.csv", "--target", "y"], "no.csv: no such file"),
        (["fit", "x.txt", "--target", "y"], "unknown kind of file"),
        (["fit", "t.csv", "--target", "y"], "no column 'y'; it has a, b, when, one, rare, far"),
        (["fit", "t.csv", "--target", "a"], "target 'a' holds double"),
        (["fit", "t.csv", "--target", "far"], "target 'far' is infinite in row 3"),
        (["fit", "t.csv", "--target", "one"], "target 'one' is 1 in every row"),
        (["fit", "t.csv", "--target", "rare"], "is 5 in one row only"),
        (["fit", "t.csv", "--target", "b"], "column 'when' holds date32"),
        (["fit", "t.csv", "--target", "b", "--held-out", "2"], "--held-out is 2"),
        (
            ["fit", "t.csv", "--target", "b", "--held-out", "0.999"],
            "--held-out 0.999 leaves 0 rows to fit and 20 to judge; accepted: a share",
        ),
        (["fit", "t.csv", "--target", "b", "--held-out", "0.001"], "leaves 19 rows to fit and 1 "),
        (["fit", "text.csv", "--target", "b"], "two coefficients would be called 'word=a'; rename"),
        (["fit", "named.csv", "--target", "b"], "would be called 'intercept'; rename a column"),
        (["fit", "gap.csv", "--target", "b"], "column 'a' is missing in 1 row, first in row 2;"),
        (["fit", "twice.csv", "--target", "b"], "column names must be distinct, got 'a' twice"),
        (["fit", "t.csv", "--target", "b", "-C", "-1"], "-C is -1"),
        (["fit", "t.csv", "--target", "b", "-o", "x.txt"], "x.txt: not a folder"),
        (["predict", "t.csv", "t.csv"], "is no model file"),
        (["predict", "no", "t.csv"], "no: no such file"),
        (["predict", "t.csv", "t.csv", "-o", "p.txt"], "p.txt: the file type must be one of"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, arguments, message):
    """One line on standard error and exit status 2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.txt").write_text("")
    plain = pd.DataFrame({"a": np.arange(20) / 7, "b": np.arange(20) % 2})
    plain.assign(word=["a", "b", "a", "b"] * 5, **{"word=a": 1}).to_csv("text.csv", index=False)
    plain.assign(intercept=1).to_csv("named.csv", index=False)
    plain.assign(a=plain.a.where(plain.index != 2)).to_csv("gap.csv", index=False)
    plain.set_axis(["a", "a"], axis=1).assign(b=0).to_csv("twice.csv", index=False)
    pd.DataFrame(
        {
            "a": np.arange(20) / 7,
            "b": np.arange(20) % 2,
            "when": "2024-01-01",
            "one": 1,
            "rare": [5] + [6] * 19,
            "far": [0.0, 1.0, 0.0, np.inf] * 5,
        }
    ).to_csv("t.csv", index=False)
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith("logitlab: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Logits, a table, and a model of it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((60, 3))
    np.save("z.npy", z)
    held = pd.DataFrame(z, columns=list("abc"))
    held.to_csv("z.csv", index=False)
    held["y"] = z.argmax(1)
    held.to_csv("coefficients.csv", index=False)
    (tmp_path / "parts").mkdir()
    held.to_parquet("parts/0.parquet")
    done = run("fit", "parts", "--target", "y", "-o", "model")
    assert done.exit_code == 0, done.output
    held[["y"]].to_csv("tokens.csv", index=False)
    (tmp_path / "link.csv").symlink_to("z.csv")
    (tmp_path / "folder.csv").mkdir()
    return tmp_path


def standing(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("predict model z.csv -o z.csv", "z.csv: the output must not be an input file"),
        ("predict model link.csv -o z.csv", "z.csv: the output must not be an input file"),
        ("predict model z.csv -o link.csv", "link.csv: the output must not be an input file"),
        (
            "predict model parts -o parts/0.parquet",
            "parts/0.parquet: the output must not be an input file",
        ),
        ("sample z.csv -o z.csv", "z.csv: the output must not be an input file"),
        (
            "fit coefficients.csv --target y -o .",
            "coefficients.csv: the output must not be an input file",
        ),
        (
            "report z.npy --targets tokens.csv -o .",
            "tokens.csv: the output must not be an input file",
        ),
        ("check z.csv --html z.csv", "z.csv: the output must not be an input file"),
        ("predict model z.csv -o none/p.csv", "none: no such folder"),
        ("predict model z.csv -o z.npy/p.csv", "z.npy: not a folder"),
        (
            "predict model z.csv -o folder.csv",
            "folder.csv: the output must be a file, got a folder",
        ),
        ("sample z.csv -o none/p.csv", "none: no such folder"),
        ("report z.npy -o z.csv/out", "z.csv: not a folder"),
        ("check no.such:module --html none/p.html", "none: no such folder"),
    ],
)
def test_refused_before_the_work(files, arguments, message):
    """One line on standard error, status 2, every file as it was."""
    before = standing(files)
    done = run(*arguments.split())
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert standing(files) == before


@pytest.mark.skipif(sys.platform != "linux", reason="writes to /dev/full")
@pytest.mark.parametrize(
    "arguments",
    [
        "--version",
        "report z.npy",
        "report z.npy --json",
        "sample z.npy",
        "sample z.npy --json",
        "explore --no-browser",
        "check logitlab:softmax --law order --dtype float32",
    ],
)
def test_a_full_disk(files, arguments):
    """One line for standard output that takes no more."""
    program = [sys.executable, "-c", "from logitlab._app import main; main()", *arguments.split()]
    with open("/dev/full", "w") as full:
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.stderr == "logitlab: standard output: No space left on device\n"
    assert done.returncode == 2
