"""The pages of `python -m bench sweep`: heat maps of the ratios, and a table of the lowest."""

from typing import Any

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

import logitlab
from bench import peers, tables
from bench.probabilities import normal_logits
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


def _reason(row: dict[str, Any], peer: str) -> str:
    """Why logitlab is not much faster in a cell."""
    work, dtype, layout, n, k = row["cell"]
    if "gradient" in work and work.startswith("torch"):
        return "a Python function of autograd"
    if n * k <= 10:
        return "the call from Python"
    if work == "brier_score":
        return "one thread: NumPy"
    if work in ("kl_divergence", "hessian_product"):
        return "arithmetic in float64"
    if layout in ("strided", "inner axis"):
        return "a copy of the rows" if k > 48 else "transposition"
    if dtype == "float32" and peer in ("onnxruntime", "XNNPACK", "torch", "JAX jit"):
        return "arithmetic: the other library is less accurate"
    return "arithmetic"


def errors() -> list[str]:
    """A table of the largest errors of softmax and log_softmax, in units in the last place."""
    z = normal_logits("float32", 3.0, (1000, 1000))
    lines = ["| library | softmax | log_softmax |", "|---|---|---|"]
    for peer, make in peers.PEERS.items():
        calls = [make(name, z, 1) for name in ("softmax", "log_softmax")]
        if peer == "copy" or "out=" in peer or None in calls:
            continue
        cells = []
        for name, call in zip(("softmax", "log_softmax"), calls, strict=True):
            exact = getattr(logitlab, name)(z.astype(np.float64))
            result = call()
            result = result.get_tensor(1) if peer == "XNNPACK" else np.asarray(result)
            ulp = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
            cells.append(f"{np.max(np.abs(result - exact) / ulp):.1f}")
        lines.append(f"| {peer} | {' | '.join(cells)} |")
    return lines


def write(rows: list[dict[str, Any]], note: str) -> None:
    """Write docs/sweep.md and its pictures."""
    for name, against_copy in (("sweep", False), ("sweep-copy", True)):
        heat_map(rows, against_copy).savefig(tables.ROOT / "docs" / f"{name}.svg")
    ratios = np.array([fastest_peer(row["times"])[1] for row in rows])
    low = sorted(
        ((*fastest_peer(row["times"])[::-1], row) for row in rows), key=lambda cell: cell[0]
    )
    table = [
        f"| {_line(row)} | {row['cell'][3]}×{row['cell'][4]} | {peer} | {ratio:.2f} "
        f"| {_reason(row, peer)} |"
        for ratio, peer, row in low
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
            "| computation | rows × classes | fastest library | ratio | what the time goes to |",
            "|---|---|---|---|---|",
            *table,
            "",
            "## Errors",
            "",
            "The largest error on 1000×1000 logits of float32, normal with standard deviation 3, "
            "in units in the last place.",
            "",
            *errors(),
        ]
    )
    tables.replace(tables.ROOT / "docs" / "sweep.md", f"{text}\n")
