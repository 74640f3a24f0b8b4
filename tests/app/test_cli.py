"""The help of the command line."""

import re

import pytest
from typer.testing import CliRunner

from logitlab._app.cli import app

COMMANDS = ("report", "fit", "predict", "sample", "explore", "check", "info")


def help_text(*arguments):
    result = CliRunner().invoke(app, [*arguments, "-h"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_root_help_shows_whole_summaries():
    """No summary of a command ends in an ellipsis."""
    listed = help_text().partition("Commands:\n")[2]
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z]", listed, re.MULTILINE), command
    assert "..." not in listed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_help_text(command):
    """Each option and argument has a description beside or below its name."""
    lines = help_text(command).partition("Options:\n")[2].splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if re.match(r"  -", line):
            name = re.match(r"  (-\S+(?: / \S+|, --\S+)?(?: \S+)?)", line)[0]
            assert line[len(name) :].strip() or following.startswith("        "), line


def test_no_arguments_print_the_help():
    result = CliRunner().invoke(app, [], env={"COLUMNS": "80"})
    assert result.exit_code == 2
    assert "Commands:" in result.output
