"""A sample of the rows in more detail: reliability at any temperature, rows of a bin or a class."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab._bins import binned_sums, error_from_sums, uniform_bins
from logitlab._rows import Floats, Integers, blocks, row_max
from logitlab.probabilities import log_softmax

TEMPERATURES = 2.0 ** np.linspace(-2, 2, 41)
_MAX_ROWS = 1 << 17
_LISTED = 20  # rows of a bin or a class


class ListedRow(NamedTuple):
    """A row with its confidence, and the numbers of the predicted and the true class."""

    row: int
    confidence: float
    predicted: int
    true: int


@dataclass(frozen=True)
class SampledRows:
    """Results of sampled rows, at several temperatures and uncalibrated.

    Attributes
    ----------
    rows : int
    temperatures : array, shape (n,)
        Ascending; among them 1 and the fitted one.
    bin_sums : array, shape (n, 3, B)
        As of :meth:`logitlab._bins.Bins.sums`.
    calibration_error, log_loss : array, shape (n,)
    bins, classes : dict of int to list of ListedRow
        Rows of each bin of confidence and of each predicted class that has rows: those that are
        misclassified first, the most confident first.
    """

    rows: int
    temperatures: Floats
    bin_sums: Floats
    calibration_error: Floats
    log_loss: Floats
    bins: dict[int, list[ListedRow]]
    classes: dict[int, list[ListedRow]]


def sampled_rows(
    rows: Integers,
    z: NDArray[Any],
    y: Integers,
    n_bins: int,
    dtype: np.dtype[Any],
    fitted: float | None,
) -> SampledRows:
    """The results of rows with these numbers, logits and true classes; of many, of random ones.

    `dtype` is the type of the logits in the file, `fitted` the fitted temperature.
    """
    if len(rows) > _MAX_ROWS:
        chosen = np.random.default_rng(0).choice(len(rows), _MAX_ROWS, replace=False)
        chosen.sort()
        rows, z, y = rows[chosen], z[chosen], y[chosen]
    temperatures = TEMPERATURES if fitted is None else np.union1d(TEMPERATURES, [fitted])
    bins = uniform_bins(n_bins, dtype)
    bin_sums, loss = np.zeros((len(temperatures), 3, n_bins)), np.zeros(len(temperatures))
    confidence, predicted = np.empty(len(z)), np.empty(len(z), np.int64)
    for part in blocks(*z.shape):
        wide, label = z[part].astype(np.float64), y[part]
        predicted[part] = wide.argmax(axis=-1)
        correct = predicted[part] == label
        for i, t in enumerate(temperatures):
            log_p = log_softmax(wide, temperature=t)
            p = np.exp(row_max(log_p))
            bin_sums[i] += binned_sums(bins.indices(p), n_bins, p, correct)
            loss[i] -= np.take_along_axis(log_p, label[:, None], axis=-1).sum()
            if t == 1:
                confidence[part] = p
    order = np.lexsort((-confidence, predicted == y))

    def listed(groups: Integers) -> dict[int, list[ListedRow]]:
        return {
            group: [
                ListedRow(int(rows[i]), float(confidence[i]), int(predicted[i]), int(y[i]))
                for i in chosen
            ]
            for group, chosen in _first_of_groups(groups, order)
        }

    return SampledRows(
        rows=len(z),
        temperatures=temperatures,
        bin_sums=bin_sums,
        calibration_error=error_from_sums(bin_sums.swapaxes(0, 1), 1),
        log_loss=loss / len(z),
        bins=listed(bins.indices(confidence)),
        classes=listed(predicted),
    )


def _first_of_groups(groups: Integers, order: Integers) -> Iterator[tuple[int, Integers]]:
    """The group numbers, and the first rows of each in this order."""
    order = order[np.argsort(groups[order], kind="stable")]
    numbers, starts = np.unique(groups[order], return_index=True)
    for number, chosen in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        yield number, chosen[:_LISTED]
