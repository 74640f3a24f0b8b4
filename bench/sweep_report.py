"""The pages of `python -m bench sweep`: heat maps of the ratios, and a table of the lowest."""

from typing import Any

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from bench import tables
from bench.sweep import fastest_peer

_LOW = 1.2  # ratios below it are listed


def _grid(
    rows: list[dict[str, Any]], ratio: Any
) -> tuple[list[str], list[tuple[int, int]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Lines, shapes, and the ratio of each; NaN where a cell was not measured."""
    cells = [(_line(row), tuple(row["cell"][3:]), ratio(row["times"])) for row in rows]
    lines = list(dict.fromkeys(line for line, _, value in cells if value is not None))
    shapes = sorted({shape for _, shape, _ in cells}, key=lambda s: (s[1], s[0]))
    grid = np.full((len(lines), len(shapes)), np.nan)
    for line, shape, value in cells:
        if value is not None:
            grid[lines.index(line), shapes.index(shape)] = value
    return lines, shapes, grid


def _line(row: dict[str, Any]) -> str:
    work, dtype, layout = row["cell"][:3]
    parts = [work, dtype, *([layout] if layout != "last axis" else [])]
    return f"{', '.join(parts)}, {row['threads']} thread{'s' * (row['threads'] > 1)}"


def _copy_ratio(times: dict[str, list[float]]) -> float | None:
    if "copy" not in times:
        return None
    ours = min(t[0] for name, t in times.items() if name.startswith("logitlab"))
    return times["copy"][0] / ours


def heat_map(rows: list[dict[str, Any]], against_copy: bool) -> Figure:
    """The ratio of every cell by colour and number, on a logarithmic scale."""
    ratio = _copy_ratio if against_copy else lambda times: fastest_peer(times)[1]
    lines, shapes, grid = _grid(rows, ratio)
    figure = Figure(figsize=(3 + 0.36 * len(shapes), 1.6 + 0.2 * len(lines)), layout="constrained")
    ax = figure.add_subplot()
    norm = TwoSlopeNorm(0, -1.5, 1.5)
    ax.imshow(np.log2(grid), cmap="RdBu", norm=norm, aspect="auto")
    for i, j in np.argwhere(~np.isnan(grid)):
        dark = abs(np.log2(grid[i, j])) > 1
        text = f"{grid[i, j]:.2g}" if grid[i, j] < 100 else f"{grid[i, j]:.0f}"
        ax.text(j, i, text, ha="center", va="center", fontsize=5, color="w" if dark else "k")
    ax.set_yticks(range(len(lines)), lines, fontsize=6)
    ax.set_xticks(range(len(shapes)), [f"{n}×{k}" for n, k in shapes], rotation=90, fontsize=6)
    what = "of a copy of the logits" if against_copy else "of the fastest other library"
    title = f"Time {what} over the time of logitlab\n(blue: logitlab is faster)"
    figure.suptitle(title, size=8)
    return figure


def write(rows: list[dict[str, Any]], note: str) -> None:
    """Write docs/sweep.md and its pictures."""
    for name, against_copy in (("sweep", False), ("sweep-copy", True)):
        heat_map(rows, against_copy).savefig(tables.ROOT / "docs" / f"{name}.svg")
    ratios = np.array([fastest_peer(row["times"])[1] for row in rows])
    low = sorted((fastest_peer(row["times"])[::-1], _line(row), row["cell"][3:]) for row in rows)
    table = [
        f"| {line} | {n}×{k} | {peer} | {ratio:.2f} |"
        for (ratio, peer), line, (n, k) in low
        if ratio < _LOW
    ]
    mean = float(np.exp(np.log(ratios).mean()))
    head = (
        f"{len(rows)} cells. The geometric mean of the time of the fastest other library divided "
        f"by that of logitlab is {mean:.2f}; {(ratios < 1).sum()} cells are below 1, {len(table)} "
        f"below {_LOW}. {note}"
    )
    text = "\n".join(
        [
            "# Sweep: every computation over types, layouts and shapes",
            "",
            head,
            "",
            "![Ratios to the fastest other library](sweep.svg)",
            "",
            "![Ratios to a copy](sweep-copy.svg)",
            "",
            f"## Cells below {_LOW}",
            "",
            "| computation | rows × classes | fastest library | ratio |",
            "|---|---|---|---|",
            *table,
        ]
    )
    tables.replace(tables.ROOT / "docs" / "sweep.md", f"{text}\n")
