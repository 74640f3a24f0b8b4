"""`logitlab check`: the laws on a function that a person names."""

import importlib
import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from logitlab._app.io.outputs import (
    atomic_write,
    catch_print_errors,
    check_file,
    exit_on_user_error,
)
from logitlab._app.io.source import UserError
from logitlab.laws import LawReport
from logitlab.laws import check_softmax as judge


def find(target: str | None, program: str | None) -> tuple[Any, str | None]:
    """The function that was named, and what to call it in the counterexamples."""
    if (target is None) == (program is None):
        raise UserError("name one function: MODULE:FUNCTION, FILE.onnx, or --program COMMAND")
    if program is not None:
        return _command(program), None
    assert target is not None
    if target.endswith(".onnx"):
        return _session(Path(target)), None
    return _imported(target), target.replace(":", ".")


def _command(program: str) -> list[str]:
    try:
        words = shlex.split(program)
    except ValueError as error:
        raise UserError(f"--program {program!r}: {error}") from error
    if not words or shutil.which(words[0]) is None:
        raise UserError(f"--program {program!r}: no such program")
    return words


def _imported(target: str) -> Any:
    from logitlab.laws.subject import importable  # needs hypothesis, as the other commands do not

    sys.path.insert(0, "")
    module = target.partition(":")[0]
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a stranger's module raises what it likes
        lines = str(error).splitlines()
        cause = ": ".join([type(error).__name__, *lines[:1]])
        raise UserError(f"module {module!r} cannot be imported: {cause}") from error
    try:
        return importable(target)
    except ValueError as error:
        raise UserError(str(error)) from error
    except AttributeError as error:
        raise UserError(f"{target}: {error}") from error


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: onnxruntime is not installed") from error
    if not path.exists():
        raise UserError(f"{path}: no such file")
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no class of its own for a bad file
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from error


def examine(function: Any, page: Path | None, **options: Any) -> LawReport:
    """The report; its page is written where it is wanted."""
    try:
        report = judge(function, **options)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from error
    if page is not None:
        with atomic_write(page) as temporary:
            temporary.write_text(report.to_html(), "utf-8")
    return report


def check(
    function: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:FUNCTION",
            help="A softmax or log_softmax, such as scipy.special:softmax; or FILE.onnx.",
            show_default=False,
        ),
    ] = None,
    program: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Instead: a program that reads .npy on stdin and writes .npy on stdout.",
            show_default=False,
        ),
    ] = None,
    law: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this law (may be repeated).", show_default=False),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(metavar="TYPE", help="Only this type (may be repeated).", show_default=False),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="numpy, torch, torch:cuda, jax, tensorflow or cupy arrays. By default found out.",
            show_default=False,
        ),
    ] = None,
    axis: Annotated[int, typer.Option(help="The class axis.")] = -1,
    seed: Annotated[int, typer.Option(help="Of the random rows.")] = 0,
    full: Annotated[bool, typer.Option("--full", help="More rows, up to 10^6 classes.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="A convention that differs is a failure too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page too.", show_default=False)
    ] = None,
) -> None:
    """How far a softmax keeps the laws of softmax; exit status 1 if one is broken."""
    from rich.console import Console

    with exit_on_user_error():
        if seed < 0:
            raise UserError(f"--seed is {seed}; accepted: 0 and up")
        if html is not None:
            check_file(html, [] if function is None else [Path(function)])
        found, name = find(function, program)
        report = examine(
            found,
            html,
            name=name,
            laws=law or None,
            dtypes=dtype or None,
            kind=kind,
            axis=axis,
            seed=seed,
            effort="full" if full else "quick",
            strict=strict,
        )
        with catch_print_errors():
            if as_json:
                text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
                typer.echo(text)
            else:
                Console().print(report, crop=False)
    if not report:
        raise typer.Exit(1)
