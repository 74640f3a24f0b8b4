"""`logitlab calibrate`: fits, selects and saves a calibrator, and writes the report."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from logitlab._app.io.outputs import (
    catch_print_errors,
    catch_write_errors,
    check_folder,
    exit_on_user_error,
    make_console,
    print_line,
    progress,
)
from logitlab._app.io.source import UserError, parse_file_spec
from logitlab._app.options import FORMATS, Labels, Probabilities


class Method(StrEnum):
    """The calibrators; `auto` selects one."""

    auto = "auto"
    temperature = "temperature"
    vector = "vector"
    matrix = "matrix"
    isotonic = "isotonic"


def calibrate(
    logits: Annotated[str, typer.Argument(metavar="LOGITS", help=FORMATS, show_default=False)],
    labels: Labels = None,
    method: Annotated[
        Method,
        typer.Option(
            "--method",
            help="auto: the simplest of uncalibrated, temperature, vector and matrix whose "
            "cross-fitted log-loss is within one standard error of the best. isotonic: isotonic "
            "regression of the probability of the predicted class.",
        ),
    ] = Method.auto,
    probabilities: Probabilities = False,
    out: Annotated[Path, typer.Option("-o", metavar="DIR", help="Output folder.")] = Path(
        "logitlab-calibrator"
    ),
    json_only: Annotated[
        bool, typer.Option("--json", help="Print a JSON object instead of a table.")
    ] = False,
) -> None:
    """Fit a calibrator to labelled logits, save it for `logitlab apply`, and report on it."""
    from logitlab._app.io.arrays import open_logits, read_labels
    from logitlab._app.report import page
    from logitlab._app.report.analysis import analyse
    from logitlab._app.saved import FILE
    from logitlab.regression.threads import single_blas_thread

    with exit_on_user_error():
        if labels is None:
            raise UserError("a calibrator is fitted to the true classes; give --labels")
        files = (*page.FILES, FILE)
        check_folder(out, files, [parse_file_spec(spec)[0] for spec in (logits, labels)])
        source = open_logits(logits, labels)
        y = read_labels(labels, source)
        with single_blas_thread(), progress(shown=sys.stderr.isatty()) as track:
            analysis = analyse(source, y, probabilities=probabilities, track=track)
            saved = _fit(analysis, y, method, out / FILE, track)
        with catch_write_errors(out):
            page.write(analysis, out, {FILE: saved.as_bytes()})
        with catch_print_errors():
            if json_only:
                print(json.dumps({**saved.details, "file": str(saved.path)}, indent=2))
                return
            page.print_summary(analysis, make_console())
            print_line(_summary(saved.details))
            print_line(f"Written: {saved.path} and {out / 'report.html'}")


def _fit(analysis: Any, y: Any, method: Method, path: Path, track: Any) -> Any:
    """The calibrator of the method, fitted on all rows (of temperature scaling), or on a sample."""
    from logitlab._app.report.analysis import fit_rows
    from logitlab._app.report.evaluation import SEED
    from logitlab._app.saved import SavedCalibrator
    from logitlab.calibration import (
        IsotonicCalibration,
        MatrixScaling,
        TemperatureScaling,
        VectorScaling,
        cross_fit,
    )
    from logitlab.calibration.base import RowError, original_row_numbers

    evaluation, source = analysis.evaluation, analysis.source
    name = evaluation.selected if method is Method.auto else str(method)
    if name in evaluation.failures:
        raise UserError(f"{source.source}: --method {name}: {evaluation.failures[name]}")
    if name in ("uncalibrated", "temperature"):
        calibrator: Any = TemperatureScaling()
        t = 1.0 if name == "uncalibrated" else evaluation.temperature
        calibrator._set_saved({"temperature_": np.array(t)}, source.classes)
    else:
        rows, z = fit_rows(source, analysis.probabilities, track)
        calibrator = {
            "vector": VectorScaling,
            "matrix": MatrixScaling,
            "isotonic": IsotonicCalibration,
        }[name]()
        if len(rows) < 2:
            raise UserError(f"{source.source}: --method {name} must have at least 2 rows, got 1")
        try:
            with original_row_numbers(rows):
                calibrator.fit(z, y[rows])
        except RowError as error:
            raise UserError(f"{source.source}: row {error.row} {error.reason}") from None
    before = evaluation.uncalibrated
    if name == "uncalibrated":
        after = before
    elif name == "isotonic":  # not a column of the report
        after = _scores(cross_fit(calibrator, z, y[rows], rng=SEED), y[rows])
    else:
        after = evaluation.calibrated[name]
    shown = ("log_loss", "brier_score", "calibration_error", "accuracy")
    details = {
        "method": name,
        "selected_by": "log_loss" if method is Method.auto else "user",
        "rows": evaluation.rows,
        "cross_fitted": {score: after[score] for score in shown},
        "uncalibrated": {score: before[score] for score in shown},
    }
    return SavedCalibrator(path, calibrator, source.names, analysis.probabilities, details)


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
