"""Heat map of the Jacobian of softmax."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from logitlab import derivatives
from logitlab._rows import Floats, Integers, as_row
from logitlab.plot.canvas import get_axes, label_classes, select_classes, softmax_row

_MAX_ANNOTATED = 6  # of more classes, the cells have no numbers


def jacobian_rows(row: Floats, index: Integers, temperature: float) -> Floats:
    """Rows of the Jacobian at `index`, as products with unit vectors: the Jacobian is symmetric."""
    unit = np.zeros((len(index), len(row)))
    unit[np.arange(len(index)), index] = 1
    z = np.broadcast_to(row, unit.shape)
    rows: Floats = derivatives.jacobian_product(z, unit, temperature=temperature)
    return rows


def jacobian(
    z: ArrayLike,
    *,
    temperature: float = 1.0,
    names: Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    r"""Heat map of the Jacobian :math:`\partial p_i/\partial z_j` of softmax at one row.

    The color scale ends at 1/(4|T|), the largest possible entry, so the colors are pale where the
    softmax saturates. The number right of a row is its sum over all classes. It is 0 up to
    rounding, because softmax does not change if all logits are shifted. Of more than 20 classes,
    the most probable ones are shown.

    Parameters
    ----------
    z : array, shape (K,)
        One row of logits.
    temperature : float
        T, as in :func:`logitlab.jacobian`.
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
        As :func:`logitlab.jacobian`; `z` is not one row; `names` has another length.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from logitlab import plot
    >>> ax = plot.jacobian([0.0, 0.0], ax=Figure().add_subplot())
    >>> ax.images[0].get_array().tolist()
    [[0.25, -0.25], [-0.25, 0.25]]
    """
    from matplotlib.colors import LinearSegmentedColormap

    row = as_row(z)
    shown = select_classes(softmax_row(row, temperature), names)
    rows = jacobian_rows(row, shown.indices, temperature)
    block = rows[:, shown.indices]
    ax = get_axes(ax)
    limit = 0.25 / abs(temperature)
    colormap = LinearSegmentedColormap.from_list("", ["C1", ax.get_facecolor(), "C0"])
    image = ax.imshow(block, cmap=colormap, vmin=-limit, vmax=limit)
    label_classes(ax, shown, max_characters=40)
    ax.set_yticks(np.arange(len(block)), shown.names, parse_math=False)
    ax.set(xlabel=shown.axis_label("logit j"), ylabel="probability i")
    if len(block) <= _MAX_ANNOTATED:
        for i, j in np.ndindex(block.shape):
            color = ax.get_facecolor() if abs(block[i, j]) > 0.6 * limit else None
            text = f"{block[i, j]:.2g}"
            ax.text(j, i, text, ha="center", va="center", fontsize="small", color=color)
        for i, total in enumerate(rows.sum(axis=-1)):
            ax.annotate(
                f"{total:.0e}" if total else "0",
                (1.02, i),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize="small",
            )
        ax.annotate("sum", (1.02, 1.02), xycoords="axes fraction", fontsize="small")
    pad = 0.12 if len(block) <= _MAX_ANNOTATED else 0.03
    ax.figure.colorbar(image, ax=ax, label="∂pᵢ / ∂zⱼ", pad=pad)
    return ax
