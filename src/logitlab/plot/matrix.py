"""The Jacobian as a heat map."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from logitlab import derivatives
from logitlab.plot.canvas import axes, chances, choose, label_classes, one_row

_WRITTEN = 6  # classes whose entries are written out


def jacobian_rows(row: Any, place: Any, temperature: float) -> Any:
    """Rows of the Jacobian: it is symmetric, so those are its products with unit vectors."""
    unit = np.zeros((len(place), len(row)))
    unit[np.arange(len(place)), place] = 1
    many = np.broadcast_to(row, unit.shape)
    return derivatives.jacobian_product(many, unit, temperature=temperature)


def jacobian(
    z: ArrayLike,
    *,
    temperature: float = 1.0,
    names: Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    r"""How each probability answers to each logit, :math:`\partial p_i/\partial z_j`.

    The colours reach to 1/(4|T|), the largest entry that any row of logits can have: the picture
    fades where the softmax saturates. Beside each row stands its sum over all classes: 0, as a
    shift of all logits changes nothing. Of more than 20 classes the most probable ones are drawn.

    Parameters
    ----------
    z : array, shape (K,)
        One row of logits.
    temperature : float
        T, as in :func:`logitlab.jacobian`.
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
        As :func:`logitlab.jacobian`; `z` is not one row; `names` of another length.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.jacobian([0.0, 0.0], ax=Figure().add_subplot())
    >>> ax.images[0].get_array().tolist()
    [[0.25, -0.25], [-0.25, 0.25]]
    """
    from matplotlib.colors import LinearSegmentedColormap

    row = one_row(z)
    shown = choose(chances(row, temperature), names)
    rows = jacobian_rows(row, shown.place, temperature)
    block = rows[:, shown.place]
    ax = axes(ax)
    reach = 0.25 / abs(temperature)
    shades = LinearSegmentedColormap.from_list("", ["C1", ax.get_facecolor(), "C0"])
    image = ax.imshow(block, cmap=shades, vmin=-reach, vmax=reach)
    place = np.arange(len(block))
    label_classes(ax, shown, letters=40)
    ax.set_yticks(place, shown.names)
    ax.set(xlabel=ax.get_xlabel().replace("class", "logit j"), ylabel="probability i")
    if len(block) <= _WRITTEN:
        for i, j in np.ndindex(block.shape):
            ink = ax.get_facecolor() if abs(block[i, j]) > 0.6 * reach else None
            text = f"{block[i, j]:.2g}"
            ax.text(j, i, text, ha="center", va="center", fontsize="small", color=ink)
        for i, total in enumerate(rows.sum(axis=-1)):
            ax.annotate(
                f"{total:.0e}" if total else "0",
                (1.02, i),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize="small",
            )
        ax.annotate("sum", (1.02, 1.02), xycoords="axes fraction", fontsize="small")
    pad = 0.12 if len(block) <= _WRITTEN else 0.03
    ax.figure.colorbar(image, ax=ax, label="∂pᵢ / ∂zⱼ", pad=pad)
    return ax
