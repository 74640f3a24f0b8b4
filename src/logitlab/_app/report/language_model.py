"""Logits of a language model: nucleus sizes, entropy over steps, token log-probabilities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from logitlab._app.report.evaluation import N_BINS, N_RESAMPLES, SEED
from logitlab._arrays import bincount
from logitlab._rows import Floats, Integers
from logitlab.resampling import (
    Interval,
    ScoreSums,
    percentile_intervals,
    resampled_sums,
    scores_from_sums,
)
from logitlab.sampling import truncate

TOP_P = (0.9, 0.95)
TEMPERATURES = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
_MAX_WINDOWS = 200
_LISTED = 10  # tokens that are listed


def nucleus_sizes(z: Floats) -> Integers:
    """The number of classes that top-p keeps: shape (len(TOP_P), len(TEMPERATURES), rows)."""
    sizes = [
        [np.sum(truncate(z, temperature=t, top_p=p) > -np.inf, axis=-1) for t in TEMPERATURES]
        for p in TOP_P
    ]
    return np.array(sizes, np.int64)


class EntropyOverSteps:
    """The mean entropy in windows of consecutive steps.

    Rows are steps; in an array of three or more dimensions the last but one counts them.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.steps = shape[-2]
        self._sums = np.zeros((2, min(_MAX_WINDOWS, self.steps)))

    def add(self, rows: Integers, values: Floats) -> None:
        windows = self._sums.shape[1]
        window = (rows % self.steps) * windows // self.steps
        for i, weight in enumerate((None, values)):
            self._sums[i] += bincount(window, weight, windows)

    def merge(self, other: "EntropyOverSteps") -> None:
        """Add the sums over other rows."""
        self._sums += other._sums

    def curve(self) -> tuple[Floats, Floats]:
        """The middle step of each window that has rows, and the mean in it."""
        windows = self._sums.shape[1]
        filled = self._sums[0] > 0
        middle = (np.arange(windows) + 0.5) * self.steps / windows - 0.5
        return middle[filled], self._sums[1][filled] / self._sums[0][filled]


@dataclass(frozen=True)
class Token:
    """A token with the probability and the rank that the model gave it."""

    row: int
    token: int
    probability: float
    rank: int


@dataclass(frozen=True)
class TextScores:
    """Scores of the target tokens. In a row that is excluded: log-probability NaN, rank 0."""

    tokens: Integers
    log_probabilities: Floats
    ranks: Integers  # 1 is the most probable token
    log_loss: Interval
    accuracy: Interval  # share of the tokens with rank 1
    least_probable: list[Token]

    @property
    def perplexity(self) -> Interval:
        with np.errstate(over="ignore"):
            return Interval(*(float(np.exp(x)) for x in self.log_loss))


class TextAccumulator:
    """Accumulates log-probabilities and ranks of tokens over blocks of rows."""

    def __init__(self, rows: int, part: slice) -> None:
        """`part` are the rows that are added, out of all `rows`."""
        self._tally = ScoreSums(rows, N_BINS, np.dtype(np.float64), part=part)
        self._part = part
        self._log_p = np.full(part.stop - part.start, np.nan)
        self._ranks = np.zeros(part.stop - part.start, np.int64)

    def add(self, rows: Integers, z: NDArray[np.float64], y: Integers) -> None:
        """Add rows that have a distribution; `rows` are their numbers among all rows."""
        own = rows - self._part.start
        self._log_p[own] = -self._tally.add(own, z, y).loss
        self._ranks[own] = 1 + np.sum(z > np.take_along_axis(z, y[:, None], axis=-1), axis=-1)

    def merge(self, other: "TextAccumulator") -> None:
        """Add the rows after these."""
        self._tally.merge(other._tally)
        self._part = slice(self._part.start, other._part.stop)
        self._log_p = np.concatenate([self._log_p, other._log_p])
        self._ranks = np.concatenate([self._ranks, other._ranks])

    def scores(self, tokens: Integers) -> TextScores:
        """The scores of the target tokens of all rows."""
        cells = self._tally.group_sums
        resampled = scores_from_sums(resampled_sums(cells, N_RESAMPLES, SEED))
        intervals = percentile_intervals(scores_from_sums(cells.sum(axis=0)), resampled)
        order = np.argsort(np.where(np.isnan(self._log_p), np.inf, self._log_p), kind="stable")
        least_probable = [
            Token(
                int(row),
                int(tokens[row]),
                float(np.exp(self._log_p[row])),
                int(self._ranks[row]),
            )
            for row in order[:_LISTED]
            if self._ranks[row]
        ]
        return TextScores(
            tokens,
            self._log_p,
            self._ranks,
            intervals["log_loss"],
            intervals["accuracy"],
            least_probable,
        )
