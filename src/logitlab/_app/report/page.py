"""The report: one page, one JSON file, one table for the terminal, of one analysis."""

import csv
import io
import json
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from logitlab._app.io.outputs import write_files
from logitlab._app.report import figures
from logitlab._app.report.analysis import DRAWS, Analysis
from logitlab._app.report.evaluation import N_BINS, Judged, Scores
from logitlab._app.report.format import count, figure, p_value, percent, signed, span
from logitlab._app.report.json import as_json
from logitlab._app.report.language_model import NUCLEI, TEMPERATURES, Text
from logitlab._app.report.verdict import perplexity_in_words, verdict

FILES = ("report.html", "report.json", "tokens.csv")
LOOKS = (
    "Every row is non-negative and sums to one: these look like probabilities. If they are, run "
    "again with --probabilities; here they are taken for logits."
)
TITLES = {
    "accuracy": "accuracy",
    "log_loss": "log-loss (nats)",
    "brier_score": "Brier score (0 to 2)",
    "calibration_error": f"calibration error ({N_BINS} bins)",
}
_EXPLICIT = ("float16", "bfloat16", "float32", "float64")


def environment() -> Environment:
    """The templates, with what they may say numbers by."""
    found = Environment(
        loader=PackageLoader("logitlab._app.report"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        percent=percent, count=count, figure=figure, span=span, p_value=p_value, signed=signed
    )
    return found


def headline(a: Analysis) -> tuple[str, str]:
    if a.judged is not None:
        return verdict(a.judged)
    if a.text is not None:
        p = a.text.perplexity
        sure = f", {span(p, 2)} with 95 % confidence" if np.isfinite(p.value) else ""
        value = f"{p.value:.4g}" if np.isfinite(p.value) else figure(p.value)
        return f"Perplexity {value}", (
            f"of the text{sure}; the token that came was the most probable one in "
            f"{percent(a.text.top.value)} of {count(len(a.text.tokens))} steps."
        )
    return perplexity_in_words(a.sharpness["entropy"].mean, a.source.classes)


def calibrators(judged: Judged) -> list[tuple[str, Scores]]:
    return [("none", judged.before), *judged.calibrated.items()]


def _class_table(a: Analysis, judged: Judged) -> list[dict[str, Any]]:
    by, names, width = judged.classes, figures.names_of(a), judged.classes.half_width()
    return [
        {
            "name": names[k],
            "rows": int(by.rows[k]),
            "says": float(by.confidence[k]),
            "right": float(by.accuracy[k]),
            "gap": float(by.confidence[k] - by.accuracy[k]),
            "sure": abs(by.confidence[k] - by.accuracy[k]) > width[k],
        }
        for k in figures.shown_classes(judged)
    ]


def _sharpness_table(a: Analysis) -> list[tuple[str, list[str]]]:
    """Means, and quantiles with those decimals that the histograms resolve."""

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


def as_html(a: Analysis) -> str:
    """One self-contained page."""
    judged = a.judged
    word, sentence = headline(a)
    nucleus = np.median(a.nucleus, axis=-1), a.nucleus.max(axis=-1)
    dtype = a.source.dtype.name
    return (
        environment()
        .get_template("report.html")
        .render(
            a=a,
            looks=LOOKS,
            word=word,
            sentence=sentence,
            incoming=a.incoming,
            laws=a.laws,
            judged=judged,
            text=a.text,
            calibrators=calibrators(judged) if judged else [],
            score_titles=TITLES,
            class_table=_class_table(a, judged) if judged else [],
            dtype=dtype,
            naive_dtype=dtype if dtype in _EXPLICIT else "float64",
            names=a.source.names,
            name_of=figures.names_of(a),
            short=figures.short,
            sharpness=_sharpness_table(a),
            sharpness_pictures=list(figures.sharpness(a)),
            sweep=figures.sweep(a),
            example_pictures=list(figures.example(a)),
            reliability=list(figures.reliability(judged)) if judged else [],
            classwise=list(figures.classwise(judged)) if judged else [],
            gaps=figures.class_gaps(a, judged) if judged else None,
            over_time=None if judged else figures.over_time(a),
            nuclei=NUCLEI,
            nucleus=[
                (t, [(nucleus[0][i, j], nucleus[1][i, j]) for i in range(len(NUCLEI))])
                for j, t in enumerate(TEMPERATURES)
            ],
            nucleus_rows=a.nucleus.shape[-1],
            draws=DRAWS,
            n_bins=N_BINS,
            shown_classes=figures.SHOWN_CLASSES,
            version=version("logitlab"),
        )
    )


def _tokens_csv(text: Text) -> str:
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["row", "token", "log_probability", "rank"])
    for row, (token, log_p, rank) in enumerate(
        zip(text.tokens.tolist(), text.log_probabilities.tolist(), text.ranks.tolist(), strict=True)
    ):
        table.writerow([row, token, repr(log_p), rank])
    return stream.getvalue()


def write(a: Analysis, directory: Path, beside: Mapping[str, bytes] | None = None) -> None:
    """`report.html`, `report.json`, of a text `tokens.csv`, and what goes beside them."""
    files = {
        "report.html": as_html(a).encode(),
        "report.json": json.dumps(as_json(a), indent=2).encode() + b"\n",
        **(beside or {}),
    }
    if a.text is not None:
        files["tokens.csv"] = _tokens_csv(a.text).encode()
    write_files(files, directory)


def print_summary(a: Analysis, console: Any) -> None:
    """The verdict and the headline figures as a table."""
    from rich.table import Table

    word, sentence = headline(a)
    console.print(f"{word}: {sentence}", markup=False, highlight=False)
    ways = calibrators(a.judged) if a.judged else []
    table = Table(show_header=bool(ways), title=a.source.source, title_justify="left")
    table.add_column("")
    for name in [name for name, _ in ways] or [""]:
        table.add_column("as it came" if name == "none" else name, justify="right")
    table.add_row("rows × classes", f"{count(a.source.rows)} × {count(a.source.classes)}")
    table.add_row("type", a.source.dtype.name)
    if not a.probabilities:
        table.add_row("rows where plain exp fails", count(a.incoming.naive_overflow_rows))
    for skipped, what in ((a.incoming.nan_rows, "NaN"), (a.incoming.empty_rows, "only -inf")):
        if skipped:
            table.add_row(f"rows left out: {what}", count(skipped))
    table.add_row("mean entropy (nats)", f"{a.sharpness['entropy'].mean:.4f}")
    table.add_row("mean perplexity", f"{a.sharpness['perplexity'].mean:.4f}")
    if a.laws.worst_ulp is not None:
        table.add_row("worst error of softmax", f"{a.laws.worst_ulp:.2f} ULP")
    if a.text is not None:
        table.add_row("log-loss of the text (nats)", figure(a.text.log_loss.value))
        table.add_row("perplexity of the text", figure(a.text.perplexity.value))
    for key, title in TITLES.items() if ways else ():
        table.add_row(title, *(figure(scores[key]) for _, scores in ways))
    if a.judged and a.judged.temperature is not None:
        table.add_row("temperature", "1", f"{a.judged.temperature:.4g}")
    console.print(table)
    if a.looks_like_probabilities:
        console.print(LOOKS, soft_wrap=True)
    if a.judged and a.judged.calibrated:
        console.print("Calibrated figures are cross-fitted: two halves, each judged by the other.")
    for name, why in a.judged.failures.items() if a.judged else ():
        console.print(f"no {name} scaling: {why}", markup=False)
