"""Pictures of what was summed up over many rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from logitlab import _arrays, _checks
from logitlab._bins import Strategy
from logitlab.plot.canvas import axes, percent, positive
from logitlab.reliability import ReliabilityCurve, calibration_error, reliability_curve


def distribution(edges: ArrayLike, counts: ArrayLike, *, mean: float, ax: Any = None) -> Any:
    """Share of the rows in each bin of a histogram, with the mean marked.

    Parameters
    ----------
    edges : array, shape (B + 1,)
        Bin edges, in the unit of the quantity.
    counts : array, shape (B,)
        Rows in each bin.
    mean : float
        The mean over all rows.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        `counts` does not hold a number for each bin between two edges.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.distribution([0, 1, 2], [30, 10], mean=0.75, ax=Figure().add_subplot())
    >>> [float(patch.get_height()) for patch in ax.patches]
    [0.75, 0.25]
    """
    edges = _arrays.list_of_reals(edges, "edges")
    if len(edges) < 2:
        raise ValueError(f"edges has {len(edges)} numbers; accepted: two and more")
    counts = _arrays.list_of_reals(counts, "counts", len(edges) - 1)
    ax = axes(ax)
    ax.bar(edges[:-1], counts / max(counts.sum(), 1), np.diff(edges), align="edge", color="C0")
    ax.axvline(mean, color="C1", linewidth=1.5)
    ax.annotate(
        f"mean {mean:.3g}",
        (mean, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4 if mean < edges[[0, -1]].mean() else -4, 3),
        textcoords="offset points",
        ha="left" if mean < edges[[0, -1]].mean() else "right",
        color="C1",
    )
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylabel("share of rows")
    percent(ax.yaxis)
    return ax


def reliability_diagram(curve: ReliabilityCurve, *, ax: Any = None) -> Any:
    """Accuracy against confidence, bin by bin, with the gap between them.

    A bar is the accuracy of a bin, the shaded part its distance from the mean confidence, the
    line its 95 % bootstrap band; the area of a dot is the share of the rows in the bin.

    Parameters
    ----------
    curve : logitlab.reliability.ReliabilityCurve
        Counts, confidence, accuracy and band of each bin.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        `curve` is no reliability curve.

    Examples
    --------
    >>> import logitlab
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> curve = logitlab.reliability_curve([[0.0, 0.0], [3.0, 0.0]], [0, 0])
    >>> plot.reliability_diagram(curve, ax=Figure().add_subplot()).get_xlabel()
    'confidence'
    """
    if not isinstance(curve, ReliabilityCurve):
        raise TypeError(
            f"curve is a {type(curve).__name__}; accepted: what logitlab.reliability_curve gives"
        )
    ax = axes(ax)
    filled = curve.counts > 0
    left, width = curve.edges[:-1][filled], np.diff(curve.edges)[filled]
    confidence, accuracy = curve.confidence[filled], curve.accuracy[filled]
    share = curve.counts[filled] / curve.counts.sum()
    ax.plot([0, 1], [0, 1], linestyle=(0, (4, 3)), linewidth=1, color="0.5", zorder=3)
    ax.bar(left, accuracy, width, align="edge", color="C0", alpha=0.3, linewidth=0)
    ax.bar(
        left,
        confidence - accuracy,
        width,
        bottom=accuracy,
        align="edge",
        color="C1",
        alpha=0.45,
        linewidth=0,
    )
    ax.vlines(confidence, curve.low[filled], curve.high[filled], color="C0", linewidth=1.2)
    ax.scatter(confidence, accuracy, s=12 + 150 * share, color="C0", zorder=4, linewidths=0)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
    percent(ax.xaxis)
    percent(ax.yaxis)
    return ax


def reliability(
    z: Any,
    y: Any,
    *,
    temperature: float = 1.0,
    n_bins: int = 15,
    strategy: Strategy = "uniform",
    ax: Any = None,
) -> Any:
    """The reliability diagram of logits and labels, with the calibration error as its title.

    Parameters
    ----------
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.
    temperature : float
        T > 0: the diagram of z/T.
    n_bins, strategy
        As in :func:`logitlab.reliability_curve`.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.reliability_curve`; a temperature that is not positive and finite.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.reliability([[0.0, 0.0], [3.0, 0.0]], [0, 0], ax=Figure().add_subplot())
    >>> ax.get_title()
    'calibration error 0.2737'
    """
    temperature = _checks.real(
        temperature, "temperature", "positive, finite", lambda t: 0 < t < np.inf
    )
    z = np.divide(_arrays.on_host(_arrays.as_floating(z, "z")), temperature)
    curve = reliability_curve(z, y, n_bins=n_bins, strategy=strategy)
    ax = reliability_diagram(curve, ax=ax)
    error = calibration_error(z, y, n_bins=n_bins, strategy=strategy)
    ax.set_title(f"calibration error {error:.4f}")
    return ax


def temperature_summary(
    temperatures: ArrayLike, entropy_share: ArrayLike, top: ArrayLike, *, ax: Any = None
) -> Any:
    """Mean entropy and mean top probability against temperature.

    Parameters
    ----------
    temperatures : array, shape (n,)
        Positive, ascending.
    entropy_share : array, shape (n,)
        Mean entropy as a share of log K, its largest value.
    top : array, shape (n,)
        Mean top probability.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        A temperature that is not positive and finite; a list of another length.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.temperature_summary([0.1, 10], [0.1, 0.9], [1, 0.2], ax=Figure().add_subplot())
    >>> ax.get_xscale()
    'log'
    """
    temperatures = positive(temperatures, "temperatures")
    entropy_share = _arrays.list_of_reals(entropy_share, "entropy_share", len(temperatures))
    top = _arrays.list_of_reals(top, "top", len(temperatures))
    ax = axes(ax)
    ax.axvline(1, color="0.5", linewidth=1, linestyle=(0, (4, 3)))
    ax.plot(temperatures, top, color="C0", linewidth=2, label="top probability")
    ax.plot(temperatures, entropy_share, color="C1", linewidth=2, label="entropy / log K")
    ax.set(xscale="log", xlabel="temperature T", ylim=(0, 1.02))
    ax.set_xlim(temperatures.min(), temperatures.max())
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    percent(ax.yaxis)
    return ax


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
    gap = _arrays.list_of_reals(gap, "gap", len(names))
    half_width = _arrays.list_of_reals(half_width, "half_width", len(names))
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
    steps = _arrays.list_of_reals(steps, "steps")
    values = _arrays.list_of_reals(values, "values", len(steps))
    ax = axes(ax)
    ax.plot(steps, values, color="C0", linewidth=1.3, marker="o" if len(steps) < 2 else None)
    ax.set_ylim(bottom=0)
    ax.set(xlabel="step")
    ax.margins(x=0.01)
    return ax
