"""Markdown tables of measurements, written to docs/."""

import contextlib
import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent


def machine() -> str:
    """The processor and the number of its cores that the process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"model name\s*: (.*)", info.read_text())
        name = match.group(1).strip() if match else name
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def versions(names: tuple[str, ...]) -> str:
    """The versions of the packages that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    parts = []
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            parts.append(f"{name} {version(name)}")
    return ", ".join(parts)


def _microseconds(seconds: float) -> str:
    micro = seconds * 1e6
    return f"{micro:.1f}" if micro < 10 else f"{micro:,.0f}".replace(",", " ")


def table(rows: list[dict[str, Any]]) -> str:
    """Times in microseconds; in brackets relative to logitlab, and the largest error in ULP."""
    names = list(dict.fromkeys(peer for row in rows for peer in row["times"]))
    lines = ["| logits | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in rows:
        times, errors = row["times"], row["errors"]
        ours = times.get("logitlab out=", times["logitlab"])
        cells = [f"{'×'.join(map(str, row['shape']))} {row['dtype']}, sd {row['spread']:g}"]
        for name in names:
            if name not in times:
                cells.append("")
                continue
            notes = [] if name.startswith("logitlab") else [f"{times[name] / ours:.2f}×"]
            if name in errors:
                notes.append(f"{errors[name]:.3g} ULP")
            cells.append(f"{_microseconds(times[name])} ({', '.join(notes)})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def geometric_mean(rows: list[dict[str, Any]], peer: str) -> float:
    """The geometric mean of a library's times relative to logitlab's (with out= if it has it)."""
    ratios = [
        row["times"][peer] / row["times"].get("logitlab out=", row["times"]["logitlab"])
        for row in rows
        if peer in row["times"]
    ]
    return float(np.exp(np.mean(np.log(ratios))))


_LIBRARIES = ("torch", "torch out=", "SciPy", "JAX jit", "onnxruntime")


def note(rows: list[dict[str, Any]]) -> str:
    """The note under a table: units, machine, versions and geometric means."""
    means = [
        f"{peer} {geometric_mean(rows, peer):.2f}"
        for peer in _LIBRARIES
        if any(peer in row["times"] for row in rows)
    ]
    libraries = versions(("numpy", "torch", "scipy", "jax", "onnxruntime"))
    return (
        f"Median times in microseconds of one run on {machine()}; {libraries}. In brackets: the "
        "time relative to logitlab's (with `out=` if the library has it) and the largest error. "
        f"Geometric means of the relative times: {', '.join(means)}."
    )


def replace(path: Path, text: str) -> None:
    """Replace a file atomically."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)


def write_page(name: str, text: str) -> None:
    """Write the page of a benchmark in docs/."""
    replace(ROOT / "docs" / f"bench-{name}.md", f"# Benchmark: {name}\n\n{text}\n")


def write_between(page: str, name: str, text: str) -> None:
    """Replace the text between the markers of a benchmark on a page."""
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    head, _, rest = (ROOT / page).read_text("utf-8").partition(begin)
    if end not in rest:
        raise SystemExit(f"{page} must contain {begin} and {end}")
    tail = rest.partition(end)[2]
    replace(ROOT / page, f"{head}{begin}\n{text}\n{end}{tail}")
