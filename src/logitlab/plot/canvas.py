"""Helpers of all plots: axes, percentages, colors and the selection of classes."""

import io
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from logitlab import _arrays
from logitlab._rows import Floats, Integers
from logitlab.probabilities import softmax

MAX_CLASSES = 20  # of more classes, the most probable ones are shown


@cache
def _figure_class() -> Any:
    from matplotlib.figure import Figure

    class VectorFigure(Figure):
        """A figure that a notebook displays as SVG, independent of its settings."""

        def _repr_svg_(self) -> str:
            stream = io.StringIO()
            self.savefig(stream, format="svg", bbox_inches="tight")
            text = stream.getvalue()
            return text[text.index("<svg") :]

    return VectorFigure


def get_axes(ax: Any) -> Any:
    """The given axes, or axes of a new pyplot figure if `ax` is None."""
    from matplotlib.axes import Axes

    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.figure(FigureClass=_figure_class(), layout="constrained").add_subplot()
    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be a matplotlib Axes or None, got {ax!r}")
    return ax


def format_percent(axis: Any) -> None:
    """Label the ticks of a matplotlib axis in percent."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")


def color_gradient(n: int) -> list[tuple[float, ...]]:
    """n colors from the first to the second color of the style's color cycle."""
    from matplotlib.colors import to_rgb

    first, second = np.array(to_rgb("C0")), np.array(to_rgb("C1"))
    return [tuple(first + (second - first) * share) for share in np.linspace(0, 1, n)]


def positive_reals(x: Any, name: str) -> Floats:
    """A non-empty list of positive, finite numbers."""
    values = _arrays.list_of_reals(x, name)
    if not values.size or not np.all((values > 0) & np.isfinite(values)):
        raise ValueError(f"{name} must be a non-empty list of positive, finite numbers, got {x!r}")
    return values


def softmax_row(row: Floats, temperature: float = 1.0) -> Floats:
    """The softmax of one row, checked to have a distribution."""
    p: Floats = softmax(row, temperature=temperature)
    if np.isnan(p).any():
        raise ValueError("z has no distribution: it contains NaN, or no class is left")
    return p


def ranking_logits(row: Floats, temperature: float) -> Floats:
    """Logits in the order of the probabilities: -z at T < 0, where -inf stays excluded."""
    return row if temperature >= 0 else np.where(np.isneginf(row), -np.inf, -row)


class Classes(NamedTuple):
    """The classes that a plot shows."""

    indices: Integers
    names: list[str]
    omitted: int  # number of classes that are not shown

    def axis_label(self, label: str) -> str:
        """`label`, and how many classes are not shown."""
        if not self.omitted:
            return label
        return f"{label} ({self.omitted:,} less probable classes not shown)"


def check_names(names: Sequence[str], length: int | None = None) -> list[str]:
    """Names of classes as strings, checked to be `length` of them if it is given."""
    count = "" if length is None else f"{length} "
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"names must be a list of {count}names, got {names!r}")
    result = [str(name) for name in names]
    if length not in (None, len(result)):
        raise ValueError(f"names must be a list of {count}names, got {len(result)}")
    return result


def select_classes(
    p: Floats, names: Sequence[str] | None, max_classes: int = MAX_CLASSES
) -> Classes:
    """All classes in their order; of more than `max_classes`, the most probable ones first."""
    indices = np.arange(len(p), dtype=np.int64)
    if len(p) > max_classes:
        indices = np.argsort(-p, kind="stable")[:max_classes]
    if names is not None:
        names = check_names(names, len(p))
    shown = [str(k) if names is None else names[int(k)] for k in indices]
    return Classes(indices, shown, len(p) - len(indices))


def label_classes(ax: Any, classes: Classes, max_characters: float = 60) -> None:
    """Label the x axis with class names, rotated if they have more than `max_characters`."""
    rotated = sum(len(name) + 1 for name in classes.names) > max_characters
    x, rotation = np.arange(len(classes.names)), 60 if rotated else 0
    ax.set_xticks(x, classes.names, rotation=rotation, parse_math=False)
    if rotated:
        for label in ax.get_xticklabels():
            label.set(horizontalalignment="right", rotation_mode="anchor")
    ax.set_xlabel(classes.axis_label("class"))
