"""Bars over the classes of one row."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from logitlab import _checks
from logitlab.plot.canvas import (
    axes,
    chances,
    choose,
    label_classes,
    one_row,
    percent,
    ranking_logits,
)

_WRITTEN = 8  # classes whose probability stands above the bar


def probabilities(
    z: ArrayLike,
    *,
    temperature: float = 1.0,
    names: Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    """Probabilities as bars over their logits, with the order marked.

    Under each bar stand its class and its logit, above it the probability and the rank: that of
    the logit, and of the probability. Of more than 20 classes the most probable ones are drawn.

    Parameters
    ----------
    z : array, shape (K,)
        One row of logits.
    temperature : float
        T, as in :func:`logitlab.softmax`.
    names : sequence of str, length K, optional
        The classes; without it, their numbers.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.softmax`; `z` is not one row; `names` of another length.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.probabilities([0.0, 2.0], ax=Figure().add_subplot())
    >>> [label.get_text() for label in ax.texts]
    ['12 %\\n#2', '88 %\\n#1']
    """
    row = one_row(z)
    p = chances(row, temperature)
    shown = choose(p, names)
    ax = axes(ax)
    height = p[shown.place]
    ax.bar(np.arange(len(height)), height, 0.75, color="C0")
    label_classes(ax, shown)
    if len(height) <= _WRITTEN:
        order = ranking_logits(row, temperature)
        for place, k in enumerate(shown.place):
            rank = 1 + int(np.sum(order > order[k]))
            label = f"{100 * p[k]:.2g} %\n#{rank}"
            ax.annotate(label, (place, p[k]), (0, 2), textcoords="offset points", ha="center")
        texts = [
            f"{name}\nz = {row[k]:.4g}" for k, name in zip(shown.place, shown.names, strict=True)
        ]
        ax.set_xticklabels(texts)
        ax.set_xlabel("class, and its logit z")
    ax.set_ylabel("probability" if temperature == 1 else f"probability at T = {temperature:g}")
    ax.set_ylim(0, 1.18 * max(float(np.max(height)), 1e-9))
    percent(ax.yaxis)
    return ax


def scaling(z: ArrayLike, c: float, *, names: Sequence[str] | None = None, ax: Any = None) -> Any:
    """Probabilities before and after the logits are multiplied by c, side by side.

    c below 1 dampens the distribution, c above 1 sharpens it; the order stays.

    Parameters
    ----------
    z : array, shape (K,)
        One row of logits.
    c : float
        The factor, finite: a temperature of 1/c. At 0 all that are not excluded share alike.
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
        As :func:`probabilities`; `c` is not finite.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.scaling([10, 20, 30], 0.01, ax=Figure().add_subplot())
    >>> [round(float(bar.get_height()), 4) for bar in ax.patches]
    [0.0, 0.0, 1.0, 0.3006, 0.3322, 0.3672]
    """
    row = one_row(z)
    c = _checks.real(c, "c", "a finite number", math.isfinite)
    # As a temperature c z cannot overflow, and -inf stays excluded at c = 0 and below.
    before, after = chances(row), chances(row, math.inf if c == 0 else 1 / c)
    shown = choose(before, names)
    ax = axes(ax)
    place = np.arange(len(shown.place))
    ax.bar(place - 0.2, before[shown.place], 0.38, color="C0", label="softmax(z)")
    ax.bar(
        place + 0.2,
        after[shown.place],
        0.38,
        facecolor=("C1", 0.35),
        edgecolor="C1",
        hatch="///",
        label=f"softmax({c:g} z)",
    )
    label_classes(ax, shown)
    ax.set_ylabel("probability")
    ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    percent(ax.yaxis)
    return ax
