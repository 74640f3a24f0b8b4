"""The formula as it is typed beside logitlab's softmax: where it overflows, and how wrong it is."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from logitlab._exact import doubledouble
from logitlab._exact.formats import FORMATS, errors, rounded
from logitlab.plot.canvas import axes, chances, one_row, positive
from logitlab.probabilities import softmax

SCALES = 4.0 ** np.arange(-2, 7)
MAX_ULP = 4.0  # ULP: more is called wrong


def naive(z: NDArray[Any]) -> NDArray[Any]:
    """The formula exp(z) / sum(exp(z)) in z's own type."""
    with np.errstate(all="ignore"):
        e = np.exp(z)
        p: NDArray[Any] = e / e.sum(axis=-1, keepdims=True, dtype=e.dtype)
    return p


def max_ulp_errors(
    row: NDArray[np.float64], scales: NDArray[Any], shift: float = 0.0
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """The largest error over the classes at each scale, in ULP, for each type and formula.

    Infinite where a result is not a number; NaN where c z + shift itself does not fit the type.
    Judged in double-double arithmetic, from the logits as the type holds them.
    """
    import ml_dtypes  # noqa: F401  makes bfloat16 a NumPy type

    found = {}
    for name in FORMATS:
        with np.errstate(over="ignore", invalid="ignore"):
            z = rounded(scales[:, None] * row + shift, name)
        fits = (~np.isnan(z) & (z < np.inf)).all(axis=-1) & (z > -np.inf).any(axis=-1)
        exact = doubledouble.softmax(z[fits])
        typed = z[fits].astype(np.dtype(name))
        for formula, function in (("exp(z) / Σ", naive), ("logitlab", softmax)):
            p = np.asarray(function(typed)).astype(np.float64)
            worst = np.full(len(scales), np.nan)
            worst[fits] = errors(p, exact, name)[0].max(axis=-1)
            found[name, formula] = worst
    return found


def format_ulp(error: float) -> str:
    """An error in as few signs as a cell has room for."""
    if np.isnan(error):
        return "–"
    if np.isinf(error):
        return "NaN"
    return f"{error:.1f}" if error < 10 else f"{error:.0f}" if error < 1000 else f"{error:.0e}"


def _look(error: float) -> tuple[Any, str | None, bool]:
    """Face and hatching of a cell, and whether its text needs a ground of its own."""
    if np.isnan(error):
        return ("0.5", 0.12), None, False
    if np.isinf(error):
        return ("C1", 0.9), "xxx", True
    if error <= MAX_ULP:
        return ("C0", 0.3), None, False
    # The colour of a wrong result deepens with the digits lost.
    return ("C1", min(0.9, 0.35 + 0.05 * float(np.log2(error / MAX_ULP)))), None, False


def stability(z: ArrayLike, scales: ArrayLike | None = None, *, ax: Any = None) -> Any:
    """The plain formula and logitlab's in four types as the logits grow: the worst error in ULP.

    NaN stands where the formula overflows or divides by zero, a dash where the logits themselves
    are too large for the type. One ULP is the distance of two neighbouring numbers of the type.

    Parameters
    ----------
    z : array, shape (K,)
        One row of logits.
    scales : array, shape (n,), optional
        The factors; without it, powers of 4 from 1/16 to 4096.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.softmax`; `z` is not one row, or holds +inf; a scale that is not positive
        and finite.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.stability([1, 2, 3, 4, 5], [1, 1000], ax=Figure().add_subplot())
    >>> [ax.texts[cell].get_text() for cell in (9, 11)]  # float32: the formula, then logitlab
    ['NaN', '0.0']
    """
    row = one_row(z)
    chances(row)
    if np.isposinf(row).any():
        raise ValueError("z holds inf; accepted: finite logits, and -inf")
    c = SCALES if scales is None else positive(scales, "scales")
    found = max_ulp_errors(row, c)
    ax = axes(ax)
    for line, worst in enumerate(found.values()):
        for place, error in enumerate(worst):
            face, hatch, box = _look(error)
            ax.bar(
                *(place, 0.92, 0.94),
                bottom=line - 0.46,
                facecolor=face,
                edgecolor="C1",
                linewidth=0,
                hatch=hatch,
            )
            ink = {"facecolor": ax.get_facecolor(), "edgecolor": "none", "pad": 1} if box else None
            at = {"ha": "center", "va": "center", "fontsize": "small"}
            ax.text(place, line, format_ulp(error), bbox=ink, **at)
    ax.set_yticks(np.arange(len(found)), [f"{name}  {formula}" for name, formula in found])
    ax.set_xticks(np.arange(len(c)), [f"{scale:.4g}" for scale in c])
    ax.set(xlim=(-0.5, len(c) - 0.5), ylim=(len(found) - 0.5, -0.5))
    ax.set(xlabel="scale c of the logits: worst error in ULP", ylabel="type and formula")
    ax.tick_params(length=0)
    return ax
