"""Samplers as engines have them, in their recipes' own arithmetic, and their conformance."""

from typing import Any

import numpy as np

import logitlab
from bench import tables
from logitlab.laws import LawReport


def numpy_gumbel(logits: Any, rng: Any, temperature: float = 1.0) -> Any:
    """argmax of logits and Gumbel noise."""
    return (logits / temperature + rng.gumbel(size=logits.shape)).argmax(axis=-1)


def numpy_choice(logits: Any, n: int, rng: Any, temperature: float = 1.0) -> Any:
    """numpy.random.Generator.choice with the probabilities of each row."""
    z = logits.astype(np.float64) / temperature
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return np.stack([rng.choice(len(row), n, p=row) for row in p])


def jax_categorical(logits: Any, n: int, seed: int, temperature: float = 1.0) -> Any:
    """jax.random.categorical."""
    import jax

    key = jax.random.PRNGKey(seed)
    shape = (n, len(logits))
    return np.asarray(jax.random.categorical(key, logits / temperature, shape=shape)).T


def torch_multinomial(logits: Any, n: int, generator: Any, temperature: float = 1.0) -> Any:
    """torch.multinomial of a float32 softmax."""
    import torch

    p = torch.softmax(logits / temperature, dim=-1)
    return torch.multinomial(p, n, replacement=True, generator=generator)


def torch_bfloat16(logits: Any, n: int, generator: Any, temperature: float = 1.0) -> Any:
    """The same on logits in bfloat16, as a model may return them."""
    return torch_multinomial(logits.bfloat16(), n, generator, temperature)


def _excluded(z: Any, mask: Any) -> Any:
    return z.masked_fill(mask, -float("inf"))


def vllm(
    logits: Any,
    generator: Any,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Any:
    """The PyTorch path of vLLM V1: temperature, min-p, top-k, top-p on an ascending sort; then the
    largest quotient of probability and exponential noise. T = 0 is argmax."""
    import torch

    if temperature < 1e-5:
        return logits.argmax(dim=-1)
    z = logits.float() / temperature
    if min_p > 0:
        p = z.softmax(dim=-1)
        z = _excluded(z, p < min_p * p.amax(dim=-1, keepdim=True))
    ascending, index = z.sort(dim=-1)
    if top_k > 0:
        smallest = ascending[:, -min(top_k, z.shape[-1]), None]
        ascending = _excluded(ascending, ascending < smallest)
    if top_p < 1:
        outside = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
        outside[:, -1] = False
        ascending = _excluded(ascending, outside)
    p = torch.empty_like(z).scatter_(-1, index, ascending).softmax(dim=-1)
    return (p / torch.empty_like(p).exponential_(generator=generator)).argmax(dim=-1)


def sglang(
    logits: Any,
    generator: Any,
    temperature: float = 1.0,
    top_k: int = 1 << 30,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Any:
    """The PyTorch path of SGLang: every stage on the same descending probabilities, then
    torch.multinomial. T = 0 is top_k = 1 at T = 1."""
    import torch

    if temperature == 0:
        temperature, top_k = 1.0, 1
    p, index = (logits / temperature).softmax(dim=-1).sort(dim=-1, descending=True)
    outside = torch.arange(p.shape[-1]) >= top_k
    outside = outside | (p.cumsum(dim=-1) - p > top_p) | (p < min_p * p[:, :1])
    chosen = torch.multinomial(p.masked_fill(outside, 0.0), 1, generator=generator)
    return index.gather(1, chosen)[:, 0]


def transformers(
    logits: Any,
    generator: Any,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    min_p: float | None = None,
) -> Any:
    """The logits processors of transformers in the order of `generate`, then torch.multinomial."""
    import torch
    from transformers.generation import logits_process

    processors = [logits_process.TemperatureLogitsWarper(temperature)] * (temperature != 1)
    if top_k is not None:
        processors.append(logits_process.TopKLogitsWarper(top_k))
    if top_p < 1:
        processors.append(logits_process.TopPLogitsWarper(top_p))
    if min_p is not None:
        processors.append(logits_process.MinPLogitsWarper(min_p))
    for processor in processors:
        logits = processor(None, logits)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)[:, 0]


def rejection(target_logits: Any, draft_logits: Any, draft_tokens: Any, generator: Any) -> Any:
    """Rejection sampling in torch (float32), as vLLM has it: the token after a rejection has the
    largest quotient of residual and exponential noise."""
    import torch

    p, q = target_logits.softmax(dim=-1), draft_logits.softmax(dim=-1)
    s, chosen = q.shape[1], draft_tokens[..., None]
    ratio = p[:, :s].gather(-1, chosen)[..., 0] / q.gather(-1, chosen)[..., 0]
    accepts = torch.rand(ratio.shape, generator=generator) < ratio
    accepted = accepts.long().cumprod(dim=-1).sum(dim=-1)
    residual = torch.cat([(p[:, :s] - q).clamp(min=0), p[:, s:]], dim=1)
    weights = residual[torch.arange(len(p)), accepted]
    noise = torch.empty_like(weights).exponential_(generator=generator)
    return accepted, (weights / noise).argmax(dim=-1)


def equal_samples(target_logits: Any, draft_logits: Any, draft_tokens: Any, generator: Any) -> Any:
    """A draft token is accepted if it equals a sample of the target, which is emitted anyway."""
    import torch

    p = target_logits.softmax(dim=-1)
    samples = torch.multinomial(p.flatten(0, 1), 1, generator=generator).reshape(p.shape[:2])
    accepts = samples[:, :-1] == draft_tokens
    accepted = accepts.long().cumprod(dim=-1).sum(dim=-1)
    return accepted, samples[torch.arange(len(p)), accepted]


# Title: function and array library.
_SAMPLERS: dict[str, tuple[Any, str]] = {
    "logitlab.sample": (logitlab.sample, "numpy"),
    "NumPy Gumbel": (numpy_gumbel, "numpy"),
    "NumPy choice": (numpy_choice, "numpy"),
    "JAX categorical": (jax_categorical, "numpy"),
    "torch.multinomial": (torch_multinomial, "torch"),
    "torch.multinomial, bfloat16 logits": (torch_bfloat16, "torch"),
    "transformers processors": (transformers, "torch"),
    "vLLM recipe": (vllm, "torch"),
    "SGLang recipe": (sglang, "torch"),
}
_VERIFIERS: dict[str, tuple[Any, str]] = {
    "rejection sampling (vLLM recipe)": (rejection, "torch"),
    "equality with a sample of the target": (equal_samples, "torch"),
}
_LIBRARIES = ("numpy", "torch", "transformers", "jax")
_INTRODUCTION = (
    "One row for each sampler, one column for each law. A cell is the result: passes, **fails** or "
    "**differs**, for a convention (\\*), which is a choice. It is empty where the sampler has no "
    "parameter for the law. Recipes are short functions in `bench/samplers.py` with the same "
    "arithmetic and order of stages as the PyTorch path of the engine; the engines themselves were "
    "not run. Settings without truncation are at the default of the recipe."
)


def check(samplers: dict[str, tuple[Any, str]]) -> dict[str, LawReport]:
    """The reports of samplers; of those whose libraries are installed."""
    reports = {}
    for title, (function, library) in samplers.items():
        module = "logitlab" if function is logitlab.sample else __name__
        name = f"{module}.{function.__name__}"
        try:
            reports[title] = logitlab.check_sampler(function, array_library=library, name=name)
        except ImportError as error:
            print(f"{title}: skipped, {error}", flush=True)
            continue
        print(f"{title}: {reports[title].diagnosis}", flush=True)
    return reports


def _cell(result: Any) -> str:
    if result.level == "not applicable":
        return ""
    text = f"{result.level} ({result.note})" if result.note else result.level
    return text if result.passed else f"**{text}**"


def _table(reports: dict[str, LawReport]) -> str:
    laws = [result.law for result in next(iter(reports.values()))]
    names = [f"{law.name} \\*" if law.convention else law.name for law in laws]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for title, report in reports.items():
        lines.append(f"| {title} | {' | '.join(map(_cell, report))} |")
    return "\n".join(lines)


def page(samplers: dict[str, LawReport], verifiers: dict[str, LawReport]) -> str:
    """The page of all results, with the counterexample of each failure."""
    note = f"`python -m bench laws --samplers --write` on {tables.machine()}"
    parts = ["# Conformance of samplers", _INTRODUCTION, f"{note}; {tables.versions(_LIBRARIES)}."]
    level = next(iter(samplers.values())).note
    parts += ["## Samplers", f"Of a sampler that takes every parameter: {level}.", _table(samplers)]
    parts += ["## Speculative verification", _table(verifiers), "## Counterexamples"]
    for title, report in (samplers | verifiers).items():
        failing = [result for result in report if result.counterexample is not None]
        parts += [f"### {title}"] * bool(failing)
        for result in failing:
            c = result.counterexample
            assert c is not None
            code = f"```python\n{c.code}\n# result    {c.result}\n# expected  {c.expected}\n```"
            parts.append(f"{result.law.name}: {result.level}\n\n{code}")
    parts.append("## The laws")
    laws = [result.law for reports in (samplers, verifiers) for result in first(reports)]
    parts += [f"- **{law.name}**: {law.statement}. {law.reason} ({law.source})" for law in laws]
    return "\n\n".join(parts) + "\n"


def first(reports: dict[str, LawReport]) -> LawReport:
    """The report of the first function."""
    return next(iter(reports.values()))


def run(write: bool) -> None:
    """Check every sampler and write the page; exit with an error if logitlab fails."""
    samplers, verifiers = check(_SAMPLERS), check(_VERIFIERS)
    if write:
        tables.replace(tables.ROOT / "docs" / "sampler-conformance.md", page(samplers, verifiers))
    report = samplers["logitlab.sample"]
    if not all(result.passed for result in report):
        raise SystemExit(f"logitlab.sample {report.diagnosis}")
