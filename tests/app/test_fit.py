"""`logitlab fit` and `logitlab predict`, and the output files of every command."""

import csv
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from reports import overwriting
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app
from logitlab._app.fit.reading import read_table

pytestmark = pytest.mark.slow


def run(*arguments):
    return CliRunner().invoke(app, overwriting(*arguments), catch_exceptions=False)


def frame(n=800, seed=0):
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "income": rng.lognormal(10, 1, n),
            "age": rng.integers(18, 80, n),
            "city": rng.choice(["Oslo", "Bergen", "Tromsø"], n),
            "kind": pd.Categorical(rng.choice(list("abc"), n)),
            "member": rng.random(n) < 0.5,
        }
    )
    z = np.stack([np.log(data.income) - 10, (data.age - 40) / 20, (data.city == "Oslo") * 2.0], 1)
    data["risk"] = np.array(["low", "mid", "high"])[(z + rng.gumbel(size=z.shape)).argmax(1)]
    return data


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    frame().to_parquet(folder / "t.parquet")
    result = run("fit", folder / "t.parquet", "--target", "risk", "-o", folder / "m", "--json")
    assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout)


def test_model_equals_scikit_learn(fitted):
    """The probabilities of scikit-learn's encoder and regression on the same rows, calibrated."""
    folder, report = fitted
    data = frame()
    fit_rows, held_out_rows = train_test_split(
        np.arange(len(data)), test_size=0.2, random_state=0, stratify=data.risk
    )
    fit_rows = np.sort(fit_rows)
    encoder = make_column_transformer(
        (OneHotEncoder(), ["city", "kind"]), remainder="passthrough", sparse_threshold=0
    )
    peer = make_pipeline(encoder, LogisticRegression(solver="newton-cholesky", tol=1e-10))
    X = data.drop(columns="risk")
    peer.fit(X.iloc[fit_rows], data.risk[fit_rows])
    result = run("predict", folder / "m", folder / "t.parquet", "-o", folder / "p.csv")
    assert result.exit_code == 0, result.output
    ours = pd.read_csv(folder / "p.csv")
    assert list(ours.columns) == ["label", "high", "low", "mid"]
    expected = logitlab.softmax(peer.decision_function(X), temperature=report["temperature"])
    np.testing.assert_allclose(ours[["high", "low", "mid"]], expected, rtol=0, atol=1e-4)
    assert (ours.label == ours[["high", "low", "mid"]].idxmax(axis=1)).all()
    assert report["rows"] == len(held_out_rows)
    assert report["accuracy"] == pytest.approx((ours.label == data.risk)[held_out_rows].mean())


def test_output_files(fitted):
    """A safetensors file with JSON metadata, a line per coefficient, and the report."""
    folder, _ = fitted
    assert {p.name for p in (folder / "m").iterdir()} == {
        "model.safetensors",
        "columns.csv",
        "coefficients.csv",
        "report.html",
        "report.json",
    }
    tensors = safetensors.numpy.load_file(folder / "m" / "model.safetensors")
    assert tensors["coef"].shape == (3, 9)
    with (folder / "m" / "coefficients.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (9 + 1)
    assert float(rows[1]["coef"]) == tensors["coef"][1, 1] - tensors["coef"][0, 1]
    assert all(float(row["lower"]) < float(row["coef"]) < float(row["upper"]) for row in rows)
    assert "city=Tromsø" in [row["name"] for row in rows]


def test_columns_are_matched_by_name(fitted):
    """In any order, beside other columns, from a folder or a .csv file."""
    folder, _ = fitted
    data = frame(50, seed=1)
    data.insert(0, "note", "unused")
    (folder / "parts").mkdir()
    data[data.columns[::-1]].iloc[:20].to_parquet(folder / "parts" / "0.parquet")
    data[data.columns[::-1]].iloc[20:].to_parquet(folder / "parts" / "1.parquet")
    data.to_csv(folder / "t.csv")
    for table, out in (("parts", "a.parquet"), ("t.csv", "b.parquet")):
        result = run("predict", folder / "m", folder / table, "-o", folder / out)
        assert result.exit_code == 0, result.output
    a, b = pd.read_parquet(folder / "a.parquet"), pd.read_parquet(folder / "b.parquet")
    pd.testing.assert_frame_equal(a, b)
    data.drop(columns=["age", "city"]).to_csv(folder / "less.csv")
    result = run("predict", folder / "m", folder / "less.csv", "-o", folder / "no.csv")
    assert result.exit_code == 2
    assert "must have all columns of the fit; missing: 'age', 'city'" in result.stderr
    assert not (folder / "no.csv").exists()


def test_unknown_categories(fitted):
    """They get a message, and zeros in all features of the column."""
    folder, _ = fitted
    data = frame(5)
    data["city"] = "Paris"
    data.to_csv(folder / "paris.csv")
    result = run("predict", folder / "m", folder / "paris.csv", "-o", folder / "paris.parquet")
    assert result.exit_code == 0
    assert "column 'city': unknown levels in 5 rows, encoded as zeros" in result.stderr


def test_missing_values(tmp_path):
    """The median, or the most frequent text; with many missing values an indicator, or a level."""
    data = frame()
    data.loc[5:9, "income"] = np.nan
    data.loc[7, "city"] = None
    data.loc[::3, "age"] = np.nan
    data.loc[::4, "kind"] = None
    data.to_csv(tmp_path / "missing.csv")
    result = run("fit", tmp_path / "missing.csv", "--target", "risk", "-o", tmp_path / "m")
    assert result.exit_code == 0, result.output
    names = set(pd.read_csv(tmp_path / "m" / "coefficients.csv").name)
    assert {"income", "age", "age=(missing)", "kind=(missing)"} < names
    assert not {"income=(missing)", "city=(missing)"} & names
    result = run("predict", tmp_path / "m", tmp_path / "missing.csv", "-o", tmp_path / "p.csv")
    assert result.exit_code == 0, result.output
    assert pd.read_csv(tmp_path / "p.csv").notna().all(axis=None)


def test_standard_errors(tmp_path):
    """Without penalty: relative to the base class and to the first category of a column."""
    frame().to_csv(tmp_path / "t.csv", index=False)
    result = run("fit", tmp_path / "t.csv", "--target", "risk", "-o", tmp_path / "m", "-C", "inf")
    assert result.exit_code == 0, result.output
    rows = pd.read_csv(tmp_path / "m" / "coefficients.csv")
    assert list(rows.name[:4]) == ["income", "age", "member", "city=Oslo"]
    assert set(rows["class"]) == {"low", "mid"}
    row = rows[(rows["class"] == "low") & (rows.name == "age")].iloc[0]
    assert row.z == pytest.approx(row.coef / row.standard_error)
    result = run("predict", tmp_path / "m", tmp_path / "t.csv", "-o", tmp_path / "p.csv")
    assert result.stderr == ""  # the first category has no feature, but is known


def test_integer_and_boolean_classes(tmp_path):
    """The predictions have the type of the target."""
    for values, kind in (([3, 7], "int64"), ([True, False], "bool")):
        data = frame(200)
        data["risk"] = np.where(data.income > 20000, *values)
        data.loc[::9, "risk"] = values[0]
        data.to_parquet(tmp_path / "t.parquet")
        result = run("fit", tmp_path / "t.parquet", "--target", "risk", "-o", tmp_path / "m")
        assert result.exit_code == 0, result.output
        run("predict", tmp_path / "m", tmp_path / "t.parquet", "-o", tmp_path / "p.parquet")
        assert str(pd.read_parquet(tmp_path / "p.parquet").label.dtype) == kind


def test_class_named_label(tmp_path):
    """The names of the columns of the predictions are distinct."""
    data = frame(200)
    data["risk"] = np.where(data.income > 20000, "label", "label_")
    data.to_parquet(tmp_path / "t.parquet")
    run("fit", tmp_path / "t.parquet", "--target", "risk", "-o", tmp_path / "m")
    result = run("predict", tmp_path / "m", tmp_path / "t.parquet", "-o", tmp_path / "p.parquet")
    assert result.exit_code == 0, result.output
    assert list(pd.read_parquet(tmp_path / "p.parquet")) == ["label__", "label", "label_"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.assign(extra=1),
            "0.parquet: column 'extra' is missing, but FOLDER/1.parquet has it",
        ),
        (
            lambda t: t.drop(columns="age"),
            "1.parquet: column 'age' is missing, but FOLDER/0.parquet has",
        ),
        (lambda t: t.drop(columns="risk"), "1.parquet: column 'risk' is missing, but"),
        (lambda t: t.assign(age="old"), "1.parquet: Unable to merge: Field age has incompatible"),
    ],
)
def test_files_of_a_folder_must_have_the_same_columns(tmp_path, change, message):
    """The error names the file and the column."""
    data = frame(100)
    data.to_parquet(tmp_path / "0.parquet")
    change(data).to_parquet(tmp_path / "1.parquet")
    result = run("fit", tmp_path, "--target", "risk", "-o", tmp_path / "m")
    assert result.exit_code == 2
    assert f"logitlab: FOLDER/{message}" in result.stderr.replace(str(tmp_path), "FOLDER")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_common_type_of_the_files_of_a_folder(tmp_path):
    """Integers in the first file, fractions in the second; a column from names of folders."""
    parts = [frame(100), frame(100, seed=1)]
    parts[1]["age"] += 0.5
    for i, part in enumerate(parts):
        (tmp_path / f"year={i}").mkdir()
        part.to_parquet(tmp_path / f"year={i}" / "part.parquet")
    (tmp_path / "._hidden.parquet").write_bytes(b"no table")
    table = read_table(tmp_path).to_pandas()
    assert table.age.tolist() == [*parts[0].age, *parts[1].age]
    assert table.year.tolist() == [0] * 100 + [1] * 100


def invalid_metadata(metadata, key):
    return {
        "no version": {k: v for k, v in metadata.items() if k != "version"},
        "unknown version": metadata | {"version": 9},
        "a list": [1, 2],
        "missing class": metadata | {"classes": metadata["classes"][1:]},
        "incomplete column": metadata | {"columns": [{"name": "x"}]},
        "no temperature": metadata | {"temperature": None},
        "temperature 0": metadata | {"temperature": 0},
    }[key]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("no version", "the metadata are incomplete"),
        ("unknown version", "the version of the file must be 1, got 9"),
        ("a list", "the metadata are incomplete"),
        ("missing class", "the coefficients must have a row for each class, or one for two"),
        ("incomplete column", "invalid model: its metadata"),
        ("no temperature", "invalid model: its metadata"),
        ("temperature 0", "temperature must be positive and finite, got 0.0"),
        (None, "the metadata are incomplete"),
    ],
)
def test_invalid_models(fitted, tmp_path, key, message):
    """One line on standard error that names the file."""
    folder, _ = fitted
    path = folder / "m" / "model.safetensors"
    with safetensors.safe_open(path, "np") as file:
        metadata = json.loads(file.metadata()["logitlab"])
    text = "{" if key is None else json.dumps(invalid_metadata(metadata, key))
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors", {"logitlab": text})
    result = run("predict", tmp_path / "m.safetensors", folder / "t.parquet")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"logitlab: {tmp_path}/m.safetensors: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_a_calibrator_is_no_model(fitted, tmp_path):
    """The files have one format, and each reader names the other kind."""
    folder, _ = fitted
    logitlab.TemperatureScaling().fit(np.eye(2), [0, 1]).save(tmp_path / "c.safetensors")
    result = run("predict", tmp_path / "c.safetensors", folder / "t.parquet")
    assert result.exit_code == 2
    assert "must be a model of logitlab fit or of a regression, got a file of Temp" in result.stderr
    with pytest.raises(ValueError, match=r"the kind must be one of .*, got 'TableModel'"):
        logitlab.load_calibrator(folder / "m" / "model.safetensors")


def test_a_regression_on_arrays_is_no_model_of_tables(fitted, tmp_path):
    """It does not know the types of columns."""
    folder, _ = fitted
    logitlab.SoftmaxRegression().fit([[0.0], [1.0]], [0, 1]).save(tmp_path / "r.safetensors")
    result = run("predict", tmp_path / "r.safetensors", folder / "t.parquet")
    assert result.exit_code == 2
    assert result.stderr == (
        f"logitlab: {tmp_path}/r.safetensors: must be a model of logitlab fit, got a "
        "SoftmaxRegression, which predicts for arrays; read it with logitlab.load_model\n"
    )


def test_features_without_information(tmp_path):
    """The labels are in the table: they are in the order of the classes."""
    rng = np.random.default_rng(1)
    x = {f"x{i}": rng.normal(size=300) for i in range(8)}
    data = pd.DataFrame(x).assign(y=rng.integers(0, 2, 300))
    data.to_csv(tmp_path / "t.csv", index=False)
    result = run("fit", tmp_path / "t.csv", "--target", "y", "-o", tmp_path / "m", "-C", "inf")
    text = " ".join(result.stdout.split())
    assert "smaller log-loss than any temperature" in text
    assert "order of the columns" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "no.csv", "--target", "y"], "no.csv: no such file"),
        (["fit", "x.txt", "--target", "y"], "x.txt: must be a .csv file, a .parquet file or a"),
        (["fit", "t.csv", "--target", "y"], "must be one of a, b, when, one, rare, far, got 'y'"),
        (
            ["fit", "t.csv", "--target", "a"],
            "'a' must contain integers, booleans or text, got double",
        ),
        (["fit", "t.csv", "--target", "far"], "target 'far' must be finite, got inf in row 3"),
        (
            ["fit", "t.csv", "--target", "one"],
            "'one' must have at least 2 classes, got 1 in every row",
        ),
        (["fit", "t.csv", "--target", "rare"], "2 rows of each class, got 1 of class 5 (2 classes"),
        (["fit", "dropped.csv", "--target", "b"], "must have a column besides the target 'b' that"),
        (
            ["fit", "t.csv", "--target", "b", "--held-out", "2"],
            "--held-out must be between 0 and 1, got 2\n",
        ),
        (
            ["fit", "t.csv", "--target", "b", "--held-out", "0.999"],
            "--held-out must leave at least 2 rows, one per class, to fit and to hold out, got "
            "0.999: 0 to fit and 20 held out",
        ),
        (
            ["fit", "t.csv", "--target", "b", "--held-out", "0.001"],
            "got 0.001: 19 to fit and 1 held",
        ),
        (
            ["fit", "text.csv", "--target", "b"],
            "names must be distinct, got 'word=a' twice; rename",
        ),
        (["fit", "named.csv", "--target", "b"], "must be distinct, got 'intercept' twice; rename"),
        (["fit", "twice.csv", "--target", "b"], "column names must be distinct, got 'a' twice"),
        (["fit", "t.csv", "--target", "b", "-C", "-1"], "-C must be > 0, got -1"),
        (["fit", "t.csv", "--target", "b", "-o", "x.txt"], "x.txt: not a folder"),
        (
            ["predict", "t.csv", "t.csv"],
            "t.csv: MODEL must be model.safetensors, or the folder that logitlab fit wrote",
        ),
        (["predict", "no", "t.csv"], "no: no such file"),
        (["predict", "t.csv", "t.csv", "-o", "p.txt"], "p.txt: the file type must be one of"),
    ],
)
def test_errors(tmp_path, monkeypatch, arguments, message):
    """One line on standard error, exit status 2."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.txt").write_text("")
    plain = pd.DataFrame({"a": np.arange(20) / 7, "b": np.arange(20) % 2})
    plain.assign(word=["a", "b", "a", "b"] * 5, **{"word=a": plain.a}).to_csv(
        "text.csv", index=False
    )
    plain.assign(intercept=plain.a).to_csv("named.csv", index=False)
    plain.assign(a="same").to_csv("dropped.csv", index=False)
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
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("logitlab: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with logits, a table, and a model fitted on it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((60, 3))
    np.save("z.npy", z)
    data = pd.DataFrame(z, columns=list("abc"))
    data.to_csv("z.csv", index=False)
    data["y"] = z.argmax(1)
    data.to_csv("coefficients.csv", index=False)
    (tmp_path / "parts").mkdir()
    data.to_parquet("parts/0.parquet")
    result = run("fit", "parts", "--target", "y", "-o", "model")
    assert result.exit_code == 0, result.output
    data[["y"]].to_csv("tokens.csv", index=False)
    (tmp_path / "link.csv").symlink_to("z.csv")
    (tmp_path / "folder.csv").mkdir()
    return tmp_path


def contents(folder):
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
def test_output_is_checked_first(files, arguments, message):
    """One line on standard error, exit status 2, no file changed."""
    before = contents(files)
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert contents(files) == before


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
def test_full_disk(files, arguments):
    """One line on standard error if standard output cannot be written."""
    program = [sys.executable, "-c", "from logitlab._app import main; main()", *arguments.split()]
    with open("/dev/full", "w") as full:
        result = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.stderr == "logitlab: standard output: No space left on device\n"
    assert result.returncode == 2


def labelled_table(path, labels, **columns):
    """Write a table with a numeric feature and the labels, repeated."""
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal(30 * len(labels)), "y": list(labels) * 30} | columns
    pd.DataFrame(data).to_csv(path, index=False)


@pytest.mark.parametrize(
    "labels",
    [
        ["01", "1", "2"],
        ["+1", "1"],
        ["True", "False"],
        ["TRUE", "True", "false"],
        ["18446744073709551615", "18446744073709551614", "99999999999999999999"],
        ["1152921504606846976", "1152921504606846977"],
        ["0", "1", "2"],
        ["1.0", "2.0"],
    ],
)
def test_labels_of_a_csv_file_come_back_as_written(tmp_path, labels):
    """In the header of the predictions and in their first column; none are merged."""
    labelled_table(tmp_path / "t.csv", labels)
    result = run("fit", tmp_path / "t.csv", "--target", "y", "-o", tmp_path / "m")
    assert result.exit_code == 0, result.output
    result = run("predict", tmp_path / "m", tmp_path / "t.csv", "-o", tmp_path / "p.csv")
    assert result.exit_code == 0, result.output
    predicted = pd.read_csv(tmp_path / "p.csv", dtype=str)
    assert sorted(predicted.columns[1:]) == sorted(labels)
    assert set(predicted.label) <= set(labels)


@pytest.mark.parametrize("dtype", ["bool", "uint64"])
def test_labels_of_a_parquet_file_keep_their_type(tmp_path, dtype):
    """In a .parquet file of predictions; in a .csv file they are spelled as in the header."""
    labels = np.array([1, 0] if dtype == "bool" else [2**64 - 1, 2**64 - 2], dtype)
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"x": rng.standard_normal(60), "y": np.tile(labels, 30)})
    data.to_parquet(tmp_path / "t.parquet")
    run("fit", tmp_path / "t.parquet", "--target", "y", "-o", tmp_path / "m")
    for name in ("p.parquet", "p.csv"):
        result = run("predict", tmp_path / "m", tmp_path / "t.parquet", "-o", tmp_path / name)
        assert result.exit_code == 0, result.output
    table = pd.read_parquet(tmp_path / "p.parquet")
    assert table.label.dtype == labels.dtype
    assert list(table.columns[1:]) == sorted(map(str, labels.tolist()))
    text = pd.read_csv(tmp_path / "p.csv", dtype=str)
    assert set(text.label) <= set(text.columns[1:])


def test_large_integers_in_a_column(tmp_path):
    """Integers that float64 does not represent are text: here an identifier."""
    labelled_table(tmp_path / "t.csv", ["a", "b"], number=2**60 + np.arange(60))
    pd.read_csv(tmp_path / "t.csv").to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        result = run("fit", tmp_path / name, "--target", "y", "-o", tmp_path / "m")
        assert result.exit_code == 0, result.output
        columns = pd.read_csv(tmp_path / "m" / "columns.csv", index_col="column")
        assert columns.used_as["number"] == "dropped: an identifier"


def test_report_of_the_fit(fitted):
    """Importance and odds ratios in the page; the importance in report.json too."""
    folder, _ = fitted
    page = (folder / "m" / "report.html").read_text("utf-8")
    for heading in ("Columns that matter", "Coefficients", "Columns of the table"):
        assert f"<h2>{heading}</h2>" in page
    assert "low against high" in page
    assert "95 % credible intervals" in page
    report = json.loads((folder / "m" / "report.json").read_text("utf-8"))
    importance = {row["column"]: row for row in report["fit"]["importance"]}
    assert set(importance) == {"income", "age", "city", "kind", "member"}
    assert all(row["low"] < row["increase"] < row["high"] for row in importance.values())


def test_ratios_of_a_unit():
    """exp of the coefficient times 1 for levels, times the standard deviation for numbers."""
    from scipy import sparse

    from logitlab._app.fit.coefficients import Coefficients, _units

    x = np.array([[0.0, 3.0], [1.0, 5.0], [1.0, 7.0]])
    for matrix in (x, sparse.csr_matrix(x)):
        np.testing.assert_allclose(_units(matrix), [1, x[:, 1].std()])
    values = Coefficients("a", ["b"], ["l", "n", "intercept"], np.ones((1, 3)), "", {}, _units(x))
    np.testing.assert_allclose(values.ratios(values.coef), np.exp([[1, x[:, 1].std()]]))
