"""Several models on the same labels, side by side: paired differences from the first one."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from logitlab.app import figures
from logitlab.app.analysis import Analysis
from logitlab.app.facts import as_json, finite
from logitlab.app.judging import RESAMPLES, SEED, Judged
from logitlab.app.report import TITLES, count, environment, span, write_files
from logitlab.app.verdict import verdict
from logitlab.intervals import Interval, percentile, redrawn, scores_of

Differences = dict[str, Interval]


@dataclass(frozen=True)
class Model:
    name: str
    analysis: Analysis
    judged: Judged
    differences: Differences | None  # from the first model, as they came; None for itself
    calibrated_differences: Differences | None  # after temperature scaling of both


def _names(sources: list[str]) -> list[str]:
    """File names where they tell the models apart, else the whole of what was given."""
    short = [source.rpartition("/")[2] for source in sources]
    return short if len(set(short)) == len(short) else sources


def _differences(judged: list[Judged], way: str) -> list[Differences | None]:
    """The same rows are drawn for all models."""
    if not all(way in one.cells for one in judged):
        return [None] * len(judged)
    cells = [one.cells[way] for one in judged]
    again = np.split(redrawn(np.hstack(cells), RESAMPLES, SEED), len(cells), axis=1)
    value = [scores_of(one.sum(axis=0)) for one in cells]
    drawn = [scores_of(one) for one in again]
    with np.errstate(invalid="ignore"):
        others = [
            percentile(v - value[0], d - drawn[0])
            for v, d in zip(value[1:], drawn[1:], strict=True)
        ]
    return [None, *others]


def compare(analyses: list[Analysis]) -> list[Model]:
    judged = [a.judged for a in analyses if a.judged is not None]
    plain, scaled = _differences(judged, "none"), _differences(judged, "temperature")
    names = _names([a.source.source for a in analyses])
    return [Model(*each) for each in zip(names, analyses, judged, plain, scaled, strict=True)]


def clear(i: Interval) -> bool:
    """Whether an interval of a difference holds no 0."""
    return bool(i.low > 0 or i.high < 0)


def headline(models: list[Model]) -> tuple[str, str]:
    """Which model has the smallest log-loss, and whether that is more than chance."""
    best = min(models, key=lambda m: m.judged.before["log_loss"])
    first = models[0]
    losses = ", ".join(f"{m.name} {m.judged.before['log_loss']:.4f}" for m in models)
    if best is first:
        rivals = [m.differences["log_loss"] for m in models if m.differences]
        sure = all(clear(d) for d in rivals)
        ends = "more than chance" if sure else "not more than chance for every one of them"
        return (
            f"{best.name} has the smallest log-loss" if sure else "No clear winner",
            f"Log-loss in nats: {losses}. The others' distance from {first.name} is {ends}.",
        )
    assert best.differences is not None
    d = best.differences["log_loss"]
    return (
        f"{best.name} has the smallest log-loss" if clear(d) else "No clear winner",
        f"Log-loss in nats: {losses}. {best.name} less {first.name}: {d.value:.4f}".replace(
            "-", "−"
        )
        + f", 95 % interval {span(d)}.",
    )


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
        table.add_row(title, *(f"{m.judged.before[key]:.4f}" for m in models))
        cells = [m.differences[key] if m.differences else None for m in models]
        table.add_row("  less the first", *(f"{d.value:+.4f}" if d else "" for d in cells))
    after = [m.judged.calibrated.get("temperature") for m in models]
    name = "calibration error after temperature"
    table.add_row(name, *(f"{s['calibration_error']:.4f}" if s else "–" for s in after))
    console.print(table)
