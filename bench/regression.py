"""Softmax regression and its peers: time to an objective within 1e-6 of the best known."""

import json
import signal
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from bench import regression_files, regression_penalized, tables
from bench.regression_cases import (
    CASES,
    PEERS,
    TOLERANCES,
    Case,
    Fit,
    logitlab,
    normal,
    objective,
    supports,
)
from bench.timing import interleaved, medians
from logitlab import get_num_threads

CLOSE = 1e-6  # relative to the best known objective
CAP = 100.0  # seconds after which a fit is stopped
SLOW = 2.0  # seconds from which on a fit is timed only once
LONG = 20.0  # seconds from which on no stricter tolerance is tried
REPEATS = 7


def _timed(fit: Fit, case: Case, X: Any, y: Any, tol: float) -> tuple[float, Any]:
    """Return the seconds and the solution of a fit, None where it was stopped."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, CAP)
    start = time.perf_counter()
    try:
        solution = fit(X, y, case.C, tol)
    except TimeoutError:
        solution = None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return time.perf_counter() - start, solution


def measure(case: Case, peers: dict[str, Fit]) -> dict[str, Any]:
    """Return for each peer the loosest sufficient tolerance and the median time at it."""
    X, y = case.data()
    best = objective(case, X, y, logitlab(X, y, case.C, 1e-10))
    results: dict[str, dict[str, Any]] = {}
    for name, fit in peers.items():
        if not supports(name, case, X):
            continue
        for tol in TOLERANCES if name == "logitlab" else case.tolerances:
            seconds, solution = _timed(fit, case, X, y, tol)
            gap = np.inf if solution is None else objective(case, X, y, solution) / best - 1
            results[name] = {"tol": tol, "seconds": seconds, "gap": gap}
            print(f"  {name:24} tol {tol:g}: {seconds:.3f} s, gap {gap:.1e}", flush=True)
            if gap <= CLOSE or solution is None or seconds > LONG:
                break
    quick = [n for n, r in results.items() if r["gap"] <= CLOSE and r["seconds"] < SLOW]

    def seconds_of(name: str) -> float:
        return _timed(peers[name], case, X, y, results[name]["tol"])[0]

    for name, median in medians(quick, seconds_of, REPEATS).items():
        results[name]["seconds"] = median
    default = [_timed(logitlab, case, X, y, 1e-6)[0] for _ in range(3)]
    return {"case": case.name, "peers": results, "default": statistics.median(default)}


def _best(row: dict[str, Any], prefix: str) -> float:
    """Return the least time of the peers with this prefix, also if none reaches the objective."""
    results = [r for name, r in row["peers"].items() if name.startswith(prefix)]
    reached = [r["seconds"] for r in results if r["gap"] <= CLOSE]
    return min(reached or [r["seconds"] for r in results])


def _cell(result: dict[str, Any], ours: float) -> str:
    seconds = result["seconds"]
    if result["gap"] <= CLOSE:
        return f"{seconds:.3g} ({seconds / ours:.1f}×)"
    gap = "" if np.isinf(result["gap"]) else f", gap {result['gap']:.0e}"
    return f"not in {seconds:.3g}{gap}"


def table(rows: list[dict[str, Any]]) -> str:
    names = list(PEERS)
    lines = [
        "| | logitlab, tol 1e-6 | " + " | ".join(names) + " |",
        "|---" * (len(names) + 2) + "|",
    ]
    for row in rows:
        ours = row["peers"]["logitlab"]["seconds"]
        cells = [row["case"], f"{row['default']:.3g}", f"{ours:.3g}"]
        cells += [
            _cell(row["peers"][name], ours) if name in row["peers"] else "" for name in names[1:]
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def note(rows: list[dict[str, Any]]) -> str:
    penalized = [row for row in rows if "no penalty" not in row["case"]]
    ratios = [_best(row, "sklearn") / row["peers"]["logitlab"]["seconds"] for row in penalized]
    mean = float(np.exp(np.mean(np.log(ratios))))
    libraries = tables.versions(("numpy", "scikit-learn", "torch", "statsmodels"))
    return (
        "Seconds to an objective within 1e-6 (relative) of the best known, at max_iter=1000. Each "
        f"solver runs at the loosest of the tolerances {', '.join(f'{t:g}' for t in TOLERANCES)} "
        "that reaches it (on raw pixels the peers run at 1e-6 only). Medians of "
        f"{REPEATS}; fits of more than {SLOW:g} s are timed once. After a fit of {LONG:g} s no "
        f"stricter tolerance is tried; after {CAP:g} s a fit is stopped (sag and saga cannot be "
        f"stopped and are omitted on raw pixels). {tables.machine()}, {get_num_threads()} threads; "
        f"{libraries}. Geometric mean "
        "of the multiples of the fastest scikit-learn solver, in the cases with a penalty: "
        f"{mean:.1f}; a solver that does not reach the objective counts with the time it took. "
        "liblinear has no multinomial model; statsmodels has no ridge penalty."
    )


_MEMORY = """
import resource, sys, warnings
import numpy as np
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X = rng.standard_normal((200_000, 50))
y = rng.integers(0, 100, 200_000)
if sys.argv[1] == "logitlab":
    from logitlab import SoftmaxRegression as Model
    model = Model(max_iter=20)
else:
    from sklearn.linear_model import LogisticRegression as Model
    model = Model(solver=sys.argv[1], max_iter=20)
model.__class__(max_iter=1).fit(X[:2000], y[:2000])
def memory(name):
    line = next(l for l in open("/proc/self/status") if l.startswith(name))
    return int(line.split()[1]) / 1024
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
model.fit(X, y)
print(memory("VmHWM") - before)
"""


def memory() -> dict[str, float]:
    """Return the peak memory beyond X in MiB: 200000×50, 100 classes, 20 iterations."""
    peaks = {}
    for which in ("logitlab", "lbfgs", "newton-cg"):
        command = [sys.executable, "-c", _MEMORY, which]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[which] = float(done.stdout)
    return peaks


def distributed() -> dict[str, float]:
    """Return the seconds of one loss and gradient: 4 partitions of 25000×50, 10 classes."""
    import dask.array as da
    from distributed import Client, LocalCluster

    from logitlab.regression.engines import make_dask_engine
    from logitlab.regression.rows import Rows

    X, y = normal(100_000, 50, 10)
    coef, intercept = np.random.default_rng(1).standard_normal((10, 50)), np.zeros(10)
    in_memory = Rows(X, y.astype(np.int64), None, 10)
    options: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster):
        chunked = da.from_array(X, chunks=(25_000, 50)), da.from_array(y, chunks=25_000)
        on_workers, _, _ = make_dask_engine(*chunked, None, lambda classes, totals: None)
        calls = {
            "one process": lambda: in_memory.loss_and_gradient(coef, intercept),
            "two workers": lambda: on_workers.loss_and_gradient(coef, intercept),
        }
        return interleaved(calls)


def run(quick: bool) -> dict[str, Any]:
    cases = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in CASES:
            if not (quick and case.tolerances != TOLERANCES):
                print(case.name, flush=True)
                cases.append(measure(case, PEERS))
        penalized = [] if quick else regression_penalized.run()
    return {
        "cases": cases,
        "penalized": penalized,
        "memory": memory(),
        "files": regression_files.measure(10**6 if quick else 10**7),
        "distributed": distributed(),
    }


def _memory_sentence(mib: dict[str, float]) -> str:
    figures = ", ".join(
        f"{name} {value:.0f} ({value / mib['logitlab']:.1f}×)" for name, value in mib.items()
    )
    return (
        "Peak memory beyond X in MiB, in 20 iterations on 200000×50 of float64 with 100 "
        f"classes: {figures}."
    )


def page(results: dict[str, Any]) -> str:
    """Return the whole table, with the memory and the overhead of Dask."""
    seconds = results["distributed"]
    in_memory, on_workers = (1e3 * seconds[name] for name in ("one process", "two workers"))
    penalized = results["penalized"]
    return (
        f"{table(results['cases'])}\n\n{note(results['cases'])}\n\n"
        f"{regression_penalized.page(penalized) if penalized else ''}\n\n"
        f"{_memory_sentence(results['memory'])}\n\n"
        f"{regression_files.sentence(results['files'])}\n\n"
        f"One loss and gradient, 100000×50 in 4 partitions, 10 classes: {in_memory:.1f} ms in one "
        f"process (2 threads), {on_workers:.1f} ms with two Dask workers of one thread."
    )


def report(quick: bool, raw: Path | None, write: bool) -> None:
    """Measure and print; write the raw numbers to a file and the tables to the documentation."""
    results = run(quick)
    if raw:
        raw.write_text(json.dumps(results, indent=1), "utf-8")
    print(page(results))
    if write:
        tables.write_page("regression", page(results))
