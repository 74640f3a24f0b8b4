"""Plots of a distribution as a function of temperature."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from logitlab._rows import Floats, as_row
from logitlab.plot.canvas import (
    color_gradient,
    format_percent,
    get_axes,
    positive_reals,
    select_classes,
    softmax_row,
)
from logitlab.probabilities import softmax

_MAX_LINES = 8  # more line styles are hard to distinguish
_STYLES = ("solid", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
_HEIGHT = np.sqrt(3) / 2


def temperature_curves(
    z: ArrayLike,
    temperatures: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    """Probability of each class of one row as a function of temperature, on a logarithmic axis.

    For T to 0 the largest logit has probability 1; for T to infinity all classes have equal
    probabilities. Of more than 8 classes, those most probable at T = 1 are shown.

    Parameters
    ----------
    z : array, shape (K,)
        One row of logits.
    temperatures : array, shape (n,), optional
        Positive, ascending; by default 0.05 to 20.
    names : sequence of str, length K, optional
        Names of the classes; by default their indices.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.softmax`; a temperature is not positive and finite; `z` is not one row;
        `names` has another length.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.temperature_curves([2, 1, 3, 5, 4], [0.1, 1, 10], ax=Figure().add_subplot())
    >>> ax.lines[1].get_ydata().round(4)  # the largest logit
    array([1.    , 0.6364, 0.2419])
    """
    row = as_row(z)
    if temperatures is None:
        t = np.geomspace(0.05, 20, 121)
    else:
        t = positive_reals(temperatures, "temperatures")
    shown = select_classes(softmax_row(row), names, _MAX_LINES)
    p = softmax(np.broadcast_to(row, (len(t), len(row))), temperature=t)
    ax = get_axes(ax)
    ax.axvline(1, color="0.5", linewidth=1, linestyle=(0, (4, 3)))
    order, lines = np.argsort(-row[shown.indices], kind="stable"), []
    for rank, (i, color) in enumerate(zip(order, color_gradient(len(order)), strict=True)):
        k = shown.indices[i]
        lines += ax.plot(
            t,
            p[:, k],
            color=color,
            linestyle=_STYLES[rank % len(_STYLES)],
            linewidth=2,
            label=f"{shown.names[i]}: z = {row[k]:.4g}",
        )
    # A legend leaves out labels that begin with an underscore, so the names are filled in later.
    legend = ax.legend(lines, [str(line) for line in lines], frameon=False, title="class")
    for text, line in zip(legend.get_texts(), lines, strict=True):
        text.set(text=line.get_label(), parse_math=False)
    xlabel = shown.axis_label("temperature T")
    ax.set(xscale="log", xlabel=xlabel, ylabel="probability", ylim=(0, 1.02))
    ax.set_xlim(t.min(), t.max())
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    format_percent(ax.yaxis)
    return ax


def triangle_points(p: Floats) -> Floats:
    """Distributions (..., 3) as points (..., 2) of a triangle; its corners are the classes."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, _HEIGHT]])
    points: Floats = p @ corners
    return points


def temperature_path(row: Floats, points: int) -> tuple[Floats, Floats]:
    """Temperatures from 0 to infinity on the scale of the logits of a row, and a few to mark."""
    finite = row[np.isfinite(row)] / 4
    scale = float(finite.max() - finite.min()) if finite.size else 0.0
    scale = scale if scale > 0 else 1.0
    with np.errstate(over="ignore"):
        t = np.concatenate([[0], scale * np.geomspace(1e-2, 1e3, points - 2), [np.inf]])
    marks = [0.0, *(float(f"{scale * factor:.1g}") for factor in (0.5, 1, 2, 5)), np.inf]
    return t, np.array(marks)


def simplex(z: ArrayLike, *, names: Sequence[str] | None = None, ax: Any = None) -> Any:
    """Distribution of three classes as a point of the simplex, as T goes from 0 to infinity.

    In a corner, its class has probability 1; in the center, all have probability 1/3. The curve
    goes from the corner of the largest logit (T = 0) to the center (T infinite); dots mark
    temperatures.

    Parameters
    ----------
    z : array, shape (3,)
        One row of three logits.
    names : sequence of str, length 3, optional
        Names of the classes; by default their indices.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.softmax`; `z` is not three logits; `names` has another length.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.simplex([10, 20, 30], ax=Figure().add_subplot())
    >>> ax.lines[-1].get_xydata()[-1].round(4)  # the center
    array([0.5   , 0.2887])
    """
    row = as_row(z)
    if len(row) != 3:
        raise ValueError(f"z must have 3 classes, got {len(row)}")
    shown = select_classes(softmax_row(row), names)
    ax = get_axes(ax)
    t, marks = temperature_path(row, 402)
    path = triangle_points(softmax(np.broadcast_to(row, (len(t), 3)), temperature=t))
    outline = triangle_points(np.eye(3)[[0, 1, 2, 0]])
    ax.plot(*outline.T, color="0.5", linewidth=1)
    for level in (0.25, 0.5, 0.75):
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            ends = np.zeros((2, 3))
            ends[:, i] = level
            ends[0, j] = ends[1, k] = 1 - level
            ax.plot(*triangle_points(ends).T, color="0.5", alpha=0.3, linewidth=0.6)
    ax.plot(*path.T, color="C0", linewidth=2.5)
    for temperature in marks:
        x, y = triangle_points(softmax(row, temperature=temperature))
        ax.plot(x, y, "o", color="C1", markersize=5)
        label = f"T = {temperature:g}".replace("inf", "∞")
        ax.annotate(label, (x, y), (9, -3), textcoords="offset points", fontsize="small")
    offsets = ((-6, -4, "right"), (6, -4, "left"), (0, 8, "center"))
    for point, name, (dx, dy, ha) in zip(outline, shown.names, offsets, strict=False):
        offset: Any = {"textcoords": "offset points", "ha": ha, "parse_math": False}
        ax.annotate(f"class {name}", point, (dx, dy), **offset)
    ax.set(xlim=(-0.2, 1.2), ylim=(-0.08, _HEIGHT + 0.1), aspect="equal")
    ax.axis("off")
    return ax
