"""Bar plots of the probabilities of one row."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from logitlab import _checks
from logitlab._rows import as_row
from logitlab.plot.canvas import (
    format_percent,
    get_axes,
    label_classes,
    ranking_logits,
    select_classes,
    softmax_row,
)

_MAX_ANNOTATED = 8  # of more classes, the bars have no annotations


def probabilities(
    z: ArrayLike,
    *,
    temperature: float = 1.0,
    names: Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    """Bar plot of the probabilities of one row, with logits and ranks.

    The label below a bar has the class and its logit; the label above it has the probability and
    the rank, which is the same for logits and probabilities. Of more than 20 classes, the most
    probable ones are shown.

    Parameters
    ----------
    z : array, shape (K,)
        One row of logits.
    temperature : float
        T, as in :func:`logitlab.softmax`.
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
        As :func:`logitlab.softmax`; `z` is not one row; `names` has another length.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.probabilities([0.0, 2.0], ax=Figure().add_subplot())
    >>> [label.get_text() for label in ax.texts]
    ['12 %\\n#2', '88 %\\n#1']
    """
    row = as_row(z)
    p = softmax_row(row, temperature)
    shown = select_classes(p, names)
    ax = get_axes(ax)
    height = p[shown.indices]
    ax.bar(np.arange(len(height)), height, 0.75, color="C0")
    label_classes(ax, shown)
    if len(height) <= _MAX_ANNOTATED:
        order = ranking_logits(row, temperature)
        for x, k in enumerate(shown.indices):
            rank = 1 + int(np.sum(order > order[k]))
            label = f"{100 * p[k]:.2g} %\n#{rank}"
            ax.annotate(label, (x, p[k]), (0, 2), textcoords="offset points", ha="center")
        tick_labels = [
            f"{name}\nz = {row[k]:.4g}" for k, name in zip(shown.indices, shown.names, strict=True)
        ]
        ax.set_xticklabels(tick_labels)
        ax.set_xlabel("class and logit z")
    ax.set_ylabel("probability" if temperature == 1 else f"probability at T = {temperature:g}")
    ax.set_ylim(0, 1.18 * max(float(np.max(height)), 1e-9))
    format_percent(ax.yaxis)
    return ax


def scaling(z: ArrayLike, c: float, *, names: Sequence[str] | None = None, ax: Any = None) -> Any:
    """Bar plot of softmax(z) and softmax(c z) side by side.

    0 < c < 1 flattens the distribution, c > 1 sharpens it; the order of the classes is the same.

    Parameters
    ----------
    z : array, shape (K,)
        One row of logits.
    c : float
        Scale factor, finite: the temperature is 1/c. At c = 0 all classes that are not excluded
        have equal probabilities.
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
        As :func:`probabilities`; `c` is not finite.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.scaling([10, 20, 30], 0.01, ax=Figure().add_subplot())
    >>> [round(float(bar.get_height()), 4) for bar in ax.patches]
    [0.0, 0.0, 1.0, 0.3006, 0.3322, 0.3672]
    """
    row = as_row(z)
    c = _checks.real(c, "c", "a finite number", math.isfinite)
    # With a temperature of 1/c, c z cannot overflow and -inf stays excluded at c <= 0.
    before, after = softmax_row(row), softmax_row(row, math.inf if c == 0 else 1 / c)
    shown = select_classes(before, names)
    ax = get_axes(ax)
    x = np.arange(len(shown.indices))
    ax.bar(x - 0.2, before[shown.indices], 0.38, color="C0", label="softmax(z)")
    ax.bar(
        x + 0.2,
        after[shown.indices],
        0.38,
        facecolor=("C1", 0.35),
        edgecolor="C1",
        hatch="///",
        label=f"softmax({c:g} z)",
    )
    label_classes(ax, shown)
    ax.set_ylabel("probability")
    ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    format_percent(ax.yaxis)
    return ax
