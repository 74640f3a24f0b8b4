"""`logitlab calibrate` and `logitlab apply`: a saved calibrator gives the library's results."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from reports import overwriting
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app
from logitlab._app.report.evaluation import random_halves

pytestmark = pytest.mark.slow

NAMES = ["cat", "dog", "=1+1"]


def run(*arguments):
    return CliRunner().invoke(app, overwriting(*arguments), catch_exceptions=False)


def rows(n, k=3, seed=0):
    """Overconfident logits: the true temperature is 2."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 3, (n, k)).astype(np.float32)
    return z, (z / 2 + rng.gumbel(size=z.shape)).argmax(1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with labelled logits and a calibrator of them."""
    monkeypatch.chdir(tmp_path)
    z, y = rows(800)
    np.savez("data.npz", z=z, y=y)
    np.save("new.npy", rows(300, seed=1)[0])
    pd.DataFrame(z, columns=NAMES).assign(label=np.array(NAMES)[y]).to_csv("named.csv", index=False)
    pd.DataFrame(rows(300, seed=1)[0], columns=NAMES).to_parquet("new.parquet")
    return tmp_path


def calibrate(*options, logits="data.npz:z", labels="data.npz:y"):
    result = run("calibrate", logits, "--labels", labels, "-o", "out", *options)
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize(
    "method", ["temperature", "vector", "matrix", "isotonic", "vector_isotonic"]
)
def test_the_saved_calibrator_is_that_of_the_library(folder, method):
    calibrate("--method", method)
    kind = {
        "temperature": logitlab.TemperatureScaling,
        "vector": logitlab.VectorScaling,
        "matrix": logitlab.MatrixScaling,
        "isotonic": logitlab.IsotonicCalibration,
        "vector_isotonic": lambda: logitlab.IsotonicCalibration(logitlab.VectorScaling()),
    }[method]
    expected = kind().fit(*rows(800))
    loaded = logitlab.load_calibrator("out/calibrator.safetensors")
    z = np.load("new.npy")
    np.testing.assert_allclose(loaded.predict_proba(z), expected.predict_proba(z), atol=1e-6)
    assert run("apply", "out", "new.npy", "-o", "p.npy").exit_code == 0
    p = np.load("p.npy")
    assert p.dtype == np.float32
    np.testing.assert_allclose(p, loaded.predict_proba(z), rtol=1e-5, atol=1e-30)
    assert {path.name for path in Path("out").iterdir()} == {
        "calibrator.safetensors",
        "report.html",
        "report.json",
    }


def test_automatic_selection(folder):
    """A temperature explains these logits: the more complex calibrators are not better."""
    result = calibrate("--json")
    details = json.loads(result.stdout)
    assert details["method"] == "temperature"
    assert details["rows"] == 800
    assert details["cross_fitted"]["log_loss"] < details["uncalibrated"]["log_loss"]
    z = rows(4000)[0]
    y = (z + np.random.default_rng(0).gumbel(size=z.shape)).argmax(1)
    np.savez("calibrated.npz", z=z, y=y)
    calibrate(logits="calibrated.npz:z", labels="calibrated.npz:y")
    assert logitlab.load_calibrator("out/calibrator.safetensors").temperature_ == 1


def test_scores_of_isotonic_calibration(folder):
    """They are those of the library, cross-fitted on the folds of the report."""
    details = json.loads(calibrate("--method", "isotonic", "--json").stdout)
    z, y = rows(800)
    calibrated = logitlab.cross_fit(logitlab.IsotonicCalibration(), z, y)
    expected = {
        "log_loss": logitlab.cross_entropy(calibrated, y),
        "brier_score": logitlab.brier_score(calibrated, y),
        "calibration_error": logitlab.calibration_error(calibrated, y),
        "accuracy": logitlab.accuracy(z, y),
    }
    assert details["cross_fitted"] == pytest.approx(expected, rel=1e-4)
    np.savez("one.npz", z=z[:1], y=y[:1])
    result = run("calibrate", "one.npz:z", "--labels", "one.npz:y", "--method", "isotonic")
    assert result.exit_code == 2
    assert (
        "one.npz:z: the file must have at least 2 rows with a distribution, got 1" in result.stderr
    )


def test_selection_on_other_rows_than_the_rules(folder):
    """With rules, the calibrator is selected and fitted by half of the rows."""
    z, y = rows(4000)
    y = np.where(y == 0, 1, y)  # a bias that vector scaling corrects
    calibrated_half = random_halves(len(y)) == 1
    shuffled = y.copy()
    shuffled[~calibrated_half] = np.random.default_rng(0).permutation(y[~calibrated_half])
    calibrators = []
    for labels in (y, shuffled):
        np.savez("data.npz", z=z, y=labels)
        calibrate("--coverage", 0.9)
        calibrators.append(logitlab.load_calibrator("out/calibrator.safetensors"))
    expected = logitlab.select_calibrator(z[calibrated_half], y[calibrated_half]).calibrator
    for calibrator in calibrators:
        assert type(calibrator) is type(expected) is not logitlab.TemperatureScaling
        np.testing.assert_allclose(calibrator.predict_proba(z), expected.predict_proba(z))


def test_names_of_classes(folder):
    """Names come from the columns, go into the file, and into the results."""
    calibrate(logits="named.csv", labels="named.csv:label")
    z = rows(300, seed=1)[0]
    calibrator = logitlab.load_calibrator("out/calibrator.safetensors")
    p, predicted = calibrator.predict_proba(z), calibrator.predict(z)
    assert run("apply", "out", "new.npy", "-o", "o.parquet", "--probabilities").exit_code == 0
    table = pq.read_table("o.parquet").to_pandas()
    columns = ["predicted", "confidence", *(f"probability_{name}" for name in NAMES)]
    assert table.columns.tolist() == columns
    assert table["predicted"].tolist() == np.array(NAMES)[predicted].tolist()
    np.testing.assert_allclose(table[columns[2:]], p, rtol=1e-6)
    np.testing.assert_allclose(table["confidence"], p.max(1), rtol=1e-6)
    result = run("apply", "out/calibrator.safetensors", "new.parquet", "--top", 2)
    printed = pd.read_csv(pd.io.common.StringIO(result.stdout))
    assert printed.columns.tolist()[2:] == ["top_1", "probability_1", "top_2", "probability_2"]
    order = np.argsort(-p, axis=1)[:, :2]
    assert set(printed["top_1"]) <= {"cat", "dog", "'=1+1"}  # no formula of a spreadsheet
    second = np.take_along_axis(p, order, 1)[:, 1]
    np.testing.assert_allclose(printed["probability_2"], second, rtol=1e-6)
    pd.DataFrame(z, columns=NAMES[::-1]).to_csv("other.csv", index=False)
    result = run("apply", "out", "other.csv")
    assert result.exit_code == 2
    assert "other.csv: column 0 must be 'cat' as in out/calibrator.safetensors" in result.stderr


def test_probabilities_as_input(folder):
    """A calibrator of probabilities takes probabilities."""
    z, y = rows(800)
    np.savez("p.npz", p=logitlab.softmax(z.astype(float)), y=y)
    calibrate("--probabilities", logits="p.npz:p", labels="p.npz:y")
    t = logitlab.load_calibrator("out/calibrator.safetensors").temperature_
    assert t == pytest.approx(logitlab.TemperatureScaling().fit(z, y).temperature_, rel=1e-4)
    np.save("q.npy", logitlab.softmax(z[:5].astype(float)))
    assert run("apply", "out", "q.npy", "-o", "r.npy").exit_code == 0
    np.testing.assert_allclose(np.load("r.npy"), logitlab.softmax(z[:5] / t), atol=1e-4)
    result = run("apply", "out", "new.npy")
    assert result.exit_code == 2
    assert result.stderr.endswith("out/calibrator.safetensors was fitted to probabilities\n")


def test_rows_without_a_distribution(folder):
    calibrate("--method", "temperature")
    z = np.load("new.npy")[:4].reshape(2, 2, 3).astype(ml_dtypes.bfloat16).astype(np.float16)
    z[0, 1], z[1, 0, 2] = np.nan, -np.inf
    z[1, 1] = -np.inf
    np.save("z.npy", z)
    assert run("apply", "out", "z.npy", "-o", "o.csv", "--top", 3).exit_code == 0
    table = pd.read_csv("o.csv")
    assert table["predicted"].isna().tolist() == [False, True, False, True]
    assert table["probability_3"].isna().tolist() == [False, True, False, True]
    assert table["probability_3"][2] == 0
    assert run("apply", "out", "z.npy", "-o", "o.npy").exit_code == 0
    assert np.load("o.npy").shape == z.shape
    calibrate("--method", "matrix")
    np.save("z.npy", z[1:])
    result = run("apply", "out", "z.npy", "-o", "m.csv")
    assert (result.exit_code, Path("m.csv").exists()) == (2, False)
    assert result.stderr.startswith("logitlab: z.npy: row 0 holds an infinite logit")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["calibrate", "data.npz:z"], "a calibrator is fitted to the true classes; give --labels"),
        (["apply", "none", "new.npy"], "none: no such file"),
        (
            ["apply", "data.npz", "new.npy"],
            "data.npz: CALIBRATOR must be calibrator.safetensors, or the",
        ),
        (["apply", "out", "new.npy", "--top", "0"], "--top must be >= 1, got 0"),
        (["apply", "out", "new.npy", "--top", "1", "--probabilities"], "give one of --top and"),
        (["apply", "out", "new.npy", "-o", "o.txt"], "o.txt: the file type must be one of"),
        (["apply", "out", "new.npy", "-o", "new.npy"], "new.npy: the output must not be an input"),
        (["apply", "out", "new.npy", "-o", "o.npy", "--top", "1"], "o.npy: an .npy file holds all"),
        (["apply", "out", "wide.npy"], "wide.npy: must have the 3 classes of out/calibrator"),
    ],
)
def test_errors(folder, arguments, message):
    calibrate()
    np.save("wide.npy", np.zeros((2, 4)))
    before = sorted(path.name for path in folder.rglob("*"))
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"logitlab: {message}")
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_an_unfitted_method_is_an_error(folder):
    """All labels have the largest logit: no positive temperature is the best."""
    np.savez("all.npz", z=np.eye(3), y=np.arange(3))
    result = run("calibrate", "all.npz:z", "--labels", "all.npz:y", "--method", "temperature")
    assert result.exit_code == 2
    assert "all.npz:z: --method temperature: the true class has the largest logit" in result.stderr
    assert not Path("logitlab-calibrator").exists()


def test_rules_of_decisions(folder):
    """They are fitted on other rows than the calibrator, saved, and applied."""
    z, y = rows(6000)
    np.savez("data.npz", z=2 * z, y=y)
    result = calibrate("--max-error", 0.3, "--coverage", 0.9)
    assert "with an error of at most 0.3, with probability 0.95" in result.stdout
    assert "Prediction sets with coverage 0.9" in result.stdout
    new, new_y = rows(6000, seed=2)
    np.save("new.npy", 2 * new)
    assert run("apply", "out", "new.npy", "-o", "o.parquet").exit_code == 0
    table = pq.read_table("o.parquet").to_pandas()
    accepted = table["decision"].notna()
    assert 0.1 < accepted.mean() < 1
    decided = table["decision"][accepted].astype(int)
    assert (decided == table["predicted"][accepted]).all()
    assert np.mean(decided != new_y[accepted]) < 0.3
    assert table["confidence"][accepted].min() > table["confidence"][~accepted].max() - 1e-6
    sets = table["prediction_set"]
    covered = [label in members for label, members in zip(new_y, sets, strict=True)]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)
    printed = run("apply", "out", "new.npy").stdout.splitlines()
    assert printed[0] == '"predicted","confidence","decision","prediction_set"'
    assert printed[1].endswith(f'"{table["prediction_set"][0].tolist()}"')
    # The calibrator of half of the rows is another one than that of all.
    with_rules = logitlab.load_calibrator("out/calibrator.safetensors").temperature_
    calibrate()
    assert logitlab.load_calibrator("out/calibrator.safetensors").temperature_ != with_rules


def test_sets_of_any_names_in_csv(folder):
    """A set is a JSON list, whatever separators, quotes or escapes its names have."""
    names = ["a;b", 'c", "d\x1b', "=ö"]
    z, y = rows(800)
    pd.DataFrame(z, columns=names).assign(y=np.array(names)[y]).to_parquet("z.parquet")
    calibrate("--coverage", 0.9, logits="z.parquet", labels="z.parquet:y")
    new = rows(40, seed=1)[0]
    new[3] = np.nan
    pd.DataFrame(new, columns=names).to_parquet("new.parquet")
    for file in ("o.csv", "o.parquet"):
        assert run("apply", "out", "new.parquet", "-o", file).exit_code == 0
    text = Path("o.csv").read_text("utf-8")
    assert "\x1b" not in text
    sets = pd.read_csv("o.csv")["prediction_set"]
    expected = pq.read_table("o.parquet")["prediction_set"].to_pylist()
    assert sets.isna().tolist() == [i == 3 for i in range(40)]
    assert expected[3] is None
    found = [None if i == 3 else json.loads(cell) for i, cell in enumerate(sets)]
    assert found == expected
    assert {name for cell in found if cell for name in cell} == set(names)


def test_a_rule_that_accepts_no_row(folder):
    result = calibrate("--max-error", 0.001)
    assert "no row is accepted" in result.stdout
    assert run("apply", "out", "new.npy", "-o", "o.csv").exit_code == 0
    assert pd.read_csv("o.csv")["decision"].isna().all()


def test_damaged_rules(folder):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    calibrate("--max-error", 0.5)
    path = "out/calibrator.safetensors"
    with safe_open(path, "np") as file:
        metadata = json.loads(file.metadata()["logitlab"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    damaged = [{**metadata["rules"]["max_error"], "threshold": t} for t in (True, "x", None, [1])]
    damaged += [{**damaged[0], "threshold": 10**400}, {**damaged[0], "threshold": 0.5, "delta": -1}]
    for rules in ([], *({"max_error": values} for values in damaged)):
        metadata["rules"] = rules
        save_file(arrays, path, {"logitlab": json.dumps(metadata)})
        result = run("apply", "out", "new.npy")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"logitlab: {path}: the decision rules are damaged\n"


@pytest.mark.parametrize("option", ["--max-error", "--coverage"])
@pytest.mark.parametrize("value", ["0", "1", "nan"])
def test_rules_out_of_range(folder, option, value):
    result = run("calibrate", "data.npz:z", "--labels", "data.npz:y", option, value)
    assert result.exit_code == 2
    assert result.stderr == f"logitlab: {option} must be between 0 and 1, got {value}\n"


DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "wideresnet-16-4-cifar-10.npz"


@pytest.mark.skipif(not DATA.is_file(), reason="needs ../shared/data")
def test_real_predictions(tmp_path, monkeypatch):
    """Calibrated on one half: the promises hold on the other half."""
    monkeypatch.chdir(tmp_path)
    with np.load(DATA) as file:
        p, y = file["predictions"].astype(float), file["ground_truth"]
    order = np.random.default_rng(0).permutation(len(y))
    first, second = order[: len(y) // 2], order[len(y) // 2 :]
    np.savez("first.npz", p=p[first], y=y[first])
    np.save("second.npy", p[second])
    options = ("--probabilities", "--max-error", 0.02, "--coverage", 0.95)
    calibrate(*options, logits="first.npz:p", labels="first.npz:y")
    assert run("apply", "out", "second.npy", "-o", "o.parquet", "--probabilities").exit_code == 0
    table = pq.read_table("o.parquet").to_pandas()
    labels, q = y[second], table.filter(like="probability_").to_numpy()
    assert logitlab.cross_entropy(np.log(q), labels) < logitlab.cross_entropy(np.log(p), y) - 0.1
    assert logitlab.calibration_error(np.log(q), labels) < 0.02
    accepted = table["decision"].notna()
    assert accepted.mean() > 0.6
    assert np.mean(table["decision"][accepted] != labels[accepted]) < 0.02
    sets = table["prediction_set"]
    covered = [label in members for label, members in zip(labels, sets, strict=True)]
    assert np.mean(covered) > 0.95 - 0.012  # three standard errors of two halves


def test_a_label_of_probability_0(folder):
    """No method can be selected by or fitted to an infinite log-loss; the row is named."""
    p = logitlab.softmax(rows(200)[0].astype(float)).round(1)
    p /= p.sum(1, keepdims=True)
    np.savez("p.npz", p=p, y=p.argmin(1))
    arguments = ("--labels", "p.npz:y", "--probabilities", "--json")
    for method in ("auto", "temperature", "isotonic"):
        for options in ([], ["--coverage", 0.9]):
            result = run("calibrate", "p.npz:p", *arguments, "--method", method, *options)
            assert result.exit_code == 2
            assert result.stderr.startswith("logitlab: p.npz:p: ")
            assert " row " in result.stderr
            assert not Path("logitlab-calibrator").exists()


def test_half_types_have_the_predictions_of_the_calibrator(folder):
    """Probabilities of few digits are tied more often than calibrated logits."""
    z, y = rows(4000, 10)
    half = z.astype(np.float16)
    np.savez("half.npz", z=half, y=y)
    calibrate("--method", "vector", logits="half.npz:z", labels="half.npz:y")
    assert run("apply", "out", "half.npz:z", "-o", "o.parquet").exit_code == 0
    calibrator = logitlab.load_calibrator("out/calibrator.safetensors")
    predicted = pq.read_table("o.parquet")["predicted"].to_numpy()
    np.testing.assert_array_equal(predicted, calibrator.predict(half.astype(float)))


def test_too_few_rows(folder):
    z, y = rows(3)
    np.savez("few.npz", z=z, y=y)
    result = run("calibrate", "few.npz:z", "--labels", "few.npz:y", "--coverage", 0.9)
    assert result.exit_code == 2
    assert "each half of the rows, for the calibrator and for the rules, must have" in result.stderr
    np.savez("some.npz", z=z.repeat(4, 0), y=y.repeat(4))
    result = calibrate("--coverage", 0.9, logits="some.npz:z", labels="some.npz:y")
    assert "all classes: too few rows for this coverage" in result.stdout
