"""Plots of estimates with their intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from logitlab import _arrays, _checks
from logitlab.plot.canvas import check_names, get_axes


def forest(
    names: Sequence[str],
    estimate: ArrayLike,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
    *,
    log_scale: bool = False,
    ax: Any = None,
) -> Any:
    """Forest plot: estimates, one below the other, with confidence intervals.

    The dashed line is no effect: 0, or 1 on a logarithmic scale. An estimate whose interval
    contains it is a hollow circle.

    Parameters
    ----------
    names : sequence of str, length n
        From top to bottom.
    estimate : array, shape (n,)
        Coefficients, differences or ratios.
    low, high : array, shape (n,), optional
        Bounds of the intervals. Without them only the estimates are drawn, filled.
    log_scale : bool
        Whether the axis is logarithmic, as for odds ratios.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        `estimate`, `low` or `high` does not contain one finite number for each name; only one of
        `low` and `high` is given; a number <= 0 on a logarithmic scale.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.forest(["age", "dose"], [0.1, 2.0], [-0.2, 1.1], [0.4, 2.9],
    ...                  ax=Figure().add_subplot())
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['age', 'dose']
    """
    from matplotlib.ticker import LogLocator, NullLocator

    names = check_names(names)
    _checks.boolean(log_scale, "log_scale")
    if (low is None) != (high is None):
        given, missing = ("high", "low") if low is None else ("low", "high")
        raise ValueError(f"{missing} must be given with {given}, got None")
    values = {"estimate": estimate, "low": estimate, "high": estimate}
    if low is not None and high is not None:
        values |= {"low": low, "high": high}
    checked = {key: _arrays.list_of_reals(x, key, len(names)) for key, x in values.items()}
    for key, x in checked.items():
        if not np.isfinite(x).all() or (log_scale and (x <= 0).any()):
            rule = "finite and > 0 on a logarithmic scale" if log_scale else "finite"
            raise ValueError(f"{key} must be {rule}, got {x.tolist()}")
    middle, left, right = checked.values()
    ax = get_axes(ax)
    y = np.arange(len(names))
    no_effect = 1.0 if log_scale else 0.0
    ax.axvline(no_effect, color="0.5", linewidth=1, linestyle=(0, (4, 3)))
    ax.hlines(y, left, right, color="0.5", linewidth=1.2)
    differs = np.full(len(names), low is None) | (left > no_effect) | (right < no_effect)
    ax.scatter(middle[differs], y[differs], s=30, color="C0", zorder=3)
    ax.scatter(middle[~differs], y[~differs], s=30, facecolors="none", edgecolors="0.5", zorder=3)
    if log_scale:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
    ax.set_yticks(y, names, parse_math=False)
    ax.set_ylim(len(names) - 0.4, -0.6)
    return ax
