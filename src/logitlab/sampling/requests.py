"""Requests in the JSON format of inference engines, as settings of a sampler."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from logitlab import _checks

# Parts of a request that have no effect on the distribution of one token.
_IGNORED = {
    "best_of",
    "cache_prompt",
    "detokenize",
    "echo",
    "ignore_eos",
    "include_stop_str_in_output",
    "logprobs",
    "max_completion_tokens",
    "max_length",
    "max_new_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "model",
    "n",
    "n_predict",
    "n_probs",
    "num_return_sequences",
    "pad_token_id",
    "prompt",
    "prompt_logprobs",
    "return_logprob",
    "sampling_seed",
    "seed",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "stop",
    "stop_token_ids",
    "store",
    "stream",
    "stream_options",
    "top_logprobs",
    "truncate_prompt_tokens",
    "use_cache",
    "user",
}
# Settings that change the logits before a sampler, at the values that leave them unchanged.
_OTHERS: dict[str, tuple[Any, ...]] = {
    "allowed_token_ids": (None,),
    "bad_words": (None, []),
    "dry_multiplier": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}, []),
    "min_tokens": (None, 0),
    "min_new_tokens": (None, 0),
    "mirostat": (None, 0),
    "no_repeat_ngram_size": (None, 0),
    "num_beams": (None, 1),
    "presence_penalty": (None, 0),
    "repeat_penalty": (None, 1),
    "repetition_penalty": (None, 1),
    "top_h": (None,),
}
_LLAMA_STAGES = {"typ_p": "typical_p"}
_LLAMA_OTHERS = ("dry", "infill", "penalties")


class _Engine(NamedTuple):
    names: dict[str, str]  # of its settings, and what a sampler calls them
    off: dict[str, Callable[[Any], bool]]  # the values that turn a stage off
    defaults: dict[str, Any]
    greedy: Callable[[Any], bool]  # whether a temperature selects the largest logit


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _is_zero_or_less(x: Any) -> bool:
    return bool(x <= 0)


def _is_one_or_more(x: Any) -> bool:
    return bool(x >= 1)


def _below(limit: float) -> Callable[[Any], bool]:
    return lambda t: bool(0 <= t < limit)


_ENGINES = {
    "openai": _Engine(_same("temperature", "top_p"), {}, {}, _below(0)),
    "vllm": _Engine(
        _same("temperature", "top_k", "top_p", "min_p"),
        {"top_k": lambda k: k in (0, -1)},
        {},
        _below(1e-5),
    ),
    "sglang": _Engine(
        _same("temperature", "top_k", "top_p", "min_p"),
        {"top_k": lambda k: k == -1},
        {},
        _below(1e-6),
    ),
    "transformers": _Engine(
        _same("temperature", "top_k", "top_p", "min_p", "typical_p")
        | {"epsilon_cutoff": "epsilon", "eta_cutoff": "eta"},
        {"top_k": lambda k: k == 0},
        {"top_k": 50},
        _below(0),
    ),
    "llama.cpp": _Engine(
        _same("temperature", "top_k", "top_p", "min_p", "typical_p", "top_n_sigma")
        | _same("xtc_probability", "xtc_threshold", "dynatemp_range", "dynatemp_exponent"),
        {
            "top_k": _is_zero_or_less,
            "top_p": _is_one_or_more,
            "min_p": _is_zero_or_less,
            "typical_p": _is_one_or_more,
            "top_n_sigma": _is_zero_or_less,
            "xtc_probability": _is_zero_or_less,
            "dynatemp_range": _is_zero_or_less,
        },
        {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
        _is_zero_or_less,
    ),
}


def _check_number(name: str, x: Any) -> None:
    if _checks.is_boolean(x) or not isinstance(x, int | float):
        raise TypeError(f"{name} must be a number, got {x!r}")


def _check_names(request: Mapping[str, Any], engine: str, known: set[str]) -> None:
    for name, value in request.items():
        if name in known or name in _IGNORED:
            continue
        if name not in _OTHERS:
            raise ValueError(
                f"request must have settings of {engine}: {', '.join(sorted(known))} "
                f"(ignored: {', '.join(sorted(_IGNORED))}), got {name!r}"
            )
        if value not in _OTHERS[name]:
            raise ValueError(
                f"{name} must be {_OTHERS[name][-1]!r} in the request of a Sampler, got {value!r}"
            )


def _llama_order(samplers: Any) -> list[str]:
    if not isinstance(samplers, list | tuple):
        raise TypeError(f"samplers must be a list of names, got {samplers!r}")
    return [
        _LLAMA_STAGES.get(str(name), str(name)) for name in samplers if name not in _LLAMA_OTHERS
    ]


def settings_of_request(request: Mapping[str, Any], engine: str) -> dict[str, Any]:
    """The arguments of a Sampler for a request in the JSON format of an engine."""
    _checks.choice(engine, "engine", tuple(_ENGINES))
    names, off, defaults, greedy = _ENGINES[engine]
    extra: dict[str, set[str]] = {"llama.cpp": {"samplers", "typ_p"}, "transformers": {"do_sample"}}
    _check_names(request, engine, {*names, *extra.get(engine, ())})
    given = {name: value for name, value in request.items() if value is not None}
    if "typ_p" in given and engine == "llama.cpp":
        given["typical_p"] = given.pop("typ_p")
    settings: dict[str, Any] = {} if engine == "openai" else {"order": engine}
    for name, value in {**defaults, **given}.items():
        if name not in names:
            continue
        _check_number(name, value)
        if not (name in off and off[name](value)):
            settings[names[name]] = value
    if engine == "llama.cpp" and "samplers" in given:
        settings["order"] = _llama_order(given["samplers"])
        # A stage that is not in the list is not applied.
        absent = {*names} - {*settings["order"], "temperature"}
        stages = {"xtc_probability": "xtc", "xtc_threshold": "xtc"}
        for name in absent:
            stage = stages.get(name, name.replace("dynatemp_range", "temperature"))
            if stage not in settings["order"] and name != "dynatemp_exponent":
                settings.pop(name, None)
        if "temperature" not in settings["order"]:
            settings.pop("temperature", None)
    t = settings.get("temperature", 1.0)
    if given.get("do_sample") is False or greedy(t):
        # The largest logit, whatever the truncation.
        order = {"order": settings["order"]} if "order" in settings else {}
        return {"temperature": 0.0, **(order if isinstance(order.get("order"), str) else {})}
    if engine == "vllm" and 0 < t < 0.01:
        settings["temperature"] = 0.01
    return settings
