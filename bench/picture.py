"""The speed plot of the README: the fastest peer of every row of the tables in docs/bench-*.md."""

import re
from pathlib import Path

from matplotlib.figure import Figure

from bench.tables import ROOT

# Table -> title of its rows in the plot, and the rows that are shown.
_TABLES = {
    "softmax": ("softmax", r"float32, sd 3$"),
    "losses": ("", r"^(cross_entropy [0-9×]+$|linear)"),
    "derivatives": ("", r"^(jacobian 16|softmax backward)"),
    "sampling": ("sample", r"sd 3"),
    "calibration": ("temperature fit", r""),
    "regression": ("regression", r""),
}
_NOT_PEERS = re.compile(r"logitlab|copy|our softmax|without")


def fastest_peers(path: Path) -> dict[str, tuple[str, float]]:
    """For every row of a table, the fastest peer and its time divided by ours."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line.startswith("|")]
    _, *names = (cell.strip() for cell in lines[0].strip("|").split("|"))
    fastest = {}
    for line in lines[2:]:
        title, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        ratios = {
            name: float(match[1])
            for name, cell in zip(names, cells, strict=True)
            if not _NOT_PEERS.search(name) and (match := re.search(r"\(([\d.]+)×", cell))
        }
        if ratios:
            peer = min(ratios, key=lambda name: ratios[name])
            fastest[title] = peer, ratios[peer]
    return fastest


def draw(docs: Path) -> Figure:
    """Bars of the fastest peer's time over ours, on a logarithmic axis."""
    labels, ratios = [], []
    for table, (prefix, pattern) in _TABLES.items():
        for title, (peer, ratio) in fastest_peers(docs / f"bench-{table}.md").items():
            if re.search(pattern, title):
                row = re.sub(r" float32|, sd 3|, none| logits$", "", title)
                labels.append(f"{prefix} {row}  ({peer})".strip())
                ratios.append(ratio)
    figure = Figure(figsize=(8, 0.21 * len(labels) + 0.8), layout="constrained")
    ax = figure.add_subplot()
    colours = ["#1f77b4" if ratio >= 1 else "#d62728" for ratio in ratios]
    ax.barh(range(len(labels)), [ratio - 1 for ratio in ratios], left=1, color=colours)
    for i, ratio in enumerate(ratios):
        ax.text(max(ratio, 1) * 1.06, i, f"{ratio:.3g}", va="center", fontsize=7)
    ax.axvline(1, color="0.3", linewidth=0.8)
    ax.set(
        xscale="log",
        xlim=(0.3, 600),
        ylim=(len(labels) - 0.4, -0.6),
        xlabel="time of the fastest other library / time of logitlab",
    )
    ax.set_yticks(range(len(labels)), labels, fontsize=7)
    ax.set_xticks([0.5, 1, 2, 5, 10, 20, 50, 100, 200], ["0.5", 1, 2, 5, 10, 20, 50, 100, 200])
    ax.minorticks_off()
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def write() -> None:
    """Draw docs/speed.png."""
    draw(ROOT / "docs").savefig(ROOT / "docs" / "speed.png", dpi=150)
