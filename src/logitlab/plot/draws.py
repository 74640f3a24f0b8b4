"""What was drawn, beside what was to be expected."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from logitlab.plot.canvas import axes, percent


def outcome_bars(
    names: Sequence[str], p: ArrayLike, frequencies: ArrayLike, *, ax: Any = None
) -> Any:
    """Probabilities as bars, and as dots how often each class was drawn.

    Parameters
    ----------
    names : sequence of str, length n
        The classes.
    p, frequencies : array, shape (n,)
        Probability and observed frequency of each class.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.outcome_bars(["a", "b"], [0.5, 0.5], [0.4, 0.6], ax=Figure().add_subplot())
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['a', 'b']
    """
    ax = axes(ax)
    place = np.arange(len(names))
    ax.bar(place, np.asarray(p), 0.75, color="C0", alpha=0.55, linewidth=0)
    ax.scatter(place, np.asarray(frequencies), s=14, color="C1", zorder=3, linewidths=0)
    ax.set_xticks(place, list(names))
    ax.set_ylim(0, 1.04)
    percent(ax.yaxis)
    return ax
