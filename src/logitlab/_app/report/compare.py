"""Comparison of several models on the same labels: paired differences from the first one."""

import json
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.cluster import Cluster
from logitlab._app.io.json_values import json_values
from logitlab._app.io.outputs import write_files
from logitlab._app.io.passes import Passes
from logitlab._app.io.source import Logits, Track, UserError, printable
from logitlab._app.report import figures
from logitlab._app.report.analysis import Analysis
from logitlab._app.report.evaluation import (
    N_RESAMPLES,
    SEED,
    Evaluation,
    excludes_zero,
)
from logitlab._app.report.format import bounds, count, number, signed
from logitlab._app.report.json import as_json
from logitlab._app.report.page import (
    SCORE_TITLES,
    best_scores,
    environment,
    file_name,
    temperature_steps,
)
from logitlab._app.report.summary import summary
from logitlab._rows import Integers
from logitlab.resampling import Interval, percentile_intervals, resampled_sums, scores_from_sums

Differences = dict[str, Interval]


@dataclass(frozen=True)
class Model:
    """A model with its paired differences from other models; None for itself."""

    name: str
    analysis: Analysis
    evaluation: Evaluation
    differences: Differences | None  # from the first model, both uncalibrated
    calibrated_differences: Differences | None  # both after temperature scaling
    differences_from_best: Differences | None  # from the model with the smallest log-loss


def _names(sources: list[str]) -> list[str]:
    """File names if they are distinct, else the whole paths, else numbered file names."""
    file_names = [file_name(source) for source in sources]
    if len(set(file_names)) == len(file_names):
        return file_names
    if len(set(sources)) == len(sources):
        return sources
    return [f"{name} ({i})" for i, name in enumerate(file_names, 1)]


class _ValidRows:
    """The numbers of the rows that have a distribution."""

    input_summary = None

    def __init__(self, _: slice) -> None:
        self.rows: list[Integers] = []

    def add(self, rows: Integers, _: Any) -> None:
        self.rows.append(rows)

    def merge(self, other: "_ValidRows") -> None:
        self.rows += other.rows


def shared_rows(
    sources: list[Logits], probabilities: bool, track: Track, cluster: Cluster | None = None
) -> NDArray[np.bool_]:
    """The rows that have a distribution in every model; only these can be compared."""
    masks = []
    for source in sources:
        mask = np.zeros(source.rows, bool)
        passes = Passes(source, probabilities, track, cluster=cluster)
        for rows in passes.run(_ValidRows, "finding the shared rows").rows:
            mask[rows] = True
        masks.append(mask)
    shared: NDArray[np.bool_] = reduce(np.logical_and, masks)
    if not shared.any():
        raise UserError("every row is NaN or all -inf in some model; models must share a row")
    return shared


def _differences(
    evaluations: list[Evaluation], calibrator: str, base: int = 0
) -> list[Differences | None]:
    """Paired differences from the model with number `base`, on the same resampled rows."""
    if not all(calibrator in evaluation.cells for evaluation in evaluations):
        return [None] * len(evaluations)
    cells = [evaluation.cells[calibrator] for evaluation in evaluations]
    sums = np.split(resampled_sums(np.hstack(cells), N_RESAMPLES, SEED), len(cells), axis=1)
    values = [scores_from_sums(c.sum(axis=0)) for c in cells]
    resampled = [scores_from_sums(s) for s in sums]
    with np.errstate(invalid="ignore"):
        return [
            None
            if i == base
            else percentile_intervals(value - values[base], scores - resampled[base])
            for i, (value, scores) in enumerate(zip(values, resampled, strict=True))
        ]


def compare(analyses: list[Analysis]) -> list[Model]:
    """The models of these analyses, with their paired differences."""
    evaluations = [a.evaluation for a in analyses if a.evaluation is not None]
    best = int(np.argmin([e.uncalibrated["log_loss"] for e in evaluations]))
    return [
        Model(*values)
        for values in zip(
            _names([a.source.source for a in analyses]),
            analyses,
            evaluations,
            _differences(evaluations, "uncalibrated"),
            _differences(evaluations, "temperature"),
            _differences(evaluations, "uncalibrated", best),
            strict=True,
        )
    ]


def headline(models: list[Model]) -> tuple[str, str]:
    """Whether the smallest log-loss is significantly smaller than every other, and the numbers."""
    losses = ", ".join(f"{m.name} {number(m.evaluation.uncalibrated['log_loss'])}" for m in models)
    text = f"Log-loss in nats: {losses}."
    undecided = (
        "No significant difference in log-loss"
        if len(models) == 2
        else "No model has a significantly smaller log-loss than all others"
    )
    best = next(m for m in models if m.differences_from_best is None)
    if not np.isfinite(best.evaluation.uncalibrated["log_loss"]):
        return undecided, (f"{text} Every model gives probability 0 to the true class of some row.")
    others = [
        (m.name, m.differences_from_best["log_loss"])
        for m in models
        if m.differences_from_best is not None
    ]
    listed = ", ".join(_difference(*other) for other in others)
    text = f"{text} Differences from {best.name}: {listed}."
    if all(excludes_zero(difference) for _, difference in others):
        return f"{best.name} has the smallest log-loss", text
    return undecided, text


def _difference(name: str, d: Interval) -> str:
    if not np.isfinite(d.value):
        return f"{name} {signed(d.value)}"
    note = "" if excludes_zero(d) else ", not significant"
    return f"{name} {signed(d.value)} (95 % interval {bounds(d)}{note})"


def as_html(models: list[Model]) -> str:
    """The comparison as one self-contained page."""
    heading, details = headline(models)
    pictures = [
        {**picture, "title": f"{m.name}: {picture['title']}"}
        for i, m in enumerate(models)
        for picture in figures.reliability(m.evaluation, prefix=f"m{i}-")
        if picture["calibrator"] in ("uncalibrated", "temperature")
    ]
    return (
        environment()
        .get_template("compare.html")
        .render(
            models=models,
            heading=heading,
            details=details,
            summaries=[": ".join(summary(m.evaluation)) for m in models],
            figures=pictures,
            best=best_scores([m.evaluation.uncalibrated for m in models]),
            temperatures=[(m.name, temperature_steps(m.evaluation)) for m in models],
            version=version("logitlab"),
        )
    )


def to_json(models: list[Model]) -> dict[str, Any]:
    """The results of each model, and its paired differences from the first."""
    result: dict[str, Any] = json_values(
        {
            "models": [as_json(m.analysis) for m in models],
            "differences_from_first": [m.differences for m in models],
            "differences_after_temperature_scaling": [m.calibrated_differences for m in models],
        }
    )
    return result


def write(models: list[Model], directory: Path) -> None:
    """Write `report.html` and `report.json`."""
    files = {
        "report.html": as_html(models).encode(),
        "report.json": json.dumps(to_json(models), indent=2).encode() + b"\n",
    }
    write_files(files, directory)


def print_summary(models: list[Model], console: Any) -> None:
    """Print a table of the scores with one column per model."""
    from rich.table import Table

    heading, details = headline(models)
    console.print(printable(f"{heading}. {details}"))
    table = Table()
    table.add_column("")
    for m in models:
        table.add_column(printable(m.name), justify="right")
    table.add_row("rows", *(count(m.analysis.evaluated_rows) for m in models))
    for key, title in SCORE_TITLES.items():
        table.add_row(title, *(number(m.evaluation.uncalibrated[key]) for m in models))
        cells = [m.differences[key] if m.differences else None for m in models]
        table.add_row("  difference from the first", *(signed(d.value) if d else "" for d in cells))
    scaled = [m.evaluation.calibrated.get("temperature") for m in models]
    cells_after = (f"{s['calibration_error']:.4f}" if s else "–" for s in scaled)
    table.add_row("ECE after temperature scaling", *cells_after)
    console.print(table)
    for m in models:
        for warning in m.analysis.warnings:
            console.print(printable(f"Warning: {m.name}: {warning}"), soft_wrap=True)
        for note in m.analysis.notes:
            console.print(printable(f"{m.name}: {note}"), soft_wrap=True)
