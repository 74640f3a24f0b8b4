"""The figures of the report, as SVG."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from logitlab import plot
from logitlab._app.io.source import printable
from logitlab._app.report.analysis import CURVE_TEMPERATURES, Analysis
from logitlab._app.report.evaluation import Evaluation, Scores
from logitlab._app.report.histogram import Distribution
from logitlab._rows import Floats, Integers
from logitlab.plot.svg_axes import SvgAxes
from logitlab.reliability import ReliabilityCurve


def svg(draw: Callable[[SvgAxes], Any], *, label: str, width: float, height: float) -> str:
    """The SVG element of axes that `draw` fills; `label` is its text for screen readers.

    Sizes in inches.
    """
    ax = SvgAxes(width, height)
    draw(ax)
    return ax.to_svg(label)


SHOWN_CLASSES = 12
_BARS = 40  # bins of a histogram in a figure
SHARPNESS = {
    "entropy": "entropy (nats)",
    "perplexity": "perplexity (effective classes)",
    "top_probability": "top probability",
    "jacobian_trace": "trace of the Jacobian, 1 − Σ p²",
}
Figures = Iterator[dict[str, str]]  # title and svg


def shortened(name: str, length: int = 24) -> str:
    """A name of at most `length` characters."""
    return name if len(name) <= length else name[: length - 1] + "…"


def class_names(a: Analysis) -> tuple[str, ...]:
    """The names of the classes, or their numbers."""
    names = a.source.names or tuple(str(k) for k in range(a.source.classes))
    return tuple(map(printable, names))


def _coarse_histogram(d: Distribution) -> tuple[Floats, Integers]:
    step = len(d.counts) // _BARS
    return d.edges[::step], d.counts.reshape(_BARS, step).sum(axis=1)


def sharpness(a: Analysis) -> Figures:
    """Histograms over the rows."""
    for name, d in a.sharpness.items():
        edges, counts = _coarse_histogram(d)

        def draw(ax: SvgAxes, d: Any = d, edges: Any = edges, counts: Any = counts) -> None:
            plot.distribution(edges, counts, mean=d.mean, ax=ax)

        title = SHARPNESS[name]
        label = f"Histogram of {title} over the rows, mean {d.mean:.3g}"
        yield {"title": title, "svg": svg(draw, label=label, width=4.4, height=2.2)}


def temperature_curves(a: Analysis) -> str:
    """Mean top probability and mean entropy as functions of the temperature."""
    share = a.mean_entropy / max(math.log(a.source.classes), 1e-300)

    def draw(ax: SvgAxes) -> None:
        plot.temperature_summary(CURVE_TEMPERATURES, share, a.mean_top_probability, ax=ax)

    label = "Mean top probability and mean entropy as functions of the temperature, 0.1 to 10"
    return svg(draw, label=label, width=5.4, height=2.9)


def example(a: Analysis) -> Figures:
    """Probabilities and sampled frequencies of the example row, one figure per temperature."""
    sweep = a.example
    # The highest temperature has the fewest ties by underflow.
    order = np.argsort(-sweep.probabilities[-1], kind="stable")[:SHOWN_CLASSES]
    order = np.sort(order) if a.source.classes <= SHOWN_CLASSES else order
    names = [shortened(class_names(a)[k], 9) for k in order]
    crowded = sum(map(len, names)) > 40
    for i, t in enumerate(sweep.temperatures):

        def draw(ax: SvgAxes, i: int = i) -> None:
            p, frequencies = sweep.probabilities[i][order], sweep.frequencies[i][order]
            plot.outcome_bars(names, p, frequencies, ax=ax)
            if crowded:
                ax.tick_params("x", rotation=90)

        label = f"Probabilities and sampled frequencies of row {a.example_row} at temperature {t:g}"
        picture = svg(draw, label=label, width=3.4, height=2.2)
        yield {"title": f"T = {t:g}", "svg": picture}


def _reliability(
    title: str, curve: ReliabilityCurve, subject: str, *axis_labels: str
) -> dict[str, str]:
    """A reliability diagram; `axis_labels` replace confidence and accuracy."""

    def draw(ax: SvgAxes) -> None:
        plot.reliability_diagram(curve, ax=ax)
        if axis_labels:
            ax.set(xlabel=axis_labels[0], ylabel=axis_labels[1])

    label = f"Reliability diagram of {subject}, {title}"
    return {"title": title, "svg": svg(draw, label=label, width=4.0, height=3.4)}


def reliability(evaluation: Evaluation) -> Figures:
    """Of the top class, uncalibrated and after each calibrator, whose name is added as a key."""
    for name, scores in {
        "uncalibrated": evaluation.uncalibrated,
        **evaluation.calibrated,
    }.items():
        title = "Uncalibrated" if name == "uncalibrated" else f"After {name} scaling"
        title = f"{title}: ECE {scores['calibration_error']:.4f}"
        picture = _reliability(title, scores.curve, "the top class")
        yield {**picture, "calibrator": name}


def classwise_reliability(evaluation: Evaluation) -> Figures:
    """Of all classes together, before and after temperature scaling."""
    shown: dict[str, Scores] = {"Uncalibrated": evaluation.uncalibrated}
    if "temperature" in evaluation.calibrated:
        shown["After temperature scaling"] = evaluation.calibrated["temperature"]
    for title, scores in shown.items():
        if scores.class_curve is not None and scores.classwise_error is not None:
            title = f"{title}: class-wise ECE {scores.classwise_error:.4f}"
            axis_labels = "predicted probability of a class", "observed frequency"
            yield _reliability(title, scores.class_curve, "every class", *axis_labels)


def shown_classes(evaluation: Evaluation) -> Integers:
    """Predicted classes, the most overconfident first; of many those at both ends."""
    classes = evaluation.predicted_classes
    order = np.argsort(-(classes.confidence - classes.accuracy), kind="stable")
    order = order[classes.rows[order] > 0]
    if len(order) > 2 * SHOWN_CLASSES:
        order = np.concatenate([order[:SHOWN_CLASSES], order[-SHOWN_CLASSES:]])
    return order


def class_gaps(a: Analysis, evaluation: Evaluation) -> str:
    """Mean confidence minus accuracy of each predicted class."""
    classes, names, order = evaluation.predicted_classes, class_names(a), shown_classes(evaluation)
    gap: Floats = classes.confidence - classes.accuracy

    def draw(ax: SvgAxes) -> None:
        labels = [shortened(names[k], 16) for k in order]
        half_width = classes.half_width()[order]
        ax = plot.class_gaps(labels, gap[order], half_width, ax=ax)
        ax.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.3g} %".replace("-", "−"))

    label = "Mean confidence minus accuracy of each predicted class, with 95 % intervals"
    return svg(draw, label=label, width=4.4, height=0.8 + 0.21 * len(order))


def entropy_over_steps(a: Analysis) -> str:
    """Mean entropy in windows of consecutive steps."""
    steps, values = a.entropy_over_steps.curve()

    def draw(ax: SvgAxes) -> None:
        plot.over_time(steps, values, ax=ax)
        ax.set_ylabel("entropy (nats)")

    label = "Mean entropy in windows of consecutive steps"
    return svg(draw, label=label, width=5.4, height=2.4)
