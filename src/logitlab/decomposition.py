"""Scores as the sum of miscalibration, discrimination and uncertainty."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from logitlab import _checks
from logitlab._bins import isotonic_bins
from logitlab._rows import blocks, labelled_rows, softmax_rows
from logitlab.probabilities import log_softmax, logsumexp


class ScoreDecomposition(NamedTuple):
    """Result of :func:`score_decomposition`."""

    score: float  #: miscalibration - discrimination + uncertainty
    miscalibration: float  #: score minus the score after isotonic recalibration
    discrimination: float  #: uncertainty minus the score after isotonic recalibration
    uncertainty: float  #: score of the constant prediction of the mean


def _rate_score(events: Any, total: Any, score: str) -> Any:
    """Mean score of the prediction events/total for that many events of a total."""
    rate = events / total
    if score == "brier_score":
        return rate * (1 - rate)
    logs = [np.log(np.where(r > 0, r, 1)) for r in (rate, 1 - rate)]
    return -(rate * logs[0] + (1 - rate) * logs[1])


def score_decomposition(
    z: Any,
    y: Any,
    axis: int = -1,
    *,
    score: Literal["log_loss", "brier_score"] = "log_loss",
    pos_label: int | None = None,
    sample_weight: Any = None,
    ignore_index: int | Sequence[int] | None = None,
) -> ScoreDecomposition:
    """CORP decomposition of a score into miscalibration, discrimination and uncertainty.

    The score is that of a probability and an event: the confidence and whether the prediction is
    correct, or the probability of one class and whether it is the label. Isotonic regression of the
    events on the probabilities recalibrates them optimally among all nondecreasing functions.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits.
    y : array of int, shape of z without the class axis
        Labels, 0 to K - 1.
    axis : int
        The class axis.
    score : {"log_loss", "brier_score"}
        The mean of -log(probability of what occurred), in nats; or of (probability - event)^2,
        which for two classes is half of :func:`brier_score`.
    pos_label : int, optional
        The class whose probability is evaluated, 0 to K - 1; for two classes usually 1. By default
        it is the predicted class of each row.
    sample_weight, ignore_index
        As in :func:`accuracy`.

    Returns
    -------
    ScoreDecomposition
        ``score`` = ``miscalibration`` - ``discrimination`` + ``uncertainty``. The three parts are
        >= 0: what recalibration would reduce the score by, what the recalibrated probabilities gain
        over a constant prediction, and the score of the best constant prediction. An infinite
        log-loss has an infinite miscalibration.

    Raises
    ------
    TypeError, ValueError
        As :func:`accuracy`; an unknown `score`; `pos_label` is outside 0 to K - 1.

    References
    ----------
    T. Dimitriadis, T. Gneiting and A. I. Jordan, "Stable reliability diagrams for probabilistic
    classifiers", PNAS 118 (2021) e2016191118.

    Examples
    --------
    >>> import logitlab
    >>> z = [[2.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    >>> result = logitlab.score_decomposition(z, [0, 0, 1, 1], score="brier_score")
    >>> [round(part, 4) for part in result]
    [0.1588, 0.0338, 0.0625, 0.1875]
    """
    _checks.choice(score, "score", ("log_loss", "brier_score"))
    z, y, weight, numbers = labelled_rows(z, y, sample_weight, axis, ignore_index)
    if pos_label is not None and not 0 <= _checks.integer(pos_label, "pos_label") < z.shape[1]:
        raise ValueError(f"pos_label must be from 0 to {z.shape[1] - 1}, got {pos_label}")
    p, loss = np.empty((2, len(z)))
    occurred = np.empty(len(z), np.bool_)
    for rows in blocks(*z.shape):
        all_p = softmax_rows(z, rows, numbers=numbers)
        evaluated = z[rows].argmax(axis=-1) if pos_label is None else np.full(len(all_p), pos_label)
        chosen = evaluated[:, None]
        p[rows] = np.take_along_axis(all_p, chosen, axis=-1)[:, 0]
        occurred[rows] = evaluated == y[rows]
        if score == "brier_score":
            loss[rows] = (p[rows] - occurred[rows]) ** 2
        else:
            log_p = log_softmax(z[rows].astype(np.float64))
            own = np.take_along_axis(log_p, chosen, axis=-1)[:, 0]
            np.put_along_axis(log_p, chosen, -np.inf, axis=-1)
            loss[rows] = -np.where(occurred[rows], own, logsumexp(log_p))
    events, total = isotonic_bins(p, occurred, weight).sums(p, occurred, weight)[[2, 0]]
    recalibrated = float(np.average(_rate_score(events, total, score), weights=total))
    uncertainty = float(_rate_score(events.sum(), total.sum(), score))
    value = float(np.average(loss, weights=weight))
    # Neither part is negative, except by rounding.
    parts = max(value - recalibrated, 0.0), max(uncertainty - recalibrated, 0.0)
    return ScoreDecomposition(value, *parts, uncertainty)
