"""Logits as steps of a language model: nucleus sizes, entropy over time, the text that was."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from logitlab._app.report.evaluation import RESAMPLES, SEED
from logitlab._rows import Floats, Integers
from logitlab.probabilities import softmax
from logitlab.resampling import (
    Interval,
    ScoreSums,
    percentile_intervals,
    resampled_sums,
    scores_from_sums,
)

NUCLEI = (0.9, 0.95)
TEMPERATURES = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
_WINDOWS = 200
_WORST = 10  # tokens that are listed


def nucleus_sizes(z: Floats) -> Integers:
    """How many classes the top-p prefix holds: shape (len(NUCLEI), len(TEMPERATURES), rows)."""
    sizes = np.zeros((len(NUCLEI), len(TEMPERATURES), len(z)), np.int64)
    for r, row in enumerate(z):
        ordered = -np.sort(-row)
        for j, t in enumerate(TEMPERATURES):
            mass = np.cumsum(softmax(ordered, temperature=t))
            for i, p in enumerate(NUCLEI):
                sizes[i, j, r] = min(int(np.searchsorted(mass, p)) + 1, len(row))
    return sizes


class OverTime:
    """The mean of a figure in windows of consecutive steps.

    Rows are steps; of an array of three or more dimensions its last but one counts them.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.steps = shape[-2]
        windows = min(_WINDOWS, self.steps)
        self._sums = np.zeros((2, windows))

    def add(self, rows: Integers, values: Floats) -> None:
        windows = self._sums.shape[1]
        place = (rows % self.steps) * windows // self.steps
        for i, weight in enumerate((None, values)):
            self._sums[i] += np.bincount(place, weight, windows)

    def curve(self) -> tuple[Floats, Floats]:
        """The middle of each window that has rows, as a step, and the mean in it."""
        windows = self._sums.shape[1]
        some = self._sums[0] > 0
        middle = (np.arange(windows) + 0.5) * self.steps / windows - 0.5
        return middle[some], self._sums[1][some] / self._sums[0][some]


@dataclass(frozen=True)
class Surprise:
    row: int
    token: int
    probability: float
    rank: int


@dataclass(frozen=True)
class Text:
    """What the model gave to the tokens that were there. NaN and 0 for a row left out."""

    tokens: Integers
    log_probabilities: Floats
    ranks: Integers  # 1 is the most probable
    log_loss: Interval
    top: Interval  # share of the tokens that were the most probable
    surprises: list[Surprise]

    @property
    def perplexity(self) -> Interval:
        with np.errstate(over="ignore"):
            return Interval(*(float(np.exp(x)) for x in self.log_loss))


class TextPass:
    """Token log-probabilities, collected block by block."""

    def __init__(self, tokens: Integers) -> None:
        self._tokens = tokens
        self._tally = ScoreSums(len(tokens))
        self._log_p = np.full(len(tokens), np.nan)
        self._ranks = np.zeros(len(tokens), np.int64)

    def add(self, rows: Integers, z: NDArray[np.float64]) -> None:
        y = self._tokens[rows]
        _, loss = self._tally.add(rows, z, y)
        self._log_p[rows] = -loss
        self._ranks[rows] = 1 + np.sum(z > np.take_along_axis(z, y[:, None], axis=-1), axis=-1)

    def text(self) -> Text:
        cells = self._tally.group_sums
        again = scores_from_sums(resampled_sums(cells, RESAMPLES, SEED))
        found = percentile_intervals(scores_from_sums(cells.sum(axis=0)), again)
        order = np.argsort(np.where(np.isnan(self._log_p), np.inf, self._log_p), kind="stable")
        surprises = [
            Surprise(
                int(row),
                int(self._tokens[row]),
                float(np.exp(self._log_p[row])),
                int(self._ranks[row]),
            )
            for row in order[:_WORST]
            if self._ranks[row]
        ]
        return Text(
            self._tokens,
            self._log_p,
            self._ranks,
            found["log_loss"],
            found["accuracy"],
            surprises,
        )
