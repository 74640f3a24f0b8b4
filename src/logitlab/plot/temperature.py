"""What happens to a distribution as the temperature goes from 0 to infinity."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from logitlab.plot.canvas import axes, blends, chances, choose, one_row, percent, positive
from logitlab.probabilities import softmax

_ROOM = 8  # lines that can be told apart
_STYLES = ("solid", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
_HEIGHT = np.sqrt(3) / 2


def temperature_curves(
    z: ArrayLike,
    temperatures: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    """The probability of each class against temperature, on a logarithmic axis.

    On the left the largest logit takes all; on the right all classes share alike. Of more than 8
    classes the most probable ones at T = 1 are drawn.

    Parameters
    ----------
    z : array, shape (K,)
        One row of logits.
    temperatures : array, shape (n,), optional
        Positive, ascending; without it, 0.05 to 20.
    names : sequence of str, length K, optional
        The classes.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.softmax`; a temperature that is not positive and finite; `z` is not one
        row; `names` of another length.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.temperature_curves([2, 1, 3, 5, 4], [0.1, 1, 10], ax=Figure().add_subplot())
    >>> ax.lines[1].get_ydata().round(4)  # the largest logit
    array([1.    , 0.6364, 0.2419])
    """
    row = one_row(z)
    t = np.geomspace(0.05, 20, 121)
    if temperatures is not None:
        t = positive(temperatures, "temperatures")
    shown = choose(chances(row), names, _ROOM)
    p = softmax(np.broadcast_to(row, (len(t), len(row))), temperature=t)
    ax = axes(ax)
    ax.axvline(1, color="0.5", linewidth=1, linestyle=(0, (4, 3)))
    ranked = np.argsort(-row[shown.place], kind="stable")
    for rank, (place, colour) in enumerate(zip(ranked, blends(len(ranked)), strict=True)):
        k = shown.place[place]
        ax.plot(
            t,
            p[:, k],
            color=colour,
            linestyle=_STYLES[rank % len(_STYLES)],
            linewidth=2,
            label=f"{shown.names[place]}: z = {row[k]:.4g}",
        )
    rest = f"; {shown.rest:,} less probable ones not drawn" if shown.rest else ""
    ax.legend(frameon=False, title="class")
    ax.set(xscale="log", xlabel=f"temperature T{rest}", ylabel="probability", ylim=(0, 1.02))
    ax.set_xlim(t.min(), t.max())
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    percent(ax.yaxis)
    return ax


def on_triangle(p: Any) -> Any:
    """Points (x, y) of distributions (..., 3) in the triangle of the three sure outcomes."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, _HEIGHT]])
    return p @ corners


def temperature_path(row: Any, points: int) -> tuple[Any, Any]:
    """Temperatures from 0 to infinity for a row's way through the simplex, and some to mark."""
    finite = row[np.isfinite(row)] / 4
    size = float(finite.max() - finite.min()) if finite.size else 0.0
    size = size if size > 0 else 1.0
    with np.errstate(over="ignore"):
        t = np.concatenate([[0], size * np.geomspace(1e-2, 1e3, points - 2), [np.inf]])
    marks = [0.0, *(float(f"{size * factor:.1g}") for factor in (0.5, 1, 2, 5)), np.inf]
    return t, np.array(marks)


def simplex(z: ArrayLike, *, names: Sequence[str] | None = None, ax: Any = None) -> Any:
    """Three classes: the way of the distribution through the simplex as T goes from 0 to infinity.

    A corner is certainty of its class, the centre is indifference. The way begins in the corner of
    the largest logit (T = 0) and ends in the centre (T infinite); dots mark temperatures.

    Parameters
    ----------
    z : array, shape (3,)
        One row of three logits.
    names : sequence of str, length 3, optional
        The classes.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.softmax`; `z` is not three logits; `names` of another length.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.simplex([10, 20, 30], ax=Figure().add_subplot())
    >>> ax.lines[-1].get_xydata()[-1].round(4)  # the centre
    array([0.5   , 0.2887])
    """
    row = one_row(z)
    if len(row) != 3:
        raise ValueError(f"z has {len(row)} classes; accepted: 3, the corners of a triangle")
    shown = choose(chances(row), names)
    ax = axes(ax)
    t, marks = temperature_path(row, 402)
    line = on_triangle(softmax(np.broadcast_to(row, (len(t), 3)), temperature=t))
    edge = on_triangle(np.eye(3)[[0, 1, 2, 0]])
    ax.plot(*edge.T, color="0.5", linewidth=1)
    for share in (0.25, 0.5, 0.75):
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            ends = np.zeros((2, 3))
            ends[:, i] = share
            ends[0, j] = ends[1, k] = 1 - share
            ax.plot(*on_triangle(ends).T, color="0.5", alpha=0.3, linewidth=0.6)
    ax.plot(*line.T, color="C0", linewidth=2.5)
    for temperature in marks:
        x, y = on_triangle(softmax(row, temperature=temperature))
        ax.plot(x, y, "o", color="C1", markersize=5)
        label = f"T = {temperature:g}".replace("inf", "∞")
        ax.annotate(label, (x, y), (9, -3), textcoords="offset points", fontsize="small")
    corners = ((-6, -4, "right"), (6, -4, "left"), (0, 8, "center"))
    for point, name, (dx, dy, side) in zip(edge, shown.names, corners, strict=False):
        ax.annotate(f"class {name}", point, (dx, dy), textcoords="offset points", ha=side)
    ax.set(xlim=(-0.2, 1.2), ylim=(-0.08, _HEIGHT + 0.1), aspect="equal")
    ax.axis("off")
    return ax
