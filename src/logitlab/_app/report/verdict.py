"""The verdict in words, from the figures."""

import math

from logitlab._app.report.evaluation import Judged, Scores
from logitlab._app.report.format import count, p_value, percent

_SURE = 0.05  # a p-value below which chance is no explanation
_TITLES = {
    "temperature": "temperature scaling",
    "vector": "vector scaling",
    "matrix": "matrix scaling",
}


def kind(scores: Scores) -> str:
    """ "honest", "over-confident", "under-confident", or "uneven": wrong here, wrong there."""
    if scores.test.p_value >= _SURE:
        return "honest"
    gap = scores["confidence"] - scores["accuracy"]
    # Over and under cancel where the mean gap is much smaller than the mean of the gaps' sizes.
    if abs(gap) < 0.5 * scores["calibration_error"]:
        return "uneven"
    return "over-confident" if gap > 0 else "under-confident"


def _errors(before: Scores, after: Scores) -> str:
    return f"calibration error {before['calibration_error']:.4f} → {after['calibration_error']:.4f}"


def _repair(judged: Judged) -> str:
    """What repairs it, and how far."""
    before, t = judged.before, judged.temperature
    error = before["calibration_error"]
    done = {
        name: s
        for name, s in judged.calibrated.items()
        if s.test.p_value >= _SURE and s["calibration_error"] < error
    }
    scaled = judged.calibrated.get("temperature")
    if scaled is not None and t is not None:
        if "temperature" in done:
            return f"Temperature {t:.3g} repairs it ({_errors(before, scaled)})."
        left = scaled["calibration_error"] / error
        if done:
            name = min(done, key=lambda n: done[n]["log_loss"])
            other = f"{_TITLES[name]} does ({_errors(before, done[name])})."
            return f"Temperature {t:.3g} alone does not repair it; {other}"
        if left < 0.5:
            return f"Temperature {t:.3g} repairs most of it ({_errors(before, scaled)})."
        text = f"Temperature {t:.3g} does not repair it ({_errors(before, scaled)})"
        best = min(judged.calibrated.values(), key=lambda s: s["calibration_error"])
        isotonic = judged.isotonic_error
        if isotonic is not None and isotonic < 0.5 * best["calibration_error"]:
            others = ", nor does vector or matrix scaling" if len(judged.calibrated) > 1 else ""
            return (
                f"{text}{others}; isotonic regression of the top probability does better "
                f"({isotonic:.4f})."
            )
        return f"{text}."
    if done:
        name = min(done, key=lambda n: done[n]["log_loss"])
        return f"{_TITLES[name].capitalize()} repairs it ({_errors(before, done[name])})."
    return f"No temperature was fitted: {judged.failures.get('temperature', 'unknown')}."


def verdict(judged: Judged) -> tuple[str, str]:
    """One word for the headline, and what stands below it."""
    before = judged.before
    says = f"says {percent(before['confidence'])}, is right {percent(before['accuracy'])}"
    what = kind(before)
    if what == "honest":
        error = f"calibration error {before['calibration_error']:.4f}"
        chance = (
            f"chance alone gives {before.test.expected_error:.4f}, {p_value(before.test.p_value)}"
        )
        return "Honest", f"{says}; {error} is no more than chance explains ({chance})."
    if what == "uneven":
        return "Unevenly calibrated", (
            f"{says} on average, but over-confident in places and under-confident in others. "
            f"{_repair(judged)}"
        )
    return what.capitalize(), f"{says}. {_repair(judged)}"


def perplexity_in_words(entropy: float, classes: int) -> tuple[str, str]:
    """The headline where there are no labels."""
    effective = math.exp(entropy)
    share = entropy / math.log(classes) if classes > 1 else 0.0
    if share < 0.1:
        word = "Nearly certain"
    elif share < 0.5:
        word = "Mostly decided"
    else:
        word = "Undecided"
    return word, (
        f"exp of the mean entropy: as if choosing between {effective:.3g} of {count(classes)} "
        "classes. Whether that is right, labels would tell (--labels)."
    )
