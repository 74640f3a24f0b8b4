"""The datasets that the page offers: the file of the user, and examples."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.explore.ranking import Ranking
from logitlab._app.io.arrays import open_logits, read_labels
from logitlab._app.io.example import digits
from logitlab._app.io.passes import Passes
from logitlab._app.io.source import Logits, in_memory, parse_file_spec
from logitlab._checks import choice
from logitlab._rows import Floats, Integers, blocks
from logitlab.probabilities import logits as logits_of

_MAX_SCORED = 1 << 21  # entries of the rows that are scored each time the temperature changes


@dataclass(frozen=True)
class LabelledRows:
    """Rows with labels, few enough to score each time a slider moves."""

    z: Floats
    y: Integers
    total: int  # number of rows of the dataset


@dataclass(eq=False)
class Dataset:
    """Rows of logits, and the Python expression of a row."""

    source: Logits
    row_expression: Callable[[int], str] | None = None  # of a row as float64
    labels: Integers | None = None
    probabilities: bool = False
    ranking: Ranking = field(init=False)

    def __post_init__(self) -> None:
        self.ranking = Ranking(self.source.rows, self._blocks, self.labels)

    @cached_property
    def _rows_at(self) -> Callable[[Any], NDArray[Any]]:
        if self.source.rows_at is not None:
            return self.source.rows_at
        return np.concatenate(list(self.source.read())).__getitem__

    def _float64_logits(self, z: NDArray[Any]) -> Floats:
        z = z.astype(np.float64)
        return np.asarray(logits_of(z)) if self.probabilities else z

    def _blocks(self) -> Iterator[Floats]:
        return (self._float64_logits(block) for block in self.source.read())

    def row(self, number: int) -> Floats:
        return self._float64_logits(self._rows_at(number))

    @cached_property
    def labelled_rows(self) -> LabelledRows | None:
        """The rows that have a distribution, with labels; of many rows, evenly spaced ones."""
        if self.labels is None:
            return None
        rows = self.source.rows
        count = max(1, min(rows, _MAX_SCORED // self.source.classes))
        numbers = np.linspace(0, rows - 1, count).astype(np.int64)
        z = np.empty((count, self.source.classes))
        for part in blocks(*z.shape):
            z[part] = self._float64_logits(self._rows_at(numbers[part]))
        valid = ~np.isnan(z).any(axis=-1) & (z.max(axis=-1) > -np.inf)
        return LabelledRows(z[valid], self.labels[numbers][valid], rows)


def _digits() -> Dataset:
    source, labels = digits()
    return Dataset(source, labels=labels)


_LONG_TAIL = "np.random.default_rng(0).permutation(9 - 1.1 * np.log(np.arange(1, 50258)))"


def _long_tail() -> Dataset:
    z = np.random.default_rng(0).permutation(9 - 1.1 * np.log(np.arange(1, 50258)))
    return Dataset(in_memory("an example", z[None]), lambda _: _LONG_TAIL)


# Title and logits of the examples of one row.
EXAMPLE_ROWS: dict[str, tuple[str, list[float]]] = {
    "five": ("five classes: 2, 1, 3, 5, 4", [2.0, 1.0, 3.0, 5.0, 4.0]),
    "three": ("three classes: 10, 20, 30", [10.0, 20.0, 30.0]),
    "gentle": ("three classes: 1, 2, 2.5", [1.0, 2.0, 2.5]),
    "sharp": ("three classes: 1, 2, 8", [1.0, 2.0, 8.0]),
    "seven": ("seven classes", [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0]),
    "huge": ("large logits: 1000 to 5000", [1e3, 2e3, 3e3, 4e3, 5e3]),
}


def _one_row(z: list[float]) -> Dataset:
    return Dataset(in_memory("an example", np.array([z])))


# The title of an example, and the function that makes it.
Example = tuple[str, Callable[[], Dataset]]
EXAMPLES: dict[str, Example] = {
    **{key: (title, partial(_one_row, z)) for key, (title, z) in EXAMPLE_ROWS.items()},
    "digits": ("handwritten digits, with labels", _digits),
    "tail": ("50,257 classes with a long tail", _long_tail),
}


class Datasets:
    """All datasets of the page by key; an example is made when it is first asked for."""

    def __init__(
        self, file: Dataset | None = None, examples: Mapping[str, Example] = EXAMPLES
    ) -> None:
        self._examples = examples
        self._loaded: dict[str, Dataset] = {} if file is None else {"file": file}
        self.titles = {} if file is None else {"file": Path(file.source.source).name}
        self.titles |= {key: title for key, (title, _) in examples.items()}

    @property
    def default(self) -> str:
        return next(iter(self.titles))

    def get(self, key: str) -> Dataset:
        choice(key, "set", tuple(self.titles))
        if key not in self._loaded:
            self._loaded[key] = self._examples[key][1]()
        return self._loaded[key]


def read_dataset(spec: str, labels: str | None, probabilities: bool) -> Dataset:
    """The rows of ``FILE`` or ``FILE:NAME``."""
    source = open_logits(spec, [] if labels is None else [labels])
    y = None if labels is None else read_labels(labels, source).classes
    if probabilities:
        for _ in Passes(source, True, lambda chunks, _rows, _what: chunks).blocks("checking"):
            pass  # raises an error for a row that is no distribution
    path, name = parse_file_spec(spec)
    return Dataset(source, _row_expression(path, name, source, probabilities), y, probabilities)


def _row_expression(
    path: Path, name: str | None, source: Logits, probabilities: bool
) -> Callable[[int], str] | None:
    kind = path.suffix.lower()
    if kind not in (".npy", ".npz") or path.is_dir() or source.dtype.name == "bfloat16":
        return None
    load = f"np.load({str(path.resolve())!r}, mmap_mode='r')"
    if kind == ".npz":
        with np.load(path) as archive:
            load = f"np.load({str(path.resolve())!r})[{name or archive.files[0]!r}]"
    if len(source.shape) != 2:
        load += f".reshape(-1, {source.classes})"
    wrapped = "logitlab.logits({})" if probabilities else "{}"
    return lambda row: wrapped.format(f"{load}[{row}].astype(float)")
