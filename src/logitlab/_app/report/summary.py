"""The summary of a report: a diagnosis of the calibration, and the evidence for it.

The diagnosis
    The consistency test of :func:`logitlab.calibration_test` decides at the 5 % level. If it does
    not reject, there is *no significant miscalibration*. If it rejects, the model is
    *overconfident* (*underconfident*) where at least three quarters of the ECE comes from bins in
    which the confidence is above (below) the accuracy. Otherwise it is *overconfident for some
    confidences and underconfident for others*.

Too few rows
    With fewer than :data:`MIN_ROWS` = 100 rows a test that does not reject shows nothing: the 95 %
    interval of an accuracy near 50 % reaches about 10 percentage points or more to each side. The
    diagnosis is then *too few rows to tell*. A rejection counts at any number of rows, because the
    Monte Carlo test is exact. The bootstrap is not: calibrators are compared from 100 rows on.

Calibrators
    A calibrator *reduces* ECE or log-loss if the 95 % bootstrap interval of the paired difference
    (2-fold cross-fitted less uncalibrated, on the same resampled rows) lies below 0. Temperature
    scaling is named first. If it reduces neither score, the calibrator with the smallest log-loss
    of those that reduce one is named. The intervals are not corrected for several comparisons.
"""

import math

from logitlab._app.report.evaluation import Evaluation, Scores, excludes_zero
from logitlab._app.report.format import bounds, count, number, p_value, percent

MIN_ROWS = 100
SIGNIFICANCE = 0.05  # level of the consistency test
_SCORES = {"calibration_error": "ECE", "log_loss": "log-loss"}


def diagnosis(scores: Scores, rows: int) -> str:
    """The diagnosis of the calibration of `rows` rows with these scores: see the module."""
    if scores.test.p_value >= SIGNIFICANCE:
        if rows < MIN_ROWS:
            return f"too few rows to tell (n = {rows})"
        return "no significant miscalibration"
    # The ECE is the sum of the gaps of both signs, the mean gap is their difference.
    gap = scores["confidence"] - scores["accuracy"]
    if abs(gap) < 0.5 * scores["calibration_error"]:
        return "overconfident for some confidences and underconfident for others"
    return "overconfident" if gap > 0 else "underconfident"


def _changes(before: Scores, after: Scores, sign: int) -> list[str]:
    """The scores that change significantly in the direction of `sign`, with their intervals."""
    if after.differences is None:
        return []
    changes = []
    for key, name in _SCORES.items():
        difference = after.differences[key]
        if excludes_zero(difference) and sign * difference.low > 0:
            changes.append(
                f"{name} from {number(before[key])} to {number(after[key])} "
                f"(95 % interval of the difference {bounds(difference)})"
            )
    return changes


def _calibrator_name(name: str, evaluation: Evaluation) -> str:
    if name == "temperature" and evaluation.temperature is not None:
        return f"Temperature scaling (T = {evaluation.temperature:.3g})"
    return f"{name.capitalize()} scaling"


def _reductions(evaluation: Evaluation) -> dict[str, list[str]]:
    """The significant reductions by each calibrator that has one."""
    found = {
        name: _changes(evaluation.uncalibrated, scores, -1)
        for name, scores in evaluation.calibrated.items()
    }
    return {name: changes for name, changes in found.items() if changes}


def selected_calibrator(evaluation: Evaluation) -> str | None:
    """The calibrator that the summary names; of those without a reduction, the first fitted one."""
    names = list(_reductions(evaluation)) or list(evaluation.calibrated)[:1]
    if not names:
        return None
    if "temperature" in names:
        return "temperature"
    return min(names, key=lambda name: evaluation.calibrated[name]["log_loss"])


def _calibrators(evaluation: Evaluation) -> str:
    """Which calibrator reduces ECE or log-loss significantly."""
    before, calibrated = evaluation.uncalibrated, evaluation.calibrated
    sentences = []
    if "temperature" in evaluation.failures:
        sentences.append(
            f"Temperature scaling was not fitted: {evaluation.failures['temperature']}."
        )
    if not calibrated:
        return " ".join(sentences)
    reductions, best = _reductions(evaluation), selected_calibrator(evaluation)
    if not reductions or best is None:
        return " ".join([*sentences, "No calibrator reduces ECE or log-loss significantly."])
    if best != "temperature" and "temperature" in calibrated:
        name = _calibrator_name("temperature", evaluation)
        sentences.append(f"{name} reduces neither ECE nor log-loss significantly.")
    sentence = f"{_calibrator_name(best, evaluation)} reduces {reductions[best][0]}"
    increases = _changes(before, calibrated[best], 1)
    sentences.append(f"{sentence}, but increases {increases[0]}." if increases else f"{sentence}.")
    test = calibrated[best].test
    if before.test.p_value < SIGNIFICANCE and test.p_value < SIGNIFICANCE:
        sentences.append(
            f"Significant miscalibration remains (ECE {number(test.error)}, expected under "
            f"perfect calibration {number(test.expected_error)}, {p_value(test.p_value)})."
        )
    return " ".join(sentences)


def summary(evaluation: Evaluation) -> tuple[str, str]:
    """The diagnosis, and the scores and intervals that it rests on."""
    scores, rows = evaluation.uncalibrated, evaluation.rows
    test = scores.test
    text = (
        f"mean confidence {percent(scores['confidence'])}, accuracy {percent(scores['accuracy'])}"
    )
    if rows < MIN_ROWS:
        calibrators = f"With fewer than {MIN_ROWS} rows calibrators are not compared."
    else:
        calibrators = _calibrators(evaluation)
    if test.p_value >= SIGNIFICANCE or "reduces ECE from" not in calibrators:
        text += (
            f"; ECE {number(test.error)}, expected under perfect calibration "
            f"{number(test.expected_error)} ({p_value(test.p_value)})"
        )
    return diagnosis(scores, rows).capitalize(), f"{text}. {calibrators}"


def entropy_summary(entropy: float, classes: int) -> tuple[str, str]:
    """The summary of logits without labels."""
    share = entropy / math.log(classes) if classes > 1 else 0.0
    return f"Mean entropy {entropy:.3g} nats", (
        f"{percent(share)} of the maximum; {math.exp(entropy):.3g} effective classes "
        f"(exp of the mean entropy) of {count(classes)}. "
        "Give --labels to evaluate accuracy and calibration."
    )
