"""The values of a column as numbers: one array for each part, NaN where they are missing."""

from typing import TYPE_CHECKING

import numpy as np

from logitlab._rows import Floats
from logitlab.tables.columns import BOOLEAN, DATE, OTHER, PLAIN, TEXT, Column
from logitlab.tables.text import as_booleans, as_numbers, as_times, cleaned, date_fields

if TYPE_CHECKING:
    import pyarrow as pa


class WrongTypeError(ValueError):
    """A column of a type that its encoding does not read."""


def plain_values(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """The values of a column, null instead of NaN; of a dictionary not the indices."""
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_floating(column.type):
        return compute.if_else(compute.is_nan(column), pa.scalar(None, column.type), column)
    if not pa.types.is_dictionary(column.type):
        return column
    kind = column.type.value_type
    kind = pa.string() if is_text(kind) else kind
    chunks = [chunk.dictionary.cast(kind).take(chunk.indices) for chunk in column.chunks]
    return plain_values(pa.chunked_array(chunks, kind))


def is_text(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def is_time(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return bool(types.is_date(kind) or types.is_timestamp(kind))


def is_number(kind: "pa.DataType") -> bool:
    from pyarrow import types

    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
    )


def numeric_values(data: "pa.ChunkedArray") -> Floats:
    """Numbers of any type as float64; NaN where they are missing or infinite."""
    import pyarrow as pa

    if pa.types.is_boolean(data.type):
        data = data.cast(pa.int8())
    values = data.cast(pa.float64(), safe=False).to_numpy()
    infinite = np.isinf(values)
    return np.where(infinite, np.nan, values) if infinite.any() else values


def column_values(column: Column, data: "pa.ChunkedArray") -> tuple[list[Floats], int]:
    """The values of each part, and how many could not be read or are levels that are new.

    Raises WrongTypeError if more than half of the values cannot be read.
    """
    data = plain_values(data)
    present = len(data) - data.null_count
    if column.kind == TEXT:
        indices, unknown = _level_indices(column, data)
        return [indices], unknown
    if is_text(data.type):
        text = cleaned(data)
        present = len(text) - text.null_count
        if column.kind == DATE:
            fields = date_fields(as_times(text))
        elif column.kind == BOOLEAN:
            fields = {"": as_booleans(text)}
        else:
            fields = {"": as_numbers(text, column.format or PLAIN)}
    elif column.kind == DATE and is_time(data.type):
        fields = date_fields(data)
    elif (column.kind != DATE and is_number(data.type)) or data.null_count == len(data):
        numbers = numeric_values(data) if is_number(data.type) else np.full(len(data), np.nan)
        if column.kind == BOOLEAN:
            numbers = np.where((numbers == 0) | (numbers == 1), numbers, np.nan)
        fields = dict.fromkeys([part.field for part in column.parts], numbers)
    else:
        raise WrongTypeError(f"must contain {_content(column)}, got {data.type}")
    values = [fields[part.field] for part in column.parts]
    unreadable = int(present - np.count_nonzero(~np.isnan(values[0])))
    if is_text(data.type) and unreadable > present / 2:
        example = _first_unreadable(text, values[0])
        raise WrongTypeError(
            f"must contain {_content(column)}, got text such as {example!r} in {unreadable} of "
            f"{present} values"
        )
    return values, unreadable


def _content(column: Column) -> str:
    return {DATE: "ISO dates", BOOLEAN: "yes or no"}.get(column.kind, "numbers")


def _first_unreadable(text: "pa.ChunkedArray", values: Floats) -> str:
    row = int((text.is_valid().to_numpy() & np.isnan(values)).argmax())
    return str(text[row].as_py())


def as_text(data: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Any values as text, null where they are missing."""
    return cleaned(plain_values(data))


def _level_indices(column: Column, data: "pa.ChunkedArray") -> tuple[Floats, int]:
    """The index of each level, and the number of unknown levels.

    These and rare levels have the index of `OTHER`, or the number of levels.
    """
    import pyarrow as pa
    from pyarrow import compute

    (part,) = column.parts
    levels = part.levels or ()
    try:
        text = as_text(data)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise WrongTypeError(f"must contain text, got {data.type}") from None
    index = compute.index_in(text, value_set=pa.array(levels, pa.string()))
    without = compute.and_(compute.is_null(index), compute.is_valid(text))
    unknown = 0
    if part.rare is not None:
        rare = compute.is_in(text, value_set=pa.array(part.rare, pa.string()))
        unknown = compute.sum(compute.and_not(without, rare)).as_py() or 0
    other = levels.index(OTHER) if OTHER in levels else len(levels)
    index = compute.if_else(without, pa.scalar(other, pa.int32()), index)
    values: Floats = index.cast(pa.float64()).to_numpy()
    return values, int(unknown)
