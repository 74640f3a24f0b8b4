"""Sampling compared with other ways to sample: times on 2 threads.

The others: softmax and multinomial of torch; its division by exponential noise, as vLLM does
(https://github.com/vllm-project/vllm/blob/main/vllm/v1/sample/ops/topk_topp_sampler.py); Gumbel
noise in NumPy; the processors of transformers before multinomial.
"""

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


# The options of logitlab.sample, the same truncation in torch, and the processors of transformers.
TRUNCATIONS: dict[str, tuple[dict[str, Any], list[Callable[[Any], Any]], dict[str, float]]] = {
    "none": ({}, [], {}),
    "top_p 0.9": ({"top_p": TOP_P}, [torch_top_p], {"TopP": TOP_P}),
    "top_k 50": ({"top_k": TOP_K}, [_torch_top_k], {"TopK": TOP_K}),
    "min_p 0.05": ({"min_p": MIN_P}, [_torch_min_p], {"MinP": MIN_P}),
    "top_k, top_p, min_p": (
        {"top_k": TOP_K, "top_p": TOP_P, "min_p": MIN_P},
        [_torch_top_k, torch_top_p, _torch_min_p],
        {"TopK": TOP_K, "TopP": TOP_P, "MinP": MIN_P},
    ),
    "typical_p 0.9": ({"typical_p": 0.9}, [], {"Typical": 0.9}),
    "epsilon 0.0003": ({"epsilon": 3e-4}, [], {"Epsilon": 3e-4}),
    "eta 0.0003": ({"eta": 3e-4}, [], {"Eta": 3e-4}),
    "top_n_sigma 1": ({"top_n_sigma": 1.0}, [], {}),
    "top_a 0.2": ({"top_a": 0.2}, [], {}),
    "XTC 0.1": ({"xtc_probability": 1.0, "xtc_threshold": 0.1}, [], {}),
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


def _transformers_sample(z: Any, values: dict[str, float]) -> Call:
    from transformers.generation import logits_process

    steps = [getattr(logits_process, f"{name}LogitsWarper")(x) for name, x in values.items()]
    return _torch_sample(z, 1, [partial(step, None) for step in steps])


def _exponential_sample(z: Any) -> Call:
    import torch

    tensor = torch.from_numpy(z)

    def call() -> Any:
        p = (tensor / TEMPERATURE).softmax(-1)
        return p.div_(torch.empty_like(p).exponential_()).argmax(-1)

    return call


def _gumbel_sample(z: Any) -> Call:
    rng = np.random.default_rng(0)

    def call() -> Any:
        with np.errstate(divide="ignore"):  # noise of 0
            noise = np.log(rng.standard_exponential(z.shape, z.dtype))
        return (z / TEMPERATURE - noise).argmax(-1)

    return call


def _logitlab_sample(z: Any, n: int, options: dict[str, Any]) -> Call:
    rng = np.random.default_rng(0)
    return lambda: logitlab.sample(z, n, temperature=TEMPERATURE, rng=rng, **options)


def _one_sample(z: Any, name: str) -> dict[str, Call]:
    """One sample of each row under a truncation, by everything that has it."""
    options, truncations, values = TRUNCATIONS[name]
    calls = {"logitlab": _logitlab_sample(z, 1, options)}
    if truncations or not options:
        calls["torch"] = _torch_sample(z, 1, truncations)
    if not options:
        calls["torch, exponential noise"] = _exponential_sample(z)
        calls["NumPy, Gumbel noise"] = _gumbel_sample(z)
    if values:
        calls["transformers"] = _transformers_sample(z, values)
    calls["logitlab.logsumexp"] = partial(logitlab.logsumexp, z)
    return calls


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
        for name in TRUNCATIONS:
            rows.append(_row(f"64×128256, sd {spread}, {name}", _one_sample(z, name), time_calls))
    for shape in ((64, 1000), (1, 1000), (1, 10)):
        z = rng.standard_normal(shape, dtype=np.float32) * np.float32(3)
        for name in ("none", "top_k 50" if shape[1] > 10 else "min_p 0.05"):
            case = f"{shape[0]}×{shape[1]}, sd 3, {name}"
            rows.append(_row(case, _one_sample(z, name), time_calls))
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
        f"{tables.versions(('numpy', 'torch', 'transformers'))}; T = {TEMPERATURE}, float32. In "
        "brackets: the time relative to logitlab's. torch: softmax, truncation (a sort for top_p, "
        "topk for top_k) and multinomial; for the 5 logits, a loop of 4000 calls of multinomial. "
        "Exponential noise: the largest p divided by it, as in vLLM. transformers: its processors, "
        "softmax and multinomial. logitlab.logsumexp: one pass over the logits, which a sampler "
        "needs."
    )
