"""The report of one analysis: an HTML page, a JSON file, and a table for the terminal."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from logitlab._app.io.json_values import json_values
from logitlab._app.io.outputs import write_files
from logitlab._app.io.source import printable
from logitlab._app.report import figures
from logitlab._app.report.analysis import N_SAMPLES, Analysis
from logitlab._app.report.evaluation import (
    N_BINS,
    Evaluation,
    Scores,
    agresti_coull,
    excludes_zero,
)
from logitlab._app.report.format import bounds, count, number, p_value, percent, signed
from logitlab._app.report.json import as_json
from logitlab._app.report.language_model import TEMPERATURES, TOP_P, TextScores
from logitlab._app.report.summary import MIN_ROWS, entropy_summary, selected_calibrator, summary
from logitlab._page import script, style
from logitlab._rows import Floats

FILES = ("report.html", "report.json")
TOKENS_FILE = "tokens.csv"  # of a text
SCORE_TITLES = {
    "accuracy": "accuracy",
    "log_loss": "log-loss (nats)",
    "brier_score": "Brier score",
    "calibration_error": f"ECE ({N_BINS} bins)",
}
_NAMED_DTYPES = ("float16", "bfloat16", "float32", "float64")


def environment() -> Environment:
    """The Jinja environment of the templates, with the filters that format numbers."""
    env = Environment(
        loader=PackageLoader("logitlab._app.report"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(
        percent=percent, count=count, number=number, bounds=bounds, p_value=p_value, signed=signed
    )
    env.filters.update(printable=printable, file_name=file_name, shortened=figures.shortened)
    env.tests.update(significant=excludes_zero)
    env.globals.update(score_titles=SCORE_TITLES, min_rows=MIN_ROWS)
    env.globals.update(page_style=style(), page_script=script())
    return env


def headline(a: Analysis) -> tuple[str, str]:
    """The heading of the report, and the sentence below it."""
    if a.evaluation is not None:
        return summary(a.evaluation)
    if a.text is not None:
        p = a.text.perplexity
        interval = f"95 % interval {bounds(p, 2)}; " if np.isfinite(p.value) else ""
        value = f"{p.value:.4g}" if np.isfinite(p.value) else number(p.value)
        return f"Perplexity {value}", (
            f"{interval}the target token is the most probable one in "
            f"{percent(a.text.accuracy.value)} of {count(int((a.text.ranks > 0).sum()))} rows."
        )
    return entropy_summary(a.sharpness["entropy"].mean, a.source.classes)


def calibrators(evaluation: Evaluation) -> list[tuple[str, Scores]]:
    """Names and scores: uncalibrated, then each calibrator."""
    return [("uncalibrated", evaluation.uncalibrated), *evaluation.calibrated.items()]


def best_scores(rows: Sequence[Scores]) -> dict[str, str]:
    """The best value of each score as it is shown; empty for a score that does not differ."""
    columns = {key: [s[key] for s in rows] for key in SCORE_TITLES}
    columns["classwise"] = [s.classwise_error for s in rows if s.classwise_error is not None]
    best = {}
    for key, values in columns.items():
        differs = len(set(map(number, values))) > 1
        choose = max if key == "accuracy" else min
        best[key] = number(choose(values)) if differs else ""
    return best


def file_name(source: str) -> str:
    """The name of a file without its folder."""
    return PurePath(source).name or source


class _Gap(NamedTuple):
    """Mean confidence minus accuracy of some rows, with half the width of its 95 % interval."""

    value: float
    half_width: float
    scale: float  # the largest end of an interval in the table

    @property
    def is_significant(self) -> bool:
        return abs(self.value) > self.half_width


def _gaps(values: Floats, half_widths: Floats) -> list[_Gap]:
    ends = np.abs(values) + half_widths
    scale = float(ends.max(initial=1e-9))
    return [_Gap(*pair, scale) for pair in zip(values.tolist(), half_widths.tolist(), strict=True)]


def _class_table(a: Analysis, evaluation: Evaluation) -> list[dict[str, Any]]:
    classes, names = evaluation.predicted_classes, figures.class_names(a)
    order = figures.shown_classes(evaluation)
    gaps = _gaps((classes.confidence - classes.accuracy)[order], classes.half_width()[order])
    return [
        {
            "number": int(k),
            "name": names[k],
            "rows": int(classes.rows[k]),
            "confidence": float(classes.confidence[k]),
            "accuracy": float(classes.accuracy[k]),
            "gap": gap,
        }
        for k, gap in zip(order, gaps, strict=True)
    ]


def _group_gaps(a: Analysis) -> list[_Gap]:
    values, half_widths = [], []
    for rows, intervals in a.groups.values():
        accuracy = intervals["accuracy"].value
        values.append(intervals["confidence"].value - accuracy)
        half_widths.append(agresti_coull(accuracy, rows)[1])
    return _gaps(np.array(values), np.array(half_widths))


def temperature_steps(evaluation: Evaluation) -> dict[str, Any]:
    """The reliability diagrams of the sampled rows at each temperature, for the script."""
    s = evaluation.sampled
    fitted = evaluation.temperature
    steps = []
    for t, sums, error, loss in zip(
        s.temperatures, s.bin_sums, s.calibration_error, s.log_loss, strict=True
    ):
        filled = np.flatnonzero(sums[0])
        n, confidence, correct = sums[:, filled]
        bins = zip(filled.tolist(), n.astype(int), confidence / n, correct / n, strict=True)
        steps.append(
            {
                "t": f"{t:.4g}",
                "one": t == 1,
                "error": number(error),
                "loss": number(loss),
                "confidence": percent(sums[1].sum() / s.rows),
                "bins": [[b, n, round(c, 4), round(r, 4)] for b, n, c, r in bins],
            }
        )
    at = None if fitted is None else int(np.searchsorted(s.temperatures, fitted))
    values: dict[str, Any] = json_values(
        {"rows": s.rows, "bins": N_BINS, "fitted": at, "steps": steps}
    )
    return values


def _listed_rows(a: Analysis, evaluation: Evaluation) -> dict[str, Any]:
    """Rows of each bin of confidence and of the shown classes, for the script."""
    names, s = figures.class_names(a), evaluation.sampled
    curve, classes = evaluation.uncalibrated.curve, evaluation.predicted_classes
    groups = [
        ("Bins of confidence", b, f"{curve.edges[b]:.0%} to {curve.edges[b + 1]:.0%}", n, rows)
        for b, n in enumerate(curve.counts.tolist())
        if (rows := s.bins.get(b))
    ] + [
        ("Predicted classes", k, figures.shortened(names[k]), int(classes.rows[k]), rows)
        for k in figures.shown_classes(evaluation).tolist()
        if (rows := s.classes.get(k))
    ]
    used = {k for *_, rows in groups for row in rows for k in (row.predicted, row.true)}
    return {
        "names": {k: figures.shortened(names[k]) for k in sorted(used)},
        "groups": [
            {
                "kind": kind,
                "key": key,
                "title": title.replace("%", " %"),
                "total": n,
                "rows": [(r.row, percent(r.confidence, 2), r.predicted, r.true) for r in rows],
            }
            for kind, key, title, n, rows in groups
        ],
    }


def _sharpness_table(a: Analysis) -> list[tuple[str, list[str]]]:
    """Means, and quantiles with the decimals that the histograms resolve."""

    def resolved(x: float, error: float) -> str:
        return f"{x:.{min(4, max(0, math.floor(-math.log10(error))))}f}"

    table = []
    for name, title in figures.SHARPNESS.items():
        cells = [f"{a.sharpness[name].mean:.4f}"]
        for q in (0.05, 0.5, 0.95):
            if name == "perplexity":
                nats = a.sharpness["entropy"]
                value = math.exp(nats.quantile(q))
                cells.append(resolved(value, value * nats.resolution))
            else:
                d = a.sharpness[name]
                cells.append(resolved(d.quantile(q), d.resolution))
        table.append((title, cells))
    return table


def as_html(a: Analysis, sections: str = "") -> str:
    """The report as one self-contained page; `sections` is HTML that follows the calibration."""
    evaluation = a.evaluation
    heading, details = headline(a)
    nucleus = np.median(a.nucleus, axis=-1), a.nucleus.max(axis=-1)
    dtype = a.source.dtype.name
    score_rows = calibrators(evaluation) if evaluation else []
    selected = selected_calibrator(evaluation) if evaluation else None
    reliability = list(figures.reliability(evaluation)) if evaluation else []
    return (
        environment()
        .get_template("report.html")
        .render(
            a=a,
            heading=heading,
            details=details,
            input_summary=a.input_summary,
            checks=a.numerical_checks,
            evaluation=evaluation,
            text=a.text,
            calibrators=score_rows,
            class_table=_class_table(a, evaluation) if evaluation else [],
            dtype=dtype,
            naive_dtype=dtype if dtype in _NAMED_DTYPES else "float64",
            names=a.source.names and figures.class_names(a),
            class_names=figures.class_names(a),
            sharpness=_sharpness_table(a),
            sharpness_figures=list(figures.sharpness(a)),
            temperature_curves=figures.temperature_curves(a),
            example_figures=list(figures.example(a)),
            reliability=reliability,
            others=[r for r in reliability if r["calibrator"] not in ("uncalibrated", selected)],
            classwise=list(figures.classwise_reliability(evaluation)) if evaluation else [],
            best=best_scores([scores for _, scores in score_rows]),
            selected=selected,
            temperatures=temperature_steps(evaluation) if evaluation else None,
            listed=_listed_rows(a, evaluation) if evaluation else None,
            group_gaps=_group_gaps(a),
            entropy_over_steps=None if evaluation else figures.entropy_over_steps(a),
            top_p=TOP_P,
            nucleus=[
                (t, [(nucleus[0][i, j], nucleus[1][i, j]) for i in range(len(TOP_P))])
                for j, t in enumerate(TEMPERATURES)
            ],
            nucleus_rows=a.nucleus.shape[-1],
            n_samples=N_SAMPLES,
            n_bins=N_BINS,
            shown_classes=figures.SHOWN_CLASSES,
            version=version("logitlab"),
            sections=sections,
        )
    )


def _tokens_csv(text: TextScores) -> str:
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["row", "token", "log_probability", "rank"])
    for row, (token, log_p, rank) in enumerate(
        zip(text.tokens.tolist(), text.log_probabilities.tolist(), text.ranks.tolist(), strict=True)
    ):
        table.writerow([row, token, repr(log_p), rank])
    return stream.getvalue()


def write(
    a: Analysis,
    directory: Path,
    other_files: Mapping[str, bytes] | None = None,
    sections: str = "",
) -> None:
    """Write `report.html`, `report.json`, for a text `tokens.csv`, and `other_files`.

    `sections` are as in :func:`as_html`.
    """
    files = {
        "report.html": as_html(a, sections).encode(),
        "report.json": json.dumps(as_json(a), indent=2).encode() + b"\n",
        **(other_files or {}),
    }
    if a.text is not None:
        files[TOKENS_FILE] = _tokens_csv(a.text).encode()
    write_files(files, directory)


def _group_table(a: Analysis) -> Any:
    from rich.table import Table

    few = any(scores.rows < MIN_ROWS for scores in a.groups.values())
    caption = f"* fewer than {MIN_ROWS} rows: the ECE is large by chance" if few else None
    table = Table(title=f"groups: {a.group_column}", title_justify="left", caption=caption)
    table.add_column("")
    for title in ("rows", "accuracy", "mean confidence", "ECE", "log-loss (nats)"):
        table.add_column(title, justify="right")
    keys = ("accuracy", "confidence", "calibration_error", "log_loss")
    for name, (rows, scores) in a.groups.items():
        mark = " *" if rows < MIN_ROWS else ""
        cells = (number(scores[key].value) for key in keys)
        table.add_row(printable(name) + mark, count(rows), *cells)
    return table


def print_summary(
    a: Analysis, console: Any, other_scores: Mapping[str, float] = MappingProxyType({})
) -> None:
    """Print the summary and a table of the scores; `other_scores` are uncalibrated."""
    from rich.table import Table

    evaluation, rows = a.evaluation, a.input_summary
    for warning in a.warnings:
        console.print(f"Warning: {warning}", soft_wrap=True)
    for note in a.notes:
        console.print(printable(note), soft_wrap=True)
    heading, details = headline(a)
    console.print(printable(f"{heading}: {details}"))
    columns = calibrators(evaluation) if evaluation else []
    table = Table(show_header=bool(columns), title=printable(a.source.source), title_justify="left")
    table.add_column("")
    for name in [name for name, _ in columns] or [""]:
        table.add_column(name, justify="right")
    table.add_row("rows × classes", f"{count(a.source.rows)} × {count(a.source.classes)}")
    table.add_row("type", a.source.dtype.name)
    if not a.probabilities:
        table.add_row("rows where naive softmax overflows", count(rows.naive_overflow_rows))
    for excluded, reason in ((rows.nan_rows, "NaN"), (rows.empty_rows, "all -inf")):
        if excluded:
            table.add_row(f"rows excluded: {reason}", count(excluded))
    if a.ignored_rows:
        table.add_row("rows ignored by their labels", count(a.ignored_rows))
    table.add_row("mean entropy (nats)", f"{a.sharpness['entropy'].mean:.4f}")
    table.add_row("mean perplexity", f"{a.sharpness['perplexity'].mean:.4f}")
    if a.numerical_checks.max_ulp is not None:
        table.add_row("largest error of softmax", f"{a.numerical_checks.max_ulp:.2f} ULP")
    if a.text is not None:
        table.add_row("log-loss of the text (nats)", number(a.text.log_loss.value))
        table.add_row("perplexity of the text", number(a.text.perplexity.value))
    for key, title in SCORE_TITLES.items() if columns else ():
        table.add_row(title, *(number(scores[key]) for _, scores in columns))
        if key == "accuracy":
            for name, score in other_scores.items():
                table.add_row(printable(name), number(score))
    if evaluation and evaluation.temperature is not None:
        table.add_row("temperature", "1", f"{evaluation.temperature:.4g}")
    console.print(table)
    if a.groups:
        console.print(_group_table(a))
    if evaluation and evaluation.calibrated:
        console.print("Scores of the calibrators are 2-fold cross-fitted.")
    for name, reason in evaluation.failures.items() if evaluation else ():
        console.print(printable(f"{name} scaling was not fitted: {reason}"))
