"""Conformance results as a table, a dictionary and an HTML page."""

import html
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from logitlab.laws.law import LawResult

_COLOURS = {
    "exact": "green",
    "within": "green",
    "inaccurate": "yellow",
    "differs": "magenta",
    "fails": "red",
    "not applicable": "dim",
}


@dataclass(frozen=True)
class LawReport:
    """Conformance results of a function, law by law.

    It is true where no law of mathematics fails (with ``strict``, where every convention is
    followed too), prints as a table, and iterates over its results.

    Attributes
    ----------
    function : str
        The name of the function.
    array_library : str
        The library of the arrays that the function was called with.
    computes : str
        ``softmax`` or ``log_softmax``.
    dtypes : tuple of str
        The floating dtypes that it was checked in.
    results : tuple of LawResult
    strict : bool
    """

    function: str
    array_library: str
    computes: str
    dtypes: tuple[str, ...]
    results: tuple[LawResult, ...]
    strict: bool = False

    def __bool__(self) -> bool:
        return not self.failures

    def __iter__(self) -> Iterator[LawResult]:
        return iter(self.results)

    def __getitem__(self, law: str) -> LawResult:
        for result in self.results:
            if result.law.name == law:
                return result
        raise KeyError(law)

    @property
    def failures(self) -> list[str]:
        """The names of the laws that fail; with ``strict``, of the conventions that differ too."""
        failing = ("fails", "differs") if self.strict else ("fails",)
        return [result.law.name for result in self.results if result.level in failing]

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"{self.function}: {self.computes} of {self.array_library} arrays")
        for heading in ("law", "result", "worst dtype", "note"):
            table.add_column(heading)
        for result in self.results:
            name = f"{result.law.name} *" if result.law.convention else result.law.name
            level = Text(str(result), style=_COLOURS[result.level])
            table.add_row(name, level, _worst_dtype(result), Text(result.note, style="dim"))
        n_fail = sum(result.level == "fails" for result in self.results)
        n_differ = sum(result.level == "differs" for result in self.results)
        table.caption = f"laws that fail: {n_fail}; conventions (*) that differ: {n_differ}"
        parts: list[Any] = [table]
        for result in self.results:
            if result.counterexample is not None:
                c = result.counterexample
                # Not wrapped at the width of the terminal, so that the code can be pasted.
                text = Text(no_wrap=True, overflow="ignore")
                text.append(
                    f"\n{result.law.name}: {result.law.statement}\n", style=_COLOURS[result.level]
                )
                text.append(f"{c.code}\n", style="bold")
                text.append(f"    result    {c.result}\n    expected  {c.expected}")
                parts.append(text)
        return Group(*parts)

    def __str__(self) -> str:
        from rich.console import Console

        out = io.StringIO()
        Console(file=out, width=120, color_system=None, force_jupyter=False).print(self, crop=False)
        return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """All results as values that JSON can hold; an infinite deviation is "infinite"."""
        return {
            "function": self.function,
            "array_library": self.array_library,
            "computes": self.computes,
            "dtypes": list(self.dtypes),
            "passed": bool(self),
            "strict": self.strict,
            "failures": self.failures,
            "laws": {result.law.name: _result_dict(result) for result in self.results},
        }

    def to_html(self) -> str:
        """The results as an HTML page."""
        title = html.escape(f"{self.function}: conformance to the laws of softmax")
        return _PAGE.format(title=title, table=self._repr_html_())

    def _repr_html_(self) -> str:
        """The results as a table for a notebook, with styles that apply to this table alone."""
        failures = f"Fails: {', '.join(self.failures)}." if self.failures else "Passes."
        about = html.escape(
            f"{self.computes} of {self.array_library} arrays; {', '.join(self.dtypes)}. {failures}"
        )
        rows = "\n".join(_html_row(result) for result in self.results)
        return _TABLE.format(about=about, rows=rows)


def _category(result: LawResult) -> str:
    return "convention" if result.law.convention else "mathematics"


def _worst_dtype(result: LawResult) -> str:
    if result.level in ("exact", "not applicable"):
        return ""
    worst = (result.level, result.worst_ulp)
    return next((dtype for dtype, value in result.by_dtype.items() if value == worst), "")


def _json_number(x: float | None) -> float | str | None:
    return x if x is None or abs(x) < float("inf") else "infinite"


def _result_dict(result: LawResult) -> dict[str, Any]:
    c = result.counterexample
    return {
        "category": _category(result),
        "level": result.level,
        "worst_ulp": _json_number(result.worst_ulp),
        "statement": result.law.statement,
        "source": result.law.source,
        "reason": result.law.reason,
        "note": result.note,
        "by_dtype": {
            dtype: {"level": level, "worst_ulp": _json_number(ulps)}
            for dtype, (level, ulps) in result.by_dtype.items()
        },
        "counterexample": None if c is None else c._asdict(),
        "measurements": [
            m | {key: _json_number(m[key]) for key in ("worst_ulp", "mean_ulp")}
            for m in result.measurements
        ],
    }


def _html_row(result: LawResult) -> str:
    cell = html.escape(result.note)
    if result.counterexample is not None:
        code, value, expected, _ = (html.escape(text) for text in result.counterexample)
        cell = f"<code>{code}</code><br>result {value}<br>expected {expected}"
    law = result.law
    tooltip = html.escape(f"{law.reason} {law.source}")
    by_dtype = html.escape(", ".join(f"{d}: {level}" for d, (level, _) in result.by_dtype.items()))
    return (
        f'<tr class="{result.level.split()[0]}"><th title="{tooltip}">{html.escape(law.name)}</th>'
        f"<td>{_category(result)}</td>"
        f'<td class="level" title="{by_dtype}">{html.escape(str(result))}</td>'
        f"<td>{html.escape(law.statement)}</td><td>{cell}</td></tr>"
    )


# The colours of the levels are mixed with the text colour, to be legible on light and on dark.
_TABLE = """<div class="logitlab-laws"><style>
.logitlab-laws {{ overflow-x: auto; }}
.logitlab-laws table {{ border-collapse: collapse; width: 100%; }}
.logitlab-laws :is(th, td) {{ text-align: left; vertical-align: top; padding: .35rem .7rem;
 border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); }}
.logitlab-laws :is(th, .level) {{ white-space: nowrap; }}
.logitlab-laws code {{ font-size: 12.5px; overflow-wrap: anywhere; }}
.logitlab-laws .level {{ font-weight: 600; }}
.logitlab-laws :is(.exact, .within) .level {{
 color: color-mix(in srgb, currentColor 30%, #1a9f3f); }}
.logitlab-laws .inaccurate .level {{ color: color-mix(in srgb, currentColor 30%, #b8860b); }}
.logitlab-laws .differs .level {{ color: color-mix(in srgb, currentColor 30%, #8250df); }}
.logitlab-laws .fails .level {{ color: color-mix(in srgb, currentColor 30%, #e02030); }}
.logitlab-laws .not {{ opacity: .6; }}
</style><p>{about}</p>
<table><thead><tr><th>law</th><th>category</th><th>result</th><th>statement</th>
<th>smallest counterexample</th></tr></thead><tbody>
{rows}
</tbody></table></div>
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem;
 padding: 0 1rem; }}
</style></head><body><h1>{title}</h1>
{table}</body></html>
"""
