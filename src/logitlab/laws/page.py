"""Conformance results as an HTML page: counts, failures by type, laws by type, all laws."""

from collections.abc import Iterable, Sequence
from html import escape

from logitlab._page import script, style
from logitlab.laws.law import SHOWN_ULP, LawResult, three_digits

_WIDE = ("float64", "float32")
_NARROW = ("float16", "bfloat16")
# The levels from the gravest on, and their classes in the page.
_KINDS = {
    "fails": "bad",
    "differs": "odd",
    "inaccurate": "fair",
    "within": "good",
    "exact": "good",
    "passes": "good",
    "not applicable": "none",
}
_COUNTED = (
    ("pass", ("exact", "within", "passes"), "good"),
    ("inaccurate", ("inaccurate",), "fair"),
    ("fail", ("fails",), "bad"),
    ("differ from a convention", ("differs",), "odd"),
    ("not applicable", ("not applicable",), "none"),
)


def to_html(
    title: str,
    about: Sequence[str],
    diagnosis: str,
    note: str,
    dtypes: Sequence[str],
    results: Sequence[LawResult],
) -> str:
    """The page; `about` is what was checked, `dtypes` are empty for a sampler."""
    meta = " · ".join([*about, *filter(None, [", ".join(_by_width(dtypes))])])
    if not dtypes:
        diagnosis = diagnosis[:1].upper() + diagnosis[1:]  # else it begins with the name of a type
    parts = [
        f'<header><p class="meta">{escape(meta)}</p><h1>{escape(title)}</h1>',
        f'<p class="summary">{escape(diagnosis)}.</p>',
        _cards(results),
        f'<p class="note">Note: {escape(note)}.</p>' if note else "",
        "</header>",
        *_counterexamples(results, _heat_map(results, dtypes) if dtypes else ""),
        _all_laws(results),
    ]
    return _PAGE.format(title=escape(title), style=style(), script=script(), body="\n".join(parts))


def _by_width(dtypes: Iterable[str]) -> list[str]:
    """Types, the widest first."""
    order = [*_WIDE, *_NARROW]
    return sorted(dtypes, key=lambda d: order.index(d) if d in order else len(order))


def _cards(results: Sequence[LawResult]) -> str:
    cards = []
    for title, levels, kind in _COUNTED:
        n = sum(result.level in levels for result in results)
        if n or title in ("pass", "fail"):
            cards.append(f'<div><b class="{kind if n else "none"}">{n}</b> {title}</div>')
    return f'<div class="cards">{"".join(cards)}</div>'


def _ulps(ulps: float | None) -> str:
    """The size of an error; an error without a size has none."""
    return three_digits(ulps) if ulps is not None and 0 < ulps < SHOWN_ULP else ""


def _dtypes_of(result: LawResult, level: str) -> list[str]:
    return _by_width(d for d, (found, _) in result.by_dtype.items() if found == level)


def _counterexamples(results: Sequence[LawResult], heat_map: str) -> list[str]:
    """Sections of the laws with a counterexample: failures in wide types, the laws by type, others.

    The others are folded, but for the first one if there is no failure in a wide type.
    """
    failing = [r for r in results if r.level == "fails"]
    narrow = [r for r in failing if r.by_dtype and not set(_dtypes_of(r, "fails")) & set(_WIDE)]
    wide = [r for r in failing if r not in narrow]
    wide.sort(key=lambda r: "float64" not in _dtypes_of(r, "fails"))
    sections = []
    if wide:
        where = " in float64 or float32" if heat_map else ""
        sections.append(f"<section><h2>Failures{where}</h2>{_articles(wide)}</section>")
    sections.append(heat_map)
    opened = "" if wide else " open"
    for title, shown in (
        ("Failures in narrow types alone", narrow),
        ("Differences from a convention", [r for r in results if r.level == "differs"]),
        ("Inaccurate results", [r for r in results if r.level == "inaccurate"]),
    ):
        if shown:
            summary = f"<summary>{title}: {_counted(len(shown))}</summary>"
            sections.append(f"<details{opened}>{summary}{_articles(shown)}</details>")
            opened = ""
    return sections


def _counted(n: int) -> str:
    return "1 law" if n == 1 else f"{n} laws"


def _articles(results: Sequence[LawResult]) -> str:
    return "\n".join(_article(result) for result in results)


def _article(result: LawResult) -> str:
    """A law that is not followed, with its counterexample."""
    law, c = result.law, result.counterexample
    where = ", ".join(_dtypes_of(result, result.level))
    error = _ulps(result.worst_ulp)
    facts = [("In", where), ("Largest error", f"{error} ULP" if error else "")]
    if c is not None:
        facts += [("Result", c.result), ("Expected", c.expected)]
    rows = "".join(f"<dt>{k}</dt><dd>{escape(v)}</dd>" for k, v in facts if v)
    code = f'<pre class="copy" tabindex="0"><code>{escape(c.code)}</code></pre>' if c else ""
    return (
        f'<article><h3>{escape(law.name)} <span class="level {_KINDS[result.level]}">'
        f"{result.level}</span></h3><p>{escape(law.statement)}</p>{code}<dl>{rows}</dl>"
        f'<p class="note">{escape(f"{law.reason} Source: {law.source}.")}</p></article>'
    )


def _ordered(results: Iterable[LawResult]) -> list[LawResult]:
    """The gravest level first."""
    order = list(_KINDS)
    return sorted(results, key=lambda result: order.index(result.level))


def _heat_map(results: Sequence[LawResult], dtypes: Sequence[str]) -> str:
    dtypes = _by_width(dtypes)
    head = "".join(f'<th data-note="error">{escape(dtype)}</th>' for dtype in dtypes)
    rows = []
    for result in _ordered(r for r in results if set(r.by_dtype) & set(dtypes)):
        cells = []
        for dtype in dtypes:
            level, ulps = result.by_dtype.get(dtype, ("", 0.0))
            size = f" <small>{_ulps(ulps)} ULP</small>" if level and _ulps(ulps) else ""
            cells.append(f'<td class="{_KINDS.get(level, "none")}">{level or "–"}{size}</td>')
        rows.append(f"<tr><th>{escape(result.law.name)}</th>{''.join(cells)}</tr>")
    return (
        '<section><h2>Laws by type</h2><div class="scroll">'
        '<table class="data heat" data-name="laws-by-type"><thead><tr><th>law</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="note">The result in each type, with the largest error in ULP (units in the last '
        "place). Up to 0.5 ULP is exact, up to 16 ULP within the tolerance.</p></section>"
    )


def _all_laws(results: Sequence[LawResult]) -> str:
    """Every law; a column that is empty in all of them is left out."""
    ordered = _ordered(results)
    columns = {
        "category": ["convention" if r.law.convention else "mathematics" for r in ordered],
        "result": [f'<span class="level {_KINDS[r.level]}">{r.level}</span>' for r in ordered],
        "error (ULP)": [_ulps(r.worst_ulp) for r in ordered],
        "statement": [escape(r.law.statement) for r in ordered],
        "note": [escape(r.note) for r in ordered],
    }
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    kinds = ["" if title == "error (ULP)" else ' class="text"' for title in shown]
    head = "".join(f"<th{kind}>{title}</th>" for kind, title in zip(kinds, shown, strict=True))
    rows = []
    for result, *cells in zip(ordered, *shown.values(), strict=True):
        line = "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, cells, strict=True))
        rows.append(f"<tr><th>{escape(result.law.name)}</th>{line}</tr>")
    return (
        '<section><h2>All laws</h2><div class="scroll"><table class="data wide laws" '
        f'data-name="laws"><thead><tr><th>law</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
{style}
.good {{ --level: var(--good); }}
.fair {{ --level: var(--fair); }}
.odd {{ --level: var(--third); }}
.bad {{ --level: var(--bad); }}
.none {{ --level: var(--muted); }}
.cards b, .level {{ color: var(--level); }}
.level {{ font-weight: 600; font-size: 1rem; white-space: nowrap; }}
.laws .level {{ font-size: inherit; }}
article {{ border-top: 1px solid var(--line); padding: .2rem 0 .6rem; }}
article h3 {{ display: flex; flex-wrap: wrap; gap: .2rem .8rem; align-items: baseline; }}
section > h2 + article, summary + article {{ border-top: 0; }}
dl {{ display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .1rem .8rem;
  margin: .4rem 0; }}
dt {{ color: var(--muted); }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
.heat td {{ background: color-mix(in srgb, var(--level) 18%, var(--paper)); text-align: center;
  border: 2px solid var(--paper); padding: .3rem .6rem; white-space: nowrap; }}
.heat td.none {{ background: none; color: var(--muted); }}
.heat td small {{ color: inherit; }}
.heat th {{ white-space: nowrap; }}
.heat thead th:not(:first-child) {{ text-align: center; }}
.laws th, .laws td {{ overflow-wrap: normal; }}
.laws td:nth-child(n + 4) {{ min-width: 4rem; }}
.laws td:last-child {{ min-width: 12rem; }}
@media print {{ .heat td {{ print-color-adjust: exact; }} }}
</style></head>
<body><main class="page">
{body}
</main>
<script type="module">
{script}</script></body></html>
"""
