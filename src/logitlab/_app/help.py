"""The layout of the help: commands by topic, arguments by their metavars, files, examples.

The classes are independent of the layout of typer, which differs between its versions.
"""

from typing import Any

from typer.core import TyperCommand, TyperGroup

from logitlab._app.manual import EXIT_CODES, MANUALS

TOPICS = {
    "Logits": ("report", "calibrate", "apply", "sample", "explore"),
    "Tables": ("fit", "predict"),
    "Conformance and bug reports": ("check", "info"),
}
REFERENCE = "Each command has examples: logitlab COMMAND --help"


def arguments(command: Any) -> list[Any]:
    """The arguments of a command, which are no options."""
    return [param for param in command.params if param.param_type_name == "argument"]


class Command(TyperCommand):
    """A command whose help has its examples and the files that it writes."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """``[OPTIONS] TABLE`` and ``[OPTIONS] [LOGITS]...``."""
        pieces = ["[OPTIONS]"]
        for param in arguments(self):
            piece = param.metavar if param.required else f"[{param.metavar}]"
            pieces.append(piece + "..." * (param.nargs == -1))
        return pieces

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The arguments, by their metavars without types, and the options."""
        if arguments(self):
            with formatter.section("Arguments"):
                formatter.write_dl([(param.metavar, param.help) for param in arguments(self)])
        options = [param for param in self.get_params(ctx) if param not in arguments(self)]
        with formatter.section("Options"):
            formatter.write_dl([param.get_help_record(ctx) for param in options])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The files that the command writes, and its examples."""
        manual = MANUALS[str(self.name)]
        if manual.files:
            with formatter.section("Files"):
                formatter.write_dl([*manual.files.items()])
        with formatter.section("Examples"):
            for example in manual.examples:
                formatter.write(f"  {example}\n")


class Group(TyperGroup):
    """The group of all commands, whose help lists them by topic with whole summaries."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """A section for each topic."""
        width = max(map(len, self.commands))
        for topic, names in TOPICS.items():
            rows = [(name.ljust(width), self.commands[name].short_help) for name in names]
            with formatter.section(topic):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The exit codes."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), text) for code, text in EXIT_CODES.items()])
        formatter.write(f"\n{REFERENCE}\n")
