"""`logitlab fit` and `logitlab predict`: softmax regression on the columns of a table."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from logitlab._app.io.outputs import (
    can_show_progress,
    catch_print_errors,
    catch_write_errors,
    check_file,
    check_folder,
    make_console,
    print_line,
    progress,
)
from logitlab._app.io.source import TABLES, UserError, pluralize
from logitlab._app.options import TABLE_FORMATS, NoProgress, Overwrite, Quiet

Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter",
        metavar="CHAR",
        help="Delimiter of the fields of a .csv file, or tab; detected by default.",
        show_default=False,
    ),
]


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
        Path,
        typer.Option("-o", metavar="FOLDER", help="Output folder of the model and its report."),
    ] = Path("logitlab-fit"),
    overwrite: Overwrite = False,
    C: Annotated[
        float,
        typer.Option(
            "-C",
            metavar="X",
            help="Inverse regularization strength; inf: no penalty, with standard errors.",
        ),
    ] = 1.0,
    held_out: Annotated[
        float,
        typer.Option(
            metavar="P",
            help="Held-out fraction of the rows, for calibration and evaluation.",
        ),
    ] = 0.2,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Do not use this column; may be repeated."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Use this column even if it looks like an identifier or is constant; may be "
            "repeated.",
        ),
    ] = None,
    delimiter: Delimiter = None,
    decimal: Annotated[
        str | None,
        typer.Option(
            metavar="CHAR",
            help="Decimal mark of numbers in text: . or ,; detected by default.",
            show_default=False,
        ),
    ] = None,
    thousands: Annotated[
        str | None,
        typer.Option(
            metavar="CHAR",
            help="Mark between groups of three digits; detected by default.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print report.json instead of a table.")
    ] = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Fit and calibrate a softmax regression on a table.

    Prints first how each column is used. Numbers, also those written as 23,456, are features; ISO
    dates become days, month and weekday; yes and no become 1 and 0; other text becomes a feature
    per level (one-hot), rare levels one together. Identifiers and constants are dropped. Missing
    numbers become the median, missing text a level. Writes model.safetensors, columns.csv,
    coefficients.csv, report.html and report.json.
    """
    from logitlab._app.fit.plan import columns_csv, print_plan
    from logitlab._app.fit.reading import table_files
    from logitlab._app.fit.sections import fit_sections
    from logitlab._app.fit.train import train
    from logitlab._app.report import page
    from logitlab._app.report.analysis import analyse
    from logitlab._app.report.json import as_json as to_json
    from logitlab.regression.threads import single_blas_thread
    from logitlab.tables.model import TableModel
    from logitlab.tables.saved import FILE

    names = (FILE, "columns.csv", "coefficients.csv")
    check_folder(out, (*names, *page.FILES), table_files(table), overwrite=overwrite)
    has_progress = can_show_progress(no_progress, quiet)
    plan_console = make_console(err=as_json, quiet=quiet)
    model = TableModel(
        C=C,
        drop=drop or (),
        keep=keep or (),
        decimal=decimal,
        thousands=thousands,
        verbose=has_progress,
    )
    with single_blas_thread():
        result = train(
            table,
            model,
            target,
            held_out_fraction=held_out,
            delimiter=delimiter,
            show_plan=lambda lines, rows: print_plan(lines, rows, plan_console),
        )
        with progress(shown=has_progress) as track:
            analysis = analyse(
                result.held_out,
                result.held_out_labels,
                label_warnings=tuple(result.warnings()),
                separate_labels=False,
                track=track,
            )
    analysis = replace(analysis, notes=[*analysis.notes, *result.notes()])
    temperature = analysis.evaluation.temperature if analysis.evaluation else None
    model.temperature_ = temperature or 1.0
    report = to_json(analysis) | {"fit": result.as_json()}
    report_json = json.dumps(report, indent=2)
    with catch_write_errors(out):
        page.write(
            analysis,
            out,
            {
                FILE: model._to_bytes(),
                "columns.csv": columns_csv(result.plan).encode(),
                "coefficients.csv": result.coefficients.as_csv().encode(),
                "report.json": f"{report_json}\n".encode(),
            },
            fit_sections(result),
        )
    with catch_print_errors():
        for message in () if quiet else result.messages:
            print_line(message, err=as_json)
        if as_json:
            typer.echo(report_json)
        if as_json or quiet:
            return
        page.print_summary(analysis, make_console(), result.other_scores())
        for warning in result.warnings():
            print_line(f"Warning: {warning}")
        written = ", ".join(str(out / name) for name in (*names, "report.html"))
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
    overwrite: Overwrite = False,
    delimiter: Delimiter = None,
    quiet: Quiet = False,
) -> None:
    """Predict the class and the calibrated probabilities of each row."""
    from logitlab._app.fit.predictions import write_predictions
    from logitlab._app.fit.reading import read_table, table_files
    from logitlab._app.saved import catch_saved_errors, saved_file
    from logitlab.tables.model import TableModel
    from logitlab.tables.saved import FILE, load_model

    check_file(out, [model, *table_files(table)], TABLES, overwrite=overwrite)
    file = saved_file(model, FILE, "MODEL", "logitlab fit")
    with catch_saved_errors(file):
        fitted = load_model(file)
    if not isinstance(fitted, TableModel):
        raise UserError(
            f"{file}: must be a model of logitlab fit, got a {type(fitted).__name__}, which "
            "predicts for arrays; read it with logitlab.load_model"
        )
    data = read_table(table, delimiter)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            p = fitted.predict_proba(data)
        except ValueError as error:
            raise UserError(f"{table}: {error}") from None
    for warning in caught:
        print_line(f"logitlab: {warning.message}", err=True)
    write_predictions(out, fitted.classes_.tolist(), p)
    if quiet:
        return
    with catch_print_errors():
        print_line(f"Written: {out} ({pluralize(len(p), 'row')})")
