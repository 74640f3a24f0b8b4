"""The table of the world: how far the softmaxes that users meet keep the laws of softmax."""

import contextlib
import importlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import logitlab
from bench import tables
from logitlab.laws import LawReport

# Title: module.function, kind, types (None: all that it takes).
_WORLD: dict[str, tuple[str, str, list[str] | None]] = {
    "the formula": ("bench.implementations.naive", "numpy", ["float32"]),
    "stable formula": ("bench.implementations.stable", "numpy", ["float32"]),
    "SciPy": ("scipy.special.softmax", "numpy", ["float16", "float32"]),
    "scikit-learn": ("bench.implementations.sklearn_softmax", "numpy", ["float32"]),
    "torch": ("bench.implementations.torch_softmax", "torch", ["float32"]),
    "torch bfloat16": ("bench.implementations.torch_softmax", "torch", ["bfloat16"]),
    "JAX": ("bench.implementations.jax_softmax", "jax", ["float32"]),
    "JAX bfloat16": ("bench.implementations.jax_softmax", "jax", ["bfloat16"]),
    "onnxruntime": ("bench.implementations.onnx_softmax", "numpy", ["float32"]),
    "TensorFlow": ("bench.implementations.tensorflow_softmax", "tensorflow", ["float32"]),
    "logitlab": ("logitlab.softmax", "numpy", None),
    "logitlab on torch": ("logitlab.softmax", "torch", ["bfloat16", "float32"]),
    "logitlab on JAX": ("logitlab.softmax", "jax", ["float32"]),
    "log of the stable formula": ("bench.implementations.naive_log", "numpy", ["float32"]),
    "SciPy log_softmax": ("scipy.special.log_softmax", "numpy", ["float16", "float32"]),
    "torch log_softmax": ("bench.implementations.torch_log_softmax", "torch", ["float32"]),
    "JAX log_softmax": ("bench.implementations.jax_log_softmax", "jax", ["float32"]),
    "onnxruntime LogSoftmax": ("bench.implementations.onnx_log_softmax", "numpy", ["float32"]),
    "TensorFlow log_softmax": (
        "bench.implementations.tensorflow_log_softmax",
        "tensorflow",
        ["float32"],
    ),
    "logitlab log_softmax": ("logitlab.log_softmax", "numpy", None),
    "torch.compile": ("bench.implementations.torch_compiled", "torch", ["float32"]),
}
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch", "jax", "onnxruntime", "tensorflow-cpu")


def measure() -> Iterator[tuple[str, LawReport]]:
    """The reports of the implementations that are installed, one after the other."""
    for title, (path, kind, dtypes) in _WORLD.items():
        module, _, name = path.rpartition(".")
        try:
            function = getattr(importlib.import_module(module), name)
            report = logitlab.check_softmax(function, kind=kind, dtypes=dtypes, name=path)
        except ImportError as error:
            print(f"{title}: left out, {error}", flush=True)
            continue
        print(f"{title}: broken: {', '.join(report.failures) or 'nothing'}", flush=True)
        for verdict in report:
            found = verdict.counterexample
            if found is not None and not repeats(found.line, found.came):
                print(f"{title}, {verdict.law.name}: not repeated by {found.line}", flush=True)
        yield title, report


def repeats(line: str, came: str) -> bool:
    """Whether the pasted line runs, or raises the error that the report names."""
    setup, _, call = line.partition("; ")
    scope: dict[str, Any] = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            exec(setup, scope)
            with contextlib.redirect_stdout(io.StringIO()):
                eval(call.partition("  #")[0], scope)
        except Exception as error:
            return type(error).__name__ in came
    return "Error" not in came


def _cell(report: LawReport, law: str) -> str:
    verdict = next((v for v in report if v.law.name == law), None)
    if verdict is None or verdict.level == "not applicable":
        return ""
    text = str(verdict).removeprefix("within ")
    return f"**{text}**" if verdict.level in ("broken", "differs") else text


def page(reports: dict[str, LawReport]) -> str:
    """Two tables, and every broken cell with its counterexample."""
    parts = [
        "# The laws of softmax, and who keeps them",
        "Rows: implementations. Columns: laws. A cell is a level: exact, n ULP (within 16), weak "
        "(beyond 16 ULP, within 1e-3 relative), **broken**, or **differs** (a convention, not a "
        "law of mathematics); empty where the function does not claim it. The number is the worst "
        "distance that was found, in ULP of the result's type, over the types named with the row. "
        "Each broken cell has its counterexample below: a line to paste, from the root of "
        "a clone of this repository.",
        _remark(),
    ]
    laws = {v.law.name: v.law for report in reports.values() for v in report}
    for mathematics in (True, False):
        columns = [
            name
            for name, law in laws.items()
            if law.convention != mathematics and any(_cell(r, name) for r in reports.values())
        ]
        lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for title, report in reports.items():
            row = f"{title} ({', '.join(report.dtypes)})"
            lines.append(f"| {row} | {' | '.join(_cell(report, c) for c in columns)} |")
        heading = "## Mathematics" if mathematics else "## Conventions"
        parts += [heading, "\n".join(lines)]
    parts.append("## Counterexamples")
    for title, report in reports.items():
        bad = [v for v in report if v.level in ("broken", "differs")]
        if bad:
            parts.append(f"### {title}")
        for v in bad:
            c = v.counterexample
            if c is not None:
                parts.append(
                    f"{v.law.name}: {v}, {c.dtype}\n\n```python\n{c.line}\n"
                    f"# gives {c.came}\n# exact {c.exact}\n```"
                )
    parts.append("## What each law says")
    parts += [
        f"- **{law.name}**: {law.statement}. {law.reason} ({law.source})" for law in laws.values()
    ]
    return "\n\n".join(parts) + "\n"


def brief(reports: dict[str, LawReport]) -> str:
    """How many laws of mathematics each claims, keeps weakly and breaks."""
    lines = ["| | laws claimed | weak | broken |", "|---|---|---|---|"]
    for title, report in reports.items():
        levels = [v.level for v in report if not v.law.convention and v.level != "not applicable"]
        counts = (len(levels), levels.count("weak"), levels.count("broken"))
        lines.append(f"| {title} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def _remark() -> str:
    return f"`python -m bench laws --write` on {tables.machine()}; {tables.versions(_LIBRARIES)}."


_PROMISED = ("logitlab", "logitlab on torch", "logitlab log_softmax")


def promised(reports: dict[str, LawReport]) -> list[str]:
    """Where logitlab misses its contract on NumPy and torch (XLA flushes subnormals on JAX)."""
    return [
        f"{title}: {v.law.name} is {v}"
        for title in _PROMISED
        for v in reports.get(title, ())
        if v.level in ("weak", "broken", "differs")
    ]


def run(write: bool) -> None:
    """Look at all, print and write the page; end with an error if logitlab misses its contract."""
    reports: dict[str, LawReport] = {}
    for title, report in measure():
        reports[title] = report
        if write:
            tables.replace(tables.ROOT / "docs" / "laws.md", page(reports))
    if write:
        tables.write_into_readme("laws", brief(reports), _remark())
    missed = promised(reports)
    if missed:
        raise SystemExit("\n".join(missed))
