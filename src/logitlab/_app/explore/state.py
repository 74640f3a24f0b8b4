"""The settings of the page: parsed from its address, checked, and applied to a row."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import numpy as np

from logitlab._app.explore.datasets import Dataset, Datasets
from logitlab._checks import choice
from logitlab._rows import Floats
from logitlab.sampling import ORDERS, Sampler

ORDERS_OF_ROWS = ("number", "certain", "uncertain", "mistake")
MAX_SAMPLES = 100_000
MAX_TYPED = 10_000  # logits of a row that is typed in
# Numbers in the address, and the settings of a Sampler that they are.
_STAGES = {
    "p": "top_p",
    "minp": "min_p",
    "typical": "typical_p",
    "epsilon": "epsilon",
    "eta": "eta",
    "nsigma": "top_n_sigma",
    "topa": "top_a",
    "xtc": "xtc_threshold",
    "dynatemp": "dynatemp_range",
    "exponent": "dynatemp_exponent",
}


def _float(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, got {text!r}") from None
    if math.isnan(value):
        raise ValueError(f"{name} must be a number, got nan")
    return value


def _finite(name: str, text: str) -> float:
    value = _float(name, text)
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {text}")
    return value


def _positive(name: str, text: str) -> float:
    value = _finite(name, text)
    if value <= 0:
        raise ValueError(f"{name} must be > 0, got {text}")
    return value


def _integer(name: str, text: str, low: int, high: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"{name} must be an integer, got {text!r}") from None
    if value < low:
        raise ValueError(f"{name} must be >= {low}, got {value}")
    if value > high:
        raise ValueError(f"{name} must be <= {high}, got {value}")
    return value


@dataclass(frozen=True)
class State:
    """All settings of the page."""

    dataset: Dataset
    typed: Floats | None  # the logits of a row that is typed in
    by: str  # order of the rows
    position: int  # of the row in this order
    edits: dict[int, float]  # logits that were changed, by class
    temperature: float = 1.0
    shift: float = 0.0
    scale: float = 1.0
    truncation: dict[str, Any] = field(default_factory=dict)
    label: int | None = None
    n_samples: int = 0
    seed: int = 0
    open_panels: tuple[str, ...] = ()

    @property
    def sampler(self) -> Sampler:
        """The temperature and the truncation."""
        return Sampler(temperature=self.temperature, **self.truncation)


def parse_state(text: str, datasets: Datasets) -> State:
    """The settings of an address such as ``set=five&T=0.5&p=0.9``; missing ones are defaults."""
    given = {key: values[-1] for key, values in parse_qs(text).items()}
    get = given.get
    dataset = datasets.get(get("set", datasets.default))
    typed = None
    if "z" in given:
        values = given["z"].replace(",", " ").split()
        if not 1 <= len(values) <= MAX_TYPED:
            raise ValueError(f"z must have 1 to {MAX_TYPED} logits, got {len(values)}")
        typed = np.array([_float("z", value) for value in values])
    classes = dataset.source.classes if typed is None else len(typed)
    edits = {}
    for edit in filter(None, get("edit", "").split(",")):
        k, _, value = edit.partition(":")
        edits[_integer("edit", k, 0, classes - 1)] = _float("edit", value)
    label = get("label")
    return State(
        dataset=dataset,
        typed=typed,
        by=choice(get("by", "number"), "by", ORDERS_OF_ROWS),
        position=_integer("row", get("row", "0"), 0, dataset.source.rows - 1),
        edits=edits,
        temperature=_float("T", get("T", "1")),
        shift=_finite("shift", get("shift", "0")),
        scale=_positive("scale", get("scale", "1")),
        truncation=_truncation(given),
        label=None if label is None else _integer("label", label, 0, classes - 1),
        n_samples=_integer("n", get("n", "0"), 0, MAX_SAMPLES),
        seed=_integer("seed", get("seed", "0"), 0, 2**53),
        open_panels=tuple(filter(None, get("open", "").split(","))),
    )


def _truncation(given: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a Sampler, which checks their values, but the temperature."""
    options: dict[str, Any] = {}
    if "k" in given:
        options["top_k"] = _integer("k", given["k"], 1, 2**53)
    for key, name in _STAGES.items():
        if key in given:
            options[name] = _float(key, given[key])
    if "xtc_threshold" in options:
        options["xtc_probability"] = 1.0
    if "dynatemp_range" not in options:
        options.pop("dynatemp_exponent", None)
    order = choice(given.get("order", "transformers"), "order", tuple(ORDERS))
    if options and order != "transformers":
        options["order"] = order
    return options


@dataclass(frozen=True)
class Row:
    """The logits of a row before and after the settings are applied."""

    number: int
    z: Floats  # with the edits
    scaled: Floats  # c z + shift
    truncated: Floats  # scaled, -inf where truncation removes a class
    temperature: float  # T, or the dynamic temperature


def apply_settings(state: State, number: int) -> Row:
    """The logits of row `number`, or of the row that is typed in, with the settings applied."""
    z = (state.dataset.row(number) if state.typed is None else state.typed).copy()
    for k, value in state.edits.items():
        z[k] = value
    with np.errstate(over="ignore"):
        scaled = state.scale * z + state.shift
    truncated, temperature = state.sampler._truncate(scaled)
    return Row(number, z, scaled, truncated, float(temperature))
