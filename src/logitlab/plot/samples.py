"""What was drawn, beside what was to be expected."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from logitlab import _arrays
from logitlab.plot.canvas import ROOM, axes, chances, choose, label_classes, one_row, percent
from logitlab.sampling import sample
from logitlab.sweep import TemperatureSweep

_PLACES = 46  # of a sweep's bars and gaps; what is written at more would run together


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

    Raises
    ------
    TypeError, ValueError
        `p` or `frequencies` does not hold a number for each name.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.outcome_bars(["a", "b"], [0.5, 0.5], [0.4, 0.6], ax=Figure().add_subplot())
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['a', 'b']
    """
    p = _arrays.list_of_reals(p, "p", len(names))
    frequencies = _arrays.list_of_reals(frequencies, "frequencies", len(names))
    ax = axes(ax)
    place = np.arange(len(names))
    ax.bar(place, p, 0.75, color="C0", alpha=0.55, linewidth=0)
    ax.scatter(place, frequencies, s=14, color="C1", zorder=3, linewidths=0)
    ax.set_xticks(place, list(names))
    ax.set_ylim(0, 1.04)
    percent(ax.yaxis)
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
    r"""How often each class was drawn, beside its probability.

    A dot is the share of n draws, its bar reaches :math:`1.96\sqrt{p(1-p)/n}` to both sides: where
    n p is not small, 95 of 100 such bars cover the probability.

    Parameters
    ----------
    z : array, shape (K,)
        One row of logits; what :func:`logitlab.truncate` cut is never drawn.
    n : int
        Draws.
    temperature : float
        T, as in :func:`logitlab.softmax`.
    rng : int or numpy.random.Generator
        The seed, as in :func:`logitlab.sample`.
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
        As :func:`logitlab.sample`; `z` is not one row; `names` of another length.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> plot.sampling([2, 1, 3, 5, 4], 100, ax=Figure().add_subplot()).get_ylabel()
    'probability (bars), share of 100 draws (dots)'
    """
    row = one_row(z)
    p = chances(row, temperature)
    frequencies = (
        np.bincount(sample(row, n, temperature=temperature, rng=rng), minlength=len(p)) / n
    )
    shown = choose(p, names)
    ax = outcome_bars(shown.names, p[shown.place], frequencies[shown.place], ax=ax)
    reach = 1.96 * np.sqrt(p * (1 - p) / n)[shown.place]
    place = np.arange(len(shown.place))
    ax.errorbar(place, frequencies[shown.place], reach, fmt="none", ecolor="C1", capsize=4)
    label_classes(ax, shown)
    ax.set_ylim(0, 1.1 * float(np.max(frequencies[shown.place] + reach)))
    ax.set_ylabel(f"probability (bars), share of {n:,} draws (dots)")
    return ax


def temperature_sweep(sweep: Any, *, names: Sequence[str] | None = None, ax: Any = None) -> Any:
    """The classes' probabilities at several temperatures as bars, in per cent, and draws as dots.

    Parameters
    ----------
    sweep : logitlab.sweep.TemperatureSweep
        What :func:`logitlab.temperature_sweep` found.
    names : sequence of str, length K, optional
        The classes. Of more than there is room for (20, fewer at many temperatures), those that are
        the most probable on average are drawn.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import logitlab
    >>> from matplotlib.figure import Figure
    >>> sweep = logitlab.temperature_sweep([2, 1, 3], [0.5, 2], n=100, rng=0)
    >>> ax = sweep.plot(ax=Figure().add_subplot())
    >>> [text.get_text() for text in ax.texts][:3]
    ['T = 0.5', '12 %', '1.6 %']
    """
    if not isinstance(sweep, TemperatureSweep):
        raise TypeError(
            f"sweep is a {type(sweep).__name__}; accepted: what logitlab.temperature_sweep gives"
        )
    ax = axes(ax)
    m = len(sweep.temperatures)
    shown = choose(
        sweep.probabilities.mean(axis=0), names, max(1, min(ROOM, _PLACES // max(m, 1) - 1))
    )
    k = len(shown.place)
    p, found = sweep.probabilities[:, shown.place], sweep.frequencies[:, shown.place]
    reach = 1.96 * sweep.standard_error[:, shown.place]
    place = np.arange(k) + (k + 1.0) * np.arange(m)[:, None]
    ax.bar(place.ravel(), p.ravel(), 0.8, color="C0", alpha=0.55, linewidth=0)
    ax.errorbar(
        place.ravel(), found.ravel(), reach.ravel(), fmt="o", markersize=3.5, color="C1", capsize=3
    )
    aside = 90 if m * k > 12 else 0
    for t, line, masses, high in zip(sweep.temperatures, place, p, found + reach, strict=True):
        ax.text(
            line.mean(),
            1.02,
            f"T = {t:.4g}",
            transform=ax.get_xaxis_transform(),
            ha="center",
            fontweight="bold",
            **({"rotation": 90, "fontsize": "x-small"} if m > 6 else {}),
        )
        for at, mass, top in zip(line, masses, high, strict=True):
            small = "0 %" if mass == 0 else "<0.1 %"
            text = f"{100 * mass:.{int(mass < 0.0995)}f} %" if mass >= 5e-4 else small
            above = max(mass, top) + 0.015
            ax.text(at, above, text, ha="center", fontsize="x-small", rotation=aside)
    label_classes(ax, shown, letters=math.inf)
    turned = m * sum(len(name) + 1 for name in shown.names) > 60
    ax.set_xticks(place.ravel(), shown.names * m)
    if turned:
        ax.tick_params(axis="x", labelrotation=90, labelsize="x-small")
    ax.set_ylim(0, 1.18 if aside else 1.1)
    ax.set_yticks(np.linspace(0, 1, 6))
    percent(ax.yaxis)
    ax.set_ylabel(f"probability (bars), share of {sweep.n:,} draws (dots)")
    return ax
