"""Decision rules in the file of a calibrator: rejected rows, and sets of classes."""

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from logitlab._rows import Integers

if TYPE_CHECKING:
    from logitlab.decisions import ConformalSets, SelectiveClassifier

DELTA = 0.05  # the probability that the error of accepted rows is larger than promised


@dataclass(frozen=True)
class Rules:
    """Rules that take calibrated logits; either may be None."""

    classifier: "SelectiveClassifier | None" = None
    sets: "ConformalSets | None" = None

    def __bool__(self) -> bool:
        return self.classifier is not None or self.sets is not None

    def as_json(self) -> dict[str, Any]:
        """The metadata of the file. An infinite threshold is text, as JSON has no such number."""
        found: dict[str, Any] = {}
        if self.classifier is not None:
            c = self.classifier
            found["max_error"] = {
                "max_error": c.max_error,
                "delta": c.delta,
                "threshold": str(c.threshold_) if math.isinf(c.threshold_) else c.threshold_,
                "accepted": c.coverage_,
                "error": None if math.isnan(c.error_) else c.error_,
                "error_bound": None if math.isnan(c.error_bound_) else c.error_bound_,
            }
        if self.sets is not None:
            threshold = float(self.sets.thresholds_[0, 0])
            found["coverage"] = {
                "coverage": self.sets.coverage,
                "threshold": str(threshold) if math.isinf(threshold) else threshold,
            }
        return found


def fit_rules(
    z: NDArray[Any], y: Integers, max_error: float | None, coverage: float | None
) -> tuple[Rules, list[str]]:
    """The rules of labelled rows of calibrated logits, and a line about each."""
    from logitlab.decisions import ConformalSets, SelectiveClassifier

    classifier = sets = None
    lines = []
    if max_error is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of no threshold; the line says so
            classifier = SelectiveClassifier(max_error, delta=DELTA).fit(z, y)
        lines.append(_summary_of_rule(classifier, len(z)))
    if coverage is not None:
        sets = ConformalSets(coverage).fit(z, y)
        size = float(np.mean(sets.set_sizes(z)))
        few = " (all classes: too few rows for this coverage)" if sets.thresholds_[0, 0] > 1 else ""
        lines.append(
            f"Prediction sets with coverage {coverage:g}: {size:.2f} classes on average{few}, "
            f"from {len(z)} rows."
        )
    return Rules(classifier, sets), lines


def _summary_of_rule(c: "SelectiveClassifier", rows: int) -> str:
    if c.threshold_ == math.inf:
        least = math.ceil(math.log(c.delta) / math.log1p(-c.max_error))
        return (
            f"Decisions: no row is accepted: no threshold is shown to have an error of at most "
            f"{c.max_error:g} with probability {1 - c.delta:g}. {rows} rows were given; at least "
            f"{least} accepted ones without an error are necessary."
        )
    condition = "" if c.threshold_ == -math.inf else f" (confidence >= {c.threshold_:.4f})"
    return (
        f"Decisions: {100 * c.coverage_:.1f} % of the rows are accepted{condition} with an error "
        f"of at most {c.max_error:g}, with probability {1 - c.delta:g}; {100 * c.error_:.2f} % of "
        f"the accepted ones among {rows} rows are wrong."
    )


def read_rules(found: dict[str, Any], k: int) -> Rules:
    """The rules of metadata; a ValueError, KeyError or TypeError if they are damaged."""
    if not isinstance(found, dict):
        raise TypeError(f"must be an object, got {found!r}")
    from logitlab.decisions import ConformalSets, SelectiveClassifier

    classifier = sets = None
    if "max_error" in found:
        values = found["max_error"]
        classifier = SelectiveClassifier(_share(values["max_error"]), delta=_share(values["delta"]))
        classifier.threshold_ = _number(values["threshold"])
        classifier.coverage_ = _number(values["accepted"])
        for name in ("error", "error_bound"):
            value = values[name]
            setattr(classifier, f"{name}_", math.nan if value is None else _number(value))
        classifier.n_features_in_, classifier.classes_ = k, np.arange(k)
    if "coverage" in found:
        sets = ConformalSets(_share(found["coverage"]["coverage"]))
        sets.thresholds_ = np.full((1, k), _number(found["coverage"]["threshold"]))
        sets.groups_ = None
        sets.n_features_in_, sets.classes_ = k, np.arange(k)
    return Rules(classifier, sets)


def _share(x: Any) -> float:
    """A number between 0 and 1."""
    if not 0 < (share := _number(x)) < 1:
        raise ValueError(f"must be between 0 and 1, got {share}")
    return share


def _number(x: Any) -> float:
    """A JSON number, or the text of an infinite one."""
    if x in ("inf", "-inf"):
        return float(x)
    if isinstance(x, bool) or not isinstance(x, int | float) or x != x:
        raise TypeError(f"must be a number, got {x!r}")
    return float(x)
