"""Every computation over many types, layouts and shapes, with other libraries: ``python -m bench
sweep``.

The measurements of a run are appended to a file for the machine in bench/history. ``--against``
compares the last two runs of it.
"""

import datetime
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.tables import ROOT, machine, versions

HISTORY = ROOT / "bench" / "history"
_SECONDS = 4e-3  # of one measurement
_MAX_SECONDS = 0.6  # of all measurements of a call
_REGRESSION = 1.15  # a ratio of two runs from which a cell is listed

Times = dict[str, list[float]]


def measure_calls(calls: dict[str, Any]) -> Times:
    """The least and the median time of each call, in seconds, timed in turn."""
    counts, samples = {}, {name: [] for name in calls}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        once = max(time.perf_counter() - start, 1e-7)
        counts[name] = max(1, min(2000, round(_SECONDS / once)))
        samples[name].append(once)
    total = sum(counts[name] * times[0] for name, times in samples.items())
    for _ in range(max(3, min(15, round(_MAX_SECONDS * len(calls) / total)))):
        for name, call in calls.items():
            call()  # the threads and the caches of the library that was timed before
            start = time.perf_counter()
            for _ in range(counts[name]):
                call()
            samples[name].append((time.perf_counter() - start) / counts[name])
    return {name: [min(times), statistics.median(times)] for name, times in samples.items()}


def _run_cells(quick: bool, threads: int) -> None:
    """Measure the cells on some threads and print one line of JSON for each."""
    import torch

    from bench import sweep_cells

    torch.set_num_threads(threads)
    for cell in sweep_cells.cells(quick):
        times = measure_calls(sweep_cells.calls(cell))
        print(json.dumps({"cell": [*vars(cell).values()], "key": cell.key, "times": times}))
        sys.stdout.flush()


def measure(quick: bool, threads: int) -> list[dict[str, Any]]:
    """The measurements of a process that may use as many processors as it has threads."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
    processors = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
    command = ["taskset", "-c", processors, sys.executable, "-m", "bench.sweep", str(threads)]
    rows = []
    with subprocess.Popen(
        [*command, *(["quick"] if quick else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            row = json.loads(line)
            rows.append({**row, "threads": threads})
            best, ratio = fastest_peer(row["times"])
            print(f"{threads} {row['key']}: {ratio:.2f} ({best})", flush=True)
    if process.returncode:
        raise SystemExit(f"the process that measures ended with status {process.returncode}")
    return rows


def fastest_peer(times: Times) -> tuple[str, float]:
    """The fastest other library, and its least time divided by that of logitlab."""
    ours = min(t[0] for name, t in times.items() if name.startswith("logitlab"))
    others = {n: t[0] for n, t in times.items() if n != "copy" and not n.startswith("logitlab")}
    best = min(others, key=lambda name: others[name])
    return best, others[best] / ours


def history_file() -> Path:
    """The file of this machine."""
    return HISTORY / f"{re.sub('[^a-z0-9]+', '-', machine().lower()).strip('-')}.jsonl"


def packages() -> str:
    """The versions of the libraries that are compared."""
    return versions(("numpy", "torch", "jax", "onnxruntime", "ai-edge-litert", "scipy"))


def append(rows: list[dict[str, Any]]) -> None:
    """Add the ratios of a run to the history of this machine."""
    cells = {}
    for row in rows:
        times = row["times"]
        peer, ratio = fastest_peer(times)
        ours = min(t[0] for name, t in times.items() if name.startswith("logitlab"))
        entry = [round(ours * 1e6, 3), peer, round(ratio, 3)]
        if "copy" in times:
            entry.append(round(ours / times["copy"][0], 3))
        cells[f"{row['threads']} {row['key']}"] = entry
    run = {"date": f"{datetime.date.today()}", "packages": packages(), "cells": cells}
    HISTORY.mkdir(exist_ok=True)
    with history_file().open("a", encoding="utf-8") as file:
        file.write(json.dumps(run) + "\n")


def runs() -> list[dict[str, Any]]:
    """The runs of this machine, oldest first."""
    if not history_file().exists():
        return []
    return [json.loads(line) for line in history_file().read_text("utf-8").splitlines()]


def compare(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The cells whose time relative to the same peer has changed, worst first."""
    changes = []
    for key, (_, peer, ratio, *_) in after["cells"].items():
        if key in before["cells"] and before["cells"][key][1] == peer:
            changes.append((before["cells"][key][2] / ratio, key, peer))
    changes.sort(reverse=True)
    slower = [c for c in changes if c[0] > _REGRESSION]
    lines = [f"{len(changes)} cells with the same fastest peer in both runs, {len(slower)} slower"]
    lines += [f"{change:.2f}× the time: {key} (against {peer})" for change, key, peer in slower]
    return "\n".join(lines)


if __name__ == "__main__":
    _run_cells("quick" in sys.argv, int(sys.argv[1]))
