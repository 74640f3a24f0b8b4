"""The command line."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from logitlab.app.source import UserError
from logitlab.scores import Integers

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("logitlab"))
        raise typer.Exit


@app.callback()
def _main(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The softmax layer of a model: everything between logits and a decision."""


@app.command()
def report(
    logits: Annotated[
        str | None,
        typer.Argument(
            metavar="[LOGITS]",
            help="FILE or FILE:NAME, rows by classes: .npy, .npz, .csv, .parquet or .safetensors. "
            "Without it: handwritten digits that come with the library.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:NAME]",
            help="The true class of each row, as a number from 0 or as a name.",
            show_default=False,
        ),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="LOGITS holds probabilities.")
    ] = False,
    out: Annotated[
        Path, typer.Option("-o", metavar="DIR", help="Where report.html and report.json go.")
    ] = Path("logitlab-report"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print report.json instead of a table.")
    ] = False,
) -> None:
    """How sharp, right and honest a classifier's probabilities are: a page to hand on."""
    from rich.console import Console

    from logitlab.app import report as page
    from logitlab.app.analysis import analyse
    from logitlab.app.example import digits
    from logitlab.app.files import open_logits, read_labels

    try:
        if logits is None:
            if labels is not None or probabilities:
                raise UserError("--labels and --probabilities need LOGITS")
            source, truth = digits()
            y: Integers | None = truth
        else:
            source = open_logits(logits, labels)
            y = None if labels is None else read_labels(labels, source)
        if out.exists() and not out.is_dir():
            raise UserError(f"{out}: is not a folder")
        with page.progress(shown=sys.stderr.isatty()) as track:
            found = analyse(source, y, probabilities=probabilities, track=track)
        try:
            page.write(found, out)
        except OSError as error:
            raise UserError(f"{out}: {error.strerror or error}") from error
    except UserError as error:
        typer.echo(f"logitlab: {error}", err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps(page.as_json(found), indent=2))
    else:
        console = Console(soft_wrap=False)
        page.print_summary(found, console)
        console.print(f"Written: {out / 'report.html'} and {out / 'report.json'}", soft_wrap=True)
