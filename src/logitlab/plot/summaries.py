"""Plots of statistics over many rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from logitlab import _arrays, _checks
from logitlab._bins import Strategy
from logitlab.decisions import RiskCoverageCurve
from logitlab.plot.canvas import check_names, format_percent, get_axes, positive_reals
from logitlab.reliability import ReliabilityCurve, calibration_error, reliability_curve


def distribution(edges: ArrayLike, counts: ArrayLike, *, mean: float, ax: Any = None) -> Any:
    """Histogram of a quantity over many rows, with its mean.

    Parameters
    ----------
    edges : array, shape (B + 1,)
        Bin edges, ascending.
    counts : array, shape (B,)
        Number of rows in each bin.
    mean : float
        Mean over all rows.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        `edges` has fewer than two numbers; `counts` does not have one number for each bin; `mean`
        is not a real number.

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
        raise ValueError(f"edges must have at least 2 numbers, got {len(edges)}")
    counts = _arrays.list_of_reals(counts, "counts", len(edges) - 1)
    mean = _checks.real(mean, "mean", "a real number", lambda x: True)
    ax = get_axes(ax)
    ax.bar(edges[:-1], counts / max(counts.sum(), 1), np.diff(edges), align="edge", color="C0")
    ax.axvline(mean, color="C1", linewidth=1.5)
    in_left_half = mean < edges[[0, -1]].mean()
    ax.annotate(
        f"mean {mean:.3g}",
        (mean, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4 if in_left_half else -4, 3),
        textcoords="offset points",
        ha="left" if in_left_half else "right",
        color="C1",
    )
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylabel("fraction of rows")
    format_percent(ax.yaxis)
    return ax


def reliability_diagram(curve: ReliabilityCurve, *, ax: Any = None) -> Any:
    """Reliability diagram: accuracy against confidence in each bin.

    A dot is the accuracy; the darker part of a bar is its difference from the mean confidence. A
    vertical line is the 95 % bootstrap interval of the accuracy. The area of a dot grows with the
    fraction of the rows in the bin.

    Parameters
    ----------
    curve : logitlab.reliability.ReliabilityCurve
        Result of :func:`logitlab.reliability_curve`.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        `curve` is not a ``ReliabilityCurve``.

    Examples
    --------
    >>> import logitlab
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> curve = logitlab.reliability_curve([[0.0, 0.0], [3.0, 0.0]], [0, 0])
    >>> plot.reliability_diagram(curve, ax=Figure().add_subplot()).get_xlabel()
    'confidence'
    """
    from matplotlib.patches import Patch

    if not isinstance(curve, ReliabilityCurve):
        raise TypeError(f"curve must be a result of logitlab.reliability_curve, got {curve!r}")
    ax = get_axes(ax)
    filled = curve.counts > 0
    left, width = curve.edges[:-1][filled], np.diff(curve.edges)[filled]
    confidence, accuracy = curve.confidence[filled], curve.accuracy[filled]
    fraction = curve.counts[filled] / curve.counts.sum()
    ax.plot([0, 1], [0, 1], linestyle=(0, (4, 3)), linewidth=1, color="0.5", zorder=3)
    lower = np.minimum(confidence, accuracy)
    ax.bar(left, lower, width, align="edge", color="C0", alpha=0.3, linewidth=0)
    labels = []
    for label, gap, colour in (
        ("overconfident", confidence - accuracy, "C1"),
        ("underconfident", accuracy - confidence, "C0"),
    ):
        shaded = gap > 0
        place = left[shaded], gap[shaded], width[shaded], lower[shaded]
        style: Any = {"color": colour, "alpha": 0.45, "linewidth": 0}
        ax.bar(*place, align="edge", **style)
        labels.append(Patch(label=label, **style))
    ax.vlines(confidence, curve.low[filled], curve.high[filled], color="C0", linewidth=1.2)
    # Not clipped: the dot of a confidence near 1 is wider than the rest of the axis.
    size = 12 + 150 * fraction
    ax.scatter(confidence, accuracy, s=size, color="C0", zorder=4, linewidths=0, clip_on=False)
    ax.legend(handles=labels, frameon=False, loc="upper left", borderaxespad=0.2)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
    format_percent(ax.xaxis)
    format_percent(ax.yaxis)
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
    """Reliability diagram of logits and labels, with the calibration error as its title.

    Parameters
    ----------
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.
    temperature : float
        T > 0: the diagram is that of z / T.
    n_bins, strategy
        As in :func:`logitlab.reliability_curve`.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.reliability_curve`; `temperature` is not positive and finite.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.reliability([[0.0, 0.0], [3.0, 0.0]], [0, 0], ax=Figure().add_subplot())
    >>> ax.get_title()
    'calibration error 0.2737'
    """
    temperature = _checks.real(
        temperature, "temperature", "positive and finite", lambda t: 0 < t < np.inf
    )
    z = np.divide(_arrays.on_host(_arrays.as_floating(z, "z")), temperature)
    curve = reliability_curve(z, y, n_bins=n_bins, strategy=strategy)
    ax = reliability_diagram(curve, ax=ax)
    error = calibration_error(z, y, n_bins=n_bins, strategy=strategy)
    ax.set_title(f"calibration error {error:.4f}")
    return ax


def risk_coverage(curve: RiskCoverageCurve, *, ax: Any = None) -> Any:
    """Error among the accepted rows as a function of the fraction of accepted rows.

    The dashed line is the error of all rows. The title gives the area under the curve (AURC).

    Parameters
    ----------
    curve : logitlab.decisions.RiskCoverageCurve
        Result of :func:`logitlab.risk_coverage_curve`.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        `curve` is not a ``RiskCoverageCurve``.

    Examples
    --------
    >>> import logitlab
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> curve = logitlab.risk_coverage_curve([[0.0, 1.0], [3.0, 0.0]], [0, 0])
    >>> plot.risk_coverage(curve, ax=Figure().add_subplot()).get_title()
    'AURC 0.2500'
    """
    if not isinstance(curve, RiskCoverageCurve):
        raise TypeError(f"curve must be a result of logitlab.risk_coverage_curve, got {curve!r}")
    ax = get_axes(ax)
    ax.axhline(curve.error[-1], color="0.5", linewidth=1, linestyle=(0, (4, 3)))
    ax.plot(curve.coverage, curve.error, color="C0", linewidth=2)
    ax.set(xlim=(0, 1), xlabel="coverage (accepted rows)", ylabel="error among accepted rows")
    ax.set_ylim(bottom=0)
    ax.set_title(f"AURC {curve.area:.4f}")
    format_percent(ax.xaxis)
    format_percent(ax.yaxis)
    return ax


def temperature_summary(
    temperatures: ArrayLike, normalized_entropy: ArrayLike, confidence: ArrayLike, *, ax: Any = None
) -> Any:
    """Mean confidence and mean entropy of many rows as functions of temperature.

    The curves of one row are those of :func:`temperature_curves`.

    Parameters
    ----------
    temperatures : array, shape (n,)
        Positive, ascending.
    normalized_entropy : array, shape (n,)
        Mean entropy divided by log K, its maximum.
    confidence : array, shape (n,)
        Mean confidence: the mean over rows of the largest probability.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        A temperature is not positive and finite; the other lists have another length.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.temperature_summary([0.1, 10], [0.1, 0.9], [1, 0.2], ax=Figure().add_subplot())
    >>> ax.get_xscale()
    'log'
    """
    temperatures = positive_reals(temperatures, "temperatures")
    size = len(temperatures)
    normalized_entropy = _arrays.list_of_reals(normalized_entropy, "normalized_entropy", size)
    confidence = _arrays.list_of_reals(confidence, "confidence", size)
    ax = get_axes(ax)
    ax.axvline(1, color="0.5", linewidth=1, linestyle=(0, (4, 3)))
    ax.plot(temperatures, confidence, color="C0", linewidth=2, label="mean confidence")
    ax.plot(temperatures, normalized_entropy, color="C1", linewidth=2, label="mean entropy / log K")
    ax.set(xscale="log", xlabel="temperature T", ylim=(0, 1.02))
    ax.set_xlim(temperatures.min(), temperatures.max())
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    format_percent(ax.yaxis)
    return ax


def class_gaps(
    names: Sequence[str], gap: ArrayLike, half_width: ArrayLike, *, ax: Any = None
) -> Any:
    """Mean confidence minus accuracy of each class, with confidence intervals.

    Overconfident classes are triangles to the right, underconfident ones triangles to the left. A
    class whose interval contains 0 is a hollow circle.

    Parameters
    ----------
    names : sequence of str, length n
        Names of the classes, from top to bottom.
    gap : array, shape (n,)
        Mean confidence minus accuracy.
    half_width : array, shape (n,)
        Half the width of each interval.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        `gap` or `half_width` does not contain one number for each name.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.class_gaps(["cat", "dog"], [0.1, -0.01], [0.02, 0.02], ax=Figure().add_subplot())
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['cat', 'dog']
    """
    names = check_names(names)
    gap = _arrays.list_of_reals(gap, "gap", len(names))
    half_width = _arrays.list_of_reals(half_width, "half_width", len(names))
    ax = get_axes(ax)
    y = np.arange(len(names))
    ax.axvline(0, color="0.5", linewidth=1, linestyle=(0, (4, 3)))
    ax.hlines(y, gap - half_width, gap + half_width, color="0.5", linewidth=1.2)
    significant = np.abs(gap) > half_width
    for group, color, marker, filled in (
        (significant & (gap > 0), "C1", ">", True),
        (significant & (gap < 0), "C0", "<", True),
        (~significant, "0.5", "o", False),
    ):
        face = color if filled else "none"
        ax.scatter(gap[group], y[group], s=34, marker=marker, color=face, edgecolors=color)
    ax.set_yticks(y, names, parse_math=False)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("confidence − accuracy")
    format_percent(ax.xaxis)
    return ax


def over_time(steps: ArrayLike, values: ArrayLike, *, ax: Any = None) -> Any:
    """Means over windows of consecutive steps, such as the entropy of a language model's tokens.

    Parameters
    ----------
    steps : array, shape (n,)
        Center of each window.
    values : array, shape (n,)
        Mean of each window.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        `values` does not contain one number for each step.

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
    ax = get_axes(ax)
    ax.plot(steps, values, color="C0", linewidth=1.3, marker="o" if len(steps) < 2 else None)
    ax.set_ylim(bottom=0)
    ax.set(xlabel="step")
    ax.margins(x=0.01)
    return ax
