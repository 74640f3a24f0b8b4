"""The type of each column of a table, found in the rows that a model is fitted on."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from logitlab._arrays import bincount
from logitlab._rows import Floats
from logitlab.tables.columns import (
    BOOLEAN,
    DATE,
    MISSING,
    NUMBER,
    OTHER,
    PLAIN,
    TEXT,
    Column,
    NumberFormat,
    Part,
    PlanLine,
    is_index,
)
from logitlab.tables.text import (
    FORMATS,
    as_booleans,
    as_numbers,
    as_times,
    date_fields,
    has_marks,
    is_boolean,
    is_date,
    looks_like_date,
    number_formats,
)
from logitlab.tables.values import (
    as_text,
    is_number,
    is_text,
    is_time,
    numeric_values,
    plain_values,
)

if TYPE_CHECKING:
    import pyarrow as pa

MIN_SHARE = 0.95  # of the values that must be of a type; the others become missing values
INDICATOR_SHARE = 0.01  # of missing values, from which on they have a feature of their own
FEW_LEVELS = 30  # up to these many all levels are kept
MAX_LEVELS = 100
_KEPT_RARE = 10_000  # names of rare levels, to tell them from unknown ones
MIN_ROWS = 10  # of a level where there are more
UNIQUE_SHARE = 0.9  # of distinct values among those of an identifier
MIN_UNIQUE = 20  # values without repetition that make text an identifier
_ID_NAME = re.compile(
    r"(?i:id|index|idx|key|uuid|guid|nr|no|row|row[ _]?(id|nr|no|number|index)|unnamed: ?\d+"
    r"|.*[ _.-](id|nr|no|number|uuid|guid|key))|.*[a-z](Id|ID|Nr|No|Key)"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class Plan:
    """The encodings of the columns that are used, and a line for every column."""

    columns: tuple[Column, ...]
    lines: tuple[PlanLine, ...]


@dataclass(frozen=True)
class _Found:
    """What a column holds; without a column it is dropped, for the reason in `action`."""

    type: str
    missing: int
    levels: int | None
    column: Column | None
    action: str


def infer_plan(
    table: "pa.Table",
    *,
    drop: Collection[str] = (),
    keep: Collection[str] = (),
    decimal: str | None = None,
    thousands: str | None = None,
) -> Plan:
    """The plan of a table without the target; the index of pandas is ignored."""
    names = [name for name in table.column_names if not is_index(name)]
    data = {name: plain_values(table.column(name)) for name in names}
    texts = {n: as_text(c) for n, c in data.items() if n not in drop and is_text(c.type)}
    formats = _formats(texts, _candidates(decimal, thousands), decimal)
    columns, lines = [], []
    for name in names:
        if name in drop:
            lines.append(PlanLine(name, "", 0, None, False, "dropped: --drop"))
            continue
        kept = name in keep
        if _is_presence(texts.get(name, data[name])) and formats.get(name) is None:
            found = _find_levels(name, as_text(data[name]), kept)
        elif name in texts:
            found = _find_text(name, texts[name], formats[name], kept)
        else:
            found = _find_typed(name, data[name], kept)
        used = found.column is not None
        if found.column is not None:
            columns.append(found.column)
        action = found.action if used else f"dropped: {found.action}"
        lines.append(PlanLine(name, found.type, found.missing, found.levels, used, action))
    return Plan(tuple(columns), tuple(lines))


def _is_presence(data: "pa.ChunkedArray") -> bool:
    """Whether the column, not of numbers, has one value and tells where it is missing."""
    from pyarrow import compute, types

    if types.is_nested(data.type) or (is_number(data.type) and not types.is_boolean(data.type)):
        return False
    if data.null_count <= INDICATOR_SHARE * len(data):
        return False
    return bool(compute.count_distinct(data).as_py() == 1)


def _candidates(decimal: str | None, thousands: str | None) -> tuple[NumberFormat, ...]:
    candidates = [m for m in FORMATS if decimal in (None, m.decimal)]
    if thousands is not None:
        candidates = [
            NumberFormat(d, t)
            for d in ([decimal] if decimal else [".", ","])
            for t in ("", thousands)
            if d != thousands
        ]
    return tuple(candidates)


def _formats(
    texts: "dict[str, pa.ChunkedArray]", candidates: tuple[NumberFormat, ...], decimal: str | None
) -> dict[str, NumberFormat | None]:
    """The format of the numbers in each column of text; None if they are no numbers.

    ``1,234`` can be read in two ways: then the columns decide that can be read in one.
    """
    possible = {name: number_formats(text, candidates, MIN_SHARE) for name, text in texts.items()}
    marks = [{m.decimal for m in found} for found in possible.values()]
    commas, points = marks.count({","}), marks.count({"."})
    preferred = decimal or ("," if commas > points else ".")
    return {
        name: min(found, key=lambda m: m.decimal != preferred) if found else None
        for name, found in possible.items()
    }


def _find_text(
    name: str, text: "pa.ChunkedArray", marks: NumberFormat | None, keep: bool
) -> _Found:
    if text.null_count == len(text):
        return _Found("empty", len(text), None, None, "no values")
    if marks is not None:
        numbers = as_numbers(text, marks)
        kind = f"number {_example(marks)}" if marks != PLAIN and has_marks(text) else "number"
        found = _find_numbers(name, numbers, keep, marks, kind)
        return _with_unreadable(found, text)
    if is_boolean(text):
        return _find_booleans(name, as_booleans(text), keep)
    if is_date(text, MIN_SHARE):
        return _with_unreadable(_find_dates(name, as_times(text), keep), text)
    found = _find_levels(name, text, keep)
    if looks_like_date(text, MIN_SHARE):
        return replace(found, action=f"{found.action}; if dates, write 2024-12-31")
    return found


def _find_typed(name: str, data: "pa.ChunkedArray", keep: bool) -> _Found:
    from pyarrow import types

    missing = data.null_count
    if missing == len(data):
        return _Found("empty", missing, None, None, "no values")
    if types.is_boolean(data.type):
        return _find_booleans(name, numeric_values(data), keep)
    if is_number(data.type):
        if types.is_integer(data.type) and np.nanmax(np.abs(numeric_values(data))) > 2**53:
            return _find_text(name, as_text(data), None, keep)
        return _find_numbers(name, numeric_values(data), keep, PLAIN)
    if is_time(data.type):
        return _find_dates(name, data, keep)
    return _Found(str(data.type), missing, None, None, "this type is not read")


def _with_unreadable(found: _Found, text: "pa.ChunkedArray") -> _Found:
    """The note on values that are not of the type of the others."""
    unreadable = found.missing - text.null_count
    if not unreadable or found.column is None:
        return found
    return replace(found, action=f"{found.action}; {unreadable} not read: missing")


def _number_part(values: Floats, field: str = "") -> tuple[Part, str]:
    """The part of a number, and how its missing values are replaced."""
    missing = np.isnan(values)
    fill = float(np.nanmedian(values)) if missing.any() else float(np.median(values))
    share = missing.mean()
    part = Part(field, None, fill, bool(share > INDICATOR_SHARE))
    if not missing.any():
        return part, ""
    shown = "median" if field == "days" else f"median {fill:.6g}"
    return part, f"missing: {shown}{', indicator' * part.indicator}"


def _find_numbers(
    name: str, values: Floats, keep: bool, marks: NumberFormat, kind: str = "number"
) -> _Found:
    missing = int(np.isnan(values).sum())
    if missing == len(values):
        return _Found(kind, missing, None, None, "no finite values")
    low, high = np.nanmin(values), np.nanmax(values)
    if low == high and missing > INDICATOR_SHARE * len(values):
        # That it is missing may tell much. An indicator beside a constant would be dependent.
        part = Part("", None, 0.0 if low else 1.0)
        action = f"missing: {part.fill:g}"
        return _Found(kind, missing, None, Column(name, NUMBER, (part,), marks), action)
    if not keep:
        if low == high:
            return _Found(kind, missing, None, None, f"constant ({low:g})")
        if _ID_NAME.fullmatch(name) and _are_distinct_integers(values):
            return _Found(f"{kind}, id", missing, None, None, "an identifier")
    part, note = _number_part(values)
    return _Found(kind, missing, None, Column(name, NUMBER, (part,), marks), note or "as it is")


def _example(marks: NumberFormat) -> str:
    """A number in this format."""
    return f"1{marks.thousands}234{marks.decimal}5"


def _are_distinct_integers(values: Floats) -> bool:
    present = values[~np.isnan(values)]
    return bool((present == np.trunc(present)).all()) and len(np.unique(present)) == len(present)


def _find_booleans(name: str, values: Floats, keep: bool) -> _Found:
    missing = int(np.isnan(values).sum())
    if not keep and np.nanmin(values) == np.nanmax(values):
        word = "yes" if np.nanmin(values) else "no"
        return _Found("yes/no", missing, 1, None, f"constant ({word})")
    part, note = _number_part(values)
    action = note or "0 and 1"
    return _Found("yes/no", missing, 2, Column(name, BOOLEAN, (part,)), action)


def _find_dates(name: str, times: "pa.ChunkedArray", keep: bool) -> _Found:
    fields = date_fields(times)
    days = fields["days"]
    missing = int(np.isnan(days).sum())
    if missing == len(days):
        return _Found("date", missing, None, None, "no values")
    low, high = np.nanmin(days), np.nanmax(days)
    if low == high and not keep:
        return _Found("date", missing, None, None, "constant")
    part, note = _number_part(days, "days")
    parts = [part]
    # Within a year the days tell the month.
    for field, names in (("month", _MONTHS if high - low > 366 else ()), ("weekday", _WEEKDAYS)):
        values = fields[field]
        occurring = np.unique(values[~np.isnan(values)])
        if names and len(occurring) == len(names):
            most = int(np.nanargmax(bincount(values[~np.isnan(values)].astype(int))))
            parts.append(Part(field, names, float(most)))
    if np.nanmax(fields["hour"]) > 0:
        parts.append(Part("hour", None, _number_part(fields["hour"])[0].fill))
    action = "; ".join(filter(None, (", ".join(p.field for p in parts), note)))
    return _Found("date", missing, None, Column(name, DATE, tuple(parts)), action)


def _find_levels(name: str, text: "pa.ChunkedArray", keep: bool) -> _Found:
    counts = _counts(text)
    missing, n = text.null_count, len(text) - text.null_count
    many = len(counts) > FEW_LEVELS
    frequent = [level for level in counts if not many or counts[level] >= MIN_ROWS]
    if not keep:
        if len(counts) == 1 and missing <= INDICATOR_SHARE * len(text):
            return _Found("text", missing, 1, None, f"constant ({_shortened(next(iter(counts)))})")
        if len(counts) >= max(MIN_UNIQUE, UNIQUE_SHARE * n):
            return _Found("text, id", missing, len(counts), None, "an identifier")
        if not frequent:
            return _Found("text", missing, len(counts), None, f"no level has {MIN_ROWS} rows")
    frequent = (frequent or list(counts))[: MAX_LEVELS if many else None]
    shown = f"{len(frequent)} levels" if len(frequent) > 1 else "1 level"
    has_missing = missing > INDICATOR_SHARE * len(text)
    extra = [OTHER] * (len(frequent) < len(counts)) + [MISSING] * has_missing
    levels = tuple(dict.fromkeys([*sorted(frequent), *extra]))
    fill = levels.index(MISSING if has_missing else frequent[0])
    note = ""
    if missing:
        note = "missing: (missing)" if has_missing else f"missing: {_shortened(frequent[0])}"
    rest = " and (other)" if OTHER in extra else ""
    action = "; ".join(filter(None, (f"{shown}{rest}", note)))
    rare = tuple(sorted(counts.keys() - set(frequent)))
    part = Part("", levels, float(fill), rare=rare if len(rare) <= _KEPT_RARE else None)
    column = Column(name, TEXT, (part,))
    return _Found("text", missing, len(counts), column, action)


def _shortened(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:19]}…"


def _counts(text: "pa.ChunkedArray") -> dict[str, int]:
    """How often each text occurs, the most frequent first."""
    found: Any = text.drop_null().value_counts()
    counts = zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)
    return dict(sorted(counts, key=lambda item: (-item[1], item[0])))
