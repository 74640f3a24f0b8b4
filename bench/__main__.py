"""``python -m bench WHAT [--quick] [--write]``: peers side by side in one run."""

import argparse
import json
from pathlib import Path

from bench import (
    calibration,
    coverage,
    derivatives,
    laws,
    picture,
    probabilities,
    regression,
    sampling,
    tables,
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    known = ["softmax", "log_softmax", "logsumexp", "derivatives", "losses", "sampling"]
    known += ["calibration", "coverage", "regression", "laws", "picture"]
    parser.add_argument("what", choices=known)
    parser.add_argument("--quick", action="store_true", help="fewer cases")
    parser.add_argument("--write", action="store_true", help="write the table to docs/bench-*.md")
    parser.add_argument("--json", type=Path, help="write the raw figures to this file")
    given = parser.parse_args()
    if given.what == "calibration":
        calibration.report(calibration.measure(given.quick), given.write)
        return
    if given.what == "coverage":
        coverage.report(given.quick, given.write)
        return
    if given.what in ("derivatives", "losses"):
        derivatives.report(given.what, given.quick, given.write)
        return
    if given.what == "regression":
        regression.report(given.quick, given.json, given.write)
        return
    if given.what == "picture":
        picture.write()
        return
    if given.what == "laws":
        laws.run(given.write)
        return
    drawn = given.what == "sampling"
    rows = (
        sampling.measure(given.quick) if drawn else probabilities.measure(given.what, given.quick)
    )
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1), "utf-8")
    table, note = (sampling if drawn else tables).table, sampling.note if drawn else tables.note
    print(f"{table(rows)}\n\n{note(rows)}")
    if given.write:
        tables.write_page(given.what, f"{table(rows)}\n\n{note(rows)}")
        shown = [row for row in rows if drawn or (row["dtype"] == "float32" and row["spread"] == 3)]
        if given.what in ("softmax", "sampling"):
            tables.write_into_readme(given.what, table(shown), note(shown))


if __name__ == "__main__":
    main()
