"""The encoding of a column of a table: how its values are read, and which features it gives."""

import math
import re
from dataclasses import asdict, dataclass
from typing import Any, Self

NUMBER, BOOLEAN, DATE, TEXT = "number", "yes/no", "date", "text"
# The fields of each kind, and whether they are levels.
FIELDS = {
    NUMBER: {"": False},
    BOOLEAN: {"": False},
    DATE: {"days": False, "month": True, "weekday": True, "hour": False},
    TEXT: {"": True},
}
OTHER, MISSING = "(other)", "(missing)"


def is_index(name: str) -> bool:
    """Whether a column is the index of a pandas data frame, which has no name in a file."""
    return name == "" or re.fullmatch(r"__index_level_\d+__", name) is not None


@dataclass(frozen=True)
class NumberFormat:
    """The marks in numbers that are written as text: those of ``1.234,5`` are ``,`` and ``.``."""

    decimal: str = "."
    thousands: str = ""

    def error(self) -> str | None:
        """Why the marks cannot be used; None if they can."""
        if self.decimal not in (".", ","):
            return f"decimal must be '.' or ',', got {self.decimal!r}"
        marks = ["", ".", ",", " ", "'", "_"]
        if self.thousands not in marks or self.thousands == self.decimal:
            allowed = ", ".join(repr(m) for m in marks[1:] if m != self.decimal)
            return f"thousands must be one of {allowed}, got {self.thousands!r}"
        return None


PLAIN = NumberFormat()


@dataclass(frozen=True)
class Part:
    """A column, or a field of a date: a number, or levels with a feature for each."""

    field: str
    levels: tuple[str, ...] | None  # None: a number
    fill: float  # replaces a missing value; of levels the index of one
    indicator: bool = False  # a further feature is 1 where the number is missing
    rare: tuple[str, ...] | None = ()  # levels of the fit that are `OTHER`; None: too many to keep

    def error(self) -> str | None:
        """Why the part cannot be used; None if it can."""
        if self.levels is None:
            valid = isinstance(self.fill, float) and math.isfinite(self.fill) and not self.rare
            return None if valid else "fill must be a finite number"
        if not self.levels or not all(isinstance(level, str) for level in self.levels):
            return "the levels must be texts"
        if len(set(self.levels)) != len(self.levels):
            return "the levels must be distinct"
        if self.indicator or self.fill not in range(len(self.levels)):
            return "fill must be the index of a level, and there must be no indicator"
        return None

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The part of a dictionary of its fields, in which tuples are lists."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in data.items()
        }
        return cls(**fields)


@dataclass(frozen=True)
class Column:
    """A column that gives features."""

    name: str
    kind: str
    parts: tuple[Part, ...]
    format: NumberFormat | None = None  # of numbers

    def part_name(self, part: Part) -> str:
        return f"{self.name}.{part.field}" if part.field else self.name

    def error(self) -> str | None:
        """Why the encoding cannot be used; None if it can."""
        if not isinstance(self.name, str):
            return "the name must be text"
        if self.kind not in FIELDS:
            return f"the kind must be one of {', '.join(FIELDS)}, got {self.kind!r}"
        if (self.format is not None) != (self.kind == NUMBER):
            return "numbers alone have a format"
        fields = [part.field for part in self.parts]
        known = FIELDS[self.kind]
        if not fields or len(set(fields)) != len(fields):
            return "the fields must be distinct, at least one"
        for part in self.parts:
            if part.field not in known or (part.levels is not None) != known[part.field]:
                return f"field {part.field!r} does not belong to the kind {self.kind}"
            if (reason := part.error()) is not None:
                return reason
        return None if self.format is None else self.format.error()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The column of :meth:`as_json`; a damaged one raises TypeError or KeyError."""
        parts = tuple(Part.from_json(part) for part in data["parts"])
        marks = data["format"]
        number_format = None if marks is None else NumberFormat(**marks)
        return cls(**{**data, "parts": parts, "format": number_format})


@dataclass(frozen=True)
class PlanLine:
    """What was found in a column of the fitted rows, and what is done with it."""

    name: str
    type: str
    missing: int  # number of missing values
    levels: int | None  # distinct values of text
    used: bool
    action: str
