"""The command line."""

import json
import secrets
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from logitlab._app.check import check
from logitlab._app.io.outputs import (
    catch_print_errors,
    catch_write_errors,
    check_file,
    check_folder,
    exit_on_user_error,
    progress,
)
from logitlab._app.io.source import TABLES, Logits, UserError, parse_file_spec, pluralize
from logitlab._rows import Integers

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

        with exit_on_user_error(), catch_print_errors():
            typer.echo(version("logitlab"))
        raise typer.Exit


@app.callback()
def _main(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The softmax layer of a model: everything between logits and a decision."""


_Labels = Annotated[
    str | None,
    typer.Option(
        metavar="FILE[:NAME]",
        help="The true class of each row, as a number from 0 or as a name.",
        show_default=False,
    ),
]
_Probabilities = Annotated[
    bool, typer.Option("--probabilities", help="LOGITS holds probabilities.")
]


@app.command()
def report(
    logits: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LOGITS]...",
            help="FILE or FILE:NAME, rows by classes: .npy, .npz, .csv, .parquet or .safetensors. "
            "Several are models on the same --labels, side by side. "
            "Without any: handwritten digits that come with the library.",
            show_default=False,
        ),
    ] = None,
    labels: _Labels = None,
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:NAME]",
            help="Of a language model: the token that came at each row. Gives its log-probability "
            "(tokens.csv) and the perplexity of the text.",
            show_default=False,
        ),
    ] = None,
    probabilities: _Probabilities = False,
    out: Annotated[
        Path, typer.Option("-o", metavar="DIR", help="Where report.html and report.json go.")
    ] = Path("logitlab-report"),
    json_only: Annotated[
        bool, typer.Option("--json", help="Print report.json instead of a table.")
    ] = False,
) -> None:
    """How sharp, right and honest a classifier's probabilities are: a page to hand on."""
    from rich.console import Console

    from logitlab._app.report import compare
    from logitlab._app.report import page as page
    from logitlab._app.report.analysis import analyse
    from logitlab._app.report.json import as_json

    console = Console(soft_wrap=False)
    with exit_on_user_error():
        specs = [spec for spec in (*(logits or ()), labels, targets) if spec]
        check_folder(out, page.FILES, [parse_file_spec(spec)[0] for spec in specs])
        found, shared = [], None
        given = _read(logits or [], labels, targets, probabilities)
        with progress(shown=sys.stderr.isatty()) as track:
            if len(given) > 1:
                sources = [source for source, _, _ in given]
                shared = compare.shared_rows(sources, probabilities, track)
            for source, y, tokens in given:
                found.append(
                    analyse(
                        source,
                        y,
                        targets=tokens,
                        probabilities=probabilities,
                        shared=shared,
                        track=track,
                    )
                )
        with catch_write_errors(out):
            if len(found) > 1:
                models = compare.compare(found)
                compare.write(models, out)
            else:
                page.write(found[0], out)
        with catch_print_errors():
            if json_only:
                shown = compare.to_json(models) if len(found) > 1 else as_json(found[0])
                typer.echo(json.dumps(shown, indent=2))
                return
            if len(found) > 1:
                compare.print_summary(models, console)
            else:
                page.print_summary(found[0], console)
            written = f"{out / 'report.html'} and {out / 'report.json'}"
            console.print(f"Written: {written}", soft_wrap=True)


def _read(
    logits: list[str], labels: str | None, targets: str | None, probabilities: bool
) -> list[tuple[Logits, Integers | None, Integers | None]]:
    """What to analyse, checked before anything long begins: logits, labels, targets."""
    from logitlab._app.io.arrays import open_logits, read_labels
    from logitlab._app.io.example import digits

    if not logits:
        if labels is not None or targets is not None or probabilities:
            raise UserError("--labels, --targets and --probabilities need LOGITS")
        source, truth = digits()
        return [(source, truth, None)]
    if labels is not None and targets is not None:
        raise UserError("--labels and --targets: give one of them")
    if len(logits) > 1 and labels is None:
        raise UserError("several LOGITS are compared on labels: give --labels")
    sources = [open_logits(spec, labels or targets) for spec in logits]
    for other in sources[1:]:
        if other.shape[:-1] != sources[0].shape[:-1]:
            raise UserError(
                f"{other.source}: has rows {other.shape[:-1]}, {sources[0].source} has "
                f"{sources[0].shape[:-1]}; models are compared on the same rows"
            )
    return [
        (
            source,
            None if labels is None else read_labels(labels, source),
            None if targets is None else read_labels(targets, source),
        )
        for source in sources
    ]


@app.command()
def fit(
    table: Annotated[
        Path,
        typer.Argument(help=".csv, .parquet, or a folder of .parquet files.", show_default=False),
    ],
    target: Annotated[
        str, typer.Option(metavar="COLUMN", help="The class of each row.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("-o", metavar="DIR", help="Where the model and its report go.")
    ] = Path("logitlab-fit"),
    C: Annotated[
        float,
        typer.Option("-C", help="Inverse strength of the penalty; inf gives standard errors."),
    ] = 1.0,
    held_out: Annotated[
        float, typer.Option(metavar="SHARE", help="Of the rows, to judge the model on.")
    ] = 0.2,
    impute: Annotated[
        bool,
        typer.Option("--impute", help="Fill gaps: the median of numbers, the commonest text."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print report.json instead of a table.")
    ] = False,
) -> None:
    """Softmax regression on the columns of a table: a calibrated model, and its report.

    Numbers are taken as they are, text becomes one column for each distinct value. Written are
    model.safetensors, coefficients.csv, report.html and report.json.
    """
    from rich.console import Console

    from logitlab._app.fit.features import files_of
    from logitlab._app.fit.model import FILE
    from logitlab._app.fit.train import as_csv, learn
    from logitlab._app.report import page as page
    from logitlab._app.report.analysis import analyse
    from logitlab._app.report.json import as_json as to_json

    with exit_on_user_error():
        check_folder(out, (FILE, "coefficients.csv", *page.FILES), files_of(table))
        shown = sys.stderr.isatty()
        learned = learn(table, target, C=C, impute=impute, share=held_out, verbose=shown)
        with progress(shown=shown) as track:
            found = analyse(learned.held_out, learned.truth, track=track)
        temperature = found.evaluation.temperature if found.evaluation else None
        model = replace(learned.model, temperature=temperature or 1.0)
        coefficients = as_csv(learned.coefficients).encode()
        with catch_write_errors(out):
            page.write(found, out, {FILE: model.as_bytes(), "coefficients.csv": coefficients})
        with catch_print_errors():
            for line in learned.story:
                typer.echo(line, err=as_json)
            if as_json:
                typer.echo(json.dumps(to_json(found), indent=2))
                return
            console = Console(soft_wrap=False)
            page.print_summary(found, console)
            names = (FILE, "coefficients.csv", "report.html")
            written = ", ".join(str(out / name) for name in names)
            console.print(f"Written: {written} and {out / 'report.json'}", soft_wrap=True)


@app.command()
def predict(
    model: Annotated[
        Path,
        typer.Argument(help="model.safetensors, or the folder of it.", show_default=False),
    ],
    table: Annotated[
        Path,
        typer.Argument(
            help=".csv, .parquet, or a folder of .parquet files: the columns of the fit, in any "
            "order.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", metavar="FILE", help="Where they go: .csv or .parquet.")
    ] = Path("predictions.csv"),
) -> None:
    """The likeliest class of each row, and the calibrated probability of every class."""
    from logitlab._app.fit.features import encode, files_of, read_table
    from logitlab._app.fit.model import file_of, load, write_predictions

    with exit_on_user_error():
        check_file(out, [file_of(model), *files_of(table)], TABLES)
        fitted = load(model)
        x, remarks = encode(read_table(table), fitted.columns, table)
        for remark in remarks:
            typer.echo(f"logitlab: {remark}", err=True)
        write_predictions(out, fitted.classes, fitted.probabilities(x))
        with catch_print_errors():
            typer.echo(f"Written: {out}, {pluralize(x.shape[0], 'row')}")


@app.command()
def explore(
    logits: Annotated[
        str | None,
        typer.Argument(
            metavar="[LOGITS]",
            help="FILE or FILE:NAME, rows by classes: .npy, .npz, .csv, .parquet or .safetensors. "
            "The page offers named examples too.",
            show_default=False,
        ),
    ] = None,
    labels: _Labels = None,
    probabilities: _Probabilities = False,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page, or print its address.")
    ] = True,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where to listen; 0 is any free port.")
    ] = 0,
) -> None:
    """A page with sliders: see what softmax does to your own logits. Ctrl-C ends it."""
    from logitlab._app.explore.datasets import Library, from_file
    from logitlab._app.explore.server import serve

    with exit_on_user_error():
        if logits is None and (labels is not None or probabilities):
            raise UserError("--labels and --probabilities need LOGITS")
        rows = None if logits is None else from_file(logits, labels, probabilities)
        serve(Library(rows), port, browser)


@app.command("sample")
def draw(
    logits: Annotated[
        str,
        typer.Argument(
            help="FILE or FILE:NAME, rows by classes: .npy, .npz, .csv, .parquet or .safetensors.",
            show_default=False,
        ),
    ],
    n: Annotated[int, typer.Option("-n", help="Draws from each row.")] = 1,
    temperature: Annotated[float, typer.Option(help="T; 0 takes the largest logit.")] = 1.0,
    top_k: Annotated[
        int | None, typer.Option(help="Keep the K largest logits.", show_default=False)
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Keep the fewest classes whose mass is at least P.", show_default=False),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            help="Keep classes at least so many times as probable as the first.",
            show_default=False,
        ),
    ] = None,
    order: Annotated[
        str, typer.Option(help="Of temperature and truncation: transformers, vllm or llama.cpp.")
    ] = "transformers",
    without_replacement: Annotated[
        bool, typer.Option("--without-replacement", help="No class twice in a row.")
    ] = False,
    log_prob: Annotated[
        bool, typer.Option("--log-prob", help="Log-probabilities too, as drawn from.")
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(help="The same seed, the same draws; without it, others each time."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            metavar="FILE",
            help="Where they go: .csv or .parquet. Without it: standard output, as CSV.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object for each row instead of CSV.")
    ] = False,
) -> None:
    """Classes drawn from the softmax of every row."""
    from logitlab._app import sample
    from logitlab._app.io.arrays import open_logits

    with exit_on_user_error():
        if out is not None and as_json:
            raise UserError("--json prints to standard output; it does not go with -o")
        if out is not None:
            check_file(out, [parse_file_spec(logits)[0]], TABLES)
        parts = sample.tables(
            open_logits(logits),
            log_prob=log_prob,
            n=n,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            order=order,
            replacement=not without_replacement,
            rng=secrets.randbits(64) if seed is None else seed,
        )
        with catch_print_errors():
            if as_json:
                sample.print_json(parts)
            elif out is None:
                sample.print_csv(parts)
            else:
                count = sample.write(parts, out)
                typer.echo(f"Written: {out} ({pluralize(count, 'draw')})")


app.command()(check)
