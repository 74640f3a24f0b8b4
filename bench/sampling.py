"""Sampling compared with softmax and multinomial of torch: times on 2 threads."""

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


def torch_top_p(scaled: Any) -> Any:
    import torch

    ordered, index = scaled.sort(dim=-1, descending=True)
    p = ordered.softmax(-1)
    excluded = p.cumsum(-1) - p >= TOP_P
    return torch.full_like(scaled, -torch.inf).scatter(
        -1, index, ordered.masked_fill(excluded, -torch.inf)
    )


def _torch_top_k(scaled: Any) -> Any:
    import torch

    smallest = scaled.topk(TOP_K, dim=-1).values[..., -1:]
    return scaled.masked_fill(scaled < smallest, -torch.inf)


def _torch_min_p(scaled: Any) -> Any:
    import torch

    p = scaled.softmax(-1)
    return scaled.masked_fill(p < MIN_P * p.amax(-1, keepdim=True), -torch.inf)


# The options of logitlab.sample and the same truncation in torch.
TRUNCATIONS: dict[str, tuple[dict[str, Any], list[Callable[[Any], Any]]]] = {
    "none": ({}, []),
    "top_p 0.9": ({"top_p": TOP_P}, [torch_top_p]),
    "top_k 50": ({"top_k": TOP_K}, [_torch_top_k]),
    "top_k, top_p, min_p": (
        {"top_k": TOP_K, "top_p": TOP_P, "min_p": MIN_P},
        [_torch_top_k, torch_top_p, _torch_min_p],
    ),
}


def _torch_sample(z: Any, n: int, truncations: list[Callable[[Any], Any]]) -> Call:
    import torch

    tensor = torch.from_numpy(z)

    def call() -> Any:
        x = tensor / TEMPERATURE
        for truncate in truncations:
            x = truncate(x)
        return torch.multinomial(x.softmax(-1), n, replacement=True)

    return call


def _logitlab_sample(z: Any, n: int, options: dict[str, Any]) -> Call:
    rng = np.random.default_rng(0)
    return lambda: logitlab.sample(z, n, temperature=TEMPERATURE, rng=rng, **options)


# A small example: frequencies of 1000 samples at four temperatures.
_EXAMPLE = np.array([2.0, 1.0, 3.0, 5.0, 4.0], np.float32)
_EXAMPLE_TEMPERATURES = [0.1, 0.5, 1.0, 10.0]


def _torch_sweep() -> Any:
    import torch

    z, samples = torch.from_numpy(_EXAMPLE), {}
    for t in _EXAMPLE_TEMPERATURES:
        p = torch.softmax(z / t, -1)
        samples[t] = [torch.multinomial(p, 1, replacement=True).item() for _ in range(1000)]
    return samples


def _row(
    name: str, calls: dict[str, Call], times_of: Callable[..., dict[str, float]] = interleaved
) -> dict[str, Any]:
    times = times_of(calls)
    print(name, {peer: f"{1e3 * t:.3g} ms" for peer, t in times.items()}, flush=True)
    return {"case": name, "times": times}


def measure(quick: bool) -> list[dict[str, Any]]:
    """One row for each case: times in seconds, by library."""
    repeats = 3 if quick else 7

    def time_calls(calls: dict[str, Call]) -> dict[str, float]:
        return interleaved(calls, repeats)

    rows = []
    rng = np.random.default_rng(0)
    for spread in (1, 3):
        z = rng.standard_normal((64, 128256), dtype=np.float32) * np.float32(spread)
        for name, (options, truncations) in TRUNCATIONS.items():
            calls = {
                "logitlab": _logitlab_sample(z, 1, options),
                "torch": _torch_sample(z, 1, truncations),
                "logitlab.logsumexp": partial(logitlab.logsumexp, z),
            }
            rows.append(_row(f"64×128256, sd {spread}, {name}", calls, time_calls))
    for shape in ((256, 1000), (100_000, 10)):
        z = rng.standard_normal(shape, dtype=np.float32) * np.float32(3)
        for n in (1, 100):
            calls = {"logitlab": _logitlab_sample(z, n, {}), "torch": _torch_sample(z, n, [])}
            samples = "1 sample" if n == 1 else f"{n} samples"
            rows.append(_row(f"{shape[0]}×{shape[1]}, sd 3, {samples}", calls, time_calls))
    sweep = partial(logitlab.temperature_sweep, _EXAMPLE, _EXAMPLE_TEMPERATURES, n=1000, rng=0)
    calls = {"logitlab": sweep, "torch": _torch_sweep}
    rows.append(_row("5 logits, 4 temperatures, 1000 samples each", calls, time_calls))
    z = np.zeros((1, 1 << 25), np.float32)
    rows.append(_row("1×2^25, 1 sample", {"logitlab": _logitlab_sample(z, 1, {})}, time_calls))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Times in milliseconds; in brackets relative to logitlab."""
    names = list(dict.fromkeys(peer for row in rows for peer in row["times"]))
    lines = ["| logits | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
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
    """The note under the table: units, machine, versions and what torch computes."""
    return (
        f"Median times in milliseconds of one run on {tables.machine()}; "
        f"{tables.versions(('numpy', 'torch'))}; T = {TEMPERATURE}, float32. In brackets: the "
        "time relative to logitlab's. torch: softmax, truncation (a sort for top_p, topk for "
        "top_k) and multinomial; for the 5 logits, a loop of 4000 calls of multinomial."
    )
