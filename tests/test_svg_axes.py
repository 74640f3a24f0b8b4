"""The pictures of the report: the plots on axes that write SVG, compared with matplotlib."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from logitlab import plot
from logitlab.plot.svg_axes import SvgAxes
from logitlab.reliability import ReliabilityCurve

_EDGES = np.linspace(0, 1, 4)
_CURVE = ReliabilityCurve(
    _EDGES,
    np.array([10, 0, 30]),
    np.array([0.2, math.nan, 0.9]),
    np.array([0.3, math.nan, 0.5]),
    np.array([0.1, math.nan, 0.4]),
    np.array([0.5, math.nan, 0.6]),
)
_NAMES = ["cat", "<&\"'>", "a $math$ name", "größer"]
_PLOTS = {
    "distribution": lambda ax: plot.distribution([0, 0.5, 1, 1.5], [30, 10, 5], mean=0.6, ax=ax),
    "mean in the right half": lambda ax: plot.distribution([1, 2, 3], [1, 2], mean=2.9, ax=ax),
    "reliability": lambda ax: plot.reliability_diagram(_CURVE, ax=ax),
    "temperature": lambda ax: plot.temperature_summary(
        [0.1, 1, 10], [0.1, 0.5, 1], [1, 0.6, 0.2], ax=ax
    ),
    "outcomes": lambda ax: plot.outcome_bars(
        _NAMES, [0.1, 0.2, 0.3, 0.4], [0, 0.3, 0.3, 0.4], ax=ax
    ),
    "gaps": lambda ax: plot.class_gaps(
        _NAMES, [0.1, -0.2, 0.01, 0], [0.05, 0.02, 0.02, 0.1], ax=ax
    ),
    "steps": lambda ax: plot.over_time(np.arange(50), np.linspace(1, 3, 50), ax=ax),
    "one step": lambda ax: plot.over_time([7], [2.5], ax=ax),
    "equal values": lambda ax: plot.over_time([0, 1], [0, 0], ax=ax),
}


def _draw(draw, width=4.4, height=2.9):
    ax = SvgAxes(width, height)
    draw(ax)
    return ElementTree.fromstring(ax.to_svg("a <label>"))


@pytest.mark.parametrize("name", _PLOTS)
def test_elements_are_finite_and_inside(name):
    """All coordinates are numbers; all points and anchors of text lie in the picture."""
    root = _draw(_PLOTS[name])
    assert root.get("aria-label") == "a <label>"
    width, height = map(float, root.get("viewBox").split()[2:])
    assert (width, height) == pytest.approx((4.4 * 72, 2.9 * 72))
    for path in root.iter("path"):
        for x, y in re.findall(r"[ML]([\d.e+-]+) ([\d.e+-]+)", path.get("d")):
            assert -1 <= float(x) <= width + 1
            assert -1 <= float(y) <= height + 1
    for text in root.iter("text"):
        if text.get("x") is not None:
            assert 0 <= float(text.get("x")) <= width
            assert 0 <= float(text.get("y")) <= height
    assert "nan" not in ElementTree.tostring(root, "unicode")


@pytest.mark.parametrize("name", ["reliability", "temperature", "outcomes", "gaps"])
def test_ticks_are_those_of_matplotlib(name):
    """The same labels, names with special characters included."""
    figure = Figure(figsize=(4.4, 2.9))
    reference = figure.add_subplot()
    _PLOTS[name](reference)
    figure.draw_without_rendering()
    expected = set()
    for axis in (reference.xaxis, reference.yaxis):
        low, high = sorted(axis.get_view_interval())
        expected |= {
            label.get_text()
            for tick, label in zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
            if low <= tick <= high
        }
    texts = {text.text for text in _draw(_PLOTS[name]).iter("text")}
    labels = {reference.get_xlabel(), reference.get_ylabel()} - {""}
    legend = {"mean confidence", "mean entropy / log K"} if name == "temperature" else set()
    assert texts - labels - legend == expected


def test_bars_have_the_height_of_their_values():
    """Of three bars of 0.5, 0.25 and 0.25, in the scale of the axis."""
    root = _draw(lambda ax: plot.distribution([0, 1, 2, 3], [20, 10, 10], mean=1, ax=ax))
    (bars,) = (p for p in root.iter("path") if p.get("fill") == "var(--first)")
    numbers = re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)H([\d.]+)V", bars.get("d"))
    left, low, high, right = np.array(numbers, float).T
    assert right[:-1] == pytest.approx(left[1:])
    assert (low - high) / (low[0] - high[0]) == pytest.approx([1, 0.5, 0.5], abs=1e-3)


def test_few_labels_on_a_narrow_axis():
    """Labels of large numbers do not overlap."""
    root = _draw(lambda ax: plot.over_time([0, 9e8], [1, 2], ax=ax), width=2.5)
    anchors = [
        float(t.get("x"))
        for t in root.iter("text")
        if t.get("text-anchor") == "middle" and t.get("x") and t.text.isdigit()
    ]
    assert len(anchors) >= 2
    assert np.diff(sorted(anchors)).min() > 9 * 5
