"""`logitlab fit` and `logitlab predict`: softmax regression on the columns of a table."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from logitlab._app.io.outputs import (
    catch_print_errors,
    catch_write_errors,
    check_file,
    check_folder,
    exit_on_user_error,
    make_console,
    print_line,
    progress,
)
from logitlab._app.io.source import TABLES, pluralize
from logitlab._app.options import TABLE_FORMATS


def fit(
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help=f"{TABLE_FORMATS}.", show_default=False)
    ],
    target: Annotated[
        str,
        typer.Option(
            metavar="COLUMN", help="Column with the class of each row.", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", metavar="DIR", help="Output folder of the model and its report.")
    ] = Path("logitlab-fit"),
    C: Annotated[
        float,
        typer.Option(
            "-C",
            metavar="C",
            help="Inverse regularization strength; inf: no penalty, with standard errors.",
        ),
    ] = 1.0,
    held_out: Annotated[
        float,
        typer.Option(
            metavar="FRACTION",
            help="Held-out fraction of the rows, for calibration and evaluation.",
        ),
    ] = 0.2,
    impute: Annotated[
        bool,
        typer.Option(
            "--impute",
            help="Replace missing values: numbers by the median, text by the most frequent value.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print report.json instead of a table.")
    ] = False,
) -> None:
    """Fit and calibrate a softmax regression on a table.

    Numeric columns are features as they are; a text column becomes one feature per distinct
    value (one-hot). Writes model.safetensors, coefficients.csv, report.html and report.json.
    """
    from logitlab._app.fit.features import table_files
    from logitlab._app.fit.model import FILE
    from logitlab._app.fit.train import coefficients_csv, train
    from logitlab._app.report import page
    from logitlab._app.report.analysis import analyse
    from logitlab._app.report.json import as_json as to_json
    from logitlab.regression.threads import single_blas_thread

    with exit_on_user_error():
        check_folder(out, (FILE, "coefficients.csv", *page.FILES), table_files(table))
        on_terminal = sys.stderr.isatty()
        with single_blas_thread():
            result = train(
                table, target, C=C, impute=impute, held_out_fraction=held_out, verbose=on_terminal
            )
            with progress(shown=on_terminal) as track:
                analysis = analyse(result.held_out, result.held_out_labels, track=track)
        temperature = analysis.evaluation.temperature if analysis.evaluation else None
        model = replace(result.model, temperature=temperature or 1.0)
        coefficients = coefficients_csv(result.coefficients).encode()
        with catch_write_errors(out):
            page.write(analysis, out, {FILE: model.as_bytes(), "coefficients.csv": coefficients})
        with catch_print_errors():
            for message in result.messages:
                print_line(message, err=as_json)
            if as_json:
                typer.echo(json.dumps(to_json(analysis), indent=2))
                return
            page.print_summary(analysis, make_console())
            names = (FILE, "coefficients.csv", "report.html")
            written = ", ".join(str(out / name) for name in names)
            print_line(f"Written: {written} and {out / 'report.json'}")


def predict(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="model.safetensors, or the folder that contains it.",
            show_default=False,
        ),
    ],
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE",
            help=f"{TABLE_FORMATS}, with the columns of the fit in any order.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", metavar="FILE", help="Output file: .csv or .parquet.")
    ] = Path("predictions.csv"),
) -> None:
    """Predict the class and the calibrated probabilities of each row."""
    from logitlab._app.fit.features import encode, read_table, table_files
    from logitlab._app.fit.model import load, model_file, write_predictions

    with exit_on_user_error():
        check_file(out, [model_file(model), *table_files(table)], TABLES)
        fitted = load(model)
        x, messages = encode(read_table(table), fitted.columns, table)
        for message in messages:
            print_line(f"logitlab: {message}", err=True)
        write_predictions(out, fitted.classes, fitted.probabilities(x))
        with catch_print_errors():
            print_line(f"Written: {out} ({pluralize(x.shape[0], 'row')})")
