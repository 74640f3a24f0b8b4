"""The contents of report.json."""

from importlib.metadata import version
from typing import Any

import numpy as np

from logitlab._app.io.json_values import json_values
from logitlab._app.report.analysis import Analysis
from logitlab._app.report.decisions import Decisions
from logitlab._app.report.evaluation import Evaluation, Scores
from logitlab._app.report.language_model import TEMPERATURES, TOP_P
from logitlab._app.report.summary import summary

_KEYS = {
    "accuracy": "accuracy",
    "log_loss": "log_loss",
    "brier": "brier_score",
    "ece": "calibration_error",
    "mean_confidence": "confidence",
}


def _score_values(scores: Scores | None) -> dict[str, float | None]:
    return {key: scores[name] if scores else None for key, name in _KEYS.items()}


def _scores(scores: Scores) -> dict[str, Any]:
    """With 95 % intervals, and the paired differences from the uncalibrated logits."""
    differences = scores.differences
    return {
        **_score_values(scores),
        "intervals": {key: scores.intervals[name][1:] for key, name in _KEYS.items()},
        "differences": None
        if differences is None
        else {key: differences[name] for key, name in _KEYS.items()},
        "debiased_ece": scores.debiased_error,
        "classwise_ece": scores.classwise_error,
        "ece_expected_under_perfect_calibration": scores.test.expected_error,
        "p_value": scores.test.p_value,
    }


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    diagnosis, text = summary(evaluation)
    classes = evaluation.predicted_classes
    return {
        "diagnosis": diagnosis,
        "summary": text,
        "uncalibrated": _scores(evaluation.uncalibrated),
        "calibrators": {name: _scores(s) for name, s in evaluation.calibrated.items()},
        "calibrator_failures": evaluation.failures,
        "isotonic_ece": evaluation.isotonic_error,
        "predicted_classes": {
            "rows": classes.rows,
            "confidence": classes.confidence,
            "accuracy": classes.accuracy,
        },
        "most_confident_errors": [vars(m) for m in evaluation.misclassifications],
        "most_frequent_confusions": [
            {"true": true, "predicted": predicted, "rows": n}
            for true, predicted, n in evaluation.confusions
        ],
    }


def _text(a: Analysis) -> dict[str, Any] | None:
    if a.text is None:
        return None
    return {
        "tokens": int((a.text.ranks > 0).sum()),
        "perplexity": a.text.perplexity,
        "log_loss": a.text.log_loss,
        "accuracy": a.text.accuracy,
        "least_probable_tokens": [vars(token) for token in a.text.least_probable],
    }


def _decisions(decisions: Decisions) -> dict[str, Any]:
    """Each figure with its 95 % interval."""
    return {
        "rows": decisions.rows,
        "accepted": [
            {
                "max_error": a.max_error,
                "share": a.share.value,
                "interval": a.share[1:],
                "error": a.error,
            }
            for a in decisions.accepted
        ],
        "prediction_sets": [
            {"coverage": s.coverage, "mean_size": s.size.value, "interval": s.size[1:]}
            for s in decisions.sets
        ],
    }


def _input_summary(a: Analysis) -> dict[str, Any]:
    rows = a.input_summary
    return {
        "nan_rows": rows.nan_rows,
        "empty_rows": rows.empty_rows,
        "unpaired_rows": rows.unpaired_rows,
        "ignored_rows": a.ignored_rows,
        "naive_overflow_rows": None if a.probabilities else rows.naive_overflow_rows,
        "tie_rows": rows.tie_rows,
        "minus_inf_rows": rows.minus_inf_rows,
        "plus_inf_rows": rows.plus_inf_rows,
        "looks_like_probabilities": a.looks_like_probabilities,
        "warnings": a.warnings,
        "notes": a.notes,
        "zero_probabilities": rows.zeros if a.probabilities else None,
    }


def as_json(a: Analysis) -> dict[str, Any]:
    """The results of an analysis as plain data; None where a value does not apply."""
    evaluation = a.evaluation
    medians = {
        f"{p:g}": {f"{t:g}": size for t, size in zip(TEMPERATURES, sizes, strict=True)}
        for p, sizes in zip(TOP_P, np.median(a.nucleus, axis=-1), strict=True)
    }
    values = {
        "logitlab": version("logitlab"),
        "source": a.source.source,
        "rows": a.source.rows,
        "classes": a.source.classes,
        "dtype": a.source.dtype.name,
        "evaluated_rows": a.evaluated_rows,
        "decisions": None if a.decisions is None else _decisions(a.decisions),
        "input_summary": _input_summary(a),
        **{f"mean_{name}": d.mean for name, d in a.sharpness.items()},
        "median_nucleus_size": medians,
        "numerical_checks": vars(a.numerical_checks),
        **_score_values(evaluation.uncalibrated if evaluation else None),
        "temperature": evaluation.temperature if evaluation else None,
        "fold_temperatures": evaluation.fold_temperatures if evaluation else None,
        "temperature_failure": evaluation.failures.get("temperature") if evaluation else None,
        "calibrated": _score_values(evaluation.calibrated.get("temperature"))
        if evaluation
        else _score_values(None),
        "evaluation": _evaluation(evaluation) if evaluation else None,
        "groups": {
            "column": a.group_column,
            "scores": {
                name: {
                    "rows": scores.rows,
                    **{key: scores.intervals[score] for key, score in _KEYS.items()},
                }
                for name, scores in a.groups.items()
            },
        }
        if a.group_column is not None
        else None,
        "text": _text(a),
    }
    result: dict[str, Any] = json_values(values)
    return result
