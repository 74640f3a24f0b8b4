"""The pictures of the report, as SVG."""

import io
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure

from logitlab import plot
from logitlab._app.report.analysis import SHOWN_TEMPERATURES, SWEEP, Analysis
from logitlab._app.report.evaluation import Judged, Scores
from logitlab._app.report.histogram import Distribution
from logitlab._rows import Floats, Integers

# What matplotlib is told, and what stands there in the page: a CSS variable.
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
    """An SVG element of what `draw` makes on a figure; `label` is read to those who can't see it.

    `name` is unique in the page: identifiers inside the picture begin with it. Sizes in inches.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, variable)
    # The page sets the font and the width.
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


SHOWN_CLASSES = 12
_BARS = 40  # bins of a drawn histogram
SHARPNESS = {
    "entropy": "entropy (nats)",
    "perplexity": "perplexity (classes)",
    "top_probability": "top probability",
    "jacobian_trace": "trace of the Jacobian, 1 − Σ p²",
}
Pictures = Iterator[dict[str, str]]


def short(name: str, length: int = 24) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def names_of(a: Analysis) -> tuple[str, ...]:
    return a.source.names or tuple(str(k) for k in range(a.source.classes))


def _histogram(d: Distribution) -> tuple[Any, Any]:
    step = len(d.counts) // _BARS
    return d.edges[::step], d.counts.reshape(_BARS, step).sum(axis=1)


def sharpness(a: Analysis) -> Pictures:
    for name, d in a.sharpness.items():
        edges, counts = _histogram(d)

        def draw(figure: Any, d: Any = d, edges: Any = edges, counts: Any = counts) -> None:
            plot.distribution(edges, counts, mean=d.mean, ax=figure.add_subplot())

        title = SHARPNESS[name]
        label = f"Histogram of {title} over the rows, mean {d.mean:.3g}"
        yield {"title": title, "svg": svg(draw, name=name, label=label, height=2.2)}


def sweep(a: Analysis) -> str:
    share = a.sweep_entropy / max(math.log(a.source.classes), 1e-300)

    def draw(figure: Any) -> None:
        plot.temperature_summary(SWEEP, share, a.sweep_top, ax=figure.add_subplot())

    label = "Mean top probability and mean entropy against temperature from 0.1 to 10"
    return svg(draw, name="sweep", label=label, width=5.4)


def example(a: Analysis) -> Pictures:
    e = a.example
    order = np.argsort(-e.logits, kind="stable")[:SHOWN_CLASSES]
    order = np.sort(order) if a.source.classes <= SHOWN_CLASSES else order
    names = [names_of(a)[k] for k in order]
    names = [short(name, 9) for name in names]
    crowded = sum(map(len, names)) > 40
    for i, t in enumerate(SHOWN_TEMPERATURES):

        def draw(figure: Any, i: int = i) -> None:
            p, drawn = e.probabilities[i][order], e.frequencies[i][order]
            ax = plot.outcome_bars(names, p, drawn, ax=figure.add_subplot())
            if crowded:
                ax.tick_params("x", rotation=90)

        label = f"Probabilities of row {e.row} at temperature {t:g} with drawn frequencies"
        picture = svg(draw, name=f"example{i}", label=label, width=3.4, height=2.2)
        yield {"title": f"T = {t:g}", "svg": picture}


def _reliability(name: str, title: str, curve: Any, what: str, *axes: str) -> dict[str, str]:
    """`axes` are what stands at them, if not confidence and accuracy."""

    def draw(figure: Any) -> None:
        ax = plot.reliability_diagram(curve, ax=figure.add_subplot())
        if axes:
            ax.set(xlabel=axes[0], ylabel=axes[1])

    label = f"Reliability diagram of {what}, {title}"
    return {"title": title, "svg": svg(draw, name=name, label=label, width=4.0, height=3.4)}


def reliability(judged: Judged, prefix: str = "") -> Pictures:
    """Top label, before and after each calibrator; the way is told beside title and picture."""
    for name, scores in {"none": judged.before, **judged.calibrated}.items():
        title = "As it came" if name == "none" else f"After {name} scaling"
        title = f"{title}: calibration error {scores['calibration_error']:.4f}"
        picture = _reliability(f"{prefix}top-{name}", title, scores.curve, "the top label")
        yield {**picture, "way": name}


def classwise(judged: Judged) -> Pictures:
    """All classes together, before and after temperature scaling."""
    shown: dict[str, Scores] = {"As it came": judged.before}
    if "temperature" in judged.calibrated:
        shown["After temperature scaling"] = judged.calibrated["temperature"]
    for i, (title, scores) in enumerate(shown.items()):
        if scores.class_curve is not None and scores.classwise is not None:
            title = f"{title}: class-wise error {scores.classwise:.4f}"
            axes = "probability of a class", "how often it came true"
            yield _reliability(f"classes{i}", title, scores.class_curve, "every class", *axes)


def shown_classes(judged: Judged) -> Integers:
    """Classes by gap, the most over-confident first; of many those at the two ends."""
    by = judged.classes
    order = np.argsort(-(by.confidence - by.accuracy), kind="stable")
    order = order[by.rows[order] > 0]
    if len(order) > 2 * SHOWN_CLASSES:
        order = np.concatenate([order[:SHOWN_CLASSES], order[-SHOWN_CLASSES:]])
    return order


def class_gaps(a: Analysis, judged: Judged) -> str:
    by, names, order = judged.classes, names_of(a), shown_classes(judged)
    gap: Floats = by.confidence - by.accuracy

    def draw(figure: Any) -> None:
        labels = [short(names[k], 16) for k in order]
        half_width = by.half_width()[order]
        ax = plot.class_gaps(labels, gap[order], half_width, ax=figure.add_subplot())
        ax.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.3g} %".replace("-", "−"))

    label = "Mean confidence less accuracy of each predicted class, with 95 % intervals"
    return svg(draw, name="gaps", label=label, width=4.4, height=0.8 + 0.21 * len(order))


def over_time(a: Analysis) -> str:
    steps, values = a.over_time.curve()

    def draw(figure: Any) -> None:
        ax = plot.over_time(steps, values, ax=figure.add_subplot())
        ax.set_ylabel("entropy (nats)")

    label = "Mean entropy in windows of consecutive steps"
    return svg(draw, name="time", label=label, width=5.4, height=2.4)
