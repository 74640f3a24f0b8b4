"""`logitlab explore`: a local web page about the softmax of logits."""

from pathlib import Path
from typing import Annotated

import typer

from logitlab._app.io.outputs import catch_print_errors, print_line
from logitlab._app.io.source import UserError
from logitlab._app.options import FORMATS, Labels, Overwrite, Probabilities, Quiet


def explore(
    logits: Annotated[
        str | None,
        typer.Argument(
            metavar="LOGITS",
            help=f"{FORMATS} The page offers examples too.",
            show_default=False,
        ),
    ] = None,
    labels: Labels = None,
    probabilities: Probabilities = False,
    browser: Annotated[
        bool,
        typer.Option(
            "--browser/--no-browser",
            help="Open the page in the browser, or only print its address.",
        ),
    ] = True,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, metavar="N", help="Port of the local server; 0 selects a free one."
        ),
    ] = 0,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write the page with its examples to this folder, for any web server, and exit.",
            show_default=False,
        ),
    ] = None,
    pyodide: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Pyodide with its NumPy wheel, which --export copies: Python in the browser.",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Explore the softmax of your logits on a local web page.

    Sliders set temperature, shift, scale and truncation. Only this machine can open the page.
    Ctrl-C stops the server. With --export the page is a folder that needs no server of logitlab.
    """
    from logitlab._app.explore.datasets import Datasets, read_dataset

    if pyodide is not None and export is None:
        raise UserError("--pyodide needs --export")
    if export is not None:
        from logitlab._app.explore.export import export_page

        if logits is not None:
            raise UserError("--export writes the examples only; omit LOGITS")
        export_page(export, pyodide, overwrite=overwrite)
        if not quiet:
            with catch_print_errors():
                print_line(f"Written: {export / 'index.html'} and the files that it loads")
                print_line(f"To open it: python -m http.server -d {export}")
        return
    from logitlab._app.explore.server import serve

    if logits is None and (labels is not None or probabilities):
        raise UserError("--labels and --probabilities need LOGITS")
    dataset = None if logits is None else read_dataset(logits, labels, probabilities)
    serve(Datasets(dataset), port, browser)
