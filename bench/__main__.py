"""``python -m bench BENCHMARK [--quick] [--write]``: compares logitlab with other libraries."""

import argparse
import json
import os
from pathlib import Path

from bench import (
    app,
    calibration,
    cluster,
    coverage,
    derivatives,
    laws,
    memory,
    parallel,
    picture,
    probabilities,
    regression,
    samplers,
    sampling,
    speculative,
    sweep,
    sweep_report,
    tables,
)


def run_sweep(quick: bool, write: bool, against: bool) -> None:
    """Measure all cells on one thread and on all, or compare the last two runs."""
    if against:
        runs = sweep.runs()
        if len(runs) < 2:
            raise SystemExit(f"{sweep.history_file()} has fewer than two runs")
        print(sweep.compare(*runs[-2:]))
        return
    processors = len(os.sched_getaffinity(0))
    rows = [row for n in sorted({1, processors}) for row in sweep.measure(quick, n)]
    sweep.append(rows)
    if write:
        sweep_report.write(rows, f"One run on {tables.machine()}; {sweep.packages()}.")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = ["softmax", "log_softmax", "logsumexp", "derivatives", "losses", "sampling"]
    names += ["speculative"]
    names += ["calibration", "coverage", "regression", "laws", "picture", "sweep", "app", "memory"]
    names += ["parallel", "cluster"]
    parser.add_argument("benchmark", choices=names)
    parser.add_argument("--quick", action="store_true", help="measure fewer cases")
    parser.add_argument("--write", action="store_true", help="write the table to docs/bench-*.md")
    parser.add_argument(
        "--against", action="store_true", help="sweep: compare the last two runs on this machine"
    )
    parser.add_argument("--samplers", action="store_true", help="laws: check samplers")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    args = parser.parse_args()
    if args.benchmark == "app":
        app.report(args.quick, args.write)
        return
    if args.benchmark == "memory":
        memory.report(args.quick, args.write)
        return
    if args.benchmark == "parallel":
        parallel.report(args.quick, args.write)
        return
    if args.benchmark == "cluster":
        cluster.report(args.quick, args.write)
        return
    if args.benchmark == "calibration":
        calibration.report(args.quick, args.write)
        return
    if args.benchmark == "coverage":
        coverage.report(args.quick, args.write)
        return
    if args.benchmark in ("derivatives", "losses"):
        derivatives.report(args.benchmark, args.quick, args.write)
        return
    if args.benchmark == "regression":
        regression.report(args.quick, args.json, args.write)
        return
    if args.benchmark == "sweep":
        run_sweep(args.quick, args.write, args.against)
        return
    if args.benchmark == "picture":
        picture.write()
        return
    if args.benchmark == "laws":
        (samplers if args.samplers else laws).run(args.write)
        return
    if args.benchmark == "speculative":
        speculative.report(args.quick, args.write)
        return
    if args.benchmark == "sampling":
        rows = sampling.measure(args.quick)
        text = f"{sampling.table(rows)}\n\n{sampling.note(rows)}"
    else:
        rows = probabilities.measure(args.benchmark, args.quick)
        text = f"{tables.table(rows)}\n\n{tables.note(rows)}"
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1), "utf-8")
    print(text)
    if args.write:
        tables.write_page(args.benchmark, text)


if __name__ == "__main__":
    main()
