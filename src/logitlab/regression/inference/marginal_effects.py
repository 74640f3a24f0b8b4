"""Marginal effects: derivatives of the probabilities by the features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from logitlab import _checks
from logitlab._rows import Integers
from logitlab.regression import inference_sums
from logitlab.regression.inference.tables import NormalTable
from logitlab.regression.objective import Objective
from logitlab.regression.partitions import sum_arrays, sum_members
from logitlab.regression.rows import Engine, Rows
from logitlab.regression.solver import Floats

PLACES = ("overall", "mean", "median", "zero")


@dataclass(frozen=True, kw_only=True)
class MarginalEffects(NormalTable):
    """Effects of the features on the probabilities of all classes, with delta-method errors.

    It prints as a table.

    Attributes
    ----------
    effect : numpy.ndarray, shape (K, D)
        The derivative of the probability of each class by each feature, or the difference of the
        probabilities at 1 and at 0.
    at : str
        Where the effects are taken.
    """

    _TITLE: ClassVar[str] = "Marginal Effects"
    _ESTIMATE: ClassVar[tuple[str, str]] = ("effect", "dy/dx")

    effect: Floats
    at: str

    def _header(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        return [("Dep. Variable", self.response)], [("At", self.at)]


def marginal_effects(
    objective: Objective, theta: Floats, at: Any, dummy: bool, names: Sequence[str]
) -> tuple[Floats, Floats, str]:
    """Return the effects (K, D), their derivative by the parameters, and where they are.

    theta and the parameters are of centred features; the derivative is (K, D, K, D + 1).
    """
    place, row = _place(objective, at, names)
    discrete = _binary_columns(objective) if dummy else np.arange(0)
    engine: Engine = objective.engine
    total = objective.weight_sum
    if row is not None:
        engine = Rows(row[None], np.zeros(1, np.int64), None, objective.classes)
        total = 1.0
    arguments = *objective.from_centred(theta), objective.mean, discrete
    parts = engine.map_parts(inference_sums.effect_sums, *arguments)
    effects, derivative = sum_members(parts)
    return effects / total, derivative / total, place


def _binary_columns(objective: Objective) -> Integers:
    """Return the columns whose values are 0 and 1."""
    parts = objective.engine.map_parts(inference_sums.counts_of_0_and_1)
    zeros, ones = sum_arrays(parts)
    return np.flatnonzero((zeros + ones == objective.rows) & (zeros > 0) & (ones > 0))


def _place(objective: Objective, at: Any, names: Sequence[str]) -> tuple[str, Floats | None]:
    """Return where the effects are taken: in words, and as one row, or None for all rows."""
    if isinstance(at, str):
        _checks.choice(at, "at", PLACES)
        if at == "overall":
            return at, None
        if at == "zero":
            return at, np.zeros(objective.features)
        return at, _mean(objective) if at == "mean" else _median(objective)
    if isinstance(at, Mapping):
        row = _mean(objective)
        for name, value in at.items():
            if name not in names:
                raise ValueError(f"at must name some of {', '.join(names)}, got {name!r}")
            row[list(names).index(name)] = _checks.real(
                value, f"at[{name!r}]", "finite", np.isfinite
            )
        place = ", ".join(f"{name}={value:g}" for name, value in at.items())
        return f"{place}; means" if len(at) < len(names) else place, row
    try:
        row = np.array(at, float)
    except (TypeError, ValueError):
        row = np.full((), np.nan)
    if row.shape != (objective.features,) or not np.isfinite(row).all():
        raise ValueError(
            f"at must be one of {', '.join(map(repr, PLACES))}, values by name, or "
            f"{objective.features} finite values, got {at!r}"
        )
    return "given values", row


def _mean(objective: Objective) -> Floats:
    _, total, _, sums, _ = objective.engine.totals()
    return np.asarray(objective.mean.copy() if objective.fit_intercept else sums / total)


def _median(objective: Objective) -> Floats:
    """Return the median of each feature; a row of weight w counts as w rows."""
    rows = objective.engine
    if not isinstance(rows, Rows):
        raise ValueError("at='median' needs rows in memory, got partitions")
    weight = np.ones(objective.rows) if rows.weight is None else rows.weight
    medians = np.empty(objective.features)
    for column in range(objective.features):
        x = rows.x[:, [column]]
        x = (x if isinstance(x, np.ndarray) else x.toarray())[:, 0].astype(float)
        order = np.argsort(x, kind="stable")
        order = order[weight[order] > 0]
        cumulated = np.cumsum(weight[order])
        low, high = (
            np.searchsorted(cumulated, cumulated[-1] / 2, side) for side in ("left", "right")
        )
        medians[column] = (x[order[low]] + x[order[min(high, len(order) - 1)]]) / 2
    return medians
