"""The values that the page shows, as data for JSON; logitlab computes every number."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from logitlab._app.explore.code import python_code
from logitlab._app.explore.datasets import Datasets
from logitlab._app.explore.derivatives import gradient, jacobian
from logitlab._app.explore.precision import precision
from logitlab._app.explore.reliability import reliability
from logitlab._app.explore.state import Row, State, apply_settings, parse_state
from logitlab._app.io.json_values import json_values
from logitlab._app.io.source import UserError
from logitlab._arrays import bincount
from logitlab._rows import Floats, Integers
from logitlab.divergences import entropy
from logitlab.plot.canvas import ranking_logits
from logitlab.plot.temperature import temperature_path
from logitlab.probabilities import softmax

_MAX_BARS = 40  # classes that have a bar
_MAX_LISTED = 300  # samples that are listed
_PATH_POINTS = 201  # of the temperature path in the simplex


def _shown_classes(state: State, row: Row) -> Integers:
    """All classes; of many, the most probable ones in descending order, and edited ones."""
    z = row.scaled
    if len(z) <= _MAX_BARS:
        return np.arange(len(z), dtype=np.int64)
    descending = -ranking_logits(z, state.temperature)
    top = np.argpartition(descending, _MAX_BARS)[:_MAX_BARS]
    indices = np.union1d(top, np.fromiter(state.edits, np.int64, len(state.edits)))
    return indices[np.argsort(descending[indices], kind="stable")].astype(np.int64)


def _name(state: State, k: int) -> str:
    names = state.dataset.source.names if state.typed is None else None
    return str(k) if names is None else names[k]


def _bars(state: State, row: Row, p: Floats) -> dict[str, Any]:
    indices = _shown_classes(state, row)
    t = state.temperature
    original = softmax(row.z, temperature=t)
    shifted = softmax(row.z + state.shift, temperature=t)
    with np.errstate(over="ignore"):
        scaled = softmax(state.scale * row.z, temperature=t)
    omitted = np.ones(len(p), bool)
    omitted[indices] = False
    # Ranks start at 1; equal logits have the same rank.
    descending = -ranking_logits(row.scaled, t)
    rank = 1 + np.searchsorted(np.sort(descending), descending[indices])
    nats = float(entropy(row.truncated, temperature=row.temperature))
    n_kept = int(np.sum(row.truncated > -np.inf))
    return {
        "classes": len(p),
        "indices": indices,
        "names": [_name(state, k) for k in indices],
        "z": row.z[indices],
        "scaled": row.scaled[indices],
        "p": p[indices],
        "original_p": original[indices],
        "removed": row.truncated[indices] < row.scaled[indices],
        "rank": rank,
        "omitted": {"classes": int(omitted.sum()), "p": float(p[omitted].sum())},
        "n_kept": n_kept,
        "entropy": nats,
        "relative_entropy": nats / math.log(n_kept) if n_kept > 1 else 0.0,
        "perplexity": math.exp(nats),
        "max_p": float(p.max()),
        "sum": float(p.sum()),
        "shift_change": float(np.max(np.abs(shifted - original))),
        "scale_change": float(np.max(np.abs(scaled - original))),
        "same_order": _same_order(row, t, p),
        "reversed": t < 0,
        "temperature": row.temperature,
    }


def _same_order(row: Row, t: float, p: Floats) -> bool:
    """Whether probabilities increase with logits, ties included, and the largest are kept."""
    ascending = p[np.argsort(ranking_logits(row.truncated, t), kind="stable")]
    z, kept = ranking_logits(row.scaled, t), row.truncated > -np.inf
    largest_removed = np.max(z, where=~kept, initial=-np.inf)
    return not np.any(np.diff(ascending) < 0) and not np.any(z[kept] < largest_removed)


def _samples(state: State, row: Row, p: Floats, indices: Integers) -> dict[str, Any]:
    """Counts of n samples, frequencies with 95 % margins, and the first samples."""
    n, shown = state.n_samples, p[indices]
    samples = state.sampler.sample(row.scaled, n, rng=state.seed)
    counts = bincount(samples, minlength=len(p))
    return {
        "counts": counts[indices],
        "frequency": counts[indices] / n,
        "margin": 1.96 * np.sqrt(shown * (1 - shown) / n),
        "omitted": int(n - counts[indices].sum()),
        "distinct": int(np.count_nonzero(counts)),
        "first": samples[:_MAX_LISTED],
    }


def _simplex(state: State, row: Row, p: Floats) -> dict[str, Any]:
    """The distributions of three classes from |T| = 0 to infinity, with the sign of T."""
    if len(p) != 3:
        return {"unavailable": "The simplex is shown for three classes."}
    path, marks = temperature_path(row.scaled, _PATH_POINTS)
    distributions = []
    for t in (path, marks):
        # T = -0 would be the limit from above; a tiny negative T is that from below.
        t = -np.maximum(t, 1e-300) if state.temperature < 0 else t
        distributions.append(softmax(np.broadcast_to(row.scaled, (len(t), 3)), temperature=t))
    temperatures = np.where((marks > 0) & (state.temperature < 0), -marks, marks)
    path, marks = distributions
    return {"path": path, "marks": marks, "temperatures": temperatures, "p": p}


def view(state: State) -> dict[str, Any]:
    """The values of the selected row, and of the panels that are open."""
    number, n_ranked = state.position, None
    if state.typed is None and state.by != "number":
        order = state.dataset.ranking.order(state.by)
        if order is None:
            return {"progress": state.dataset.ranking.progress}
        if not len(order):
            mistake = state.by == "mistake"
            raise ValueError("no row is misclassified" if mistake else "no row has a distribution")
        n_ranked = len(order)
        number = int(order[min(state.position, n_ranked - 1)])
    row = apply_settings(state, number)
    p = softmax(row.truncated, temperature=row.temperature)
    bars = _bars(state, row, p)
    labels = state.dataset.labels if state.typed is None else None
    true_class = None if labels is None else int(labels[number])
    values: dict[str, Any] = {
        "row": number,
        "n_ranked": n_ranked,
        "rows": state.dataset.source.rows,
        "labelled": labels is not None,
        "true_class": None if true_class is None else _name(state, true_class),
        "bars": bars,
        "code": python_code(state, row),
    }

    def with_names(panel: dict[str, Any]) -> dict[str, Any]:
        return {**panel, "names": [_name(state, k) for k in panel["indices"]]}

    panels = {
        "jacobian": lambda: with_names(jacobian(state, row, bars["indices"])),
        "gradient": lambda: with_names(gradient(state, row, bars["indices"], true_class)),
        "precision": lambda: precision(state, row.z),
        "simplex": lambda: _simplex(state, row, p),
        "reliability": lambda: reliability(state),
    }
    if state.n_samples:
        values["samples"] = _panel(lambda: _samples(state, row, p, bars["indices"]))
    for name in state.open_panels:
        if name in panels:
            values[name] = _panel(panels[name])
    return json_values(values, infinity_as_text=True)  # type: ignore[no-any-return]


def _panel(compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The values of a panel, or the reason why it is not available."""
    try:
        return compute()
    except ValueError as error:
        return {"unavailable": str(error)}


def answer(text: str, datasets: Datasets) -> dict[str, Any]:
    """The values for the settings of an address, or the reason why they are invalid."""
    try:
        return view(parse_state(text, datasets))
    except (ValueError, UserError) as error:
        return {"error": str(error)}
