"""`logitlab report`: scores, the page, and the JSON file."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from reports import Page, labelled, report, run
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app
from logitlab._app.io.json_values import json_values
from logitlab._app.io.source import Logits, in_memory
from logitlab._app.report.analysis import analyse
from logitlab._app.report.json import as_json
from logitlab._app.report.sampled_rows import sampled_rows

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_figures")]


def test_published_results(predictions, tmp_path):
    """Real predictions: the summary, and every calibrator cross-fitted, with intervals."""
    path, p, y = predictions
    found = report(
        tmp_path, f"{path}:predictions", "--probabilities", "--labels", f"{path}:ground_truth"
    )
    few = path.stem.endswith("-10")
    after = found["calibrated"]
    assert found["rows"] == 10000
    assert found["dtype"] == "float32"
    assert found["input_summary"]["naive_overflow_rows"] is None
    assert found["ece"] == pytest.approx(0.0537 if few else 0.0581, abs=5e-5)
    assert found["log_loss"] == pytest.approx(0.3782 if few else 0.9564, abs=5e-5)
    assert found["temperature"] == pytest.approx(2.053 if few else 1.111, abs=5e-4)
    assert after["log_loss"] == pytest.approx(0.2746 if few else 0.9476, abs=5e-4)
    assert after["accuracy"] == found["accuracy"]
    if few:
        assert found["accuracy"] == 0.9109
        assert found["brier"] == pytest.approx(0.1439, abs=5e-5)
        assert after["ece"] < 0.0115
    evaluation, z = found["evaluation"], logitlab.logits(p)
    assert evaluation["diagnosis"] == "Overconfident"
    if few:
        start = (
            "mean confidence 96.5 %, accuracy 91.1 %. Temperature scaling (T = 2.05) reduces ECE"
        )
        assert evaluation["summary"].startswith(f"{start} from 0.0537 to 0.00")
    else:
        assert "(T = 1.11) reduces ECE from 0.0581 to 0.04" in evaluation["summary"]
        assert "Significant miscalibration remains" in evaluation["summary"]
    assert evaluation["calibrators"].keys() == {"temperature", "vector", "matrix"}
    vector = logitlab.cross_fit(logitlab.VectorScaling(), z.astype(float), y)
    loss = evaluation["calibrators"]["vector"]["log_loss"]
    assert loss == pytest.approx(logitlab.cross_entropy(vector, y), rel=1e-6)
    test = logitlab.calibration_test(z, y)
    assert evaluation["uncalibrated"]["ece_expected_under_perfect_calibration"] == pytest.approx(
        test.expected_error, rel=0.05
    )
    interval = logitlab.bootstrap(z, y)["log_loss"]
    assert evaluation["uncalibrated"]["intervals"]["log_loss"] == pytest.approx(
        interval[1:], rel=1e-6
    )
    worst = evaluation["most_confident_errors"][0]
    wrong = np.flatnonzero(p.argmax(1) != y)
    assert worst["row"] == wrong[p[wrong].max(1).argmax()]
    assert worst["true"] == y[worst["row"]]
    pair = evaluation["most_frequent_confusions"][0]
    confused = (y == pair["true"]) & (p.argmax(1) == pair["predicted"])
    assert pair["rows"] == confused.sum()
    assert evaluation["predicted_classes"]["rows"] == np.bincount(p.argmax(1)).tolist()
    assert evaluation["isotonic_ece"] < 0.02


def test_embedded_data(with_figures, tmp_path):
    """Without arguments, on handwritten digits; the page is self-contained."""
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


def test_scores_equal_the_library(tmp_path):
    """The scores equal those of the public functions, with and without labels."""
    z, y = labelled()
    np.save(tmp_path / "z.npy", z)
    np.save(tmp_path / "y.npy", y)
    plain = report(tmp_path, tmp_path / "z.npy")
    assert plain["mean_entropy"] == pytest.approx(logitlab.entropy(z).mean(), rel=1e-12)
    assert plain["accuracy"] is None
    assert plain["calibrated"]["ece"] is None
    found = report(tmp_path, tmp_path / "z.npy", "--labels", tmp_path / "y.npy")
    scaled = logitlab.cross_fit(logitlab.TemperatureScaling(), z, y)
    for logits, scores in ((z, found), (scaled, found["calibrated"])):
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
def test_naive_overflow_rows(tmp_path, rows, dtype, failed):
    """Overflow to infinity and sums of zeros, in the type of the file."""
    np.save(tmp_path / "z.npy", np.array(rows, dtype))
    summary = report(tmp_path, tmp_path / "z.npy")["input_summary"]
    assert summary["naive_overflow_rows"] == failed


def test_special_rows(tmp_path):
    """Rows of NaN and rows of -inf are counted and excluded from the scores."""
    z, y = labelled()
    special = [[np.nan, 0, 0, 0], [-np.inf] * 4, [np.inf, 0, 0, 0], [0, -np.inf, 0, 0]]
    np.savez(tmp_path / "f.npz", z=np.vstack([special, z]), y=np.concatenate([[0, 0, 0, 0], y]))
    found = report(tmp_path, f"{tmp_path}/f.npz:z", "--labels", f"{tmp_path}/f.npz:y")
    summary = found["input_summary"]
    assert (summary["nan_rows"], summary["empty_rows"]) == (1, 1)
    assert (summary["plus_inf_rows"], summary["minus_inf_rows"]) == (1, 1)
    assert found["evaluated_rows"] == len(z) + 2
    assert np.isfinite(found["log_loss"])


def test_zero_probabilities_are_counted(tmp_path):
    """Probabilities of exactly 0 become logits of -inf, and are counted."""
    np.save(tmp_path / "p.npy", [[0.5, 0.5, 0], [1, 0, 0], [0.2, 0.3, 0.5]])
    found = report(tmp_path, tmp_path / "p.npy", "--probabilities")
    assert found["input_summary"]["zero_probabilities"] == 3
    assert found["input_summary"]["naive_overflow_rows"] is None
    page = tmp_path / "out" / "report.html"
    assert "3 of them are exactly zero" in page.read_text("utf-8")
    np.save(tmp_path / "p.npy", [[0.5, 0.5], [0.25, 0.75]])
    report(tmp_path, tmp_path / "p.npy", "--probabilities")
    assert "exactly zero" not in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("z", "options", "expected"),
    [
        ([[0.25, 0.75], [0.5, 0.5]], [], True),
        ([[0.25, 0.75], [0.5, 0.5]], ["--probabilities"], False),
        ([[0.25, 0.75], [0.5, 0.6]], [], False),
    ],
)
@pytest.mark.parametrize("models", [1, 2])
def test_logits_that_look_like_probabilities(tmp_path, z, options, expected, models):
    """The hint is on the terminal, on the page and in the JSON."""
    np.save(tmp_path / "z.npy", z)
    np.save(tmp_path / "y.npy", [1, 0])
    given = [tmp_path / "z.npy"] * models
    out = tmp_path / "out"
    result = run(*given, "--labels", tmp_path / "y.npy", *options, "-o", out)
    assert result.exit_code == 0, result.output
    hint = "these look like probabilities. If they are, run again with --probabilities;"
    assert (hint in result.stdout) == expected
    assert (hint in (out / "report.html").read_text("utf-8")) == expected
    found = json.loads((out / "report.json").read_text("utf-8"))
    for model in found["models"] if models > 1 else [found]:
        assert model["input_summary"]["looks_like_probabilities"] == expected


def test_huge_losses_in_exponent_notation(tmp_path):
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
    """The scores are given, and the reason why no temperature was fitted."""
    np.save(tmp_path / "z.npy", np.eye(3) * 5)
    np.save(tmp_path / "y.npy", np.arange(3))
    found = report(tmp_path, tmp_path / "z.npy", "--labels", tmp_path / "y.npy")
    assert found["accuracy"] == 1
    assert found["temperature"] is None
    assert "the true class has the largest logit" in found["temperature_failure"]


def test_labels_in_another_order():
    """No temperature is best: a hint, not where the labels are those of the logits."""
    z, y = labelled()
    reversed_classes = in_memory("z", z[:, ::-1].copy())
    failure = analyse(reversed_classes, y).evaluation.failures["temperature"]
    assert failure.endswith("temperature (do the labels match the order of the columns?)")
    known = analyse(reversed_classes, y, separate_labels=False).evaluation.failures["temperature"]
    assert known == failure.partition(" (")[0]


def test_row_number_of_a_failure():
    """The number in the file, not among the rows of the fold or of those with a distribution."""
    z, y = labelled()
    z[0] = np.nan
    z[200, y[200]] = -np.inf
    failures = analyse(in_memory("z", z), y).evaluation.failures
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


def test_quantile_digits(tmp_path):
    """With 20 000 classes the error of a perplexity is within one unit of its last digit."""
    z = np.random.default_rng(0).standard_normal((50, 20_000)) * np.linspace(5, 20, 50)[:, None]
    np.save(tmp_path / "z.npy", z)
    report(tmp_path, tmp_path / "z.npy")
    text = (tmp_path / "out" / "report.html").read_text()
    cells = re.search(r"<tr><th>perplexity \(effective classes\)</th>(.*?)</tr>", text)[1]
    low = re.findall(r"<td>(.*?)</td>", cells)[1]
    sizes = np.sort(np.exp(logitlab.entropy(z)))
    unit = 10.0 ** -len(low.partition(".")[2])
    assert unit > 0.0001
    assert sizes[2] - unit <= float(low) <= sizes[3] + unit


def test_axis_labels_of_classwise_diagrams(with_figures, tmp_path):
    """The diagrams of all classes show predicted probability and observed frequency."""
    z, y = labelled()
    np.save(tmp_path / "z.npy", z)
    np.save(tmp_path / "y.npy", y)
    report(tmp_path, tmp_path / "z.npy", "--labels", tmp_path / "y.npy")
    text = (tmp_path / "out" / "report.html").read_text()
    assert text.count(">observed frequency<") == 2
    assert text.count(">predicted probability of a class<") == 2


def test_several_models(with_figures, tmp_path):
    """The paired differences equal those of `logitlab.bootstrap`."""
    z, y = labelled()
    better = z + 0.5 * np.eye(4)[y]
    np.save(tmp_path / "a.npy", z)
    np.save(tmp_path / "b.npy", better)
    np.save(tmp_path / "y.npy", y)
    files = [tmp_path / "a.npy", tmp_path / "b.npy"]
    result = run(*files, "--labels", tmp_path / "y.npy", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "b.npy has the smallest log-loss" in result.stdout
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


def test_sampled_rows(monkeypatch):
    """Scores at each temperature are those of the library; rows are listed errors first."""
    z, y = labelled(n=500)
    rows = np.arange(500) * 3
    found = sampled_rows(rows, z.astype(np.float32), y, 15, np.dtype(np.float32), 1.5)
    assert {1.0, 1.5} <= set(found.temperatures)
    for t, sums, error, loss in zip(
        found.temperatures, found.bin_sums, found.calibration_error, found.log_loss, strict=True
    ):
        scaled = z.astype(np.float32) / t
        curve = logitlab.reliability_curve(scaled, y)
        np.testing.assert_array_equal(sums[0], curve.counts)
        assert error == pytest.approx(logitlab.calibration_error(scaled, y), abs=1e-6)
        assert loss == pytest.approx(logitlab.cross_entropy(scaled, y), abs=1e-6)
    for listed in (found.bins, found.classes):
        for group in listed.values():
            assert 1 <= len(group) <= 20
            keys = [(row.predicted == row.true, -row.confidence) for row in group]
            assert keys == sorted(keys)
            assert all(row.true == y[row.row // 3] for row in group)
    assert sorted(found.classes) == [0, 1, 2, 3]
    assert all(row.predicted == k for k, group in found.classes.items() for row in group)
    monkeypatch.setattr("logitlab._app.report.sampled_rows._MAX_ROWS", 100)
    fewer = sampled_rows(rows, z, y, 15, z.dtype, None)
    assert (fewer.rows, fewer.bin_sums[0, 0].sum(), len(fewer.temperatures)) == (100, 100, 41)


def test_the_page_has_the_name_of_the_file(tmp_path):
    """Its folder is in the input summary alone; the best score of a column is bold."""
    z, y = labelled()
    np.save(tmp_path / "z.npy", z)
    np.save(tmp_path / "y.npy", y)
    found = report(tmp_path, tmp_path / "z.npy", "--labels", tmp_path / "y.npy")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "· z.npy · logitlab report</title>" in page
    assert page.count(str(tmp_path)) == 1
    scores = page.partition('data-name="scores"')[2].partition("</table>")[0]
    losses = [found["log_loss"]]
    losses += [s["log_loss"] for s in found["evaluation"]["calibrators"].values()]
    bold = re.findall(r'data-label="log-loss \(nats\)"[^>]*><b>([\d.]+)</b>', scores)
    assert bold == [f"{min(losses):.4f}"]


def test_blocks():
    """The results in blocks equal those of all rows at once, up to rounding."""
    z, y = labelled(n=2000)
    whole = json_values(as_json(analyse(in_memory("z", z), y)))
    parts = Logits("z", z.shape, z.dtype, None, lambda: iter(np.array_split(z, 97)))
    in_blocks = json_values(as_json(analyse(parts, y)))
    assert in_blocks.pop("numerical_checks").keys() == whole.pop("numerical_checks").keys()

    def assert_close(a, b, path):
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            for key in a:
                assert_close(a[key], b[key], f"{path}.{key}")
        elif isinstance(a, list):
            for i, pair in enumerate(zip(a, b, strict=True)):
                assert_close(*pair, f"{path}[{i}]")
        elif isinstance(a, float):
            assert a == pytest.approx(b, rel=1e-9, abs=1e-12), path
        else:
            assert a == b, path

    assert_close(whole, in_blocks, "")


def test_json_option(tmp_path):
    """--json prints the contents of report.json, and nothing else."""
    result = run("--json", "-o", tmp_path / "out")
    assert json.loads(result.stdout) == json.loads((tmp_path / "out" / "report.json").read_text())


def test_the_command(tmp_path):
    """The installed program prints help, and no progress bar in a pipe."""
    program = [sys.executable, "-c", "from logitlab._app import main; main()"]
    help_text = subprocess.run([*program, "report", "--help"], capture_output=True, text=True)
    assert "--labels" in help_text.stdout
    result = subprocess.run(
        [*program, "report"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert result.stderr == ""
    assert "log-loss" in result.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """3 GB of float32 logits in less than 1 GB, including the interpreter and its libraries."""
    z = np.lib.format.open_memmap(
        tmp_path / "z.npy", mode="w+", dtype=np.float32, shape=(805_306, 1000)
    )
    z[::9973] = np.arange(1000) % 7  # the rest of the file is sparse: zeros
    del z
    # ru_maxrss would start with the memory of the parent process.
    code = """
import sys
from logitlab._app.cli import app
try:
    app()
finally:
    print(*(line for line in open("/proc/self/status") if "VmHWM" in line), file=sys.stderr)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, "report", tmp_path / "z.npy", "-o", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(result.stderr.split()[1]) * 1024 < 1e9


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_progress_on_a_terminal(tmp_path):
    """A progress bar with the name of the task, on standard error only."""
    import pty

    np.save(tmp_path / "z.npy", np.zeros((2000, 1000), np.float32))
    main, terminal = pty.openpty()
    code = "from logitlab._app import main; main()"
    arguments = [sys.executable, "-c", code, "report", tmp_path / "z.npy", "-o", tmp_path / "out"]
    result = subprocess.run(
        arguments, stdout=subprocess.PIPE, stderr=terminal, text=True, check=True
    )
    assert "reading" in os.read(main, 1 << 16).decode()
    assert "reading" not in result.stdout
    os.close(main)
    os.close(terminal)


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (lambda z, y: (logitlab.softmax(z), y), "these look like probabilities"),
        (lambda z, y: (z, y * 0 + 1), "Every label is class 1; scores of one class say little."),
        (lambda z, y: (z[y < 2], y[y < 2] + 1), "these labels seem to count from 1"),
        (
            lambda z, y: (np.where(y[:, None] == 0, np.nan, z), y),
            "of 200 rows; excluded.",
        ),
        (lambda z, y: (np.where(y[:, None] == 0, -np.inf, z), y), "Only -inf in "),
    ],
)
def test_warnings_come_first(tmp_path, monkeypatch, change, warning):
    """What is probably a mistake stands on the first screen, in the page and in JSON."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (200, 3))
    y = (z + rng.gumbel(size=z.shape)).argmax(1)
    z, y = change(z, y)
    np.savez("data.npz", z=z, y=y)
    result = run("data.npz:z", "--labels", "data.npz:y")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Warning: ")
    assert warning in result.stdout.partition("\n")[0]
    assert warning in (tmp_path / "logitlab-report/report.html").read_text("utf-8")
    values = json.loads((tmp_path / "logitlab-report/report.json").read_text("utf-8"))
    [found] = values["input_summary"]["warnings"]
    assert warning in found


def test_labels_that_cannot_be_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", z=np.eye(3), names=np.array(["a", "b", "c"]), one=np.array([1, 2, 3]))
    for name, message in (
        ("names", "the labels are names, but the columns of data.npz:z have none"),
        ("one", "must be in 0 to 2 (data.npz:z has 3 classes), got 3; these labels count from 1"),
    ):
        result = run("data.npz:z", "--labels", f"data.npz:{name}")
        assert result.exit_code == 2
        assert message in result.stderr


@pytest.mark.parametrize("command", ["report", "calibrate"])
def test_ignored_rows_are_left_out(tmp_path, command):
    """The results are those of the other rows; a NaN in an ignored row is not counted."""
    z, y = labelled(400)
    z[5], y[[5, 7, 300]] = np.nan, -100
    np.savez(tmp_path / "all.npz", z=z, y=y)
    keep = y >= 0
    np.savez(tmp_path / "kept.npz", z=z[keep], y=y[keep])
    results = []
    for name, options in (("all", ["--ignore-index", -100]), ("kept", [])):
        file, out = tmp_path / f"{name}.npz", tmp_path / name
        arguments = [f"{file}:z", "--labels", f"{file}:y", "-o", out, *options]
        result = CliRunner().invoke(app, [command, *map(str, arguments)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        results.append(json.loads((out / "report.json").read_text("utf-8")))
    summaries = [values["input_summary"] for values in results]
    assert [s.pop("ignored_rows") for s in summaries] == [3, 0]
    assert summaries[0] == summaries[1]
    evaluations = [values["evaluation"] for values in results]
    for key in ("accuracy", "log_loss", "brier", "ece"):
        assert evaluations[0]["uncalibrated"][key] == pytest.approx(
            evaluations[1]["uncalibrated"][key]
        )
    assert "rows ignored by their labels" in (tmp_path / "all/report.html").read_text("utf-8")


def test_ignore_index_needs_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    z, y = labelled(20)
    np.savez("data.npz", z=z, y=y, one=np.full(20, -1), names=np.array(["a"] * 20))
    for name, message in (
        ("one", "every label is -1, which --ignore-index ignores"),
        ("names", "--ignore-index needs numbers as labels, got names"),
        ("y", None),
    ):
        result = run("data.npz:z", "--labels", f"data.npz:{name}", "--ignore-index", -1)
        assert (result.exit_code == 0) == (message is None)
        assert message is None or message in result.stderr
    assert "which is missing" in run("data.npz:z", "--ignore-index", -1).stderr
