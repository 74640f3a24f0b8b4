"""Pictures of :mod:`logitlab.plot` as SVG that sits in a page and takes the page's colours."""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

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
