"""`logitlab sample`: samples from the rows of a file, computed and written block by block."""

import json
import math
import secrets
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from logitlab import _checks, sampling
from logitlab._app.io.outputs import (
    catch_print_errors,
    check_file,
    csv_text,
    print_line,
)
from logitlab._app.io.source import (
    TABLES,
    Logits,
    UserError,
    memory_bytes,
    parse_file_spec,
    pluralize,
    printable,
)
from logitlab._app.io.write_tables import is_csv, print_csv, write_file
from logitlab._app.options import FORMATS, Overwrite, Quiet
from logitlab._rows import blocks

if TYPE_CHECKING:
    import pyarrow as pa

_SAMPLE_BYTES = 64  # of memory, for the columns of a sample
_OPTION_NAMES = {"n": "-n", "temperature": "--temperature"} | {
    name: f"--{name.replace('_', '-')}" for name in sampling.SETTINGS
}


def sample(
    logits: Annotated[str, typer.Argument(metavar="LOGITS", help=FORMATS, show_default=False)],
    n: Annotated[int, typer.Option("-n", metavar="N", help="Samples per row.")] = 1,
    temperature: Annotated[
        float, typer.Option(metavar="X", help="Softmax temperature; 0 selects the largest logit.")
    ] = 1.0,
    top_k: Annotated[
        int | None,
        typer.Option(metavar="N", help="Keep the N largest logits.", show_default=False),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Keep the smallest set of classes whose probabilities sum to at least P.",
            show_default=False,
        ),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Keep classes with at least P times the largest probability.",
            show_default=False,
        ),
    ] = None,
    typical_p: Annotated[
        float,
        typer.Option(
            metavar="P",
            help="Keep the classes closest to the entropy, of total probability at least P.",
            show_default=False,
        ),
    ] = 1.0,
    epsilon: Annotated[
        float,
        typer.Option(
            metavar="P",
            help="Keep classes of probability at least P.",
            show_default=False,
        ),
    ] = 0.0,
    eta: Annotated[
        float,
        typer.Option(
            metavar="P",
            help="Keep classes of probability at least min(P, sqrt(P) exp(-entropy)).",
            show_default=False,
        ),
    ] = 0.0,
    top_n_sigma: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Keep logits at most X standard deviations below the largest.",
            show_default=False,
        ),
    ] = math.inf,
    top_a: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Keep classes with at least X times the largest probability squared.",
            show_default=False,
        ),
    ] = 0.0,
    xtc_probability: Annotated[
        float,
        typer.Option(
            metavar="P",
            help="Probability of removing the most probable classes (XTC).",
            show_default=False,
        ),
    ] = 0.0,
    xtc_threshold: Annotated[
        float,
        typer.Option(
            metavar="P",
            help="Least probability of the classes that XTC removes, all but the last.",
            show_default=False,
        ),
    ] = 0.1,
    dynatemp_range: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Temperature from that of --temperature minus X to plus X, by the entropy.",
            show_default=False,
        ),
    ] = 0.0,
    dynatemp_exponent: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Exponent of the entropy for --dynatemp-range.",
            show_default=False,
        ),
    ] = 1.0,
    order: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Order of the stages: transformers, vllm, llama.cpp or sglang.",
            autocompletion=lambda: list(sampling.ORDERS),
        ),
    ] = "transformers",
    without_replacement: Annotated[
        bool,
        typer.Option("--without-replacement", help="Sample each class at most once per row."),
    ] = False,
    log_prob: Annotated[
        bool,
        typer.Option(
            "--log-prob",
            help="Add the log-probability of each sample, after temperature and truncation.",
        ),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Seed of the random numbers; without it, samples differ every time."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            metavar="FILE",
            help="Output file: .csv or .parquet. Without it: CSV on standard output.",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object per row instead of CSV.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Sample classes from the softmax of each row."""
    from logitlab._app.io.arrays import open_logits

    if out is not None and as_json:
        raise UserError("give one of -o and --json: --json prints to standard output")
    if out is not None:
        check_file(out, [parse_file_spec(logits)[0]], TABLES, overwrite=overwrite)
    source = open_logits(logits)
    if source.names is not None and not as_json and (out is None or is_csv(out)):
        source = replace(source, names=tuple(map(csv_text, source.names)))
    if source.names is not None and out is None and sys.stdout.isatty():
        source = replace(source, names=tuple(map(printable, source.names)))
    tables = sample_tables(
        source,
        log_prob=log_prob,
        n=n,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        typical_p=typical_p,
        epsilon=epsilon,
        eta=eta,
        top_n_sigma=top_n_sigma,
        top_a=top_a,
        xtc_probability=xtc_probability,
        xtc_threshold=xtc_threshold,
        dynatemp_range=dynatemp_range,
        dynatemp_exponent=dynatemp_exponent,
        order=order,
        replacement=not without_replacement,
        rng=secrets.randbits(64) if seed is None else seed,
    )
    with catch_print_errors():
        if as_json:
            _print_json(tables)
        elif out is None:
            print_csv(tables)
        else:
            count = write_file(tables, out)
            if not quiet:
                print_line(f"Written: {out} ({pluralize(count, 'sample')})")


def sample_tables(logits: Logits, *, log_prob: bool, **options: Any) -> Iterator["pa.Table"]:
    """Arrow tables of samples with the columns row, draw, index, name and log_prob.

    `name` is there if the classes have names, `log_prob` if it is asked for. The key of a row is
    its number in the file, so samples do not depend on how rows are divided into blocks.
    """
    import pyarrow as pa

    n, first = options["n"], 0
    if options["top_k"] is not None:
        options["top_k"] = min(options["top_k"], logits.classes)
    _check_options(options)
    names = None if logits.names is None else pa.array(logits.names)
    for block in logits.read():
        for part in blocks(len(block), n):
            try:
                yield _sample_table(block[part], first + part.start, names, log_prob, options)
            except MemoryError:
                raise UserError(
                    f"-n {n}: not enough memory for the samples of one row; reduce -n"
                ) from None
        first += len(block)


def _check_options(options: dict[str, Any]) -> None:
    """Check the options before the file is read, on a row of one class."""
    n = options["n"]
    if n > (limit := memory_bytes() // _SAMPLE_BYTES):
        raise UserError(f"-n must be <= {limit} in the memory of this machine, got {n}")
    try:
        _checks.choice(options["order"], "--order", tuple(sampling.ORDERS))
        _checks.integer(options["rng"], "--seed", 0)
        sampling.sample([0.0], **{**options, "n": min(n, 1)})
    except (TypeError, ValueError) as error:
        raise UserError(_with_option_name(error)) from None


def _with_option_name(error: Exception) -> str:
    """The message, with the name of the option in place of that of the argument."""
    name, _, rest = str(error).partition(" ")
    return f"{_OPTION_NAMES.get(name, name)} {rest}"


def _sample_table(
    z: NDArray[Any], first: int, names: Any, log_prob: bool, options: dict[str, Any]
) -> "pa.Table":
    """The samples of the rows z; `first` is the number of the first one in the file."""
    import pyarrow as pa

    n, keys = options["n"], np.arange(first, first + len(z))
    log_p = None
    try:
        if log_prob:
            index, log_p = sampling.sample_with_log_prob(z, **{**options, "row_keys": keys})
        else:
            index = sampling.sample(z, **{**options, "row_keys": keys})
    except ValueError as error:
        raise _locate_bad_row(error, z, first, options) from None
    columns = {
        "row": np.repeat(keys, n),
        "draw": np.tile(np.arange(n), len(z)),
        "index": index.ravel(),
    }
    if names is not None:
        columns["name"] = names.take(pa.array(columns["index"]))
    if log_p is not None:
        columns["log_prob"] = log_p.astype(np.float64).ravel()
    return pa.table(columns)


def _locate_bad_row(
    error: ValueError, z: NDArray[Any], first: int, options: dict[str, Any]
) -> UserError:
    """The error of the first row that raises one, with its number in the file."""
    for i, row in enumerate(z):
        try:
            sampling.sample(row, **options)
        except ValueError as row_error:
            message = _with_option_name(row_error)
            return UserError(message.replace("z has", f"row {first + i} has"))
    return UserError(str(error))


def _print_json(tables: Iterator["pa.Table"]) -> None:
    """Print a JSON object per row: its number, and a list per column."""
    for table in tables:
        lists = {name: table.column(name).to_pylist() for name in table.column_names}
        starts = [i for i, draw in enumerate(lists["draw"]) if draw == 0]
        for start, end in zip(starts, [*starts[1:], len(lists["row"])], strict=True):
            samples = {name: lists[name][start:end] for name in table.column_names[2:]}
            print(json.dumps({"row": lists["row"][start], **samples}))
