"""The `logitlab` command: its subcommands and `--version`."""

import functools
from collections.abc import Callable
from typing import Annotated, Any

import typer

from logitlab._app.apply import apply
from logitlab._app.calibrate import calibrate
from logitlab._app.check import check
from logitlab._app.explore.command import explore
from logitlab._app.fit.command import fit, predict
from logitlab._app.help import Command, Group
from logitlab._app.info import info
from logitlab._app.io.outputs import catch_print_errors, exit_on_user_error
from logitlab._app.report.command import report
from logitlab._app.sample import sample

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(given: bool) -> None:
    if given:
        from importlib.metadata import version

        with exit_on_user_error(), catch_print_errors():
            typer.echo(version("logitlab"))
        raise typer.Exit


@app.callback()
def _main(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Tools for the softmax layer of a model, from logits to calibrated probabilities."""


def _with_error_messages(command: Callable[..., None]) -> Callable[..., None]:
    """The command, whose errors end it with one line on standard error."""

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        with exit_on_user_error():
            command(**arguments)

    return run


_COMMANDS: tuple[Any, ...] = (report, calibrate, apply, sample, explore, fit, predict, check, info)
for _command in _COMMANDS:
    # An explicit summary is shown whole; one made from the docstring is cut to the line.
    summary = _command.__doc__.partition("\n")[0]
    app.command(cls=Command, short_help=summary)(_with_error_messages(_command))
