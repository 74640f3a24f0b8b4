"""Everything the report says, found in passes over blocks of rows: memory does not grow with K."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.io.passes import Incoming, Passes, Track, in_type
from logitlab._app.io.source import Logits, UserError
from logitlab._app.report.evaluation import HELD, SEED, Judge, Judged, halves, judge
from logitlab._app.report.histogram import Distribution
from logitlab._app.report.language_model import OverTime, Text, TextPass, nucleus_sizes
from logitlab._app.report.numerics import Laws, look
from logitlab._rows import Floats, Integers, blocks
from logitlab.probabilities import softmax
from logitlab.scores import entropy

SAMPLE = 1 << 21  # elements of the rows that sweep and laws are computed on
_NUCLEUS_ROWS = 64
DRAWS = 1000
SWEEP = np.geomspace(0.1, 10, 25)
SHOWN_TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Example:
    """One row at several temperatures, and how often 1000 draws gave each class."""

    row: int
    logits: Floats
    probabilities: Floats  # (temperatures, K)
    frequencies: Floats


@dataclass(frozen=True)
class Analysis:
    source: Logits
    probabilities: bool
    incoming: Incoming
    judged_rows: int
    sharpness: dict[str, Distribution]
    sampled_rows: int
    sweep_entropy: Floats
    sweep_top: Floats
    nucleus: Integers  # sizes: (nuclei, temperatures, rows)
    over_time: OverTime
    example: Example
    laws: Laws
    judged: Judged | None
    text: Text | None

    @property
    def looks_like_probabilities(self) -> bool:
        """What was read as logits."""
        return self.incoming.looks_like_probabilities and not self.probabilities


class _Sample:
    """Rows drawn at random, as the passes come by; of few rows, all."""

    def __init__(self, source: Logits, elements: int, least: int) -> None:
        size = min(source.rows, max(least, elements // source.classes))
        drawn = np.random.default_rng(SEED).choice(source.rows, size, replace=False, shuffle=False)
        self.chosen = np.zeros(source.rows, bool)
        self.chosen[drawn] = True
        self._rows: list[Integers] = []
        self._logits: list[NDArray[Any]] = []

    def add(self, rows: Integers, z: NDArray[Any]) -> None:
        mine = self.chosen[rows]
        self._rows.append(rows[mine])
        self._logits.append(z[mine])

    def all(self) -> tuple[Integers, NDArray[Any]]:
        return np.concatenate(self._rows), np.concatenate(self._logits)


def _example(row: int, z: Floats) -> Example:
    p = np.stack([softmax(z, temperature=t) for t in SHOWN_TEMPERATURES])
    rng = np.random.default_rng(SEED)
    frequencies = np.zeros_like(p)
    for drawn, q in zip(frequencies, p, strict=True):
        # Only classes that can be drawn: the last one of a multinomial takes what rounding left.
        possible = q > 0
        drawn[possible] = rng.multinomial(DRAWS, q[possible] / q[possible].sum()) / DRAWS
    return Example(row, z, p, frequencies)


def _sweep(z: Floats) -> tuple[Floats, Floats]:
    means = np.zeros((2, len(SWEEP)))
    for i, t in enumerate(SWEEP):
        for part in blocks(*z.shape):
            means[0, i] += entropy(z[part], temperature=t).sum()
            means[1, i] += softmax(z[part], temperature=t).max(axis=-1).sum()
    return means[0] / len(z), means[1] / len(z)


def _sharpness(classes: int) -> dict[str, Distribution]:
    return {
        "entropy": Distribution(0, math.log(classes)),
        "perplexity": Distribution(1, classes),
        "top_probability": Distribution(0, 1),
        "jacobian_trace": Distribution(0, 1),
    }


def analyse(
    source: Logits,
    labels: Integers | None = None,
    *,
    targets: Integers | None = None,
    probabilities: bool = False,
    shared: NDArray[np.bool_] | None = None,
    track: Track = lambda chunks, _rows, _what: chunks,
) -> Analysis:
    """All sections of the report; `track` wraps each pass over the file (a progress bar).

    `labels` are judged and calibrated for; `targets` are the tokens of a text; `shared` are the
    rows that are looked at, of all.
    """
    log_k = math.log(source.classes)
    sharpness = _sharpness(source.classes)
    sample = _Sample(source, SAMPLE, _NUCLEUS_ROWS)
    held = None if labels is None else _Sample(source, HELD, 16)
    half = halves(source.rows) if labels is not None else np.empty(0, np.int64)
    before = None if held is None else Judge(source.classes, half, held.chosen)
    text = None if targets is None else TextPass(targets)
    over_time = OverTime(source.shape)
    incoming, passes = Incoming(), Passes(source, probabilities, track, shared)
    best, example_row, example = math.inf, -1, np.empty(0)
    for rows, z in passes.blocks("reading", incoming):
        if not len(rows):
            continue
        wide = z.astype(np.float64)
        p, nats = softmax(wide), entropy(wide)
        sharpness["entropy"].add(nats)
        sharpness["perplexity"].add(np.exp(nats))
        sharpness["top_probability"].add(p.max(axis=-1))
        sharpness["jacobian_trace"].add(np.sum(p * (1 - p), axis=-1))
        over_time.add(rows, nats)
        sample.add(rows, z)
        # The row halfway between certain and flat shows the most.
        middling = int(np.abs(nats - log_k / 2).argmin())
        if abs(nats[middling] - log_k / 2) < best:
            best = abs(nats[middling] - log_k / 2)
            example_row, example = int(rows[middling]), wide[middling].copy()
        if before is not None and held is not None and labels is not None:
            before.add(rows, wide, labels[rows])
            held.add(rows, z)
        if text is not None:
            text.add(rows, wide)
    if example_row < 0:
        raise UserError(f"{source.source}: no row holds a distribution, only NaN or -inf")
    _, few = sample.all()
    some = np.random.default_rng(SEED).choice(
        len(few), min(len(few), _NUCLEUS_ROWS), replace=False, shuffle=False
    )
    sweep = _sweep(few.astype(np.float64))
    judged = None
    if before is not None and held is not None and labels is not None:
        judged = judge(passes, labels, before, held.all(), half)
    return Analysis(
        source=source,
        probabilities=probabilities,
        incoming=incoming,
        judged_rows=source.rows
        - (incoming.nan_rows + incoming.empty_rows + incoming.unshared_rows),
        sharpness=sharpness,
        sampled_rows=len(few),
        sweep_entropy=sweep[0],
        sweep_top=sweep[1],
        nucleus=nucleus_sizes(few[some].astype(np.float64)),
        over_time=over_time,
        example=_example(example_row, example),
        laws=look(in_type(few, source.dtype)),
        judged=judged,
        text=text.text() if text else None,
    )
