"""The report: one page, one JSON file, one table for the terminal, of one analysis."""

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from logitlab import plot
from logitlab.app.analysis import (
    DRAWS,
    N_BINS,
    SHOWN_TEMPERATURES,
    SWEEP,
    Analysis,
    Distribution,
    Scores,
)
from logitlab.app.pictures import svg

_SHOWN_CLASSES = 12
_BARS = 40  # bins of a drawn histogram


def _finite(x: Any) -> Any:
    """JSON has no infinity: the log-loss of a label with probability 0 is null there."""
    if isinstance(x, dict):
        return {key: _finite(value) for key, value in x.items()}
    return None if isinstance(x, float) and not math.isfinite(x) else x


def _scores(scores: Scores) -> dict[str, float]:
    return {
        "accuracy": scores.accuracy,
        "log_loss": scores.log_loss,
        "brier": scores.brier,
        "ece": scores.ece,
        "mean_confidence": scores.confidence,
    }


def as_json(a: Analysis) -> dict[str, Any]:
    """What a script needs; None where a figure does not apply."""
    incoming, judged = a.incoming, a.judged
    naive = None if a.probabilities else incoming.naive_overflow_rows
    none = dict.fromkeys(("accuracy", "log_loss", "brier", "ece", "mean_confidence"))
    after = judged.after if judged else None
    found = {
        "logitlab": version("logitlab"),
        "source": a.source.source,
        "rows": a.source.rows,
        "classes": a.source.classes,
        "dtype": a.source.dtype.name,
        "judged_rows": a.judged_rows,
        "nan_rows": incoming.nan_rows,
        "empty_rows": incoming.empty_rows,
        "naive_overflow_rows": naive,
        "tie_rows": incoming.tie_rows,
        "minus_inf_rows": incoming.minus_inf_rows,
        "plus_inf_rows": incoming.plus_inf_rows,
        "zero_probabilities": incoming.zeros if a.probabilities else None,
        **{f"mean_{name}": d.mean for name, d in a.sharpness.items()},
        "laws": vars(a.laws),
        **(_scores(judged.before) if judged else none),
        "temperature": judged.temperature if judged else None,
        "fold_temperatures": judged.fold_temperatures if judged else None,
        "no_temperature_because": judged.failure if judged else None,
        "calibrated": _scores(after) if after else none,
    }
    finite: dict[str, Any] = _finite(found)
    return finite


def _names(a: Analysis) -> tuple[str, ...]:
    return a.source.names or tuple(str(k) for k in range(a.source.classes))


def _histogram(d: Distribution) -> tuple[Any, Any]:
    step = len(d.counts) // _BARS
    return d.edges[::step], d.counts.reshape(_BARS, step).sum(axis=1)


def _sharpness_pictures(a: Analysis) -> Iterator[dict[str, str]]:
    axis_labels = {
        "entropy": "entropy (nats)",
        "perplexity": "perplexity (classes)",
        "top_probability": "top probability",
        "saturation": "saturation 1 − Σ p²",
    }
    for name, d in a.sharpness.items():
        edges, counts = _histogram(d)

        def draw(figure: Any, d: Any = d, edges: Any = edges, counts: Any = counts) -> None:
            plot.distribution(edges, counts, mean=d.mean, ax=figure.add_subplot())

        title = axis_labels[name]
        label = f"Histogram of {title} over the rows, mean {d.mean:.3g}"
        yield {"title": title, "svg": svg(draw, name=name, label=label, height=2.2)}


def _sweep_picture(a: Analysis) -> str:
    share = a.sweep_entropy / max(math.log(a.source.classes), 1e-300)

    def draw(figure: Any) -> None:
        plot.temperature_curves(SWEEP, share, a.sweep_top, ax=figure.add_subplot())

    label = "Mean top probability and mean entropy against temperature from 0.1 to 10"
    return svg(draw, name="sweep", label=label, width=5.4)


def _example_pictures(a: Analysis) -> Iterator[dict[str, str]]:
    e = a.example
    order = np.argsort(-e.logits, kind="stable")[:_SHOWN_CLASSES]
    order = np.sort(order) if a.source.classes <= _SHOWN_CLASSES else order
    names = [_names(a)[k] for k in order]
    names = [name if len(name) <= 9 else name[:8] + "…" for name in names]
    crowded = sum(map(len, names)) > 40
    for i, t in enumerate(SHOWN_TEMPERATURES):

        def draw(figure: Any, i: int = i) -> None:
            p, drawn = e.probabilities[i][order], e.frequencies[i][order]
            ax = plot.outcome_bars(names, p, drawn, ax=figure.add_subplot())
            if crowded:
                ax.tick_params("x", rotation=90)

        label = f"Probabilities of row {e.row} at temperature {t:g} with drawn frequencies"
        picture = svg(draw, name=f"example{i}", label=label, width=3.4, height=2.2)
        yield {"title": f"T = {t:g}", "svg": picture}


def _reliability_pictures(a: Analysis) -> Iterator[dict[str, str]]:
    assert a.judged is not None
    after = a.judged.after
    for name, title, scores in (("before", "Before", a.judged.before), ("after", "After", after)):
        if scores is None:
            continue

        def draw(figure: Any, scores: Scores = scores) -> None:
            plot.reliability_diagram(scores.curve, ax=figure.add_subplot())

        label = (
            f"Reliability diagram, {name} calibration: expected calibration error {scores.ece:.4f}"
        )
        picture = svg(draw, name=name, label=label, width=4.2, height=3.6)
        yield {"title": f"{title}: ECE {scores.ece:.4f}", "svg": picture}


def _percent(x: float, digits: int = 2) -> str:
    return f"{100 * x:.{digits}f} %"


def _count(n: int) -> str:
    return f"{n:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def as_html(a: Analysis) -> str:
    """One self-contained page."""
    environment = Environment(
        loader=PackageLoader("logitlab.app"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, count=_count)
    return environment.get_template("report.html").render(
        a=a,
        incoming=a.incoming,
        laws=a.laws,
        judged=a.judged,
        dtype=a.source.dtype.name,
        names=a.source.names,
        sharpness_pictures=list(_sharpness_pictures(a)),
        sweep=_sweep_picture(a),
        example_pictures=list(_example_pictures(a)),
        reliability=list(_reliability_pictures(a)) if a.judged else [],
        draws=DRAWS,
        n_bins=N_BINS,
        shown_classes=_SHOWN_CLASSES,
        version=version("logitlab"),
    )


def write(a: Analysis, directory: Path, beside: Mapping[str, bytes] | None = None) -> None:
    """`report.html`, `report.json` and what goes beside them: all whole, or none changed."""
    files = {
        "report.html": as_html(a).encode(),
        "report.json": json.dumps(as_json(a), indent=2).encode() + b"\n",
        **(beside or {}),
    }
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".logitlab-") as temporary:
        for name, held in files.items():
            (Path(temporary) / name).write_bytes(held)
        for name in files:
            os.replace(Path(temporary) / name, directory / name)


def print_summary(a: Analysis, console: Any) -> None:
    """The headline figures as a table."""
    from rich.table import Table

    table = Table(show_header=bool(a.judged), title=a.source.source, title_justify="left")
    table.add_column("")
    table.add_column("before" if a.judged else "", justify="right")
    after = a.judged.after if a.judged else None
    if a.judged:
        table.add_column("after (cross-fitted)", justify="right")
    table.add_row("rows × classes", f"{_count(a.source.rows)} × {_count(a.source.classes)}")
    table.add_row("type", a.source.dtype.name)
    if not a.probabilities:
        table.add_row("rows where plain exp fails", _count(a.incoming.naive_overflow_rows))
    for skipped, what in ((a.incoming.nan_rows, "NaN"), (a.incoming.empty_rows, "only -inf")):
        if skipped:
            table.add_row(f"rows left out: {what}", _count(skipped))
    table.add_row("mean entropy (nats)", f"{a.sharpness['entropy'].mean:.4f}")
    table.add_row("mean perplexity", f"{a.sharpness['perplexity'].mean:.4f}")
    if a.laws.worst_ulp is not None:
        table.add_row("worst error of softmax", f"{a.laws.worst_ulp:.2f} ULP")
    if a.judged:
        before = _scores(a.judged.before)
        calibrated = _scores(after) if after else {}
        titles = {
            "accuracy": "accuracy",
            "log_loss": "log-loss",
            "brier": "Brier score",
            "ece": f"ECE ({N_BINS} bins)",
        }
        for key, title in titles.items():
            cell = f"{calibrated[key]:.4f}" if after else "–"
            table.add_row(title, f"{before[key]:.4f}", cell)
        t = a.judged.temperature
        table.add_row("temperature", "1", "–" if t is None else f"{t:.4g}")
    console.print(table)
    if a.judged and a.judged.failure:
        console.print(f"no temperature: {a.judged.failure}", markup=False)


@contextlib.contextmanager
def progress(shown: bool) -> Iterator[Any]:
    """A `track` for :func:`logitlab.app.analysis.analyse`: a bar on a terminal's standard error."""
    if not shown:
        yield lambda chunks, total, what: chunks
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:

        def track(chunks: Any, total: int, what: str) -> Iterator[Any]:
            task = bar.add_task(what, total=total)
            for chunk in chunks:
                yield chunk
                bar.advance(task, len(chunk))
            bar.remove_task(task)

        yield track
