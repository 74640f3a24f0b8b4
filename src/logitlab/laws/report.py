"""Conformance results as a table, a dictionary and an HTML page."""

import html
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from logitlab.laws.law import Verdict

_COLOURS = {
    "exact": "green",
    "within": "green",
    "weak": "yellow",
    "differs": "magenta",
    "broken": "red",
    "not applicable": "dim",
}


@dataclass(frozen=True)
class LawReport:
    """How far a function keeps each law.

    It is true where no law of mathematics is broken (with ``strict``, where no convention
    differs either), prints as a table and is iterated over by :class:`Verdict`.

    Attributes
    ----------
    function : str
        The name of the function.
    kind : str
        The array library it was called with.
    computes : str
        ``softmax`` or ``log_softmax``.
    dtypes : tuple of str
        The floating types it takes.
    verdicts : tuple of Verdict
    strict : bool
    """

    function: str
    kind: str
    computes: str
    dtypes: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    strict: bool = False

    def __bool__(self) -> bool:
        return not self.failures

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __getitem__(self, law: str) -> Verdict:
        return next(v for v in self.verdicts if v.law.name == law)

    @property
    def failures(self) -> list[str]:
        """The names of the broken laws; with ``strict``, of the conventions that differ too."""
        bad = ("broken", "differs") if self.strict else ("broken",)
        return [v.law.name for v in self.verdicts if v.level in bad]

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"{self.function}: {self.computes} of {self.kind} arrays")
        for heading in ("law", "level", "worst in", ""):
            table.add_column(heading)
        for v in self.verdicts:
            name = f"{v.law.name} *" if v.law.convention else v.law.name
            level = Text(str(v), style=_COLOURS[v.level])
            table.add_row(name, level, _worst_type(v), Text(v.note, style="dim"))
        broken = sum(v.level == "broken" for v in self.verdicts)
        differ = sum(v.level == "differs" for v in self.verdicts)
        table.caption = f"broken: {broken}; conventions (*) that differ: {differ}"
        # One line each, whatever the width of the terminal: they are to be pasted.
        shown: list[Any] = [table]
        for v in self.verdicts:
            if v.counterexample is not None:
                c = v.counterexample
                style = _COLOURS[v.level]
                text = Text(no_wrap=True, overflow="ignore")
                text.append(f"\n{v.law.name}: {v.law.statement}\n", style=style)
                text.append(f"{c.line}\n", style="bold")
                text.append(f"    gives  {c.came}\n    exact  {c.exact}")
                shown.append(text)
        return Group(*shown)

    def __str__(self) -> str:
        from rich.console import Console

        out = io.StringIO()
        Console(file=out, width=120, color_system=None, force_jupyter=False).print(self, crop=False)
        return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """All that was found, as plain values (JSON has no infinity: an infinite distance is a
        string)."""
        laws = {}
        for v in self.verdicts:
            laws[v.law.name] = {
                "kind": "convention" if v.law.convention else "mathematics",
                "level": v.level,
                "ulps": _plain(v.ulps),
                "statement": v.law.statement,
                "source": v.law.source,
                "reason": v.law.reason,
                "note": v.note,
                "by_dtype": {
                    dtype: {"level": level, "ulps": _plain(ulps)}
                    for dtype, (level, ulps) in v.by_dtype.items()
                },
                "counterexample": None if v.counterexample is None else v.counterexample._asdict(),
                "measures": [
                    {**m, "worst": _plain(m["worst"]), "mean": _plain(m["mean"])}
                    for m in v.measures
                ],
            }
        return {
            "function": self.function,
            "kind": self.kind,
            "computes": self.computes,
            "dtypes": list(self.dtypes),
            "kept": bool(self),
            "strict": self.strict,
            "failures": self.failures,
            "laws": laws,
        }

    def to_html(self) -> str:
        """A page of its own."""
        title = html.escape(f"{self.function}: the laws of softmax")
        return _PAGE.format(title=title, table=self._repr_html_())

    def _repr_html_(self) -> str:
        """What a notebook shows: a table that styles itself and nothing beside it."""
        verdict = "keeps" if self else "breaks"
        about = html.escape(
            f"{self.computes} of {self.kind} arrays; {', '.join(self.dtypes)}. "
            f"It {verdict} the laws{': ' + ', '.join(self.failures) if not self else ''}."
        )
        rows = "\n".join(_row(v) for v in self.verdicts)
        return _TABLE.format(about=about, rows=rows)


def _plain(x: float | None) -> float | str | None:
    return x if x is None or abs(x) < float("inf") else "infinite"


def _worst_type(v: Verdict) -> str:
    if v.level in ("exact", "not applicable"):
        return ""
    return next((d for d, (level, u) in v.by_dtype.items() if (level, u) == (v.level, v.ulps)), "")


def _row(v: Verdict) -> str:
    cell = html.escape(v.note)
    if v.counterexample is not None:
        c = (html.escape(text) for text in v.counterexample)
        line, came, exact, _ = c
        cell = f"<code>{line}</code><br>gives {came}<br>exact {exact}"
    kind = "convention" if v.law.convention else "mathematics"
    types = ", ".join(f"{d}: {level}" for d, (level, _) in v.by_dtype.items())
    said, title = (
        html.escape(text) for text in (v.law.statement, f"{v.law.reason} {v.law.source}")
    )
    return (
        f'<tr class="{v.level.split()[0]}"><th title="{title}">{html.escape(v.law.name)}</th>'
        f'<td>{kind}</td><td class="level" title="{html.escape(types)}">{html.escape(str(v))}</td>'
        f"<td>{said}</td><td>{cell}</td></tr>"
    )


# Colours of the levels are mixed with that of the text: to be read on light and on dark.
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
.logitlab-laws .weak .level {{ color: color-mix(in srgb, currentColor 30%, #b8860b); }}
.logitlab-laws .differs .level {{ color: color-mix(in srgb, currentColor 30%, #8250df); }}
.logitlab-laws .broken .level {{ color: color-mix(in srgb, currentColor 30%, #e02030); }}
.logitlab-laws .not {{ opacity: .6; }}
</style><p>{about}</p>
<table><thead><tr><th>law</th><th>kind</th><th>level</th><th>statement</th>
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
