"""The sections of a report that are about the fit: columns, importance, coefficients."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from logitlab import plot
from logitlab._app.fit.coefficients import Coefficients
from logitlab._app.io.source import printable
from logitlab._app.report.figures import shortened, svg
from logitlab._app.report.format import count, percent
from logitlab._rows import Integers
from logitlab.importance import PermutationImportance

if TYPE_CHECKING:
    from logitlab._app.fit.train import TrainingResult

_SHOWN_COLUMNS = 20
_SHOWN_FEATURES = 20
_SHOWN_CLASSES = 6


def fit_sections(result: "TrainingResult") -> str:
    """The HTML of the sections."""
    loader = PackageLoader("logitlab._app.fit")
    environment = Environment(
        loader=loader,
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, count=count, printable=printable)
    coefficients, importance = result.coefficients, result.importance
    shown = _largest_effects(coefficients)
    return environment.get_template("fit.html").render(
        plan=result.plan,
        fitted_rows=result.fitted_rows,
        importance=importance,
        importance_order=_order(importance),
        importance_figure=_importance_figure(importance),
        coefficients=coefficients,
        odds=[
            (printable(str(label)), _ratio_figure(coefficients, k, shown))
            for k, label in enumerate(coefficients.classes[:_SHOWN_CLASSES])
        ],
        hidden_classes=max(0, len(coefficients.classes) - _SHOWN_CLASSES),
        shown_features=len(shown),
        features=len(coefficients.unit),
    )


def _order(importance: PermutationImportance) -> Integers:
    return np.argsort(-importance.increase, kind="stable")[:_SHOWN_COLUMNS]


def _importance_figure(importance: PermutationImportance) -> str:
    order = _order(importance)

    def draw(figure: Any) -> None:
        names = [shortened(printable(importance.names[j]), 24) for j in order]
        values = (importance.increase, importance.low, importance.high)
        ax = plot.forest(names, *(value[order] for value in values), ax=figure.add_subplot())
        ax.set_xlabel("increase of the log-loss (nats)")

    label = "Increase of the log-loss when a column is shuffled, with 95 % intervals"
    return svg(draw, name="importance", label=label, width=5.4, height=0.9 + 0.21 * len(order))


def _largest_effects(coefficients: Coefficients) -> Integers:
    """The features whose coefficients are furthest from 0 in widths of their intervals.

    Without intervals, those with the largest coefficients of a unit.
    """
    sizes = np.abs(coefficients.coef)
    if coefficients.interval:
        width = coefficients.statistics["upper"] - coefficients.statistics["lower"]
        sizes = np.divide(sizes, width, out=np.zeros_like(sizes), where=width > 0)
        sizes = sizes[:, :-1]
    else:
        sizes = sizes[:, :-1] * coefficients.unit
    order: Integers = np.argsort(-sizes.max(axis=0), kind="stable")[:_SHOWN_FEATURES]
    return order


def _ratio_figure(coefficients: Coefficients, row: int, shown: Integers) -> str:
    """Odds ratios of one class, on a logarithmic axis."""

    def draw(figure: Any) -> None:
        names = [_feature_label(coefficients, j) for j in shown]
        values = [coefficients.coef]
        if coefficients.interval:
            values += [coefficients.statistics["lower"], coefficients.statistics["upper"]]
        bounded = (np.clip(coefficients.ratios(v)[row, shown], 1e-6, 1e6) for v in values)
        ax = plot.forest(names, *bounded, log_scale=True, ax=figure.add_subplot())
        ax.set_xlabel("odds ratio")

    label = f"Odds ratios of {coefficients.classes[row]} against {coefficients.base}"
    height = 0.9 + 0.21 * len(shown)
    return svg(draw, name=f"odds{row}", label=label, width=5.4, height=height)


def _feature_label(coefficients: Coefficients, feature: int) -> str:
    name = shortened(printable(coefficients.names[feature]), 24)
    unit = coefficients.unit[feature]
    if unit == 1:
        return name
    return f"{name} (+{unit:.3g})" if unit < 1000 else f"{name} (+{count(round(unit))})"
