"""Conformance results as a table, a dictionary and an HTML page."""

import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from logitlab.laws import page
from logitlab.laws.law import Counterexample, LawResult

if TYPE_CHECKING:  # it needs Hypothesis
    from logitlab.laws.diagnosis import Cause

_COLOURS = {
    "passes": "green",
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
        ``softmax``, ``log_softmax``, ``sampling`` or ``speculative verification``.
    dtypes : tuple of str
        The floating dtypes that it was checked in; empty for a sampler.
    results : tuple of LawResult
    strict : bool
    causes : tuple of Cause
        The likely causes of the failures, each with a text and its dtypes.
    note : str
        What else is to be known of all results.
    """

    function: str
    array_library: str
    computes: str
    dtypes: tuple[str, ...]
    results: tuple[LawResult, ...]
    strict: bool = False
    causes: tuple["Cause", ...] = ()
    note: str = ""

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
    def _failing_levels(self) -> tuple[str, ...]:
        return ("fails", "differs") if self.strict else ("fails",)

    @property
    def failures(self) -> list[str]:
        """The names of the laws that fail; with ``strict``, of the conventions that differ too."""
        return [r.law.name for r in self.results if r.level in self._failing_levels]

    @property
    def diagnosis(self) -> str:
        """One line: the dtypes that pass, the laws that fail in the others, the likely causes."""
        if not self.dtypes:
            return f"fails: {', '.join(self.failures)}" if self.failures else "passes"
        groups = self._dtypes_by_laws(self._failing_levels)
        passing = groups.pop((), [])
        parts = [f"{_listed(passing)} pass{'es' * (len(passing) == 1)}"] if passing else []
        for laws, dtypes in groups.items():
            parts.append(f"fails in {_listed(dtypes)}: {_shortened(laws)}")
        for laws, dtypes in self._dtypes_by_laws(("inaccurate",)).items():
            if laws:
                parts.append(f"inaccurate in {_listed(dtypes)}: {_shortened(laws)}")
        for i, (text, found_in) in enumerate(self.causes):
            where = "" if len(found_in) == len(self.dtypes) else f" (in {_listed(found_in)})"
            parts.append(f"{'likely cause: ' * (i == 0)}{text}{where}")
        return "; ".join(parts)

    def _dtypes_by_laws(self, levels: tuple[str, ...]) -> dict[tuple[str, ...], list[str]]:
        """The dtypes by the laws that have one of the levels in them."""
        laws: dict[str, list[str]] = {dtype: [] for dtype in self.dtypes}
        for result in self.results:
            for dtype, (level, _) in result.by_dtype.items():
                if level in levels:
                    laws.setdefault(dtype, []).append(result.law.name)
        groups: dict[tuple[str, ...], list[str]] = {}
        for dtype, names in laws.items():
            groups.setdefault(tuple(names), []).append(dtype)
        return groups

    def _shortest_counterexample(self) -> tuple[LawResult, Counterexample] | None:
        """The shortest of the laws that fail, of those with literal numbers if there is one."""
        pairs = [
            (r, r.counterexample)
            for r in self.results
            if r.level in self._failing_levels and r.counterexample is not None
        ]

        def length(pair: tuple[LawResult, Counterexample]) -> tuple[bool, int]:
            return "np.array(" not in pair[1].code, len(pair[1].code)

        return min(pairs, key=length, default=None)

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"{self.function}: {self.computes} of {self.array_library} arrays")
        for heading in ("law", "result", *["worst dtype"] * bool(self.dtypes), "note"):
            table.add_column(heading)
        for result in self.results:
            name = f"{result.law.name} *" if result.law.convention else result.law.name
            level = Text(str(result), style=_COLOURS[result.level])
            worst = [_worst_dtype(result)] * bool(self.dtypes)
            table.add_row(name, level, *worst, Text(result.note, style="dim"))
        n_fail = sum(result.level == "fails" for result in self.results)
        n_differ = sum(result.level == "differs" for result in self.results)
        table.caption = f"laws that fail: {n_fail}; conventions (*) that differ: {n_differ}"

        def example(heading: str, c: Counterexample, style: str) -> Text:
            # Not wrapped at the width of the terminal, so that the code can be pasted.
            text = Text(no_wrap=True, overflow="ignore")
            text.append(f"{heading}\n", style=style)
            text.append(f"{c.code}\n", style="bold")
            return text.append(f"    result    {c.result}\n    expected  {c.expected}")

        colour = "red" if self.failures else "green"
        line = f"{self.function}: {self.diagnosis}"
        parts: list[Any] = [Text(line, style=colour, no_wrap=True, overflow="ignore")]
        shortest = self._shortest_counterexample()
        if shortest is not None:
            result, c = shortest
            parts.append(example(f"shortest counterexample ({result.law.name}):", c, colour))
        parts += [Text(), table]
        if self.note:
            parts.append(Text(self.note, style="italic", no_wrap=True, overflow="ignore"))
        for result in self.results:
            if result.counterexample is not None:
                heading = f"\n{result.law.name}: {result.law.statement}"
                parts.append(example(heading, result.counterexample, _COLOURS[result.level]))
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
            "diagnosis": self.diagnosis,
            "note": self.note,
            "causes": [cause._asdict() for cause in self.causes],
            "laws": {result.law.name: _result_dict(result) for result in self.results},
        }

    def to_html(self) -> str:
        """The results as an HTML page."""
        return page.to_html(
            f"{self.function}: conformance to the laws of {self.computes}",
            [self.computes, f"{self.array_library} arrays"],
            self.diagnosis,
            self.note,
            self.dtypes,
            self.results,
        )

    def _repr_html_(self) -> str:
        """The results as a table for a notebook, with styles that apply to this table alone."""
        arrays = f"{self.array_library} arrays"
        about = html.escape(
            f"{self.computes} of {'; '.join(filter(None, [arrays, ', '.join(self.dtypes)]))}: "
            f"{self.diagnosis}{'; ' * bool(self.note)}{self.note}."
        )
        rows = "\n".join(_html_row(result) for result in self.results)
        return _TABLE.format(about=about, rows=rows)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _shortened(laws: Sequence[str]) -> str:
    more = len(laws) - 3
    return ", ".join(laws) if more <= 1 else f"{', '.join(laws[:3])} and {more} more"


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
.logitlab-laws :is(.exact, .within, .passes) .level {{
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
