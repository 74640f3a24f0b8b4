"""Passes over blocks of rows: a summary of the input, and the rows that have a distribution."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from logitlab._app.cluster import Cluster, merged_sums
from logitlab._app.io.source import Logits, Track, UserError
from logitlab._rows import Floats, Integers, row_max
from logitlab.probabilities import logits

_SUM_TOLERANCE = 0.01  # of a row of probabilities with few digits or in a half type


@dataclass
class InputSummary:
    """Counts of rows, and of entries for `zeros`.

    All but the first three count rows that are evaluated.
    """

    nan_rows: int = 0
    empty_rows: int = 0  # only -inf
    unpaired_rows: int = 0  # without a distribution in another model
    tie_rows: int = 0  # two or more entries share the maximum
    minus_inf_rows: int = 0
    plus_inf_rows: int = 0
    zeros: int = 0  # probabilities of exactly 0
    minimum: float = math.inf  # of the finite entries of the file
    maximum: float = -math.inf
    naive_overflow_rows: int = 0
    looks_like_probabilities: bool = True

    def add(self, raw: NDArray[Any], z: NDArray[Any], probabilities: bool, one_score: bool) -> None:
        """Count rows that have a distribution: as in the file, and as logits.

        With `one_score`, the file has the second column of `raw` alone.
        """
        largest = row_max(z)
        is_largest = z == largest[:, None]
        if np.count_nonzero(is_largest) > len(z):
            self.tie_rows += int((is_largest.sum(axis=-1) > 1).sum())
        minus_inf = np.isneginf(z)
        if minus_inf.any():
            self.minus_inf_rows += int(minus_inf.any(axis=-1).sum())
        self.plus_inf_rows += int(np.isposinf(largest).sum())
        given = raw[:, 1:] if one_score else raw
        finite = given[select(np.isfinite(given))]
        if finite.size:
            self.minimum = min(self.minimum, float(finite.min()))
            self.maximum = max(self.maximum, float(finite.max()))
        if probabilities:
            self.zeros += int((raw == 0).sum())
            return
        self.naive_overflow_rows += int(_naive_overflows(as_floating(z, z.dtype)).sum())
        if self.looks_like_probabilities:
            wide = given.astype(np.float64)
            self.looks_like_probabilities = bool(
                ((wide >= 0) & (wide <= 1)).all()
                and (one_score or (np.abs(wide.sum(axis=-1) - 1) < 1e-3).all())
            )

    def merge(self, other: "InputSummary") -> None:
        """Add the counts of other rows."""
        for name in [*(name for name in vars(self) if name.endswith("_rows")), "zeros"]:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.looks_like_probabilities &= other.looks_like_probabilities


def logits_of_probabilities(
    p: NDArray[Any],
    start: int,
    source: Logits,
    advice: str = "omit --probabilities if these are logits",
) -> Floats:
    """The logits of rows of probabilities, which are checked; `start` numbers the first row."""
    p = p.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        total = p.sum(axis=-1)
    negative = (p < 0).any(axis=-1)
    wrong_sum = np.abs(total - 1) > _SUM_TOLERANCE
    for wrong, rule in (
        (negative, "must be >= 0, got a negative number"),
        (wrong_sum, "must sum to 1, got {:.6g}"),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(
                f"{source.place(start + row)}: probabilities {rule.format(total[row])}; {advice}"
            )
    z: Floats = logits(p)
    return z


def _naive_overflows(z: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows in which exp(z) / sum(exp(z)), in z's type, divides by infinity or by zero."""
    with np.errstate(all="ignore"):
        e = np.exp(z)
        total = e.sum(axis=-1, dtype=e.dtype)
    failed: NDArray[np.bool_] = ~np.isfinite(total) | (total == 0)
    return failed


def select(mask: NDArray[np.bool_]) -> Any:
    """An index of the entries where `mask` is True: all of them without a copy if it is so."""
    return ... if mask.all() else mask


def as_floating(z: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """`z` in `dtype` if that is a floating-point type, else in float64."""
    floating = dtype.kind == "f" or dtype.name == "bfloat16"
    return z.astype(dtype if floating else np.float64, copy=False)


class RowSums(Protocol):
    """What a pass computes: it is filled with blocks of rows, and merged with that of later rows.

    `add` takes the numbers of rows among all rows, their logits, and other values of the rows by
    name.
    """

    @property
    def input_summary(self) -> InputSummary | None:
        """Counts what the rows contain, if that is not None."""

    @property
    def add(self) -> Callable[..., None]: ...

    def merge(self, other: Self) -> None: ...


Sums = TypeVar("Sums", bound=RowSums)


class Passes:
    """Repeated passes over the rows that have a distribution.

    With `included` and `shared` only over the rows for which both are True.
    """

    def __init__(
        self,
        source: Logits,
        probabilities: bool,
        track: Track,
        shared: NDArray[np.bool_] | None = None,
        included: NDArray[np.bool_] | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        """With `cluster` the shards of the source are read by its workers."""
        self._source, self._probabilities, self._track = source, probabilities, track
        self._shared, self._included = shared, included
        self._cluster = cluster
        self._keep: dict[int, NDArray[np.bool_]] = {}  # by the first row of a block
        self.classes = source.classes
        self.dtype = np.dtype(np.float64) if probabilities else source.dtype

    def run(self, make: Callable[[slice], Sums], task: str, **values: NDArray[Any]) -> Sums:
        """One pass: the sums that `make` makes for a range of rows, filled with them.

        `values` are arrays with a value for each row, of which `add` gets those of its rows.
        """
        if self._cluster is not None:
            return self._run_on_workers(self._cluster, make, task, values)
        first = self._source.first
        sums = make(slice(first, first + self._source.rows))
        for rows, z in self.blocks(task, sums.input_summary):
            sums.add(first + rows, z, **{name: array[rows] for name, array in values.items()})
        return sums

    def _run_on_workers(
        self,
        cluster: Cluster,
        make: Callable[[slice], Sums],
        task: str,
        values: dict[str, NDArray[Any]],
    ) -> Sums:
        """The merged sums of the shards, each with its part of the arrays."""
        calls = []
        for shard in self._source.shards:
            part = slice(shard.first, shard.first + shard.rows)
            shared, included = (
                None if mask is None else mask[part] for mask in (self._shared, self._included)
            )
            arrays = {name: array[part] for name, array in values.items()}
            arguments = shard.open, self._probabilities, shared, included, make, arrays
            calls.append(partial(_run_on_shard, *arguments))
        sizes = [shard.rows for shard in self._source.shards]
        sums: Sums = cluster.run(calls, merged_sums, sizes, self._track, task)
        return sums

    def blocks(
        self, task: str, summary: InputSummary | None = None
    ) -> Iterator[tuple[Integers, Any]]:
        """One pass in this process: the numbers of rows in the source, and their logits."""
        start = 0
        for raw in self._track(self._source.read(), self._source.rows, task):
            z = raw
            if self._probabilities:
                z = logits_of_probabilities(raw, start, self._source)
            if summary is not None or start not in self._keep:
                largest = row_max(z)
                nan, empty = np.isnan(largest), np.isneginf(largest)
                keep = valid = ~(nan | empty)
                if self._included is not None:
                    part = self._included[start : start + len(raw)]
                    nan, empty, keep, valid = nan & part, empty & part, keep & part, valid & part
                if self._shared is not None:
                    keep = valid & self._shared[start : start + len(raw)]
                self._keep[start] = keep
                if summary is not None:
                    summary.nan_rows += int(nan.sum())
                    summary.empty_rows += int(empty.sum())
                    summary.unpaired_rows += int(valid.sum() - keep.sum())
                    summary.add(
                        raw[select(keep)],
                        z[select(keep)],
                        self._probabilities,
                        self._source.one_score,
                    )
            keep = self._keep[start]
            yield start + np.flatnonzero(keep), z[select(keep)]
            start += len(raw)


def untracked(chunks: Iterator[Any], _rows: int, _task: str) -> Iterator[Any]:
    """A :data:`Track` that shows nothing."""
    return chunks


def _run_on_shard(
    open_shard: Callable[[], Logits],
    probabilities: bool,
    shared: NDArray[np.bool_] | None,
    included: NDArray[np.bool_] | None,
    make: Callable[[slice], Sums],
    values: dict[str, NDArray[Any]],
) -> Sums:
    """The sums of a pass over one shard, on a worker."""
    passes = Passes(open_shard(), probabilities, untracked, shared, included)
    return passes.run(make, "", **values)
