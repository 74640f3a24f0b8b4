"""`logitlab calibrate`: fits, selects and saves a calibrator, and writes the report."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from logitlab._app.cluster import check_shards, connect
from logitlab._app.io.json_values import json_values
from logitlab._app.io.outputs import (
    can_show_progress,
    catch_print_errors,
    catch_write_errors,
    check_folder,
    make_console,
    print_line,
    progress,
)
from logitlab._app.io.source import UserError, parse_file_spec
from logitlab._app.options import (
    FORMATS,
    ONE_SCORE,
    SAMPLE_LOGS,
    Axis,
    IgnoreIndex,
    Labels,
    NoProgress,
    Overwrite,
    Probabilities,
    Quiet,
    Scheduler,
)
from logitlab._rows import Integers

if TYPE_CHECKING:
    from logitlab._app.report.evaluation import RowSample
    from logitlab._app.saved import SavedCalibrator


class Method(StrEnum):
    """The calibrators; `auto` selects one."""

    auto = "auto"
    temperature = "temperature"
    structured_vector = "structured_vector"
    vector = "vector"
    structured_matrix = "structured_matrix"
    matrix = "matrix"
    isotonic = "isotonic"
    structured_vector_isotonic = "structured_vector_isotonic"
    vector_isotonic = "vector_isotonic"
    structured_matrix_isotonic = "structured_matrix_isotonic"
    matrix_isotonic = "matrix_isotonic"


_HALVES = "Half of the rows fit the calibrator, the other half the rules."


def calibrate(
    logits: Annotated[
        str,
        typer.Argument(
            metavar="LOGITS", help=f"{FORMATS} {ONE_SCORE} {SAMPLE_LOGS}", show_default=False
        ),
    ],
    labels: Labels = None,
    method: Annotated[
        Method,
        typer.Option(
            "--method",
            metavar="NAME",
            help=f"One of {', '.join(Method)}. auto: the simplest whose cross-fitted log-loss is "
            "within one standard error of the best. isotonic: isotonic regression of the "
            "probability of the predicted class.",
        ),
    ] = Method.auto,
    max_error: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Save a rule that accepts confident rows only: their error is at most P, with "
            f"probability 0.95. {_HALVES}",
            show_default=False,
        ),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Save a rule for sets of classes: each contains the true class with probability "
            f"P at least. {_HALVES}",
            show_default=False,
        ),
    ] = None,
    ignore_index: IgnoreIndex = None,
    probabilities: Probabilities = False,
    axis: Axis = -1,
    scheduler: Scheduler = None,
    out: Annotated[Path, typer.Option("-o", metavar="FOLDER", help="Output folder.")] = Path(
        "logitlab-calibrator"
    ),
    overwrite: Overwrite = False,
    json_only: Annotated[
        bool, typer.Option("--json", help="Print a JSON object instead of a table.")
    ] = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Fit a calibrator to labelled logits, save it for `logitlab apply`, and report on it."""
    from logitlab._app.io.arrays import class_labels, open_logits
    from logitlab._app.report import page
    from logitlab._app.report.analysis import analyse, fit_rows
    from logitlab._app.saved import FILE
    from logitlab.regression.threads import single_blas_thread

    for option, value in (("--max-error", max_error), ("--coverage", coverage)):
        if value is not None and not 0 < value < 1:
            raise UserError(f"{option} must be between 0 and 1, got {value:g}")
    files = (*page.FILES, FILE)
    others = [] if labels is None else [labels]
    paths = [parse_file_spec(spec)[0] for spec in (logits, *others)]
    check_folder(out, files, paths, overwrite=overwrite)
    source = open_logits(logits, others, axis=axis, probabilities=probabilities)
    check_shards(scheduler, [source])
    y = class_labels(labels, source, ignore_index)
    if y is None:
        raise UserError("a calibrator is fitted to the true classes; give --labels")
    with (
        single_blas_thread(),
        connect(scheduler) as cluster,
        progress(shown=can_show_progress(no_progress, quiet)) as track,
    ):
        analysis = analyse(
            source,
            y.classes,
            probabilities=probabilities,
            mapping=y.mapping,
            label_warnings=y.warnings,
            track=track,
            cluster=cluster,
        )
        sample = fit_rows(analysis, track, cluster)
        saved, lines = _fit(analysis, y.classes, sample, method, (max_error, coverage), out / FILE)
    with catch_write_errors(out):
        page.write(analysis, out, {FILE: saved.as_bytes()})
    with catch_print_errors():
        if json_only:
            values = {
                **saved.details,
                "rules": saved.rules.as_json(),
                "file": str(saved.path),
                "notes": analysis.notes,
                "warnings": analysis.warnings,
            }
            print(json.dumps(json_values(values), indent=2))
        if json_only or quiet:
            return
        page.print_summary(analysis, make_console())
        for line in (_summary(saved.details), *lines):
            print_line(line)
        print_line(f"Written: {saved.path} and {out / 'report.html'}")


def _fit(
    analysis: Any,
    y: Integers,
    sample: "RowSample",
    method: Method,
    rules: tuple[float | None, float | None],
    path: Path,
) -> tuple["SavedCalibrator", list[str]]:
    """The calibrator of the method, and a line about each rule.

    It is selected and fitted on a sample of the rows; temperature scaling is fitted on all rows.
    With rules, both are done on half of a sample, as the guarantees of the rules need other rows.
    """
    from logitlab._app.report.evaluation import SEED, random_halves
    from logitlab._app.rules import Rules, fit_rules
    from logitlab._app.saved import SavedCalibrator
    from logitlab.calibration import cross_fit, select_calibrator
    from logitlab.calibration.base import RowError, original_row_numbers
    from logitlab.calibration.selection import make_calibrator

    evaluation, source = analysis.evaluation, analysis.source
    name = str(method)
    if name in evaluation.failures:
        raise UserError(f"{source.source}: --method {name}: {evaluation.failures[name]}")
    has_rules = any(value is not None for value in rules)
    found = Rules()
    lines: list[str] = []
    rows, z = sample
    is_fitted: Any = slice(None)  # no copy of the logits
    least = len(rows)
    if has_rules:
        is_fitted = random_halves(source.rows)[rows] == 1
        least = min(is_fitted.sum(), (~is_fitted).sum())
    if least < 2:
        halves = "each half of the rows, for the calibrator and for the rules,"
        raise UserError(
            f"{source.source}: {halves if has_rules else 'the file'} must have at least 2 rows "
            f"with a distribution, got {least}"
        )
    try:
        with original_row_numbers(rows[is_fitted]):
            if method is Method.auto:
                labelled = z[is_fitted], y[rows[is_fitted]]
                name, calibrator, _ = select_calibrator(*labelled, rng=SEED)
            else:
                calibrator = make_calibrator(name).fit(z[is_fitted], y[rows[is_fitted]])
        if name == "temperature" and not has_rules and evaluation.temperature is not None:
            calibrator._set_saved({"temperature_": np.array(evaluation.temperature)}, z.shape[1])
        if has_rules:
            others = rows[~is_fitted]
            with original_row_numbers(others):
                calibrated = calibrator.transform(z[~is_fitted].astype(np.float64))
            found, lines = fit_rules(calibrated, y[others], *rules)
        before = evaluation.uncalibrated
        after: Any = before if name == "uncalibrated" else evaluation.calibrated.get(name)
        if after is None:  # not a column of the report
            with original_row_numbers(rows):
                after = _scores(cross_fit(make_calibrator(name), z, y[rows], rng=SEED), y[rows])
    except RowError as error:
        raise UserError(f"{source.place(error.row)} {error.reason}") from None
    except ValueError as error:
        raise UserError(f"{source.source}: {error}") from None
    shown = ("log_loss", "brier_score", "calibration_error", "accuracy")
    details = {
        "method": name,
        "selected_by": "log_loss" if method is Method.auto else "user",
        "rows": evaluation.rows,
        "cross_fitted": {score: after[score] for score in shown},
        "uncalibrated": {score: before[score] for score in shown},
    }
    given = analysis.probabilities, source.one_score
    saved = SavedCalibrator(path, calibrator, source.names, *given, details, found)
    return saved, lines


def _scores(z: Any, y: Any) -> dict[str, float]:
    """The scores that the file of a calibrator holds."""
    from logitlab import accuracy, brier_score, calibration_error, cross_entropy

    return {
        "log_loss": float(cross_entropy(z, y)),
        "brier_score": brier_score(z, y),
        "calibration_error": calibration_error(z, y),
        "accuracy": accuracy(z, y),
    }


def _summary(details: dict[str, Any]) -> str:
    before, after = details["uncalibrated"], details["cross_fitted"]
    return (
        f"Method: {details['method']}. Log-loss {before['log_loss']:.4f} before, "
        f"{after['log_loss']:.4f} after calibration (cross-fitted); ECE "
        f"{before['calibration_error']:.4f} before, {after['calibration_error']:.4f} after."
    )
