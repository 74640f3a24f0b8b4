"""`logitlab check`: checks a softmax or a sampler against the laws."""

import importlib
import json
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from logitlab._app.io.outputs import (
    atomic_write,
    catch_print_errors,
    check_file,
    make_console,
)
from logitlab._app.io.source import UserError
from logitlab._app.options import Overwrite, Quiet
from logitlab.laws import LawReport, check_sampler, check_softmax


def _load_function(target: str | None, program: str | None) -> tuple[Any, str | None]:
    """The function to check, and its name in the code of the counterexamples."""
    if (target is None) == (program is None):
        raise UserError(
            "give one function to check: MODULE:FUNCTION, FILE.onnx, --program COMMAND or "
            "--sampler MODULE:FUNCTION"
        )
    if program is not None:
        return _split_command(program), None
    assert target is not None
    if target.endswith(".onnx"):
        return _load_session(Path(target)), None
    return _import_function(target), target.replace(":", ".")


def _split_command(program: str) -> list[str]:
    try:
        words = shlex.split(program)
    except ValueError as error:
        raise UserError(f"--program {program!r}: {error}") from error
    if not words or shutil.which(words[0]) is None:
        raise UserError(f"--program {program!r}: no such program")
    return words


def _import_function(target: str) -> Any:
    module, _, name = target.partition(":")
    if not module or not name:
        raise UserError(
            f"the function must be MODULE:FUNCTION, such as scipy.special:softmax, got {target!r}"
        )
    sys.path.insert(0, "")
    try:
        value: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # the module may raise any class
        lines = str(error).splitlines()
        cause = ": ".join([type(error).__name__, *lines[:1]])
        raise UserError(f"module {module!r} cannot be imported: {cause}") from error
    try:
        for part in name.split("."):
            value = getattr(value, part)
    except AttributeError as error:
        raise UserError(f"{target}: {error}") from error
    return value


def _load_session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: run: pip install onnxruntime") from error
    if not path.exists():
        raise UserError(f"{path}: no such file")
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common class for a bad file
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from error


_OPTIONS = {"laws": "--law", "dtypes": "--dtype", "array_library": "--array-library"}


def _check(check: Callable[..., LawReport], function: Any, **options: Any) -> LawReport:
    try:
        return check(function, **options)
    except (TypeError, ValueError) as error:
        argument, space, rule = str(error).partition(" ")
        raise UserError(f"{_OPTIONS.get(argument, argument)}{space}{rule}") from error


def _refuse_options_of_softmax(**options: Any) -> None:
    """Raise an error where an option is given that --sampler does not have."""
    for option, value in options.items():
        if value:
            given = "MODULE:FUNCTION" if option == "function" else f"--{option}"
            raise UserError(f"--sampler takes one function to check; {given} is for a softmax")


def _law_names() -> list[str]:
    """The laws that a shell completes, which are those without spaces."""
    from logitlab.laws import sampler_laws, verifier_laws
    from logitlab.laws.catalogue import LAWS

    names = [*LAWS, *(law.name for law in (*sampler_laws.LAWS, *verifier_laws.LAWS))]
    return sorted({name for name in names if " " not in name})


def check(
    function: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:FUNCTION",
            help="The softmax or log_softmax to check, such as scipy.special:softmax; or a "
            "FILE.onnx.",
            show_default=False,
        ),
    ] = None,
    program: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Check a program that reads .npy on stdin and writes .npy on stdout.",
            show_default=False,
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Check a sampler, or a verifier of speculative drafts, against the laws of "
            "sampling.",
            show_default=False,
        ),
    ] = None,
    law: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Check this law only; may be repeated.",
            show_default=False,
            autocompletion=_law_names,
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Check float16, bfloat16, float32 or float64 only; may be repeated.",
            show_default=False,
            autocompletion=lambda: ["float16", "bfloat16", "float32", "float64"],
        ),
    ] = None,
    array_library: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Library of the arrays: numpy, torch, torch:cuda, jax, tensorflow or cupy. "
            "Detected automatically by default.",
            show_default=False,
            autocompletion=lambda: ["numpy", "torch", "jax", "tensorflow", "cupy"],
        ),
    ] = None,
    axis: Annotated[int, typer.Option(metavar="N", help="The class axis.")] = -1,
    seed: Annotated[int, typer.Option(metavar="N", help="The seed of the random rows, >= 0.")] = 0,
    full: Annotated[
        bool, typer.Option("--full", help="Check more rows, up to 10^6 classes.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Count a convention that differs as a failure.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write an HTML page too.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Check a softmax or a sampler against the laws; exit status 1 if one fails."""
    if seed < 0:
        raise UserError(f"--seed must be >= 0, got {seed}")
    if html is not None:
        inputs = [] if function is None else [Path(function)]
        check_file(html, inputs, overwrite=overwrite)
    options: dict[str, Any] = {"laws": law or None, "array_library": array_library}
    options |= {"seed": seed, "strict": strict}
    if sampler is not None:
        _refuse_options_of_softmax(
            function=function, program=program, dtype=dtype, full=full, axis=axis != -1
        )
        options["name"] = sampler.replace(":", ".")
        report = _check(check_sampler, _import_function(sampler), **options)
    else:
        loaded, name = _load_function(function, program)
        options |= {"name": name, "dtypes": dtype or None, "axis": axis}
        effort = "full" if full else "quick"
        report = _check(check_softmax, loaded, effort=effort, **options)
    if html is not None:
        with atomic_write(html) as temporary:
            temporary.write_text(report.to_html(), "utf-8")
    with catch_print_errors():
        if as_json:
            text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
            typer.echo(text)
        elif not quiet:
            make_console().print(report, crop=False)
    if not report:
        raise typer.Exit(1)
