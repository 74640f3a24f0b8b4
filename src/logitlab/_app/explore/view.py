"""What the page shows, as plain data: every number is computed by logitlab."""

import math
from typing import Any

import numpy as np

from logitlab._app.explore.code import program
from logitlab._app.explore.derivatives import gradient, jacobian
from logitlab._app.explore.precision import precision
from logitlab._app.explore.reliability import judgement
from logitlab._app.explore.state import Row, State, apply
from logitlab._app.io.json_values import json_values
from logitlab._rows import Floats, Integers
from logitlab.plot.canvas import ranking_logits
from logitlab.plot.temperature import temperature_path
from logitlab.probabilities import softmax
from logitlab.sampling import sample
from logitlab.scores import entropy

SHOWN = 40  # classes drawn one by one
STREAM = 300  # draws listed one by one
_PATH = 201  # points of the way through the simplex


def shown_classes(state: State, row: Row) -> Integers:
    """All classes; of many, the most probable ones, the first first, and those that were moved."""
    z = row.scaled
    if len(z) <= SHOWN:
        return np.arange(len(z), dtype=np.int64)
    ahead = -ranking_logits(z, state.temperature)
    top = np.argpartition(ahead, SHOWN)[:SHOWN]
    place = np.union1d(top, np.fromiter(state.edits, np.int64, len(state.edits)))
    return place[np.argsort(ahead[place], kind="stable")].astype(np.int64)


def _name(state: State, k: int) -> str:
    names = state.rows.source.names if state.typed is None else None
    return str(k) if names is None else names[k]


def _bars(state: State, row: Row, p: Floats) -> dict[str, Any]:
    place = shown_classes(state, row)
    t = state.temperature
    before = softmax(row.z, temperature=t)
    shifted = softmax(row.z + state.shift, temperature=t)
    with np.errstate(over="ignore"):
        stretched = softmax(state.scale * row.z, temperature=t)
    left = np.ones(len(p), bool)
    left[place] = False
    # Ranks begin with 1; equal logits share one.
    behind = -ranking_logits(row.scaled, t)
    rank = 1 + np.searchsorted(np.sort(behind), behind[place])
    nats = float(entropy(row.kept, temperature=t))
    kept = int(np.sum(row.kept > -np.inf))
    return {
        "classes": len(p),
        "place": place,
        "names": [_name(state, k) for k in place],
        "z": row.z[place],
        "scaled": row.scaled[place],
        "p": p[place],
        "before": before[place],
        "cut": row.kept[place] < row.scaled[place],
        "rank": rank,
        "rest": {"classes": int(left.sum()), "p": float(p[left].sum())},
        "kept": kept,
        "entropy": nats,
        "share": nats / math.log(kept) if kept > 1 else 0.0,
        "perplexity": math.exp(nats),
        "top": float(p.max()),
        "sum": float(p.sum()),
        "shift_moves": float(np.max(np.abs(shifted - before))),
        "scale_moves": float(np.max(np.abs(stretched - before))),
        "ordered": _ordered(ranking_logits(row.kept, t), p),
        "reversed": t < 0,
    }


def _ordered(z: Floats, p: Floats) -> bool:
    """Whether no larger logit has a smaller probability."""
    ascending = p[np.argsort(z, kind="stable")]
    return not bool(np.any(np.diff(ascending) < 0))


def _draws(state: State, row: Row, p: Floats, place: Integers) -> dict[str, Any]:
    n = state.draws
    drawn = sample(row.scaled, n, temperature=state.temperature, **state.truncation, rng=state.seed)
    counts = np.bincount(drawn, minlength=len(p))
    chance = p[place]
    return {
        "counts": counts[place],
        "frequency": counts[place] / n,
        "reach": 1.96 * np.sqrt(chance * (1 - chance) / n),
        "rest": int(n - counts[place].sum()),
        "distinct": int(np.count_nonzero(counts)),
        "stream": drawn[:STREAM],
    }


def _simplex(state: State, row: Row, p: Floats) -> dict[str, Any]:
    """The way of three classes as T goes from 0 to infinity, on the side of the sign of T."""
    if len(p) != 3:
        return {"refused": "The triangle needs three classes."}
    line, marks = temperature_path(row.scaled, _PATH)
    found = []
    for t in (line, marks):
        # T = -0 is the limit from above.
        t = -np.maximum(t, 1e-300) if state.temperature < 0 else t
        found.append(softmax(np.broadcast_to(row.scaled, (len(t), 3)), temperature=t))
    named = np.where((marks > 0) & (state.temperature < 0), -marks, marks)
    return {"way": found[0], "marks": found[1], "temperatures": named, "p": p}


def view(state: State) -> dict[str, Any]:
    """The row that was asked for, and those parts of the page that are open."""
    number, ranked = state.place, None
    if state.typed is None and state.by != "number":
        order = state.rows.ranking.order(state.by)
        if order is None:
            return {"waiting": state.rows.ranking.progress}
        if not len(order):
            raise ValueError("no row is there to be picked: none is as you asked for")
        ranked = len(order)
        number = int(order[min(state.place, ranked - 1)])
    row = apply(state, number)
    p = softmax(row.kept, temperature=state.temperature)
    bars = _bars(state, row, p)
    labels = state.rows.labels if state.typed is None else None
    true = None if labels is None else int(labels[number])
    found: dict[str, Any] = {
        "row": number,
        "ranked": ranked,
        "rows": state.rows.source.rows,
        "labelled": labels is not None,
        "true": true,
        "true_name": None if true is None else _name(state, true),
        "bars": bars,
        "program": program(state, row),
    }

    def named(part: dict[str, Any]) -> dict[str, Any]:
        return {**part, "names": [_name(state, k) for k in part["place"]]}

    parts = {
        "jacobian": lambda: named(jacobian(state, row, bars["place"])),
        "gradient": lambda: named(gradient(state, row, bars["place"], true)),
        "precision": lambda: precision(state, row.z),
        "simplex": lambda: _simplex(state, row, p),
        "reliability": lambda: judgement(state),
    }
    if state.draws:
        found["draws"] = _part(lambda: _draws(state, row, p, bars["place"]))
    for name in state.parts:
        if name in parts:
            found[name] = _part(parts[name])
    return json_values(found, infinity_as_text=True)  # type: ignore[no-any-return]


def _part(compute: Any) -> dict[str, Any]:
    """A part of the page, or the reason why it cannot be shown."""
    try:
        return compute()  # type: ignore[no-any-return]
    except ValueError as error:
        return {"refused": str(error)}
