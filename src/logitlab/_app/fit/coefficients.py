"""The coefficients of a fit with their intervals, and what they do to the odds."""

import csv
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.outputs import csv_text
from logitlab._app.io.source import pluralize
from logitlab._rows import Floats

if TYPE_CHECKING:
    from logitlab.tables.model import TableModel

_MAX_PARAMETERS = 1500  # of more the covariance takes minutes
LEVEL = 0.95


@dataclass(frozen=True)
class Coefficients:
    """Coefficients relative to a base class; arrays have a row for each other class.

    The columns are the features, then the intercept.
    """

    base: Any
    classes: list[Any]
    names: list[str]
    coef: Floats
    interval: str  # "confidence", "credible" or "": there is none
    statistics: dict[str, Floats]  # further columns of coefficients.csv, such as lower and upper
    unit: Floats  # (features,): 1, or the standard deviation of a number

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary per line of coefficients.csv."""
        values = {"coef": self.coef, **self.statistics}
        return [
            {"class": label, "base": self.base, "name": name}
            | {key: float(array[k, j]) for key, array in values.items()}
            for k, label in enumerate(self.classes)
            for j, name in enumerate(self.names)
        ]

    def as_csv(self) -> str:
        """The text of coefficients.csv."""
        text = io.StringIO()
        rows = self.rows()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: csv_text(v) if isinstance(v, str) else v for k, v in row.items()})
        return text.getvalue()

    def ratios(self, values: Floats) -> Floats:
        """What a unit of each feature multiplies the odds against the base class with."""
        with np.errstate(over="ignore", under="ignore"):
            return np.asarray(np.exp(values[:, : len(self.unit)] * self.unit))


def coefficients(model: "TableModel", x: Any, y: NDArray[Any]) -> tuple[Coefficients, list[str]]:
    """Return the coefficients of a fit on x and y, and messages for the user."""
    regression = model.regression_
    names = [*model.get_feature_names_out(), "intercept"]
    classes = regression.classes_.tolist()
    size = len(names) * len(classes)
    messages: list[str] = []
    statistics: dict[str, Floats] = {}
    interval = ""
    if size > _MAX_PARAMETERS:
        messages.append(
            f"Intervals are not available: {pluralize(size, 'parameter')}, more than "
            f"{_MAX_PARAMETERS}"
        )
    elif math.isinf(model.C):
        try:
            inference = regression.inference(x, y)
            lower, upper = inference.confidence_interval(LEVEL)
            statistics = {
                "standard_error": inference.standard_error,
                "z": inference.z,
                "p_value": inference.p_value,
            }
            interval = "confidence"
        except ValueError as error:
            messages.append(f"Standard errors are not available: {error}")
    else:
        posterior = regression.posterior(x, y)
        lower, upper = posterior.credible_interval(LEVEL)
        statistics, interval = {"standard_deviation": posterior.standard_deviation}, "credible"
    if interval:
        statistics |= {"lower": lower, "upper": upper}
    return (
        Coefficients(
            base=classes[0],
            classes=classes[1:],
            names=names,
            coef=_relative_to_first(regression),
            interval=interval,
            statistics=statistics,
            unit=_units(x),
        ),
        messages,
    )


def _relative_to_first(regression: Any) -> Floats:
    parameters = np.hstack([regression.coef_, regression.intercept_[:, None]])
    return parameters if len(parameters) == 1 else parameters[1:] - parameters[0]


def _units(x: Any) -> Floats:
    """1 for columns of 0 and 1, the standard deviation of others."""
    from sklearn.preprocessing import StandardScaler

    deviation = StandardScaler(with_mean=False).fit(x).scale_
    squares = x**2 if isinstance(x, np.ndarray) else x.multiply(x)
    is_number = np.asarray((squares != x).sum(axis=0)).ravel() > 0
    return np.where(is_number, deviation, 1.0)
