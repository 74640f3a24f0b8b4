"""The plan of a fit: a line for each column, on the terminal and in columns.csv."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from logitlab._app.io.outputs import csv_text
from logitlab._app.io.source import pluralize, printable
from logitlab._app.report.format import count, percent
from logitlab.tables.columns import PlanLine

_SHOWN = 60


def print_plan(lines: Sequence[PlanLine], rows: int, console: Any) -> None:
    """Print a line for each column: its type, its missing values, its levels, its features."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = f"Columns in {count(rows)} fitted rows"
    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    table.add_column("column", max_width=22, overflow="fold")
    table.add_column("type")
    table.add_column("missing", justify="right")
    table.add_column("levels", justify="right")
    table.add_column("used as")
    for line in lines[:_SHOWN]:
        missing = percent(line.missing / rows) if line.missing else ""
        levels = "" if line.levels is None else count(line.levels)
        style = None if line.used else "dim"
        table.add_row(
            printable(line.name), line.type, missing, levels, printable(line.action), style=style
        )
    console.print(table)
    if len(lines) > _SHOWN:
        more = pluralize(len(lines) - _SHOWN, "more column")
        console.print(f"and {more}; columns.csv lists all", soft_wrap=True)
    console.print()


def columns_csv(lines: Sequence[PlanLine]) -> str:
    """The text of columns.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["column", "type", "missing", "levels", "used", "used_as"])
    for line in lines:
        cells = (csv_text(line.name), line.type, line.missing, line.levels, line.used)
        writer.writerow([*cells, csv_text(line.action)])
    return text.getvalue()
