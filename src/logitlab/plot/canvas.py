"""What every picture shares: where it is drawn, percentages, and which classes it has room for."""

import io
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays
from logitlab.probabilities import softmax

ROOM = 20  # classes drawn one by one; of more, the most probable ones


@cache
def _figure_class() -> Any:
    from matplotlib.figure import Figure

    class VectorFigure(Figure):
        """A figure that a notebook shows as SVG, whatever its settings."""

        def _repr_svg_(self) -> str:
            stream = io.StringIO()
            self.savefig(stream, format="svg", bbox_inches="tight")
            text = stream.getvalue()
            return text[text.index("<svg") :]

    return VectorFigure


def axes(ax: Any) -> Any:
    """`ax`, or new axes on a figure of pyplot's."""
    from matplotlib.axes import Axes

    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.figure(FigureClass=_figure_class(), layout="constrained").add_subplot()
    if not isinstance(ax, Axes):
        raise TypeError(f"ax is a {type(ax).__name__}; accepted: matplotlib's Axes, or None")
    return ax


def percent(axis: Any) -> None:
    axis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")


def blends(n: int) -> list[tuple[float, ...]]:
    """n colours from the first of the style to the second."""
    from matplotlib.colors import to_rgb

    first, second = np.array(to_rgb("C0")), np.array(to_rgb("C1"))
    return [tuple(first + (second - first) * share) for share in np.linspace(0, 1, n)]


def positive(x: Any, name: str) -> NDArray[np.float64]:
    """At least one number, each above 0 and finite."""
    found = _arrays.list_of_reals(x, name)
    if not found.size or not np.all((found > 0) & np.isfinite(found)):
        raise ValueError(
            f"{name} is {x!r}; accepted: positive, finite numbers, at least one of them"
        )
    return found


def one_row(z: Any) -> NDArray[np.float64]:
    """One row of logits, as float64."""
    row = _arrays.on_host(_arrays.as_floating(z, "z")).astype(np.float64)
    if row.ndim != 1 or not row.size:
        raise ValueError(f"z has shape {row.shape}; accepted: one row of at least one logit, (K,)")
    return row


def chances(row: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    """The softmax of a row that has one."""
    p: NDArray[np.float64] = softmax(row, temperature=temperature)
    if np.isnan(p).any():
        raise ValueError("z has no distribution: it holds NaN, or nothing is left to choose from")
    return p


def ranking_logits(row: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """What ranks classes as their probabilities do: at T < 0 small logits win, -inf never."""
    return row if temperature >= 0 else np.where(np.isneginf(row), -np.inf, -row)


class Classes(NamedTuple):
    """The classes a picture shows, and what it says under them."""

    place: NDArray[np.int64]
    names: list[str]
    rest: int  # how many are not shown


def choose(p: NDArray[np.float64], names: Sequence[str] | None, room: int = ROOM) -> Classes:
    """All classes in their order; of more than `room`, the most probable ones first."""
    if names is not None and len(names) != len(p):
        raise ValueError(f"names has {len(names)} entries; accepted: one for each of {len(p)}")
    place = np.arange(len(p), dtype=np.int64)
    if len(p) > room:
        place = np.argsort(-p, kind="stable")[:room]
    shown = [str(k) if names is None else str(names[int(k)]) for k in place]
    return Classes(place, shown, len(p) - len(place))


def label_classes(ax: Any, classes: Classes, letters: float = 60) -> None:
    """Names below, turned where they are more than so many letters; what was left out is said."""
    turned = sum(len(name) + 1 for name in classes.names) > letters
    ax.set_xticks(np.arange(len(classes.names)), classes.names, rotation=60 if turned else 0)
    if turned:
        for label in ax.get_xticklabels():
            label.set(horizontalalignment="right", rotation_mode="anchor")
    rest = f" ({classes.rest:,} less probable ones not drawn)" if classes.rest else ""
    ax.set_xlabel(f"class{rest}")
