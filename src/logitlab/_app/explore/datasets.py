"""The sets of rows that the page offers: a person's file, and named examples."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.explore.ranking import Ranking
from logitlab._app.io.arrays import open_logits, read_labels
from logitlab._app.io.example import digits
from logitlab._app.io.passes import Passes
from logitlab._app.io.source import Logits, in_memory, parse_file_spec
from logitlab._rows import Floats, Integers, blocks
from logitlab.probabilities import logits as logits_of

JUDGED = 1 << 21  # elements of the rows that are scored anew at every temperature


@dataclass(frozen=True)
class Judged:
    """Rows with labels, few enough to be scored while a slider moves."""

    z: Floats
    y: Integers
    of: int


@dataclass(eq=False)
class Rows:
    """Rows of logits, and how a program gets at one of them."""

    source: Logits
    code: Callable[[int], str] | None = None  # the expression of a row, as float64
    labels: Integers | None = None
    probabilities: bool = False
    ranking: Ranking = field(init=False)

    def __post_init__(self) -> None:
        self.ranking = Ranking(self.source.rows, self._read, self.labels)

    @cached_property
    def _rows(self) -> NDArray[Any]:
        held = self.source.array
        return np.concatenate(list(self.source.read())) if held is None else held

    def _wide(self, z: NDArray[Any]) -> Floats:
        z = z.astype(np.float64)
        return np.asarray(logits_of(z)) if self.probabilities else z

    def _read(self) -> Any:
        return (self._wide(block) for block in self.source.read())

    def row(self, number: int) -> Floats:
        return self._wide(self._rows[number])

    @cached_property
    def judged(self) -> Judged | None:
        """All rows with their labels; of many, some that lie evenly."""
        if self.labels is None:
            return None
        rows = self.source.rows
        count = max(1, min(rows, JUDGED // self.source.classes))
        place = np.linspace(0, rows - 1, count).astype(np.int64)
        z = np.empty((count, self.source.classes))
        for part in blocks(*z.shape):
            z[part] = self._wide(self._rows[place[part]])
        sound = ~np.isnan(z).any(axis=-1) & (z.max(axis=-1) > -np.inf)
        return Judged(z[sound], self.labels[place][sound], rows)


def _vector(z: list[float]) -> Rows:
    return Rows(in_memory("an example", np.array([z])))


def _digits() -> Rows:
    source, labels = digits()
    return Rows(source, labels=labels)


_TAIL = "np.random.default_rng(0).permutation(9 - 1.1 * np.log(np.arange(1, 50258)))"


def _tail() -> Rows:
    z = np.random.default_rng(0).permutation(9 - 1.1 * np.log(np.arange(1, 50258)))
    return Rows(in_memory("an example", z[None]), lambda _: _TAIL)


# What the page offers beside a file: a title, and how the rows are made when they are asked for.
EXAMPLES: dict[str, tuple[str, Callable[[], Rows]]] = {
    "five": ("five classes: 2, 1, 3, 5, 4", lambda: _vector([2.0, 1.0, 3.0, 5.0, 4.0])),
    "three": ("three classes: 10, 20, 30", lambda: _vector([10.0, 20.0, 30.0])),
    "gentle": ("three classes: 1, 2, 2.5", lambda: _vector([1.0, 2.0, 2.5])),
    "sharp": ("three classes: 1, 2, 8", lambda: _vector([1.0, 2.0, 8.0])),
    "seven": ("seven classes", lambda: _vector([1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0])),
    "huge": ("huge: 1000 to 5000", lambda: _vector([1e3, 2e3, 3e3, 4e3, 5e3])),
    "digits": ("handwritten digits, with labels", _digits),
    "tail": ("a long tail, as of a language model", _tail),
}


class Library:
    """Every set that the page offers; each is made once."""

    def __init__(self, file: Rows | None = None) -> None:
        self._made: dict[str, Rows] = {} if file is None else {"file": file}
        self.titles = {} if file is None else {"file": Path(file.source.source).name}
        self.titles |= {key: title for key, (title, _) in EXAMPLES.items()}

    @property
    def first(self) -> str:
        return next(iter(self.titles))

    def get(self, key: str) -> Rows:
        if key not in self.titles:
            raise ValueError(f"set is {key!r}; accepted: {', '.join(self.titles)}")
        if key not in self._made:
            self._made[key] = EXAMPLES[key][1]()
        return self._made[key]


def from_file(spec: str, labels: str | None, probabilities: bool) -> Rows:
    """The rows of ``FILE`` or ``FILE:NAME``."""
    source = open_logits(spec, labels)
    y = None if labels is None else read_labels(labels, source)
    if probabilities:
        for _ in Passes(source, True, lambda chunks, _rows, _what: chunks).blocks("checking"):
            pass  # a row that holds none is refused
    path, name = parse_file_spec(spec)
    return Rows(source, _code(path, name, source, probabilities), y, probabilities)


def _code(
    path: Path, name: str | None, source: Logits, probabilities: bool
) -> Callable[[int], str] | None:
    kind = path.suffix.lower()
    if kind not in (".npy", ".npz") or source.dtype.name == "bfloat16":
        return None
    load = f"np.load({str(path.resolve())!r}, mmap_mode='r')"
    if kind == ".npz":
        with np.load(path) as archive:
            load = f"np.load({str(path.resolve())!r})[{name or archive.files[0]!r}]"
    if len(source.shape) != 2:
        load += f".reshape(-1, {source.classes})"
    wrapped = "logitlab.logits({})" if probabilities else "{}"
    return lambda row: wrapped.format(f"{load}[{row}].astype(float)")
