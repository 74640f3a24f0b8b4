"""Draws beside what a user of torch writes: times by shape and truncation, 2 threads."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import logitlab
from bench import tables
from bench.timing import interleaved

Call = Callable[[], Any]
TEMPERATURE = 0.8
TOP_P, TOP_K, MIN_P = 0.9, 50, 0.05


def _torch_top_p(scaled: Any) -> Any:
    import torch

    ordered, place = scaled.sort(dim=-1, descending=True)
    p = ordered.softmax(-1)
    cut = p.cumsum(-1) - p >= TOP_P
    return torch.full_like(scaled, -torch.inf).scatter(
        -1, place, ordered.masked_fill(cut, -torch.inf)
    )


def _torch_top_k(scaled: Any) -> Any:
    import torch

    least = scaled.topk(TOP_K, dim=-1).values[..., -1:]
    return scaled.masked_fill(scaled < least, -torch.inf)


def _torch_min_p(scaled: Any) -> Any:
    import torch

    p = scaled.softmax(-1)
    return scaled.masked_fill(p < MIN_P * p.amax(-1, keepdim=True), -torch.inf)


# What is cut, and how torch is made to cut it.
CUTS: dict[str, tuple[dict[str, Any], list[Callable[[Any], Any]]]] = {
    "none": ({}, []),
    "top_p 0.9": ({"top_p": TOP_P}, [_torch_top_p]),
    "top_k 50": ({"top_k": TOP_K}, [_torch_top_k]),
    "top_k, top_p, min_p": (
        {"top_k": TOP_K, "top_p": TOP_P, "min_p": MIN_P},
        [_torch_top_k, _torch_top_p, _torch_min_p],
    ),
}


def _torch_draw(z: Any, n: int, cuts: list[Callable[[Any], Any]]) -> Call:
    import torch

    tensor = torch.from_numpy(z)

    def call() -> Any:
        x = tensor / TEMPERATURE
        for cut in cuts:
            x = cut(x)
        return torch.multinomial(x.softmax(-1), n, replacement=True)

    return call


def _ours(z: Any, n: int, cut: dict[str, Any]) -> Call:
    rng = np.random.default_rng(0)
    return lambda: logitlab.sample(z, n, temperature=TEMPERATURE, rng=rng, **cut)


# The logits, the temperatures and the number of draws of a known lesson on temperature.
_LESSON = np.array([2.0, 1.0, 3.0, 5.0, 4.0], np.float32)
_LESSON_T = [0.1, 0.5, 1.0, 10.0]


def _lesson_in_torch() -> Any:
    import torch

    z, found = torch.from_numpy(_LESSON), {}
    for t in _LESSON_T:
        p = torch.softmax(z / t, -1)
        found[t] = [torch.multinomial(p, 1, replacement=True).item() for _ in range(1000)]
    return found


def _row(
    name: str, calls: dict[str, Call], times_of: Callable[..., dict[str, float]] = interleaved
) -> dict[str, Any]:
    times = times_of(calls)
    print(name, {peer: f"{1e3 * t:.3g} ms" for peer, t in times.items()}, flush=True)
    return {"case": name, "times": times}


def measure(quick: bool) -> list[dict[str, Any]]:
    """One row for each case: times in seconds."""
    repeats = 3 if quick else 7

    def few(calls: dict[str, Call]) -> dict[str, float]:
        return interleaved(calls, repeats)

    rows = []
    rng = np.random.default_rng(0)
    for spread in (1, 3):
        z = rng.standard_normal((64, 128256), dtype=np.float32) * np.float32(spread)
        for name, (cut, cuts) in CUTS.items():
            calls = {
                "logitlab": _ours(z, 1, cut),
                "torch": _torch_draw(z, 1, cuts),
                "logitlab.logsumexp": partial(logitlab.logsumexp, z),
            }
            rows.append(_row(f"64×128256, sd {spread}, {name}", calls, few))
    for shape in ((256, 1000), (100_000, 10)):
        z = rng.standard_normal(shape, dtype=np.float32) * np.float32(3)
        for n in (1, 100):
            calls = {"logitlab": _ours(z, n, {}), "torch": _torch_draw(z, n, [])}
            draws = "1 draw" if n == 1 else f"{n} draws"
            rows.append(_row(f"{shape[0]}×{shape[1]}, sd 3, {draws}", calls, few))
    lesson = partial(logitlab.temperature_sweep, _LESSON, _LESSON_T, n=1000, rng=0)
    calls = {"logitlab": lesson, "torch": _lesson_in_torch}
    rows.append(_row("5 logits, 4 temperatures, 1000 draws each", calls, few))
    z = np.zeros((1, 1 << 25), np.float32)
    rows.append(_row("1×2^25, 1 draw", {"logitlab": _ours(z, 1, {})}, few))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Milliseconds, and in brackets the multiple of logitlab's time."""
    names = list(dict.fromkeys(peer for row in rows for peer in row["times"]))
    lines = ["| draws | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in rows:
        ours, cells = row["times"]["logitlab"], [row["case"]]
        for name in names:
            time = row["times"].get(name)
            if time is None:
                cells.append("")
                continue
            multiple = "" if name == "logitlab" else f" ({time / ours:.2g}×)"
            multiple = multiple if time / ours < 100 else f" ({time / ours:.0f}×)"
            cells.append(f"{1e3 * time:.3g}{multiple}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def note(rows: list[dict[str, Any]]) -> str:
    """What the figures are and where they were measured."""
    return (
        f"Milliseconds, medians of one run on {tables.machine()}; "
        f"{tables.versions(('numpy', 'torch'))}; T = {TEMPERATURE}, float32. In brackets the "
        "multiple of logitlab's time. torch: softmax, what cuts (a sort for top_p, topk for top_k) "
        "and multinomial; in the row of 5 logits, a loop of 4000 calls of multinomial."
    )
