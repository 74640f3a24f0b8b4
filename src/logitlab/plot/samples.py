"""Plots of sampled frequencies and their probabilities."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from logitlab import _arrays, _checks
from logitlab._arrays import bincount
from logitlab._rows import as_row
from logitlab.plot.canvas import (
    MAX_CLASSES,
    check_names,
    format_percent,
    get_axes,
    label_classes,
    select_classes,
    softmax_row,
)
from logitlab.sampling import sample
from logitlab.sweep import MAX_SAMPLES, TemperatureSweep

_MAX_POSITIONS = 46  # bars and gaps of a sweep: the annotations of more would overlap


def outcome_bars(
    names: Sequence[str], p: ArrayLike, frequencies: ArrayLike, *, ax: Any = None
) -> Any:
    """Bars of the probability and dots of the sampled frequency of each class.

    Parameters
    ----------
    names : sequence of str, length n
        Names of the classes.
    p, frequencies : array, shape (n,)
        Probability and relative frequency of each class.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        `p` or `frequencies` does not contain one number for each name.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.outcome_bars(["a", "b"], [0.5, 0.5], [0.4, 0.6], ax=Figure().add_subplot())
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['a', 'b']
    """
    names = check_names(names)
    p = _arrays.list_of_reals(p, "p", len(names))
    frequencies = _arrays.list_of_reals(frequencies, "frequencies", len(names))
    ax = get_axes(ax)
    x = np.arange(len(names))
    ax.bar(x, p, 0.75, color="C0", alpha=0.55, linewidth=0)
    ax.scatter(x, frequencies, s=14, color="C1", zorder=3, linewidths=0)
    ax.set_xticks(x, names, parse_math=False)
    ax.set_ylim(0, 1.04)
    format_percent(ax.yaxis)
    return ax


def sampling(
    z: ArrayLike,
    n: int = 1000,
    *,
    temperature: float = 1.0,
    rng: Any = 0,
    names: Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    r"""Probabilities of one row, and frequencies of the classes in n samples.

    A bar is a probability p, a dot is a relative frequency with error bars of
    :math:`\pm 1.96\sqrt{p(1-p)/n}`. If n p is not small, 95 % of the error bars contain p.

    Parameters
    ----------
    z : array, shape (K,)
        One row of logits; -inf excludes a class, as in the result of :func:`logitlab.truncate`.
    n : int
        Number of samples.
    temperature : float
        T, as in :func:`logitlab.softmax`.
    rng : int or numpy.random.Generator
        Seed or generator, as in :func:`logitlab.sample`.
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
        As :func:`logitlab.sample`; `z` is not one row; `names` has another length.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> plot.sampling([2, 1, 3, 5, 4], 100, ax=Figure().add_subplot()).get_ylabel()
    'probability (bars), frequency (dots), n = 100'
    """
    row = as_row(z)
    p = softmax_row(row, temperature)
    n = _checks.integer(n, "n", 1)
    if n > MAX_SAMPLES:
        raise ValueError(f"n must be <= {MAX_SAMPLES}, got {n}")
    samples = sample(row, n, temperature=temperature, rng=rng)
    frequencies = bincount(samples, minlength=len(p)) / n
    shown = select_classes(p, names)
    p, frequencies = p[shown.indices], frequencies[shown.indices]
    ax = outcome_bars(shown.names, p, frequencies, ax=ax)
    error = 1.96 * np.sqrt(p * (1 - p) / n)
    ax.errorbar(np.arange(len(p)), frequencies, error, fmt="none", ecolor="C1", capsize=4)
    label_classes(ax, shown)
    ax.set_ylim(0, 1.1 * float(np.max(frequencies + error)))
    ax.set_ylabel(_frequency_label(n))
    return ax


def _frequency_label(n: int) -> str:
    return f"probability (bars), frequency (dots), n = {n:,}"


def temperature_sweep(
    sweep: TemperatureSweep, *, names: Sequence[str] | None = None, ax: Any = None
) -> Any:
    """Probabilities of one row (bars) and frequencies of samples (dots) at several temperatures.

    Error bars are 1.96 standard errors; the number above a bar is its probability. With more than
    20 classes, fewer at many temperatures, those with the largest mean probability are shown.

    Parameters
    ----------
    sweep : logitlab.sweep.TemperatureSweep
        Result of :func:`logitlab.temperature_sweep`.
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
        `sweep` is not a result of :func:`logitlab.temperature_sweep`; `names` has another length.

    Examples
    --------
    >>> import logitlab
    >>> from matplotlib.figure import Figure
    >>> sweep = logitlab.temperature_sweep([2, 1, 3], [0.5, 2], n=100, rng=0)
    >>> ax = sweep.plot(ax=Figure().add_subplot())
    >>> [text.get_text() for text in ax.texts][:3]
    ['T = 0.5', 'T = 2', '12 %']
    """
    if not isinstance(sweep, TemperatureSweep):
        raise TypeError(f"sweep must be a result of logitlab.temperature_sweep, got {sweep!r}")
    m = len(sweep.temperatures)
    max_classes = max(1, min(MAX_CLASSES, _MAX_POSITIONS // max(m, 1) - 1))
    shown = select_classes(sweep.probabilities.mean(axis=0), names, max_classes)
    ax = get_axes(ax)
    k = len(shown.indices)
    p, frequencies = sweep.probabilities[:, shown.indices], sweep.frequencies[:, shown.indices]
    error = 1.96 * sweep.standard_error[:, shown.indices]
    x = np.arange(k) + (k + 1.0) * np.arange(m)[:, None]
    ax.bar(x.ravel(), p.ravel(), 0.8, color="C0", alpha=0.55, linewidth=0)
    ax.errorbar(
        *(x.ravel(), frequencies.ravel(), error.ravel()),
        fmt="o",
        markersize=3.5,
        color="C1",
        capsize=3,
    )
    for t, center in zip(sweep.temperatures, x.mean(axis=1), strict=True):
        ax.text(
            center,
            1.02,
            f"T = {t:.4g}",
            transform=ax.get_xaxis_transform(),
            ha="center",
            fontweight="bold",
            **({"rotation": 90, "fontsize": "x-small"} if m > 6 else {}),
        )
    rotation = 90 if m * k > 12 else 0
    tops = np.maximum(p, frequencies + error) + 0.015
    for center, mass, top in zip(x.ravel(), p.ravel(), tops.ravel(), strict=True):
        small = "0 %" if mass == 0 else "<0.1 %"
        text = f"{100 * mass:.{int(mass < 0.0995)}f} %" if mass >= 5e-4 else small
        ax.text(center, top, text, ha="center", fontsize="x-small", rotation=rotation)
    label_classes(ax, shown, max_characters=math.inf)
    rotated = m * sum(len(name) + 1 for name in shown.names) > 60
    ax.set_xticks(x.ravel(), shown.names * m, parse_math=False)
    if rotated:
        ax.tick_params(axis="x", labelrotation=90, labelsize="x-small")
    ax.set_ylim(0, 1.18 if rotation else 1.1)
    ax.set_yticks(np.linspace(0, 1, 6))
    format_percent(ax.yaxis)
    ax.set_ylabel(_frequency_label(sweep.n))
    return ax
