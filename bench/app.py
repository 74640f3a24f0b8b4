"""Time of the commands ``logitlab report`` and ``logitlab fit``, each in a new process."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.tables import machine, versions, write_between

_PAGE = "docs/bench-app.md"
COMMAND = [sys.executable, "-c", "from logitlab._app import main; main()"]


def _write_logits(path: Path, rows: int) -> None:
    """Overconfident float32 logits of 10 classes, and labels."""
    rng = np.random.default_rng(0)
    z = 2 * rng.standard_normal((rows, 10))
    labels = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    np.savez(path, logits=(1.5 * z).astype(np.float32), labels=labels)


def _write_table(folder: Path, rows: int, features: int = 50) -> None:
    """A table of numbers of 17 digits and one of 5 classes, as .csv and as .parquet."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, features))
    z = x @ (0.3 * rng.standard_normal((features, 5)))
    y = np.array(list("abcde"))[(z + rng.gumbel(size=z.shape)).argmax(axis=1)]
    names = [*(f"x{i}" for i in range(features)), "y"]
    table = pa.table([*x.T.copy(), pa.array(y)], names)
    csv.write_csv(table, folder / "table.csv")
    parquet.write_table(table, folder / "table.parquet")


def _cases(folder: Path, quick: bool) -> dict[str, list[str]]:
    """The arguments of each command, by its description; their input is written to `folder`."""
    cases = {"--help": ["--help"]}
    for rows in (10_000,) if quick else (10_000, 1_000_000):
        file = folder / f"{rows}.npz"
        _write_logits(file, rows)
        arguments = ["report", "--overwrite", f"{file}:logits", "--labels", f"{file}:labels"]
        cases[f"report, {rows:,}×10 logits"] = [*arguments, "-o", str(folder / "report")]
    rows = 20_000 if quick else 200_000
    _write_table(folder, rows)
    for suffix in (".csv", ".parquet"):
        arguments = ["fit", "--overwrite", str(folder / f"table{suffix}"), "--target", "y"]
        cases[f"fit, {rows:,}×50 table ({suffix})"] = [*arguments, "-o", str(folder / "fit")]
    return cases


def _run(arguments: list[str], processors: set[int]) -> tuple[float, float]:
    """Seconds, and seconds of processor time, of one command on some processors."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, processors),
    )
    _, status, usage = os.wait4(process.pid, 0)
    if process_status := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"logitlab {' '.join(arguments)}: exit status {process_status}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


Times = dict[tuple[str, int], list[tuple[float, float]]]  # by command and number of processors


def measure(rounds: int, quick: bool) -> Times:
    """The times of all commands, on one processor and on all, in several rounds."""
    processors = os.sched_getaffinity(0)
    times: Times = {}
    with tempfile.TemporaryDirectory() as name:
        cases = _cases(Path(name), quick)
        for _ in range(rounds):
            for case, arguments in cases.items():
                for used in ({min(processors)}, processors):
                    times.setdefault((case, len(used)), []).append(_run(arguments, used))
    return times


def table(times: Times) -> str:
    """A Markdown table of the least wall time and processor time."""
    counts = sorted({count for _, count in times})
    heads = [f"{n} {'core' if n == 1 else 'cores'}" for n in counts]
    lines = ["| command | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for case in dict.fromkeys(case for case, _ in times):
        least = [np.min(times[case, n], axis=0) for n in counts]
        cells = " | ".join(f"{seconds:.2f} s ({cpu:.2f} s)" for seconds, cpu in least)
        lines.append(f"| {case} | {cells} |")
    return "\n".join(lines)


def report(quick: bool, write: bool) -> None:
    """Print the table, and write it to docs/ if `write`."""
    rounds = 2 if quick else 5
    text = (
        f"{table(measure(rounds, quick))}\n\n"
        "Least wall time and, in brackets, least processor time of a new process in "
        f"{rounds} rounds, on {machine()}; {versions(('numpy', 'pyarrow'))}."
    )
    print(text)
    if write:
        write_between(_PAGE, "app", text)
