"""`logitlab report`: figures, files, and one clear line for every mistake."""

import dataclasses
import html.parser
import io
import json
import os
import pickle
import re
import subprocess
import sys

import ml_dtypes
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import safetensors.numpy
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app
from logitlab._app.io.outputs import write_files
from logitlab._app.io.source import Logits, UserError, in_memory
from logitlab._app.report import figures
from logitlab._app.report.analysis import analyse
from logitlab._app.report.format import figure, p_value, percent, signed, span
from logitlab._app.report.json import as_json, finite
from logitlab._app.report.language_model import TEMPERATURES, OverTime, nucleus_sizes
from logitlab._app.report.verdict import perplexity_in_words, verdict
from logitlab._rows import blocks
from logitlab.resampling import Interval

KEYS = {
    "rows",
    "classes",
    "dtype",
    "naive_overflow_rows",
    "mean_entropy",
    "accuracy",
    "log_loss",
    "brier",
    "ece",
    "temperature",
    "calibrated",
    "judged",
    "text",
}


@pytest.fixture
def drawn():
    """For a test that looks at pictures."""


@pytest.fixture(autouse=True)
def _no_pictures(request, monkeypatch):
    """They take most of the time, and most tests are about figures."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(figures, "svg", lambda draw, **_: "<svg></svg>")


def run(*arguments, cwd=None):
    return CliRunner().invoke(app, ["report", *map(str, arguments)], catch_exceptions=False)


def report(folder, *arguments):
    done = run(*arguments, "-o", folder / "out")
    assert done.exit_code == 0, done.output
    found = json.loads((folder / "out" / "report.json").read_text("utf-8"))
    assert found.keys() >= KEYS
    return found


def labelled(n=300, k=4, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, k)) * 4
    y = np.array([rng.choice(k, p=p) for p in logitlab.softmax(z, temperature=1.5)])
    return z, y


class Page(html.parser.HTMLParser):
    """Tags that close, identifiers, and everything that a browser would fetch."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.fetched = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset") and not value.startswith("#"):
                self.fetched.append(value)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_published_figures(predictions, tmp_path):
    """Real predictions: the verdict, and every calibrator cross-fitted, with intervals."""
    path, p, y = predictions
    found = report(
        tmp_path, f"{path}:predictions", "--probabilities", "--labels", f"{path}:ground_truth"
    )
    few = path.stem.endswith("-10")
    after = found["calibrated"]
    assert found["rows"] == 10000
    assert found["dtype"] == "float32"
    assert found["naive_overflow_rows"] is None
    assert found["ece"] == pytest.approx(0.0537 if few else 0.0581, abs=5e-5)
    assert found["log_loss"] == pytest.approx(0.3782 if few else 0.9564, abs=5e-5)
    assert found["temperature"] == pytest.approx(2.053 if few else 1.111, abs=5e-4)
    assert after["log_loss"] == pytest.approx(0.2746 if few else 0.9476, abs=5e-4)
    assert after["accuracy"] == found["accuracy"]
    if few:
        assert found["accuracy"] == 0.9109
        assert found["brier"] == pytest.approx(0.1439, abs=5e-5)
        assert after["ece"] < 0.0115
    judged, z = found["judged"], logitlab.logits(p)
    says = "says 96.5 %, is right 91.1 %. Temperature 2.05 repairs it"
    assert not few or judged["verdict"].startswith(f"Over-confident: {says}")
    assert few or "does not repair it (calibration error 0.0581 → 0.04" in judged["verdict"]
    assert judged["calibrators"].keys() == {"temperature", "vector", "matrix"}
    vector = logitlab.cross_fit(logitlab.VectorScaling(), z.astype(float), y)
    loss = judged["calibrators"]["vector"]["log_loss"]
    assert loss == pytest.approx(logitlab.cross_entropy(vector, y), rel=1e-6)
    test = logitlab.calibration_test(z, y)
    assert judged["scores"]["ece_expected_by_chance"] == pytest.approx(
        test.expected_error, rel=0.05
    )
    interval = logitlab.bootstrap(z, y)["log_loss"]
    assert judged["scores"]["intervals"]["log_loss"] == pytest.approx(interval[1:], rel=1e-6)
    worst = judged["most_confident_mistakes"][0]
    wrong = np.flatnonzero(p.argmax(1) != y)
    assert worst["row"] == wrong[p[wrong].max(1).argmax()]
    assert worst["true"] == y[worst["row"]]
    pair = judged["most_common_confusions"][0]
    taken = (y == pair["true"]) & (p.argmax(1) == pair["predicted"])
    assert pair["rows"] == taken.sum()
    assert judged["classes_predicted"]["rows"] == np.bincount(p.argmax(1)).tolist()
    assert judged["isotonic_ece"] < 0.02


def test_embedded_data(drawn, tmp_path):
    """With no argument, on handwritten digits; the page stands alone."""
    found = report(tmp_path)
    assert (found["rows"], found["classes"]) == (899, 10)
    assert found["accuracy"] > 0.9
    assert found["calibrated"]["log_loss"] < found["log_loss"]
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.fetched == []
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"url\((?!#)|@import|#0[1-5]0[1-5]0[1-5]", text)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]


def test_figures_are_the_library_s(tmp_path):
    """The same numbers as from the functions, without labels and with them."""
    z, y = labelled()
    np.save(tmp_path / "z.npy", z)
    np.save(tmp_path / "y.npy", y)
    plain = report(tmp_path, tmp_path / "z.npy")
    assert plain["mean_entropy"] == pytest.approx(logitlab.entropy(z).mean(), rel=1e-12)
    assert plain["accuracy"] is None
    assert plain["calibrated"]["ece"] is None
    found = report(tmp_path, tmp_path / "z.npy", "--labels", tmp_path / "y.npy")
    honest = logitlab.cross_fit(logitlab.TemperatureScaling(), z, y)
    for logits, scores in ((z, found), (honest, found["calibrated"])):
        assert scores["accuracy"] == logitlab.accuracy(logits, y)
        assert scores["brier"] == pytest.approx(logitlab.brier_score(logits, y), rel=1e-12)
        assert scores["ece"] == pytest.approx(logitlab.calibration_error(logits, y), rel=1e-9)
    fitted = logitlab.TemperatureScaling().fit(z, y).temperature_
    assert found["temperature"] == pytest.approx(fitted, rel=1e-9)


@pytest.mark.parametrize(
    ("rows", "dtype", "failed"),
    [
        ([[0, 1], [89, 0], [-104, -105], [88, 88.5]], np.float32, 3),
        ([[0, 1], [89, 0], [-104, -105], [710, 0], [-746, -747]], np.float64, 2),
        ([[0, 1], [11.5, 0], [-20, -21]], np.float16, 2),
        ([[0, 1], [800, 0]], np.int64, 1),
    ],
)
def test_rows_where_the_naive_formula_fails(tmp_path, rows, dtype, failed):
    """Overflow to infinity, and sums of nothing but zeros, in the type of the file."""
    np.save(tmp_path / "z.npy", np.array(rows, dtype))
    assert report(tmp_path, tmp_path / "z.npy")["naive_overflow_rows"] == failed


def test_special_rows(tmp_path):
    """NaN and empty rows are counted and left out; no figure is spoilt by them."""
    z, y = labelled()
    special = [[np.nan, 0, 0, 0], [-np.inf] * 4, [np.inf, 0, 0, 0], [0, -np.inf, 0, 0]]
    np.savez(tmp_path / "f.npz", z=np.vstack([special, z]), y=np.concatenate([[0, 0, 0, 0], y]))
    found = report(tmp_path, f"{tmp_path}/f.npz:z", "--labels", f"{tmp_path}/f.npz:y")
    assert (found["nan_rows"], found["empty_rows"]) == (1, 1)
    assert (found["plus_inf_rows"], found["minus_inf_rows"]) == (1, 1)
    assert found["judged_rows"] == len(z) + 2
    assert np.isfinite(found["log_loss"])


def test_zero_probabilities_are_counted(tmp_path):
    """Exact zeros are -inf, and the report says how many."""
    np.save(tmp_path / "p.npy", [[0.5, 0.5, 0], [1, 0, 0], [0.2, 0.3, 0.5]])
    found = report(tmp_path, tmp_path / "p.npy", "--probabilities")
    assert found["zero_probabilities"] == 3
    assert found["naive_overflow_rows"] is None
    page = tmp_path / "out" / "report.html"
    assert "3 of them are exactly zero" in page.read_text("utf-8")
    np.save(tmp_path / "p.npy", [[0.5, 0.5], [0.25, 0.75]])
    report(tmp_path, tmp_path / "p.npy", "--probabilities")
    assert "exactly zero" not in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("z", "options", "said"),
    [
        ([[0.25, 0.75], [0.5, 0.5]], [], True),
        ([[0.25, 0.75], [0.5, 0.5]], ["--probabilities"], False),
        ([[0.25, 0.75], [0.5, 0.6]], [], False),
    ],
)
@pytest.mark.parametrize("models", [1, 2])
def test_logits_that_look_like_probabilities(tmp_path, z, options, said, models):
    """It is said on the terminal, on the page and in the JSON."""
    np.save(tmp_path / "z.npy", z)
    np.save(tmp_path / "y.npy", [1, 0])
    given = [tmp_path / "z.npy"] * models
    out = tmp_path / "out"
    done = run(*given, "--labels", tmp_path / "y.npy", *options, "-o", out)
    assert done.exit_code == 0, done.output
    hint = "these look like probabilities. If they are, run again with --probabilities;"
    assert (hint in done.stdout) == said
    assert (hint in (out / "report.html").read_text("utf-8")) == said
    found = json.loads((out / "report.json").read_text("utf-8"))
    for model in found["models"] if models > 1 else [found]:
        assert model["looks_like_probabilities"] == said


def test_huge_losses_are_written_by_their_power_of_ten(tmp_path):
    """On the terminal and on the page."""
    z, y = labelled()
    np.save(tmp_path / "z.npy", z * 1e304)
    np.save(tmp_path / "y.npy", y)
    for kind in ("--labels", "--targets"):
        arguments = [tmp_path / "z.npy", kind, tmp_path / "y.npy", "-o", tmp_path / "out"]
        text = run(*arguments).stdout + (tmp_path / "out" / "report.html").read_text("utf-8")
        assert text.count("e+30") > 2
        assert not re.search(r"\d{20}", text)


def test_separable_logits_have_no_temperature(tmp_path):
    """The scores stand, and the reason is given."""
    np.save(tmp_path / "z.npy", np.eye(3) * 5)
    np.save(tmp_path / "y.npy", np.arange(3))
    found = report(tmp_path, tmp_path / "z.npy", "--labels", tmp_path / "y.npy")
    assert found["accuracy"] == 1
    assert found["temperature"] is None
    assert "the label ranks first" in found["no_temperature_because"]


@pytest.mark.parametrize(
    ("z", "y"),
    [
        ([[1.0, 2.0]], [0]),
        ([[1.0, 2.0], [2.0, 1.0]], [0, 1]),
        ([[np.nan, 2.0], [1.0, np.nan], [2.0, 1.0], [0.0, 1.0]], [0, 0, 1, 1]),
    ],
)
def test_very_few_rows(z, y):
    """The scores stand; what cannot be fitted on one half and judged on the other says so."""
    judged = analyse(in_memory("z", np.array(z)), np.array(y)).judged
    assert judged.before.curve.counts.sum() == np.isfinite(z).all(1).sum()
    if len(z) != 2:
        assert "too few rows that have a distribution" in judged.failures["temperature"]
        assert judged.failures["vector"] == judged.failures["temperature"]
    assert verdict(judged)[1].endswith(".")


def test_a_refused_row_has_its_number_in_the_file():
    """Not that among the rows of its half, nor of those that have a distribution."""
    z, y = labelled()
    z[0] = np.nan
    z[200, y[200]] = -np.inf
    failures = analyse(in_memory("z", z), y).judged.failures
    assert all(why.startswith("row 200 ") and " z" not in why for why in failures.values())
    assert len(failures) == 3


def test_infinite_log_loss_is_valid_json(tmp_path):
    """JSON has no infinity."""
    np.save(tmp_path / "z.npy", [[0.0, -np.inf], [1.0, 2.0]])
    np.save(tmp_path / "y.npy", [1, 1])
    found = report(tmp_path, tmp_path / "z.npy", "--labels", tmp_path / "y.npy")
    assert found["log_loss"] is None
    text = (tmp_path / "out" / "report.json").read_text("utf-8")
    assert "Infinity" not in text
    assert "NaN" not in text


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, ml_dtypes.bfloat16])
def test_every_kind_of_file(tmp_path, dtype):
    """The same figures from every format that can hold the type."""
    z, y = labelled()
    z = (z * 3).astype(dtype)
    files = {}
    if dtype is not ml_dtypes.bfloat16:
        np.save(tmp_path / "z.npy", z)
        np.savez(tmp_path / "z.npz", z=z)
        files = {"z.npy": "", "z.npz": ""}
        columns = {f"c{k}": z[:, k] for k in range(4)}
        pa.parquet.write_table(pa.table({**columns, "y": y}), tmp_path / "z.parquet")
        files["z.parquet"] = ":c0,c1,c2,c3"
        lists = pa.array(list(z), pa.list_(pa.from_numpy_dtype(z.dtype)))
        pa.parquet.write_table(pa.table({"z": lists}), tmp_path / "lists.parquet")
        files["lists.parquet"] = ":z"
    safetensors.numpy.save_file({"z": z, "y": y}, tmp_path / "z.safetensors")
    files["z.safetensors"] = ":z"
    np.save(tmp_path / "y.npy", y)
    found = [
        report(tmp_path, f"{tmp_path / f}{name}", "--labels", tmp_path / "y.npy")
        for f, name in files.items()
    ]
    for each in found:
        each.pop("source")
        assert each["dtype"] == np.dtype(dtype).name
        assert each == found[0]


def test_tables(tmp_path):
    """Columns are classes; a column of labels is left out; an index column too; names count."""
    z, y = labelled()
    names = np.array(["cat", "dog", "eel", "fox"])
    head = ",cat,dog,eel,fox,truth\n"
    lines = [
        f"{i},{','.join(map(repr, r.tolist()))},{n}\n"
        for i, (r, n) in enumerate(zip(z, names[y], strict=True))
    ]
    (tmp_path / "t.csv").write_text(head + "".join(lines), "utf-8")
    found = report(tmp_path, tmp_path / "t.csv", "--labels", f"{tmp_path}/t.csv:truth")
    assert found["classes"] == 4
    assert found["accuracy"] == logitlab.accuracy(z, y)
    assert "cat" in (tmp_path / "out" / "report.html").read_text("utf-8")
    # No header: numbers all the way.
    np.savetxt(tmp_path / "plain.csv", z, delimiter=",")
    np.savetxt(tmp_path / "y.csv", y, fmt="%d")
    plain = report(tmp_path, tmp_path / "plain.csv", "--labels", tmp_path / "y.csv")
    assert plain["rows"] == len(z)
    assert plain["accuracy"] == found["accuracy"]


def test_the_verdict_says_what_is_there():
    """Honest, over-confident, under-confident, wrong here and there."""
    rng = np.random.default_rng(5)
    z = rng.standard_normal((3000, 3)) * 2
    y = (z + rng.gumbel(size=z.shape)).argmax(1)
    source = in_memory("z", z)

    def of(logits):
        return verdict(analyse(in_memory("z", logits), y).judged)

    assert verdict(analyse(source, y).judged)[0] == "Honest"
    assert of(3 * z)[0] == "Over-confident"
    assert "repairs it" in of(3 * z)[1]
    assert of(z / 3)[0] == "Under-confident"
    # Sure rows are too sure and unsure ones not sure enough.
    bent = np.where(np.abs(z).max(axis=1, keepdims=True) > 2.5, 3 * z, z / 3)
    assert of(bent)[0] == "Unevenly calibrated"


def test_repaired_only_where_the_error_falls():
    """A p-value that grew while the error did too is no repair."""
    z, y = labelled(n=3000)
    judged = analyse(in_memory("z", 3 * z), y).judged
    assert "repairs it" in verdict(judged)[1]
    worse = dict(judged.before.intervals)
    worse["calibration_error"] = Interval(0.9, 0.8, 1.0)
    repaired = judged.calibrated["temperature"]
    calibrated = {"temperature": dataclasses.replace(repaired, intervals=worse)}
    says = verdict(dataclasses.replace(judged, calibrated=calibrated))[1]
    assert "does not repair it" in says


def test_figures_in_words():
    """Signs, small p-values, and no sentence that loses its comma."""
    assert [p_value(k / 1001) for k in (1, 2)] == ["p < 0.001", "p = 0.002"]
    shares = [percent(x, 2) for x in (1.0, 0.99999, 0.9999, 0)]
    assert shares == ["100.00 %", "> 99.99 %", "99.99 %", "0.00 %"]
    assert [signed(x) for x in (-0.00001, -0.5, 0.25)] == ["0.0000", "−0.5000", "+0.2500"]
    assert span(Interval(0, -1e-9, 1e-9)) == "0.0000 to 0.0000"
    assert span(Interval(3e305, -2e305, 4e305)) == "−2e+305 to 4e+305"
    extremes = (999_999, 1e6, -1.23456e305, np.inf, -np.inf, np.nan)
    assert [figure(x) for x in extremes] == [
        "999999.0000",
        "1e+06",
        "−1.235e+305",
        "∞",
        "−∞",
        "–",
    ]
    sentence = perplexity_in_words(3.0, 12345)[1]
    assert "of 12\N{NARROW NO-BREAK SPACE}345 classes. Whether that is right, labels" in sentence


def test_nothing_is_called_cross_fitted_where_nothing_was_fitted(tmp_path):
    """Neither on the terminal nor on the page."""
    np.save(tmp_path / "z.npy", [[1.0, 2.0]])
    np.save(tmp_path / "y.npy", [1])
    done = run(tmp_path / "z.npy", "--labels", tmp_path / "y.npy", "-o", tmp_path / "out")
    assert done.exit_code == 0
    assert "too few rows" in done.stdout
    assert "cross-fitted" not in done.stdout
    assert "cross-fitted" not in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_files_are_written_all_or_none(tmp_path, monkeypatch):
    """What stood there before stays, should the last one fail."""
    write_files({"a": b"old"}, tmp_path)
    replace = os.replace

    def fails(source, target):
        if target == tmp_path / "c":
            raise OSError("disk full")
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fails)
        with pytest.raises(OSError, match="disk full"):
            write_files({"a": b"new", "b": b"new", "c": b"new"}, tmp_path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="b: is a folder"):
        write_files({"a": b"new", "b": b"new"}, tmp_path)
    assert (tmp_path / "a").read_bytes() == b"old"
    write_files({"a": b"new", "c": b"new"}, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_text(tmp_path):
    """Token log-probabilities, ranks and the perplexity with its interval."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((500, 50)).astype(np.float32) * 3
    tokens = (z + rng.gumbel(size=z.shape)).argmax(1)
    np.savez(tmp_path / "f.npz", z=z, t=tokens)
    text = report(tmp_path, f"{tmp_path}/f.npz:z", "--targets", f"{tmp_path}/f.npz:t")["text"]
    log_p = logitlab.log_softmax(z.astype(float))[np.arange(500), tokens]
    value, low, high = text["perplexity"]
    assert value == pytest.approx(np.exp(-log_p.mean()), rel=1e-9)
    assert low < value < high
    rows = (tmp_path / "out" / "tokens.csv").read_text().split()
    assert rows[0] == "row,token,log_probability,rank"
    found = np.array([row.split(",") for row in rows[1:]], float)
    np.testing.assert_allclose(found[:, 2], log_p, rtol=1e-9)
    np.testing.assert_array_equal(found[:, 3], 1 + (z > z[np.arange(500), tokens][:, None]).sum(1))
    assert text["most_surprising"][0]["row"] == log_p.argmin()
    assert "Perplexity" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_nucleus_and_time():
    """The fewest classes that hold p; the mean of each window of steps."""
    z = np.log(np.array([[0.5, 0.3, 0.15, 0.05], [0.97, 0.01, 0.01, 0.01]]))
    sizes = nucleus_sizes(z)
    assert sizes[:, TEMPERATURES.index(1.0)].tolist() == [[3, 1], [3, 1]]
    assert (np.diff(sizes, axis=1) >= 0).all()
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((5, 300))
    kept = logitlab.truncate(wide, top_p=0.9)
    assert (
        nucleus_sizes(wide)[0, TEMPERATURES.index(1.0)].tolist()
        == np.isfinite(kept).sum(1).tolist()
    )
    over = OverTime((2, 400, 7))
    values = rng.random(800)
    over.add(np.arange(500), values[:500])
    over.add(np.arange(500, 800), values[500:])
    steps, means = over.curve()
    np.testing.assert_allclose(means, values.reshape(2, 200, 2).mean(axis=(0, 2)))
    np.testing.assert_allclose(steps, np.arange(200) * 2 + 0.5)


def test_the_nucleus_is_that_of_rows_drawn_at_random(tmp_path):
    """Not of the first ones; its median is the same on the page and in the JSON."""
    z = np.zeros((1000, 11))
    z[:200, 0] = 50
    z[:, 6:] -= 100 * (np.arange(1000) % 2)[:, None]
    np.save(tmp_path / "z.npy", z)
    found = report(tmp_path, tmp_path / "z.npy")["median_nucleus_size"]["0.9"]["1"]
    assert found > 5
    np.save(tmp_path / "z.npy", z[200:202])
    found = report(tmp_path, tmp_path / "z.npy")["median_nucleus_size"]["0.9"]["1"]
    assert found == 8
    np.save(tmp_path / "z.npy", z[[0, 201]])
    found = report(tmp_path, tmp_path / "z.npy")["median_nucleus_size"]["0.9"]["1"]
    assert found == 3.5
    assert "<tr><th>1</th><td>3.5</td><td>6</td>" in (tmp_path / "out/report.html").read_text()


def test_quantiles_show_what_they_resolve(tmp_path):
    """Of 20 000 classes a perplexity is within one unit of its last digit."""
    z = np.random.default_rng(0).standard_normal((50, 20_000)) * np.linspace(5, 20, 50)[:, None]
    np.save(tmp_path / "z.npy", z)
    report(tmp_path, tmp_path / "z.npy")
    text = (tmp_path / "out" / "report.html").read_text()
    cells = re.search(r"<tr><th>perplexity \(classes\)</th>(.*?)</tr>", text)[1]
    low = re.findall(r"<td>(.*?)</td>", cells)[1]
    sizes = np.sort(np.exp(logitlab.entropy(z)))
    unit = 10.0 ** -len(low.partition(".")[2])
    assert unit > 0.0001
    assert sizes[2] - unit <= float(low) <= sizes[3] + unit


def test_class_wise_pictures_say_what_they_show(drawn, tmp_path):
    """Of every class there is no confidence and no accuracy."""
    z, y = labelled()
    np.save(tmp_path / "z.npy", z)
    np.save(tmp_path / "y.npy", y)
    report(tmp_path, tmp_path / "z.npy", "--labels", tmp_path / "y.npy")
    text = (tmp_path / "out" / "report.html").read_text()
    assert text.count(">how often it came true<") == text.count(">probability of a class<") == 2
    gaps = text[text.index("Confidence less accuracy, of") :]
    ticks = re.findall(r">([^<]* %)<", gaps[: gaps.index("</svg>")])
    assert any(tick.startswith("−") for tick in ticks)
    assert not any(tick.startswith("-") for tick in ticks)


def test_several_models(drawn, tmp_path):
    """Side by side, with the library's paired differences."""
    z, y = labelled()
    better = z + 0.5 * np.eye(4)[y]
    np.save(tmp_path / "a.npy", z)
    np.save(tmp_path / "b.npy", better)
    np.save(tmp_path / "y.npy", y)
    files = [tmp_path / "a.npy", tmp_path / "b.npy"]
    done = run(*files, "--labels", tmp_path / "y.npy", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "b.npy has the smallest log-loss" in done.stdout
    found = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert [m["accuracy"] for m in found["models"]] == [
        logitlab.accuracy(z, y),
        logitlab.accuracy(better, y),
    ]
    expected = logitlab.bootstrap(better, y, other=z)
    assert found["differences_from_first"][0] is None
    for name, interval in expected.items():
        assert found["differences_from_first"][1][name] == pytest.approx(interval, abs=1e-9)
    page = Page((tmp_path / "out" / "report.html").read_text("utf-8"))
    assert page.fetched == []
    assert len(page.ids) == len(set(page.ids))


def test_parts_are_the_whole():
    """Block by block, the figures are those of all rows at once, to rounding."""
    z, y = labelled(n=2000)
    whole = finite(as_json(analyse(in_memory("z", z), y)))
    parts = Logits("z", z.shape, z.dtype, None, lambda: iter(np.array_split(z, 97)))
    again = finite(as_json(analyse(parts, y)))
    assert again.pop("laws").keys() == whole.pop("laws").keys()

    def same(a, b, path):
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            for key in a:
                same(a[key], b[key], f"{path}.{key}")
        elif isinstance(a, list):
            for i, pair in enumerate(zip(a, b, strict=True)):
                same(*pair, f"{path}[{i}]")
        elif isinstance(a, float):
            assert a == pytest.approx(b, rel=1e-9, abs=1e-12), path
        else:
            assert a == b, path

    same(whole, again, "")


def test_json_for_a_script(tmp_path):
    """--json prints what is in the file, and nothing else."""
    done = run("--json", "-o", tmp_path / "out")
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "report.json").read_text())


def mistakes():
    yield "missing file", ["none.npy"], "none.npy: no such file"
    yield "unknown kind", ["notes.txt"], "unknown kind of file"
    yield "which array", ["two.npz"], "holds z, y; say which"
    yield "unknown name", ["two.npz:w"], "no 'w' inside; it holds z, y"
    yield "name in .npy", ["z.npy:z"], "holds one array"
    yield "labels too short", ["z.npy", "--labels", "short.npy"], "labels have shape (2,)"
    yield (
        "labels out of range",
        ["z.npy", "--labels", "high.npy"],
        "label 2 in row 1; accepted: 0 to 1, as z.npy has 2 classes",
    )
    yield (
        "labels of fewer classes",
        ["z.npy", "one.npy", "--labels", "three.npy"],
        "as one.npy has 1",
    )
    yield "labels with a gap", ["z.npy", "--labels", "gap.npy"], "gap.npy: no label in row 1"
    yield "labels with a blank line", ["z.npy", "--labels", "gap.csv"], "gap.csv: line 3 is blank"
    yield "a folder", ["."], ".: is a folder; accepted: a file, .npy"
    yield "no class", ["thin.npy"], "thin.npy: has shape (3, 0); needed: a row of at least one"
    yield "a name twice", ["twice.csv"], "twice.csv: two columns are called 'a'"
    yield "labels by a name twice", ["z.npy", "--labels", "twice.csv:a"], "called 'a'"
    yield "a name twice in .parquet", ["twice.parquet"], "two columns are called 'a'"
    yield "labels are floats", ["z.npy", "--labels", "z.npy"], "labels are integers or names"
    yield "pickle", ["pickled.npy"], "holds pickled objects"
    yield "text", ["text.npy"], "holds text, not numbers"
    yield "text in a table", ["words.csv"], "column 'b' holds string, not numbers"
    yield "one dimension", ["flat.npy"], "logits are rows by classes"
    yield "no rows", ["empty.npy"], "needed: a row of at least one class"
    yield "no sum", ["z.npy", "--probabilities"], "row 0 sums to 0, not to 1"
    yield "negative", ["minus.npy", "--probabilities"], "row 1 holds a negative number"
    yield "not an array file", ["broken.npy"], "broken.npy: is no .npy file"
    yield "broken archive", ["broken.npz"], "broken.npz: is no .npz file"
    yield "broken parquet", ["broken.parquet"], "broken.parquet"
    yield "broken safetensors", ["broken.safetensors"], "broken.safetensors"
    yield "nothing but NaN", ["nan.npy"], "no row holds a distribution"
    yield "labels alone", ["--labels", "high.npy"], "need LOGITS"
    yield "labels and targets", ["z.npy", "--labels", "high.npy", "--targets", "high.npy"], "one of"
    yield "models without labels", ["z.npy", "minus.npy"], "give --labels"
    yield "models of other rows", ["z.npy", "minus.npy", "--labels", "three.npy"], "the same rows"
    yield "out is a file", ["z.npy", "-o", "z.npy"], "is not a folder"


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
    np.save("flat.npy", [0.0, 1.0])
    np.save("empty.npy", np.empty((0, 2)))
    np.save("text.npy", np.array([["a", "b"]]))
    np.save("minus.npy", [[0.5, 0.5], [-0.5, 1.5]])
    np.save("nan.npy", np.full((2, 2), np.nan))
    np.save("pickled.npy", np.array([[{}, {}]], object), allow_pickle=True)
    for name in ("broken.npy", "broken.npz", "broken.parquet", "broken.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps("broken"))
    (tmp_path / "notes.txt").write_text("1,2\n")
    (tmp_path / "words.csv").write_text("a,b\n1,x\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"), [pytest.param(a, m, id=name) for name, a, m in mistakes()]
)
def test_mistakes(files, arguments, message):
    """One line on standard error, status 2, nothing written."""
    before = sorted(files.rglob("*"))
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert sorted(files.rglob("*")) == before


def test_a_failed_run_leaves_the_old_report(files):
    """Outputs are renamed into place; a mistake touches nothing."""
    assert run("z.npy").exit_code == 0
    before = (files / "logitlab-report" / "report.html").read_bytes()
    assert run("pickled.npy").exit_code == 2
    assert (files / "logitlab-report" / "report.html").read_bytes() == before


def test_the_command(tmp_path):
    """The installed program, in a pipe: help, and no progress bar."""
    program = [sys.executable, "-c", "from logitlab._app import main; main()"]
    helped = subprocess.run([*program, "report", "--help"], capture_output=True, text=True)
    assert "--labels" in helped.stdout
    done = subprocess.run(
        [*program, "report"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stderr == ""
    assert "log-loss" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """3 GB of float32 logits within 1 GB, the interpreter and its libraries included."""
    z = np.lib.format.open_memmap(
        tmp_path / "z.npy", mode="w+", dtype=np.float32, shape=(805_306, 1000)
    )
    z[::9973] = np.arange(1000) % 7  # the rest of the file is a hole, read as zeros
    del z
    # Not ru_maxrss, which begins with the memory of the parent.
    code = """
import sys
from logitlab._app.cli import app
try:
    app()
finally:
    print(*(line for line in open("/proc/self/status") if "VmHWM" in line), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, "report", tmp_path / "z.npy", "-o", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stderr.split()[1]) * 1024 < 1e9


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_progress_on_a_terminal(tmp_path):
    """A bar that says what is being done, on standard error alone."""
    import pty

    np.save(tmp_path / "z.npy", np.zeros((2000, 1000), np.float32))
    ours, theirs = pty.openpty()
    code = "from logitlab._app import main; main()"
    arguments = [sys.executable, "-c", code, "report", tmp_path / "z.npy", "-o", tmp_path / "out"]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    assert "reading" in os.read(ours, 1 << 16).decode()
    assert "reading" not in done.stdout
    os.close(ours)
    os.close(theirs)


def sample(*arguments):
    return CliRunner().invoke(app, ["sample", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def few(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    z = np.random.default_rng(0).standard_normal((7, 3))
    np.save("z.npy", z)
    return z


def test_many_draws_come_in_parts(few):
    """The same as of the whole, however few rows fit in a part."""
    n = next(blocks(1 << 40, 1)).stop // 2
    done = sample("z.npy", "-n", n, "--seed", 5, "--top-k", 10**22)
    assert done.exit_code == 0, done.output
    found = pd.read_csv(io.StringIO(done.stdout))
    assert found["index"].tolist() == logitlab.sample(few, n, rng=5).ravel().tolist()
    assert found["row"].tolist() == np.repeat(np.arange(7), n).tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", 10**12], "-n 1000000000000: not enough memory for so many draws of a row"),
        (["-n", 10**22], "-n is 10000000000000000000000; accepted: 1 to 1099511627776"),
        (["-n", 0], "-n must be >= 1, got 0"),
        (
            ["-n", 4, "--without-replacement"],
            "-n must be <= 3 without replacement, got 4",
        ),
        (["--top-k", 0], "--top-k must be >= 1, got 0"),
        (["--top-p", 2], "--top-p must be in (0, 1], got 2.0"),
        (["--min-p", -1], "--min-p must be in [0, 1], got -1.0"),
        (["--temperature", "nan"], "--temperature is NaN; accepted"),
        (["--seed", -1], "--seed is -1; accepted: 0 and up"),
        (["--order", "luck"], "--order is 'luck'; accepted: transformers, vllm, llama.cpp\n"),
    ],
)
def test_mistakes_of_sample(few, arguments, message):
    """The option as it was typed, and what is accepted."""
    done = sample("z.npy", *arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"logitlab: {message}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
