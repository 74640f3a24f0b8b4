"""``python -m bench softmax|log_softmax|logsumexp [--quick] [--write]``."""

import argparse
import json
from pathlib import Path

from bench import probabilities, tables


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", choices=["softmax", "log_softmax", "logsumexp"])
    parser.add_argument("--quick", action="store_true", help="five shapes of float32")
    parser.add_argument("--write", action="store_true", help="write the table to docs/bench-*.md")
    parser.add_argument("--json", type=Path, help="write the raw figures to this file")
    given = parser.parse_args()
    rows = probabilities.measure(given.what, given.quick)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1), "utf-8")
    note = tables.note(rows)
    print(f"{tables.table(rows)}\n\n{note}")
    if given.write:
        tables.write_page(given.what, f"{tables.table(rows)}\n\n{note}")
        if given.what == "softmax":
            plain = [row for row in rows if row["dtype"] == "float32" and row["spread"] == 3]
            tables.write_into_readme(tables.table(plain), tables.note(plain))


if __name__ == "__main__":
    main()
