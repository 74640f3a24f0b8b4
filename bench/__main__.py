"""``python -m bench softmax|log_softmax|logsumexp [--quick] [--write]``."""

import argparse
import json
from pathlib import Path

from bench import probabilities, tables


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", choices=["softmax", "log_softmax", "logsumexp"])
    parser.add_argument("--quick", action="store_true", help="four shapes of float32")
    parser.add_argument("--write", action="store_true", help="write the table into the README")
    parser.add_argument("--json", type=Path, help="write the raw figures to this file")
    given = parser.parse_args()
    rows = probabilities.measure(given.what, given.quick)
    text = tables.table(rows)
    means = [
        f"{peer} {tables.geometric_mean(rows, peer):.2f}"
        for peer in ("torch", "torch out=", "SciPy", "JAX jit", "onnxruntime")
        if any(peer in row["times"] for row in rows)
    ]
    libraries = tables.versions(("numpy", "torch", "scipy", "jax", "onnxruntime"))
    text += (
        f"\n\nMicroseconds, medians of one run on {tables.machine()}; {libraries}. In brackets the "
        "multiple of logitlab's time and the worst error. Geometric means of the multiples: "
        f"{', '.join(means)}."
    )
    print(text)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1), "utf-8")
    if given.write:
        tables.write_into_readme(given.what, text)


if __name__ == "__main__":
    main()
