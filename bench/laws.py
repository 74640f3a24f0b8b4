"""Conformance of well-known softmax implementations to the laws of softmax."""

import contextlib
import importlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import logitlab
from bench import tables
from logitlab.laws import LawReport, LawResult

# Title: module.function, array library, dtypes (None: all that it takes).
_IMPLEMENTATIONS: dict[str, tuple[str, str, list[str] | None]] = {
    "naive formula": ("bench.implementations.naive", "numpy", ["float32"]),
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
    "logitlab on JAX": ("logitlab.softmax", "jax", ["bfloat16", "float32"]),
    "log of stable formula": ("bench.implementations.naive_log", "numpy", ["float32"]),
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


_INTRODUCTION = (
    "One row for each implementation, one column for each law. A cell is the result of the law: "
    "exact; n ULP (at most 16); inaccurate (more than 16 ULP, at most 1e-3 relative); "
    "**fails**; or **differs** (a convention, not a law of mathematics). It is empty where the "
    "law is not applicable. The number is the largest deviation found, in ULP of the dtype of "
    "the result, over the dtypes in the first column. Each failure has a counterexample below: "
    "a line of Python to run in the root of a clone of this repository."
)


def measure() -> Iterator[tuple[str, LawReport]]:
    """Check each implementation whose library is installed; print its failures."""
    for title, (path, array_library, dtypes) in _IMPLEMENTATIONS.items():
        module, _, name = path.rpartition(".")
        try:
            function = getattr(importlib.import_module(module), name)
            report = logitlab.check_softmax(
                function, array_library=array_library, dtypes=dtypes, name=path
            )
        except ImportError as error:
            print(f"{title}: skipped, {error}", flush=True)
            continue
        print(f"{title}: fails: {', '.join(report.failures) or 'none'}", flush=True)
        for result in report:
            c = result.counterexample
            if c is not None and not is_reproducible(c.code, c.result):
                print(f"{title}, {result.law.name}: not reproduced by {c.code}", flush=True)
        yield title, report


def is_reproducible(code: str, result: str) -> bool:
    """Whether the code of a counterexample runs, or raises the error in its result."""
    setup, _, call = code.partition("; ")
    scope: dict[str, Any] = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            exec(setup, scope)
            with contextlib.redirect_stdout(io.StringIO()):
                eval(call.partition("  #")[0], scope)
        except Exception as error:
            return type(error).__name__ in result
    return "Error" not in result


def _cell(report: LawReport, law: str) -> str:
    result = next((result for result in report if result.law.name == law), None)
    if result is None or result.level == "not applicable":
        return ""
    text = str(result).removeprefix("within ")
    return text if result.passed else f"**{text}**"


def _table(reports: dict[str, LawReport], laws: list[str]) -> str:
    lines = ["| | " + " | ".join(laws) + " |", "|---" * (len(laws) + 1) + "|"]
    for title, report in reports.items():
        row = f"{title} ({', '.join(report.dtypes)})"
        lines.append(f"| {row} | {' | '.join(_cell(report, law) for law in laws)} |")
    return "\n".join(lines)


def _counterexample(result: LawResult) -> str:
    c = result.counterexample
    assert c is not None
    return (
        f"{result.law.name}: {result}, {c.dtype}\n\n```python\n{c.code}\n"
        f"# result    {c.result}\n# expected  {c.expected}\n```"
    )


def page(reports: dict[str, LawReport]) -> str:
    """The page of all results, with the counterexample of each failure."""
    parts = ["# Conformance to the laws of softmax", _INTRODUCTION, _remark()]
    parts += ["## Summary", summary_table(reports)]
    laws = {result.law.name: result.law for report in reports.values() for result in report}
    for convention, heading in ((False, "## Mathematics"), (True, "## Conventions")):
        columns = [
            name
            for name, law in laws.items()
            if law.convention == convention and any(_cell(r, name) for r in reports.values())
        ]
        parts += [heading, _table(reports, columns)]
    parts.append("## Counterexamples")
    for title, report in reports.items():
        failing = [result for result in report if not result.passed]
        if failing:
            parts.append(f"### {title}")
        parts += [_counterexample(result) for result in failing]
    parts.append("## The laws")
    parts += [
        f"- **{law.name}**: {law.statement}. {law.reason} ({law.source})" for law in laws.values()
    ]
    return "\n\n".join(parts) + "\n"


def summary_table(reports: dict[str, LawReport]) -> str:
    """The number of applicable, inaccurate and failing laws of mathematics."""
    lines = ["| | applicable laws | inaccurate | fails |", "|---|---|---|---|"]
    for title, report in reports.items():
        levels = [
            result.level
            for result in report
            if not result.law.convention and result.level != "not applicable"
        ]
        counts = (len(levels), levels.count("inaccurate"), levels.count("fails"))
        lines.append(f"| {title} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines)


def _remark() -> str:
    return f"`python -m bench laws --write` on {tables.machine()}; {tables.versions(_LIBRARIES)}."


_CONFORMING = ("logitlab", "logitlab on torch", "logitlab on JAX", "logitlab log_softmax")


def contract_violations(reports: dict[str, LawReport]) -> list[str]:
    """The laws that logitlab does not pass, or is inaccurate in."""
    return [
        f"{title}: {result.law.name} is {result}"
        for title in _CONFORMING
        for result in reports.get(title, ())
        if result.level in ("inaccurate", "fails", "differs")
    ]


def run(write: bool) -> None:
    """Check every implementation and write the page; exit with an error if logitlab fails."""
    reports: dict[str, LawReport] = {}
    for title, report in measure():
        reports[title] = report
        if write:
            tables.replace(tables.ROOT / "docs" / "laws.md", page(reports))
    violations = contract_violations(reports)
    if violations:
        raise SystemExit("\n".join(violations))
