"""Plot of the rounding errors of the naive softmax formula and of logitlab's softmax."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from logitlab._exact import doubledouble
from logitlab._exact.formats import FORMATS, errors, rounded
from logitlab._rows import Floats, as_row
from logitlab.plot.canvas import get_axes, positive_reals, softmax_row
from logitlab.probabilities import softmax

SCALES = 4.0 ** np.arange(-2, 7)
MAX_ULP = 4.0  # a larger error counts as wrong


def naive_softmax(z: NDArray[Any]) -> NDArray[Any]:
    """exp(z) / sum(exp(z)), computed in the dtype of z."""
    with np.errstate(all="ignore"):
        e = np.exp(z)
        p: NDArray[Any] = e / e.sum(axis=-1, keepdims=True, dtype=e.dtype)
    return p


def max_ulp_errors(
    row: Floats,
    scales: NDArray[Any],
    shift: float = 0.0,
    dtypes: Iterable[str] = tuple(FORMATS),
) -> dict[tuple[str, str], Floats]:
    """Maximum error over the classes of softmax(c z + shift), in ULP, for each scale c.

    The keys are (dtype, implementation). The error is infinite if a result is not a number, and
    NaN if c z + shift itself overflows the dtype. The reference values are computed in
    double-double arithmetic from the logits rounded to the dtype.
    """
    result = {}
    for dtype in dtypes:
        if dtype == "bfloat16":
            import ml_dtypes  # noqa: F401  registers it with NumPy
        with np.errstate(over="ignore", invalid="ignore"):
            z = rounded(scales[:, None] * row + shift, dtype)
        fits = (~np.isnan(z) & (z < np.inf)).all(axis=-1) & (z > -np.inf).any(axis=-1)
        exact = doubledouble.softmax(z[fits])
        logits = z[fits].astype(np.dtype(dtype))
        for implementation, function in (("naive", naive_softmax), ("logitlab", softmax)):
            p = np.asarray(function(logits)).astype(np.float64)
            max_errors = np.full(len(scales), np.nan)
            max_errors[fits] = errors(p, exact, dtype)[0].max(axis=-1)
            result[dtype, implementation] = max_errors
    return result


def format_ulp(error: float) -> str:
    """An error in ULP as a short text."""
    if np.isnan(error):
        return "–"
    if np.isinf(error):
        return "NaN"
    return f"{error:.1f}" if error < 10 else f"{error:.0f}" if error < 1000 else f"{error:.0e}"


def _cell_style(error: float) -> tuple[Any, str | None, bool]:
    """Face color and hatching of a cell, and whether its text needs a background."""
    if np.isnan(error):
        return ("0.5", 0.12), None, False
    if np.isinf(error):
        return ("C1", 0.9), "xxx", True
    if error <= MAX_ULP:
        return ("C0", 0.3), None, False
    # The more digits a wrong result has lost, the more opaque is its color.
    return ("C1", min(0.9, 0.35 + 0.05 * float(np.log2(error / MAX_ULP)))), None, False


def stability(z: ArrayLike, scales: ArrayLike | None = None, *, ax: Any = None) -> Any:
    """Maximum error in ULP of naive softmax and logitlab's in four dtypes, by scale of the logits.

    The naive softmax is exp(z) / sum(exp(z)). A cell is NaN if the computation overflows or divides
    by zero, and a dash if the logits themselves overflow the dtype. One ULP (unit in the last
    place) is the distance of two adjacent numbers of the dtype.

    Parameters
    ----------
    z : array, shape (K,)
        One row of logits.
    scales : array, shape (n,), optional
        Scale factors; by default the powers of 4 from 1/16 to 4096.
    ax : matplotlib.axes.Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.softmax`; `z` is not one row, or contains +inf; a scale is not positive
        and finite.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.stability([1, 2, 3, 4, 5], [1, 1000], ax=Figure().add_subplot())
    >>> [ax.texts[cell].get_text() for cell in (9, 11)]  # float32: naive, logitlab
    ['NaN', '0.0']
    """
    row = as_row(z)
    softmax_row(row)
    if np.isposinf(row).any():
        raise ValueError("z must be finite or -inf, got +inf")
    c = SCALES if scales is None else positive_reals(scales, "scales")
    results = max_ulp_errors(row, c)
    ax = get_axes(ax)
    for y, max_errors in enumerate(results.values()):
        for x, error in enumerate(max_errors):
            face, hatch, background = _cell_style(error)
            ax.bar(
                *(x, 0.92, 0.94),
                bottom=y - 0.46,
                facecolor=face,
                edgecolor="C1",
                linewidth=0,
                hatch=hatch,
            )
            box = {"facecolor": ax.get_facecolor(), "edgecolor": "none", "pad": 1}
            style = {"ha": "center", "va": "center", "fontsize": "small"}
            ax.text(x, y, format_ulp(error), bbox=box if background else None, **style)
    labels = [f"{dtype}  {implementation}" for dtype, implementation in results]
    ax.set_yticks(np.arange(len(results)), labels)
    ax.set_xticks(np.arange(len(c)), [f"{scale:.4g}" for scale in c])
    ax.set(xlim=(-0.5, len(c) - 0.5), ylim=(len(results) - 0.5, -0.5))
    ax.set(xlabel="scale c of the logits (cells: maximum error in ULP)")
    ax.set(ylabel="dtype and implementation")
    ax.tick_params(length=0)
    return ax
