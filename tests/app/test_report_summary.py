"""The summary of a report: every claim needs significant evidence."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest
from reports import labelled, run

import logitlab
from logitlab._app.io.passes import Passes
from logitlab._app.io.source import in_memory
from logitlab._app.report.analysis import analyse
from logitlab._app.report.evaluation import (
    MAX_CLASSES,
    ScoreAccumulator,
    evaluate,
    excludes_zero,
    random_halves,
)
from logitlab._app.report.format import bounds, number, p_value, percent, signed
from logitlab._app.report.summary import MIN_ROWS, diagnosis, entropy_summary, summary
from logitlab.reliability import consistency_test
from logitlab.resampling import Interval, resampled_sums

BOTH = "overconfident for some confidences and underconfident for others"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_figures")]


def calibrated_model(rng, n, k=3):
    """Logits, and labels that are distributed as the logits say."""
    z = rng.standard_normal((n, k)) * 2
    return z, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


def accumulate(z, y):
    """The scores, and the label, fold and membership of the sample of each row."""
    values = {"label": y, "fold": random_halves(len(z)), "fitted": np.ones(len(z), bool)}
    accumulator = ScoreAccumulator(*z.shape, z.dtype, slice(0, len(z)))
    accumulator.add(np.arange(len(z)), z.astype(np.float64), **values)
    return accumulator, values


def evaluation_of(z, y):
    """The evaluation without the other sections of a report."""
    accumulator, values = accumulate(z, y)
    passes = Passes(in_memory("z", z), False, lambda chunks, _rows, _task: chunks)
    return evaluate(passes, accumulator, (np.arange(len(z)), z), **values)


def test_false_positive_rate():
    """A perfectly calibrated model is called miscalibrated in 5 % of 200 runs: 3 to 19 times."""
    rng = np.random.default_rng(0)
    labels = Counter()
    for _ in range(200):
        accumulator, _ = accumulate(*calibrated_model(rng, 300))
        scores = accumulator.scores(resampled_sums(accumulator.tally.group_sums, 2, 0))
        labels[diagnosis(scores, 300)] += 1
    assert 3 <= 200 - labels["no significant miscalibration"] <= 19
    assert labels.keys() <= {
        "no significant miscalibration",
        "overconfident",
        "underconfident",
        BOTH,
    }


@pytest.fixture
def only_temperature(monkeypatch):
    """Vector and matrix scaling are not fitted, which saves time."""
    for name in MAX_CLASSES:
        monkeypatch.setitem(MAX_CLASSES, name, 0)


def test_overconfidence_is_detected(only_temperature):
    """T = 1.5 on 1000 rows: the diagnosis and the reduction are found in 95 % of 60 runs."""
    rng = np.random.default_rng(0)
    overconfident = reduced = 0
    for _ in range(60):
        z, y = calibrated_model(rng, 1000, k=5)
        label, text = summary(evaluation_of(1.5 * z, y))
        overconfident += label == "Overconfident"
        reduced += re.search(r"Temperature scaling \(T = 1\.\d+\) reduces ", text) is not None
    assert overconfident >= 57
    assert reduced >= 57


def test_no_reduction_of_a_calibrated_model():
    """No calibrator improves a perfectly calibrated model."""
    rng = np.random.default_rng(0)
    claims = 0
    for _ in range(15):
        text = summary(evaluation_of(*calibrated_model(rng, 500)))[1]
        claims += not text.endswith("No calibrator reduces ECE or log-loss significantly.")
    assert claims <= 2


def test_diagnoses():
    """Each diagnosis on 3000 rows."""
    z, y = calibrated_model(np.random.default_rng(5), 3000)
    label, text = summary(evaluation_of(z, y))
    assert label == "No significant miscalibration"
    assert "expected under perfect calibration 0.0" in text
    assert "(p = 0." in text
    label, text = summary(evaluation_of(3 * z, y))
    assert label == "Overconfident"
    assert ". Temperature scaling (T = 2.9" in text or ". Temperature scaling (T = 3" in text
    assert "(95 % interval of the difference −0." in text
    assert summary(evaluation_of(z / 3, y))[0] == "Underconfident"
    bent = np.where(np.abs(z).max(axis=1, keepdims=True) > 2.5, 3 * z, z / 3)
    assert summary(evaluation_of(bent, y))[0] == BOTH.capitalize()


def test_significance_of_a_reduction():
    """The sentence follows from the intervals of the paired differences."""
    z, y = calibrated_model(np.random.default_rng(0), 1000)
    evaluation = evaluation_of(1.5 * z, y)

    def text(**differences):
        """The summary where only temperature scaling was fitted, with these differences."""
        scores = evaluation.calibrated["temperature"]
        scores = dataclasses.replace(scores, differences={**scores.differences, **differences})
        return summary(dataclasses.replace(evaluation, calibrated={"temperature": scores}))[1]

    none, lower, higher = Interval(-0.1, -0.2, 0.1), Interval(-2, -3, -1), Interval(2, 1, 3)
    unchanged = text(calibration_error=none, log_loss=none)
    assert "; ECE 0." in unchanged
    assert unchanged.endswith("(p < 0.001). No calibrator reduces ECE or log-loss significantly.")
    assert "reduces log-loss from" in text(calibration_error=none, log_loss=lower)
    assert "reduces ECE from" in text(calibration_error=lower, log_loss=none)
    assert "(95 % interval of the difference −3.0000 to −1.0000)" in text(calibration_error=lower)
    assert "but increases log-loss from" in text(calibration_error=lower, log_loss=higher)
    assert "No calibrator reduces" in text(calibration_error=higher, log_loss=higher)
    assert not excludes_zero(Interval(0, -1e-15, -1e-16))


def test_another_calibrator():
    """Where temperature scaling does not help, another calibrator with evidence is named."""
    z, y = calibrated_model(np.random.default_rng(0), 2000)
    label, text = summary(evaluation_of(z + np.array([1.5, 0, 0]), y))
    assert label != "No significant miscalibration"
    assert "reduces" in text
    evaluation = evaluation_of(z + np.array([1.5, 0, 0]), y)
    temperature = evaluation.calibrated["temperature"]
    nothing = dict.fromkeys(temperature.differences, Interval(0, -1, 1))
    calibrated = {
        **evaluation.calibrated,
        "temperature": dataclasses.replace(temperature, differences=nothing),
    }
    text = summary(dataclasses.replace(evaluation, calibrated=calibrated))[1]
    assert ") reduces neither ECE nor log-loss significantly. " in text
    assert "ector scaling reduces ECE from" in text or "atrix scaling reduces ECE from" in text


def test_few_rows():
    """Below MIN_ROWS rows only a rejection of the test counts, and no calibrator is named."""
    wrong = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    label, text = summary(evaluation_of(wrong, np.array([1, 0])))
    assert label == "Too few rows to tell (n = 2)"
    assert text.startswith("mean confidence 57.6 %, accuracy 0.0 %; ECE 0.5761, expected under")
    assert text.endswith("With fewer than 100 rows calibrators are not compared.")
    rng = np.random.default_rng(0)
    z, y = calibrated_model(rng, MIN_ROWS - 1)
    assert summary(evaluation_of(z, y))[0] == "Too few rows to tell (n = 99)"
    label, text = summary(evaluation_of(10 * z, y))
    assert label == "Overconfident"
    assert "reduces" not in text
    z, y = calibrated_model(rng, MIN_ROWS)
    assert summary(evaluation_of(z, y))[0] == "No significant miscalibration"


@pytest.mark.parametrize(
    ("z", "y"),
    [
        ([[1.0, 2.0]], [0]),
        ([[1.0, 2.0], [2.0, 1.0]], [0, 1]),
        ([[np.nan, 2.0], [1.0, np.nan], [2.0, 1.0], [0.0, 1.0]], [0, 0, 1, 1]),
    ],
)
def test_very_few_rows(z, y):
    """The scores are given, and the reason why a calibrator was not fitted."""
    evaluation = analyse(in_memory("z", np.array(z)), np.array(y)).evaluation
    assert evaluation.rows == np.isfinite(z).all(1).sum()
    assert evaluation.uncalibrated.curve.counts.sum() == evaluation.rows
    if len(z) != 2:
        assert "two cross-fitting folds must have a row" in evaluation.failures["temperature"]
        assert evaluation.failures["vector"] == evaluation.failures["temperature"]
    assert summary(evaluation)[0] == f"Too few rows to tell (n = {evaluation.rows})"


def test_no_calibrator_was_fitted(tmp_path):
    """Neither the terminal nor the page mentions cross-fitted scores."""
    np.save(tmp_path / "z.npy", [[1.0, 2.0]])
    np.save(tmp_path / "y.npy", [1])
    result = run(tmp_path / "z.npy", "--labels", tmp_path / "y.npy", "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "temperature scaling was not fitted: each of the two" in result.stdout
    assert "cross-fitted" not in result.stdout
    assert "cross-fitted" not in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_rules_on_the_page(tmp_path):
    """The page explains the diagnosis, and shows the differences that the summary cites."""
    z, y = labelled()
    np.save(tmp_path / "z.npy", z)
    np.save(tmp_path / "y.npy", y)
    run(tmp_path / "z.npy", "--labels", tmp_path / "y.npy", "-o", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "With fewer than 100 rows p ≥ 0.05 means “too few rows to tell”" in page
    difference = analyse(in_memory("z", z), y).evaluation.calibrated["temperature"].differences
    assert f"<small>{bounds(difference['calibration_error'])}</small>" in page


def test_number_formats():
    """Signs, small p-values, and huge numbers."""
    assert [p_value(k / 1001) for k in (1, 2)] == ["p < 0.001", "p = 0.002"]
    shares = [percent(x, 2) for x in (1.0, 0.99999, 0.9999, 0)]
    assert shares == ["100.00 %", "> 99.99 %", "99.99 %", "0.00 %"]
    assert [signed(x) for x in (-0.00001, -0.5, 0.25)] == ["0.0000", "−0.5000", "+0.2500"]
    assert bounds(Interval(0, -1e-9, 1e-9)) == "0.0000 to 0.0000"
    assert bounds(Interval(3e305, -2e305, 4e305)) == "−2e+305 to 4e+305"
    extremes = (999_999, 1e6, -1.23456e305, np.inf, -np.inf, np.nan)
    assert [number(x) for x in extremes] == [
        "999999.0000",
        "1e+06",
        "−1.235e+305",
        "∞",
        "−∞",
        "–",
    ]
    label, text = entropy_summary(3.0, 12345)
    assert label == "Mean entropy 3 nats"
    assert "20.1 effective classes (exp of the mean entropy) of 12\N{NARROW NO-BREAK SPACE}" in text


def test_calibration_of_equal_confidences():
    """The report tests the same bins as `calibration_test`: equal confidences share one."""
    p = np.repeat([[0.4, 0.4, 0.2], [0.4, 0.3, 0.3]], 50, axis=0)
    for dtype in (np.float64, np.float32):
        z = logitlab.logits(p).astype(dtype)
        for y in (np.repeat([0, 2], [40, 60]), np.repeat([0, 2], [60, 40])):
            result = evaluation_of(z, y).uncalibrated
            expected = logitlab.calibration_test(z, y)
            assert result.test.error == pytest.approx(expected.error, abs=1e-9)
            assert result.test.p_value == expected.p_value
            assert result["calibration_error"] == pytest.approx(expected.error, abs=1e-9)
            assert result.curve.counts.max() == 100


@pytest.mark.parametrize("k", [2, 3, 20])
def test_calibration_test_of_the_report(k):
    """Error and p-value are those of `calibration_test`, over blocks of rows."""
    z, y = calibrated_model(np.random.default_rng(k), 1000, k)
    values = {"label": y, "fold": random_halves(len(z)), "fitted": np.ones(len(z), bool)}
    accumulator = ScoreAccumulator(1000, k, z.dtype, slice(0, 1000))
    for start in range(0, 1000, 130):
        rows = np.arange(start, min(start + 130, 1000))
        accumulator.add(rows, 1.2 * z[rows], **{n: value[rows] for n, value in values.items()})
    expected = logitlab.calibration_test(1.2 * z, y)
    test = consistency_test(accumulator.tally.bin_sums, accumulator.cells.sum(axis=0))
    assert test == pytest.approx(expected, rel=1e-9)
