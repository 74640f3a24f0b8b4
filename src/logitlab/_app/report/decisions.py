"""What can be decided by the calibrated probabilities: accepted rows, and sizes of sets."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.report.evaluation import agresti_coull
from logitlab._app.rules import DELTA
from logitlab._arrays import bincount
from logitlab._rows import Floats, Integers
from logitlab.decisions import ConformalSets, SelectiveClassifier
from logitlab.resampling import Interval

MAX_ERRORS = (0.01, 0.02, 0.05)
COVERAGES = (0.9, 0.95, 0.99)
_MIN_ROWS = 20  # of a half


@dataclass(frozen=True)
class Accepted:
    """The rows whose decision is accepted so that at most a share `max_error` is wrong."""

    max_error: float
    share: Interval  # of all rows, with a 95 % interval for this threshold on new rows
    error: float  # in the accepted rows; NaN without one


@dataclass(frozen=True)
class SetSize:
    """The mean number of classes in sets with a coverage, with a 95 % interval for new rows."""

    coverage: float
    size: Interval


@dataclass(frozen=True)
class Decisions:
    """Of rows calibrated by the temperature of the other half."""

    rows: int
    accepted: list[Accepted]
    sets: list[SetSize]


def decisions(
    rows: Integers,
    z: NDArray[Any],
    labels: Integers,
    folds: Integers,
    temperatures: tuple[float, ...] | None,
) -> Decisions | None:
    """The decisions of a sample of rows; None of too few.

    `temperatures` are those of each fold, fitted on the other one; None: no calibration.
    """
    fold, y = folds[rows], labels[rows]
    if bincount(fold, minlength=2).min() < _MIN_ROWS:
        return None
    calibrated = z.astype(np.float64)
    if temperatures is not None:
        calibrated /= np.array(temperatures)[fold][:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of no threshold: nothing is accepted
        accepted = [_accepted(calibrated, y, r) for r in MAX_ERRORS]
    return Decisions(len(y), accepted, [_set_size(calibrated, y, fold, c) for c in COVERAGES])


def _accepted(z: Floats, y: Integers, max_error: float) -> Accepted:
    classifier = SelectiveClassifier(max_error, delta=DELTA).fit(z, y)
    p = classifier.coverage_
    centre, half = agresti_coull(p, len(y))
    low, high = max(0.0, float(centre - half)), min(1.0, float(centre + half))
    share = Interval(p, low, high) if p > 0 else Interval(0.0, math.nan, math.nan)
    return Accepted(max_error, share, classifier.error_)


def _set_size(z: Floats, y: Integers, fold: Integers, coverage: float) -> SetSize:
    """The sets of each half have the thresholds of the other one."""
    sizes = np.empty(len(y))
    for half in (0, 1):
        sets = ConformalSets(coverage).fit(z[fold != half], y[fold != half])
        sizes[fold == half] = sets.set_sizes(z[fold == half])
    mean, error = float(sizes.mean()), 1.96 * float(sizes.std()) / math.sqrt(len(y))
    return SetSize(coverage, Interval(mean, mean - error, mean + error))
