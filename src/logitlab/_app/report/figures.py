"""The figures of the report, as SVG."""

import html
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from logitlab import plot
from logitlab._app.io.source import printable
from logitlab._app.report.analysis import CURVE_TEMPERATURES, Analysis
from logitlab._app.report.evaluation import Evaluation, Scores
from logitlab._app.report.format import count, percent
from logitlab._app.report.histogram import Distribution
from logitlab._rows import Floats, Integers
from logitlab.reliability import ReliabilityCurve

# Placeholder colours for matplotlib, and the CSS variables that replace them in the page.
_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    "#040404": "var(--first)",
    "#050505": "var(--second)",
}
_INK, _MUTED, _LINE, _FIRST, _SECOND = _COLOURS
_STYLE: Any = {
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.prop_cycle": cycler(color=[_FIRST, _SECOND]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "font.size": 9,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "logitlab",
    "text.color": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
}


def svg(
    draw: Callable[[Any], Any], *, name: str, label: str, width: float = 4.4, height: float = 2.9
) -> str:
    """The SVG element of a figure that `draw` fills; `label` is its text for screen readers.

    `name` is unique in the page: it is the prefix of the identifiers in the SVG. Sizes in inches.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(
        r'<g id="value:(\w*):([^"]*)">', r'<g class="value" data-key="\1"><title>\2</title>', text
    )
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, variable)
    # The page sets the font and the width.
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)


def add_values(ax: Any, edges: Any, texts: Sequence[str], keys: Sequence[Any] = ()) -> None:
    """Transparent strips of the axes, from edge to edge, that show a text under the pointer.

    In the page a strip has its key as ``data-key``. An empty text has no strip.
    """
    limits = ax.get_xlim()
    for i, (left, right, text) in enumerate(zip(edges[:-1], edges[1:], texts, strict=True)):
        strip = Rectangle((left, 0), right - left, 1, transform=ax.get_xaxis_transform())
        strip.set(facecolor=_INK, alpha=0.004, linewidth=0, zorder=9)
        strip.set_gid(f"value:{keys[i] if keys else ''}:{text}")
        if text:
            ax.add_patch(strip)
    ax.set_xlim(limits)


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

        def draw(figure: Any, d: Any = d, edges: Any = edges, counts: Any = counts) -> None:
            ax = plot.distribution(edges, counts, mean=d.mean, ax=figure.add_subplot())
            shares = counts / max(counts.sum(), 1)
            add_values(
                ax,
                edges,
                [
                    f"{low:.3g} to {high:.3g}: {count(n)} rows ({percent(share)})"
                    for low, high, n, share in zip(
                        edges[:-1], edges[1:], counts.tolist(), shares, strict=True
                    )
                ],
            )

        title = SHARPNESS[name]
        label = f"Histogram of {title} over the rows, mean {d.mean:.3g}"
        yield {"title": title, "svg": svg(draw, name=name, label=label, height=2.2)}


def _between(x: Floats) -> Floats:
    """The middles between neighbours, and the first and the last of ascending numbers."""
    return np.concatenate([x[:1], (x[1:] + x[:-1]) / 2, x[-1:]])


def temperature_curves(a: Analysis) -> str:
    """Mean top probability and mean entropy as functions of the temperature."""
    share = a.mean_entropy / max(math.log(a.source.classes), 1e-300)

    def draw(figure: Any) -> None:
        ax = plot.temperature_summary(
            CURVE_TEMPERATURES, share, a.mean_top_probability, ax=figure.add_subplot()
        )
        texts = [
            f"T = {t:.3g}: mean top probability {percent(p)}, mean entropy {h:.4g} nats"
            for t, p, h in zip(
                CURVE_TEMPERATURES, a.mean_top_probability, a.mean_entropy, strict=True
            )
        ]
        add_values(ax, np.exp(_between(np.log(CURVE_TEMPERATURES))), texts)

    label = "Mean top probability and mean entropy as functions of the temperature, 0.1 to 10"
    return svg(draw, name="temperature", label=label, width=5.4)


def example(a: Analysis) -> Figures:
    """Probabilities and sampled frequencies of the example row, one figure per temperature."""
    sweep = a.example
    # The highest temperature has the fewest ties by underflow.
    order = np.argsort(-sweep.probabilities[-1], kind="stable")[:SHOWN_CLASSES]
    order = np.sort(order) if a.source.classes <= SHOWN_CLASSES else order
    shown = [class_names(a)[k] for k in order]
    names = [shortened(name, 9) for name in shown]
    crowded = sum(map(len, names)) > 40
    for i, t in enumerate(sweep.temperatures):

        def draw(figure: Any, i: int = i) -> None:
            p, frequencies = sweep.probabilities[i][order], sweep.frequencies[i][order]
            ax = plot.outcome_bars(names, p, frequencies, ax=figure.add_subplot())
            if crowded:
                ax.tick_params("x", rotation=90)
            texts = [
                f"{name}: probability {percent(share, 2)}, frequency {percent(frequency)}"
                for name, share, frequency in zip(shown, p, frequencies, strict=True)
            ]
            add_values(ax, np.arange(len(shown) + 1) - 0.5, texts)

        label = f"Probabilities and sampled frequencies of row {a.example_row} at temperature {t:g}"
        picture = svg(draw, name=f"example{i}", label=label, width=3.4, height=2.2)
        yield {"title": f"T = {t:g}", "svg": picture}


def _bin_texts(curve: ReliabilityCurve) -> list[str]:
    """The values of each bin; of one without rows nothing."""
    return [
        f"{count(n)} rows: {percent(confidence)} predicted, {percent(accuracy)} observed, "
        f"95 % interval {percent(low)} to {percent(high)}"
        if n
        else ""
        for n, confidence, accuracy, low, high in zip(
            curve.counts.tolist(),
            curve.confidence,
            curve.accuracy,
            curve.low,
            curve.high,
            strict=True,
        )
    ]


def _reliability(
    name: str, title: str, curve: ReliabilityCurve, subject: str, *axis_labels: str
) -> dict[str, str]:
    """A reliability diagram; `axis_labels` replace confidence and accuracy."""

    def draw(figure: Any) -> None:
        ax = plot.reliability_diagram(curve, ax=figure.add_subplot())
        if axis_labels:
            ax.set(xlabel=axis_labels[0], ylabel=axis_labels[1])
        add_values(ax, curve.edges, _bin_texts(curve), range(len(curve.counts)))

    label = f"Reliability diagram of {subject}, {title}"
    return {"title": title, "svg": svg(draw, name=name, label=label, width=4.0, height=3.4)}


def reliability(evaluation: Evaluation, prefix: str = "") -> Figures:
    """Of the top class, uncalibrated and after each calibrator, whose name is added as a key."""
    for name, scores in {
        "uncalibrated": evaluation.uncalibrated,
        **evaluation.calibrated,
    }.items():
        title = "Uncalibrated" if name == "uncalibrated" else f"After {name} scaling"
        title = f"{title}: ECE {scores['calibration_error']:.4f}"
        picture = _reliability(f"{prefix}top-{name}", title, scores.curve, "the top class")
        yield {**picture, "calibrator": name}


def classwise_reliability(evaluation: Evaluation) -> Figures:
    """Of all classes together, before and after temperature scaling."""
    shown: dict[str, Scores] = {"Uncalibrated": evaluation.uncalibrated}
    if "temperature" in evaluation.calibrated:
        shown["After temperature scaling"] = evaluation.calibrated["temperature"]
    for i, (title, scores) in enumerate(shown.items()):
        if scores.class_curve is not None and scores.classwise_error is not None:
            title = f"{title}: class-wise ECE {scores.classwise_error:.4f}"
            axis_labels = "predicted probability of a class", "observed frequency"
            yield _reliability(
                f"classes{i}", title, scores.class_curve, "every class", *axis_labels
            )


def shown_classes(evaluation: Evaluation) -> Integers:
    """Predicted classes, the most overconfident first; of many those at both ends."""
    classes = evaluation.predicted_classes
    order = np.argsort(-(classes.confidence - classes.accuracy), kind="stable")
    order = order[classes.rows[order] > 0]
    if len(order) > 2 * SHOWN_CLASSES:
        order = np.concatenate([order[:SHOWN_CLASSES], order[-SHOWN_CLASSES:]])
    return order


def entropy_over_steps(a: Analysis) -> str:
    """Mean entropy in windows of consecutive steps."""
    steps, values = a.entropy_over_steps.curve()

    def draw(figure: Any) -> None:
        ax = plot.over_time(steps, values, ax=figure.add_subplot())
        ax.set_ylabel("entropy (nats)")
        texts = [f"step {s:.6g}: {v:.4g} nats" for s, v in zip(steps, values, strict=True)]
        add_values(ax, _between(steps), texts)

    label = "Mean entropy in windows of consecutive steps"
    return svg(draw, name="steps", label=label, width=5.4, height=2.4)
