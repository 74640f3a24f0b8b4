"""What a person has set: read from the page's address, checked, and applied to a row."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import numpy as np

from logitlab._app.explore.datasets import Library, Rows
from logitlab._rows import Floats
from logitlab.sampling import ORDERS, truncate

MOST_DRAWS = 100_000
MOST_TYPED = 10_000  # classes of a row that was typed in


def _float(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}; accepted: a number") from None
    if math.isnan(value):
        raise ValueError(f"{name} is nan; accepted: a number")
    return value


def _finite(name: str, text: str) -> float:
    value = _float(name, text)
    if not math.isfinite(value):
        raise ValueError(f"{name} is {text}; accepted: a finite number")
    return value


def _positive(name: str, text: str) -> float:
    value = _finite(name, text)
    if value <= 0:
        raise ValueError(f"{name} is {text}; accepted: a positive number")
    return value


def _integer(name: str, text: str, low: int, high: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"{name} is {text!r}; accepted: an integer") from None
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; accepted: {low} to {high}")
    return value


@dataclass(frozen=True)
class State:
    """Everything that decides what the page shows."""

    rows: Rows
    typed: Floats | None  # a row given by its logits
    by: str
    place: int
    edits: dict[int, float]
    temperature: float = 1.0
    shift: float = 0.0
    scale: float = 1.0
    truncation: dict[str, Any] = field(default_factory=dict)
    label: int | None = None
    draws: int = 0
    seed: int = 0
    parts: tuple[str, ...] = ()


def read(text: str, library: Library) -> State:
    """A state from the form ``set=five&T=0.5&p=0.9``; what is missing has its default."""
    given = {key: values[-1] for key, values in parse_qs(text).items()}
    get = given.get
    rows = library.get(get("set", library.first))
    typed = None
    if "z" in given:
        values = given["z"].replace(",", " ").split()
        if not 1 <= len(values) <= MOST_TYPED:
            raise ValueError(f"z has {len(values)} logits; accepted: 1 to {MOST_TYPED}")
        typed = np.array([_float("z", value) for value in values])
    classes = rows.source.classes if typed is None else len(typed)
    edits = {}
    for edit in filter(None, get("edit", "").split(",")):
        k, _, value = edit.partition(":")
        edits[_integer("edit", k, 0, classes - 1)] = _float("edit", value)
    by = get("by", "number")
    if by not in ("number", "certain", "uncertain", "mistake"):
        raise ValueError(f"by is {by!r}; accepted: number, certain, uncertain, mistake")
    label = get("label")
    return State(
        rows=rows,
        typed=typed,
        by=by,
        place=_integer("row", get("row", "0"), 0, rows.source.rows - 1),
        edits=edits,
        temperature=_float("T", get("T", "1")),
        shift=_finite("shift", get("shift", "0")),
        scale=_positive("scale", get("scale", "1")),
        truncation=_truncation(given),
        label=None if label is None else _integer("label", label, 0, classes - 1),
        draws=_integer("n", get("n", "0"), 0, MOST_DRAWS),
        seed=_integer("seed", get("seed", "0"), 0, 2**53),
        parts=tuple(filter(None, get("open", "").split(","))),
    )


def _truncation(given: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of logitlab.sample that cut something; their values it checks itself."""
    found: dict[str, Any] = {}
    if "k" in given:
        found["top_k"] = _integer("k", given["k"], 1, 2**53)
    if "p" in given:
        found["top_p"] = _float("p", given["p"])
    if "minp" in given:
        found["min_p"] = _float("minp", given["minp"])
    order = given.get("order", "transformers")
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}; accepted: {', '.join(ORDERS)}")
    if found and order != "transformers":
        found["order"] = order
    return found


@dataclass(frozen=True)
class Row:
    """A row as it came, and as the settings leave it; -inf where the truncation cuts."""

    number: int
    z: Floats  # with what was dragged
    scaled: Floats  # c z + shift
    kept: Floats


def apply(state: State, number: int) -> Row:
    z = (state.rows.row(number) if state.typed is None else state.typed).copy()
    for k, value in state.edits.items():
        z[k] = value
    with np.errstate(over="ignore"):
        scaled = state.scale * z + state.shift
    kept = scaled
    if state.truncation:
        kept = truncate(scaled, temperature=state.temperature, **state.truncation)
    return Row(number, z, scaled, kept)
