"""Pictures of what was judged: classes, and steps in time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from logitlab import arrays
from logitlab.plot.canvas import axes, percent


def class_gaps(
    names: Sequence[str], gap: ArrayLike, half_width: ArrayLike, *, ax: Any = None
) -> Any:
    """Confidence less accuracy of each class, with its interval: who is too sure?

    Over-confident classes are triangles to the right, under-confident ones triangles to the left;
    a class whose interval holds 0 is a hollow circle.

    Parameters
    ----------
    names : sequence of str, length n
        The classes, from the top.
    gap : array, shape (n,)
        Mean confidence less accuracy.
    half_width : array, shape (n,)
        Half of the interval's width.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        `gap` or `half_width` does not hold a number for each name.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.class_gaps(["cat", "dog"], [0.1, -0.01], [0.02, 0.02], ax=Figure().add_subplot())
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['cat', 'dog']
    """
    gap = arrays.list_of_reals(gap, "gap", len(names))
    half_width = arrays.list_of_reals(half_width, "half_width", len(names))
    ax = axes(ax)
    place = np.arange(len(names))
    ax.axvline(0, color="0.5", linewidth=1, linestyle=(0, (4, 3)))
    ax.hlines(place, gap - half_width, gap + half_width, color="0.5", linewidth=1.2)
    clear = np.abs(gap) > half_width
    for some, colour, marker, filled in (
        (clear & (gap > 0), "C1", ">", True),
        (clear & (gap < 0), "C0", "<", True),
        (~clear, "0.5", "o", False),
    ):
        face = colour if filled else "none"
        ax.scatter(gap[some], place[some], s=34, marker=marker, color=face, edgecolors=colour)
    ax.set_yticks(place, list(names))
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("confidence − accuracy")
    percent(ax.xaxis)
    return ax


def over_time(steps: ArrayLike, values: ArrayLike, *, ax: Any = None) -> Any:
    """A mean in windows of consecutive steps, such as the entropy of a language model.

    Parameters
    ----------
    steps : array, shape (n,)
        The middle of each window.
    values : array, shape (n,)
        The mean in it.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        `values` does not hold a number for each step.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.over_time([0, 1, 2], [3.0, 2.0, 2.5], ax=Figure().add_subplot())
    >>> ax.get_xlabel()
    'step'
    """
    steps = arrays.list_of_reals(steps, "steps")
    values = arrays.list_of_reals(values, "values", len(steps))
    ax = axes(ax)
    ax.plot(steps, values, color="C0", linewidth=1.3, marker="o" if len(steps) < 2 else None)
    ax.set_ylim(bottom=0)
    ax.set(xlabel="step")
    ax.margins(x=0.01)
    return ax
