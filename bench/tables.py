"""Markdown of measured rows, and its place in the README."""

import contextlib
import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent


def machine() -> str:
    """The processor and how many of its cores the process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*: (.*)", info.read_text())
        name = found.group(1).strip() if found else name
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def versions(names: tuple[str, ...]) -> str:
    """Of those that are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)


def _time(seconds: float) -> str:
    micro = seconds * 1e6
    return f"{micro:.1f}" if micro < 10 else f"{micro:,.0f}".replace(",", " ")


def table(rows: list[dict[str, Any]]) -> str:
    """Times in microseconds; in brackets the multiple of logitlab's, and the worst error in ULP."""
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
            cells.append(f"{_time(times[name])} ({', '.join(notes)})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def geometric_mean(rows: list[dict[str, Any]], peer: str) -> float:
    """Of the peer's time over ours (into an existing array where both can)."""
    ratios = [
        row["times"][peer] / row["times"].get("logitlab out=", row["times"]["logitlab"])
        for row in rows
        if peer in row["times"]
    ]
    return float(np.exp(np.mean(np.log(ratios))))


_PEERS = ("torch", "torch out=", "SciPy", "JAX jit", "onnxruntime")


def note(rows: list[dict[str, Any]]) -> str:
    """What the figures of a table are, where they were measured, and their geometric means."""
    means = [
        f"{peer} {geometric_mean(rows, peer):.2f}"
        for peer in _PEERS
        if any(peer in row["times"] for row in rows)
    ]
    libraries = versions(("numpy", "torch", "scipy", "jax", "onnxruntime"))
    return (
        f"Microseconds, medians of one run on {machine()}; {libraries}. In brackets the multiple "
        "of logitlab's time (into an existing array where the peer can) and the worst error. "
        f"Geometric means of the multiples: {', '.join(means)}."
    )


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text, "utf-8")
    temporary.replace(path)


def write_page(name: str, text: str) -> None:
    """The whole table as a page of the documentation."""
    replace(ROOT / "docs" / f"bench-{name}.md", f"# {name} beside its peers\n\n{text}\n")


def write_between(page: str, name: str, text: str) -> None:
    """Replace what stands between the markers of a benchmark on a page."""
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    head, _, rest = (ROOT / page).read_text("utf-8").partition(begin)
    if end not in rest:
        raise SystemExit(f"{page} has no place {begin}")
    tail = rest.partition(end)[2]
    replace(ROOT / page, f"{head}{begin}\n{text}\n{end}{tail}")


def write_into_readme(name: str, text: str, remark: str) -> None:
    write_between("README.md", name, f"{text}\n\n{remark}")
