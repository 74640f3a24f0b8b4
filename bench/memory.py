"""Memory and time of ``logitlab calibrate`` and ``apply`` on a sparse file of logits."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.app import COMMAND
from bench.tables import machine, versions, write_between

_PAGE = "docs/bench-app.md"
_CLASSES = 1000
_PARTS, _PART_ROWS = 20, 500  # the rows that are not zeros


def write_sparse(folder: Path, rows: int, classes: int = _CLASSES) -> None:
    """Write logits.npy, float32, and labels.npy: parts with random rows, zeros between them."""
    rng = np.random.default_rng(0)
    labels = np.zeros(rows, np.int64)
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, classes)}
    with open(folder / "logits.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        start, row_bytes = file.tell(), 4 * classes
        file.truncate(start + rows * row_bytes)
        for first in np.linspace(0, rows - _PART_ROWS, _PARTS).astype(int).tolist():
            z = rng.normal(0, 2, (_PART_ROWS, classes)).astype(np.float32)
            file.seek(start + first * row_bytes)
            z.tofile(file)
            labels[first : first + _PART_ROWS] = (z / 1.5 + rng.gumbel(size=z.shape)).argmax(1)
    np.save(folder / "labels.npy", labels)


def _run(arguments: list[str]) -> tuple[float, float]:
    """Seconds, and the largest resident memory in MiB, of one command."""
    start = time.perf_counter()
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"logitlab {' '.join(arguments)}: exit status {code}")
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # bytes there, KiB on Linux
    return time.perf_counter() - start, usage.ru_maxrss / unit


def measure(rows: int) -> list[tuple[str, float, float]]:
    """Seconds and MiB of each command."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sparse(folder, rows)
        file, calibrator = str(folder / "logits.npy"), str(folder / "calibrator")
        labels, out = str(folder / "labels.npy"), str(folder / "out.parquet")
        commands = (
            ["calibrate", file, "--labels", labels, "-o", calibrator],
            ["apply", calibrator, file, "-o", out],
        )
        return [(arguments[0], *_run(arguments)) for arguments in commands]


def report(quick: bool, write: bool) -> None:
    """Print the table, and write it to docs/ if `write`."""
    counts = (50_000,) if quick else (250_000, 2_500_000)
    lines = ["| command | file | time | resident memory, largest |", "|---|---|---|---|"]
    for rows in counts:
        size = f"{rows:,}×{_CLASSES} float32, {rows * _CLASSES * 4 / 1e9:g} GB"
        for name, seconds, mib in measure(rows):
            lines.append(f"| {name} | {size} | {seconds:.0f} s | {mib:.0f} MiB |")
    text = "\n".join(
        [
            *lines,
            "",
            f"One run of a new process each, on {machine()}; {versions(('numpy', 'pyarrow'))}.",
        ]
    )
    print(text)
    if write:
        write_between(_PAGE, "memory", text)
