"""Several models on the same labels, side by side: paired differences from the first one."""

import json
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.outputs import write_files
from logitlab._app.io.passes import Passes, Track
from logitlab._app.io.source import Logits, UserError
from logitlab._app.report import figures
from logitlab._app.report.analysis import Analysis
from logitlab._app.report.evaluation import RESAMPLES, SEED, Judged
from logitlab._app.report.format import count, figure, signed, span
from logitlab._app.report.json import as_json, finite
from logitlab._app.report.page import LOOKS, TITLES, environment
from logitlab._app.report.verdict import verdict
from logitlab.resampling import Interval, percentile_intervals, resampled_sums, scores_from_sums

_ROUNDING = 1e-12  # of scores, whose size is about 1
Differences = dict[str, Interval]


@dataclass(frozen=True)
class Model:
    name: str
    analysis: Analysis
    judged: Judged
    differences: Differences | None  # from the first model, as they came; None for itself
    calibrated_differences: Differences | None  # after temperature scaling of both
    behind: Differences | None  # from the model with the least log-loss; None for itself


def _names(sources: list[str]) -> list[str]:
    """File names where they tell the models apart, else the whole of what was given, numbered
    where one was given twice."""
    short = [source.rpartition("/")[2] for source in sources]
    if len(set(short)) == len(short):
        return short
    if len(set(sources)) == len(sources):
        return sources
    return [f"{name} ({i})" for i, name in enumerate(sources, 1)]


def shared_rows(sources: list[Logits], probabilities: bool, track: Track) -> NDArray[np.bool_]:
    """The rows that have a distribution in every model: scores of other rows do not compare."""
    found = []
    for source in sources:
        has = np.zeros(source.rows, bool)
        for rows, _ in Passes(source, probabilities, track).blocks("looking for common rows"):
            has[rows] = True
        found.append(has)
    shared: NDArray[np.bool_] = reduce(np.logical_and, found)
    if not shared.any():
        raise UserError("no row has a distribution in every model: one of them is NaN or all -inf")
    return shared


def _differences(judged: list[Judged], way: str, base: int = 0) -> list[Differences | None]:
    """From the model of that number; the same rows are drawn for all."""
    if not all(way in one.cells for one in judged):
        return [None] * len(judged)
    cells = [one.cells[way] for one in judged]
    again = np.split(resampled_sums(np.hstack(cells), RESAMPLES, SEED), len(cells), axis=1)
    value = [scores_from_sums(one.sum(axis=0)) for one in cells]
    drawn = [scores_from_sums(one) for one in again]
    with np.errstate(invalid="ignore"):
        return [
            None if i == base else percentile_intervals(v - value[base], d - drawn[base])
            for i, (v, d) in enumerate(zip(value, drawn, strict=True))
        ]


def compare(analyses: list[Analysis]) -> list[Model]:
    judged = [a.judged for a in analyses if a.judged is not None]
    plain, scaled = _differences(judged, "none"), _differences(judged, "temperature")
    behind = _differences(judged, "none", int(np.argmin([j.before["log_loss"] for j in judged])))
    names = _names([a.source.source for a in analyses])
    return [
        Model(*each) for each in zip(names, analyses, judged, plain, scaled, behind, strict=True)
    ]


def clear(i: Interval) -> bool:
    """Whether an interval of a difference holds no 0, nor what rounding makes of it."""
    return bool(i.low > _ROUNDING or i.high < -_ROUNDING)


def headline(models: list[Model]) -> tuple[str, str]:
    """Which model has the smallest log-loss, and whether its lead on every other is certain."""
    losses = ", ".join(f"{m.name} {figure(m.judged.before['log_loss'])}" for m in models)
    text = f"Log-loss in nats: {losses}."
    best = next(m for m in models if m.behind is None)
    if not np.isfinite(best.judged.before["log_loss"]):
        return "No clear winner", f"{text} Every model gives some label the probability 0."
    leads = [(m.name, m.behind["log_loss"]) for m in models if m.behind is not None]
    level = [name for name, d in leads if max(abs(d.low), abs(d.high)) <= _ROUNDING]
    close = [lead for lead in leads if lead[0] not in level and not clear(lead[1])]
    if level:
        text += f" {' and '.join([best.name, *level])} have the same log-loss."
    if close:
        said = ", ".join(_lead(*lead) for lead in close)
        text += f" {best.name} leads {said}: no more than chance gives."
    if level or close:
        return "No clear winner", text
    every = "" if len(leads) == 1 else ", and the others more clearly"
    said = _lead(*min(leads, key=lambda lead: lead[1].low))
    return f"{best.name} has the smallest log-loss", f"{text} It leads {said}{every}."


def _lead(name: str, d: Interval) -> str:
    if not np.isfinite(d.value):
        return f"{name}, whose log-loss is infinite"
    return f"{name} by {figure(d.value)} (95 % interval {span(d)})"


def as_html(models: list[Model]) -> str:
    word, sentence = headline(models)
    pictures = [
        {**picture, "title": f"{m.name}: {picture['title']}"}
        for i, m in enumerate(models)
        for picture in figures.reliability(m.judged, prefix=f"m{i}-")
        if picture["way"] in ("none", "temperature")
    ]
    return (
        environment()
        .get_template("compare.html")
        .render(
            models=models,
            word=word,
            sentence=sentence,
            verdicts=[": ".join(verdict(m.judged)) for m in models],
            pictures=pictures,
            titles=TITLES,
            looks=LOOKS,
            clear=clear,
            version=version("logitlab"),
        )
    )


def to_json(models: list[Model]) -> dict[str, Any]:
    """The figures of each model, and its paired differences from the first."""
    found: dict[str, Any] = finite(
        {
            "models": [as_json(m.analysis) for m in models],
            "differences_from_first": [m.differences for m in models],
            "differences_after_temperature": [m.calibrated_differences for m in models],
        }
    )
    return found


def write(models: list[Model], directory: Path) -> None:
    """`report.html` and `report.json`."""
    files = {
        "report.html": as_html(models).encode(),
        "report.json": json.dumps(to_json(models), indent=2).encode() + b"\n",
    }
    write_files(files, directory)


def print_summary(models: list[Model], console: Any) -> None:
    """The scores side by side."""
    from rich.table import Table

    word, sentence = headline(models)
    console.print(f"{word}. {sentence}", markup=False, highlight=False)
    table = Table()
    table.add_column("")
    for m in models:
        table.add_column(m.name, justify="right")
    table.add_row("rows", *(count(m.analysis.judged_rows) for m in models))
    for key, title in TITLES.items():
        table.add_row(title, *(figure(m.judged.before[key]) for m in models))
        cells = [m.differences[key] if m.differences else None for m in models]
        table.add_row("  less the first", *(signed(d.value) if d else "" for d in cells))
    after = [m.judged.calibrated.get("temperature") for m in models]
    name = "calibration error after temperature"
    table.add_row(name, *(f"{s['calibration_error']:.4f}" if s else "–" for s in after))
    console.print(table)
    for m in models:
        if m.analysis.looks_like_probabilities:
            console.print(f"{m.name}: {LOOKS}", markup=False, highlight=False, soft_wrap=True)
