"""report.json: what a script needs."""

import math
from importlib.metadata import version
from typing import Any

import numpy as np

from logitlab._app.report.analysis import Analysis
from logitlab._app.report.evaluation import Judged, Scores
from logitlab._app.report.language_model import NUCLEI, TEMPERATURES
from logitlab._app.report.verdict import verdict

_KEYS = {
    "accuracy": "accuracy",
    "log_loss": "log_loss",
    "brier": "brier_score",
    "ece": "calibration_error",
    "mean_confidence": "confidence",
}


def finite(x: Any) -> Any:
    """JSON has no infinity: the log-loss of a label with probability 0 is null there."""
    if isinstance(x, dict):
        return {key: finite(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [finite(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def plain_scores(scores: Scores | None) -> dict[str, float | None]:
    return {key: scores[name] if scores else None for key, name in _KEYS.items()}


def full_scores(scores: Scores) -> dict[str, Any]:
    """With 95 % intervals, and the differences from the logits as they came."""
    differences = scores.differences
    return {
        **plain_scores(scores),
        "intervals": {key: scores.intervals[name][1:] for key, name in _KEYS.items()},
        "differences": None
        if differences is None
        else {key: differences[name] for key, name in _KEYS.items()},
        "debiased_ece": scores.debiased,
        "classwise_ece": scores.classwise,
        "ece_expected_by_chance": scores.test.expected_error,
        "p_value": scores.test.p_value,
    }


def _judged(judged: Judged) -> dict[str, Any]:
    by = judged.classes
    return {
        "verdict": ": ".join(verdict(judged)),
        "scores": full_scores(judged.before),
        "calibrators": {name: full_scores(s) for name, s in judged.calibrated.items()},
        "no_calibrator_because": judged.failures,
        "isotonic_ece": judged.isotonic_error,
        "classes_predicted": {
            "rows": by.rows.tolist(),
            "confidence": by.confidence.tolist(),
            "accuracy": by.accuracy.tolist(),
        },
        "most_confident_mistakes": [vars(m) for m in judged.mistakes],
        "most_common_confusions": [
            {"true": true, "predicted": guess, "rows": n} for true, guess, n in judged.confusions
        ],
    }


def _text(a: Analysis) -> dict[str, Any] | None:
    if a.text is None:
        return None
    return {
        "tokens": int((a.text.ranks > 0).sum()),
        "perplexity": a.text.perplexity,
        "log_loss": a.text.log_loss,
        "most_probable_share": a.text.top,
        "most_surprising": [vars(s) for s in a.text.surprises],
    }


def as_json(a: Analysis) -> dict[str, Any]:
    """None where a figure does not apply."""
    incoming, judged = a.incoming, a.judged
    medians = {
        f"{p:g}": {f"{t:g}": size for t, size in zip(TEMPERATURES, sizes, strict=True)}
        for p, sizes in zip(NUCLEI, np.median(a.nucleus, axis=-1).tolist(), strict=True)
    }
    found = {
        "logitlab": version("logitlab"),
        "source": a.source.source,
        "rows": a.source.rows,
        "classes": a.source.classes,
        "dtype": a.source.dtype.name,
        "judged_rows": a.judged_rows,
        "nan_rows": incoming.nan_rows,
        "empty_rows": incoming.empty_rows,
        "unshared_rows": incoming.unshared_rows,
        "naive_overflow_rows": None if a.probabilities else incoming.naive_overflow_rows,
        "tie_rows": incoming.tie_rows,
        "minus_inf_rows": incoming.minus_inf_rows,
        "plus_inf_rows": incoming.plus_inf_rows,
        "looks_like_probabilities": a.looks_like_probabilities,
        "zero_probabilities": incoming.zeros if a.probabilities else None,
        **{f"mean_{name}": d.mean for name, d in a.sharpness.items()},
        "median_nucleus_size": medians,
        "laws": vars(a.laws),
        **plain_scores(judged.before if judged else None),
        "temperature": judged.temperature if judged else None,
        "fold_temperatures": judged.fold_temperatures if judged else None,
        "no_temperature_because": judged.failures.get("temperature") if judged else None,
        "calibrated": plain_scores(judged.calibrated.get("temperature") if judged else None),
        "judged": _judged(judged) if judged else None,
        "text": _text(a),
    }
    result: dict[str, Any] = finite(found)
    return result
