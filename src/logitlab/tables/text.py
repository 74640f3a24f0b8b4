"""Text as people write numbers, dates, yes and no, and missing values."""

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from logitlab._rows import Floats
from logitlab.tables.columns import PLAIN, NumberFormat

if TYPE_CHECKING:
    import pyarrow as pa

# Those of pandas.read_csv, and marks that people write.
MISSING_MARKERS = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "na", "nan", "null", "NaT"),
    *("-", "--", "?", "."),
)
PAIRS = (("no", "yes"), ("false", "true"), ("n", "y"), ("f", "t"))
FORMATS = (
    PLAIN,
    NumberFormat(".", ","),
    NumberFormat(",", ""),
    NumberFormat(",", "."),
    NumberFormat(".", " "),
    NumberFormat(",", " "),
    NumberFormat(".", "'"),
)
_BLANKS = " \u00a0\u202f"
_SPACES = f"[{_BLANKS}]"
_CURRENCY = "[$€£¥]"
_CODE = r"^[-+]?(0\d+|\d{17,})$"  # its zeros count, or float64 does not hold it
_DATE = r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
_TIME = r"[T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d([.]\d{1,9})?)?"
_ZONE = r"(Z|[+-]\d{2}:?\d{2})"
_EPOCH = np.datetime64("2000-01-01", "us")
_DAY_US = 86_400_000_000


def cleaned(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """The column as text without spaces around it, null where a value is missing."""
    import pyarrow as pa
    from pyarrow import compute

    text = compute.utf8_trim_whitespace(column.cast(pa.string()))
    markers = pa.array(MISSING_MARKERS, pa.string())
    return compute.if_else(
        compute.is_in(text, value_set=markers), pa.scalar(None, pa.string()), text
    )


def matches(text: "pa.ChunkedArray", pattern: str) -> "pa.ChunkedArray":
    from pyarrow import compute

    return compute.match_substring_regex(text, pattern)


def share(mask: "pa.ChunkedArray") -> float:
    """The share of true values among those that are not missing."""
    from pyarrow import compute

    return compute.mean(mask).as_py() or 0.0


@functools.cache
def _number_pattern(marks: NumberFormat) -> str:
    decimal = f"[{marks.decimal}]"
    whole = r"\d+"
    if marks.thousands:
        mark = _SPACES if marks.thousands == " " else f"[{marks.thousands}]"
        whole = rf"([1-9]\d{{0,2}}({mark}\d{{3}})+|\d+)"
    number = rf"({whole}({decimal}\d*)?|{decimal}\d+)([eE][-+]?\d+)?"
    return (
        rf"^({_CURRENCY}{_SPACES}?)?[-+]?({_CURRENCY}{_SPACES}?)?"
        rf"{number}({_SPACES}?({_CURRENCY}|%))?$"
    )


def _with_signs(text: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """The text with U+2212 and the brackets of accounting, ``(1,234)``, as a hyphen."""
    from pyarrow import compute

    text = compute.replace_substring(text, "\u2212", "-")
    pattern = rf"^({_CURRENCY}?{_SPACES}?)\(([^()+-]+)\)$"
    return compute.replace_substring_regex(text, pattern, r"-\1\2")


def _without_codes(text: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """The text, empty where it is a code such as 007 or an integer that float64 does not hold."""
    import pyarrow as pa
    from pyarrow import compute

    return compute.if_else(matches(text, _CODE), pa.scalar(""), text)


def _are_padded(text: "pa.ChunkedArray", min_share: float) -> bool:
    """Whether the values have as many digits, with leading zeros, as postal codes do."""
    from pyarrow import compute

    digits = text.filter(matches(text, r"^\d+$"))
    lengths = compute.utf8_length(digits)
    most = compute.mode(lengths).to_pylist()
    if not most or most[0]["count"] < min_share * (len(text) - text.null_count):
        return False
    padded = compute.and_(compute.equal(lengths, most[0]["mode"]), matches(digits, r"^0\d"))
    return bool(compute.any(padded).as_py())


def _reads(text: "pa.ChunkedArray", marks: NumberFormat) -> "pa.ChunkedArray":
    """Where the text is a number of this format."""
    return matches(text, _number_pattern(marks))


def has_marks(text: "pa.ChunkedArray") -> bool:
    """Whether a mark stands between two digits of a number."""
    return share(matches(text, rf"\d[.,'_{_BLANKS}]\d")) > 0


def as_numbers(text: "pa.ChunkedArray", marks: NumberFormat) -> Floats:
    """The numbers, NaN where the text is missing, not a number of this format, or infinite.

    Codes such as 007 and integers of 17 digits are no numbers.
    """
    import pyarrow as pa
    from pyarrow import compute

    text = _without_codes(_with_signs(text))
    if marks == PLAIN:
        try:
            return _finite(text.cast(pa.float64()))
        except pa.ArrowInvalid:
            pass
    digits = compute.if_else(_reads(text, marks), text, pa.scalar(None, pa.string()))
    digits = compute.replace_substring_regex(digits, r"[^0-9.,eE+-]", "")
    if marks.thousands in (".", ","):
        digits = compute.replace_substring(digits, marks.thousands, "")
    if marks.decimal == ",":
        digits = compute.replace_substring(digits, ",", ".")
    return _finite(digits.cast(pa.float64()))


def _finite(numbers: Any) -> Floats:
    values = np.array(numbers.to_numpy(), np.float64)
    values[np.isinf(values)] = np.nan
    return values


def number_formats(
    text: "pa.ChunkedArray", candidates: tuple[NumberFormat, ...], min_share: float
) -> list[NumberFormat]:
    """The candidates that read most of the values, all of them equally many."""
    text = _with_signs(text)
    like_number = rf"^[-+]?{_CURRENCY}?{_SPACES}?[-+]?[.,]?\d[-+\d.,'_eE$€£¥%{_BLANKS}]*$"
    if share(matches(text, like_number)) < min_share:
        return []
    if _are_padded(text, min_share):
        return []
    text = _without_codes(text)
    shares = {marks: share(_reads(text, marks)) for marks in candidates}
    best = max(shares.values())
    return [] if best < min_share else [m for m in candidates if shares[m] == best]


def as_booleans(text: "pa.ChunkedArray") -> Floats:
    """1 for yes, true, y, t, 1; 0 for no, false, n, f, 0; NaN for all else."""
    import pyarrow as pa
    from pyarrow import compute

    words = [word for pair in (*PAIRS, ("0", "1")) for word in pair]
    index = compute.index_in(compute.utf8_lower(text), value_set=pa.array(words))
    found: Floats = index.cast(pa.float64()).to_numpy()
    return np.mod(found, 2)


def is_boolean(text: "pa.ChunkedArray") -> bool:
    """Whether all values are two words such as yes and no, in any case."""
    from pyarrow import compute

    found = compute.utf8_lower(text).drop_null().unique().to_pylist()
    return any(set(found) == set(pair) for pair in PAIRS)


def is_date(text: "pa.ChunkedArray", min_share: float) -> bool:
    return share(matches(text, f"{_DATE}({_TIME}{_ZONE}?)?$")) >= min_share


def looks_like_date(text: "pa.ChunkedArray", min_share: float) -> bool:
    """Whether the values are days in an order that differs between countries."""
    return share(matches(text, r"^\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b")) >= min_share


def as_times(text: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """ISO dates and times as timestamps (with a zone in UTC), null where the text is neither."""
    import pyarrow as pa
    from pyarrow import compute

    null = pa.scalar(None, pa.string())
    zoned = compute.if_else(matches(text, f"{_DATE}{_TIME}{_ZONE}$"), text, null)
    local = compute.if_else(matches(text, f"{_DATE}({_TIME})?$"), text, null)
    # A space before the zone and fractions beyond microseconds are not read by Arrow.
    parts = [
        _timestamps(zoned, pa.timestamp("us", "UTC")).cast(pa.timestamp("us")),
        _timestamps(local, pa.timestamp("us")),
    ]
    return compute.coalesce(*parts)


def _timestamps(text: "pa.ChunkedArray", kind: Any) -> "pa.ChunkedArray":
    """The text as timestamps; null for days that a month does not have."""
    import pyarrow as pa
    from pyarrow import compute

    text = compute.replace_substring_regex(text, r"([.]\d{1,6})\d*", r"\1")
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:
        pass
    values = text.unique()
    valid = []
    for value in values.drop_null():
        try:
            value.cast(kind)
        except pa.ArrowInvalid:
            continue
        valid.append(value.as_py())
    known = compute.is_in(text, value_set=pa.array(valid, pa.string()))
    return compute.if_else(known, text, pa.scalar(None, pa.string())).cast(kind)


def date_fields(times: "pa.ChunkedArray") -> dict[str, Floats]:
    """Days since 2000, month and weekday from 0 (January, Monday), and hour; NaN if missing."""
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_timestamp(times.type) and times.type.tz is not None:
        times = times.cast(pa.timestamp(times.type.unit, "UTC"))
    times = times.cast(pa.timestamp("us"), safe=False)
    micros = times.cast(pa.int64()).cast(pa.float64(), safe=False).to_numpy()
    offset = float(_EPOCH.astype(np.int64))

    def field(values: Any) -> Floats:
        return np.array(values.cast(pa.float64()).to_numpy(), np.float64)

    return {
        "days": (micros - offset) / _DAY_US,
        "month": field(compute.month(times)) - 1,
        "weekday": field(compute.day_of_week(times)),
        "hour": np.mod(micros, _DAY_US) / 3_600_000_000,
    }
