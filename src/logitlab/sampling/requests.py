"""Requests in the JSON format of inference engines, as settings of a sampler."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from logitlab import _checks

# Parts of a request that have no effect on the distribution of one token: text, output, and the
# details of penalties, Mirostat and beams, which are off in a request that is accepted.
_IGNORED = {
    "add_generation_prompt",
    "add_special_tokens",
    "best_of",
    "bos_token_id",
    "cache_implementation",
    "cache_prompt",
    "chat_template",
    "chat_template_kwargs",
    "continue_final_message",
    "custom_params",
    "decoder_start_token_id",
    "detokenize",
    "documents",
    "dry_allowed_length",
    "dry_base",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "early_stopping",
    "echo",
    "eos_token_id",
    "flat_logprobs",
    "id_slot",
    "ignore_eos",
    "include_stop_str_in_output",
    "length_penalty",
    "logprobs",
    "max_completion_tokens",
    "max_length",
    "max_new_tokens",
    "max_time",
    "max_tokens",
    "messages",
    "metadata",
    "mirostat_eta",
    "mirostat_tau",
    "modalities",
    "model",
    "n",
    "n_discard",
    "n_indent",
    "n_keep",
    "n_predict",
    "n_probs",
    "no_stop_trim",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "parallel_tool_calls",
    "penalize_nl",
    "penalty_last_n",
    "post_sampling_probs",
    "priority",
    "prompt",
    "prompt_cache_key",
    "prompt_logprobs",
    "renormalize_logits",
    "repeat_last_n",
    "request_id",
    "response_fields",
    "return_dict_in_generate",
    "return_logprob",
    "return_progress",
    "return_token_ids",
    "return_tokens",
    "return_tokens_as_token_ids",
    "safety_identifier",
    "sampling_seed",
    "seed",
    "service_tier",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "stop",
    "stop_regex",
    "stop_strings",
    "stop_token_ids",
    "store",
    "stream",
    "stream_options",
    "suffix",
    "t_max_predict_ms",
    "timings_per_token",
    "top_logprobs",
    "truncate_prompt_tokens",
    "use_cache",
    "user",
}
# Settings that change the logits before a sampler, at the values that leave them unchanged; the
# last one is what the error says.
_OFF, _ONE, _ABSENT = (None, 0), (None, 1), (None,)
_NO_LIST: tuple[Any, ...] = (None, [])
_OTHERS: dict[str, tuple[Any, ...]] = {
    "allowed_token_ids": _ABSENT,
    "bad_words": _NO_LIST,
    "bad_words_ids": _NO_LIST,
    "begin_suppress_tokens": _NO_LIST,
    "diversity_penalty": _OFF,
    "dry_multiplier": _OFF,
    "ebnf": _ABSENT,
    "encoder_no_repeat_ngram_size": _OFF,
    "encoder_repetition_penalty": _ONE,
    "exponential_decay_length_penalty": _ABSENT,
    "forced_bos_token_id": _ABSENT,
    "forced_eos_token_id": _ABSENT,
    "frequency_penalty": _OFF,
    "function_call": (None, "auto", "none"),
    "functions": _NO_LIST,
    "grammar": (None, ""),
    "guidance_scale": _ONE,
    "guided_choice": _ABSENT,
    "guided_grammar": _ABSENT,
    "guided_json": _ABSENT,
    "guided_regex": _ABSENT,
    "json_schema": _ABSENT,
    "logit_bias": (None, [], {}),
    "logits_processors": _NO_LIST,
    "lora": _NO_LIST,
    "min_keep": (None, 1, 0),
    "min_length": _OFF,
    "min_new_tokens": _OFF,
    "min_tokens": _OFF,
    "mirostat": _OFF,
    "no_repeat_ngram_size": _OFF,
    "num_beam_groups": _ONE,
    "num_beams": _ONE,
    "penalty_alpha": _OFF,
    "presence_penalty": _OFF,
    "regex": _ABSENT,
    "remove_invalid_values": (None, False),
    "repeat_penalty": _ONE,
    "repetition_penalty": _ONE,
    "response_format": (None, {"type": "text"}),
    "sequence_bias": _ABSENT,
    "structural_tag": _ABSENT,
    "structured_outputs": _ABSENT,
    "suppress_tokens": _NO_LIST,
    "tool_choice": (None, "auto", "none"),
    "tools": _NO_LIST,
    "top_h": _ABSENT,
    "use_beam_search": (None, False),
    "watermarking_config": _ABSENT,
}
_LLAMA_STAGES = {"typ_p": "typical_p"}
_LLAMA_OTHERS = ("dry", "infill", "penalties")


class _Engine(NamedTuple):
    names: dict[str, str]  # of its settings, and what a sampler calls them
    off: dict[str, Callable[[Any], bool]]  # the values that turn a stage off
    defaults: dict[str, Any]
    # Whether a temperature selects the largest logit whatever the stages are.
    greedy: Callable[[Any], bool]


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
        _below(0),
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
                f"{name!r} is unknown in a request of {engine}, which has the settings "
                f"{', '.join(sorted(known))}"
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


def _llama_temperature(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of llama.cpp with a temperature >= 0 that has the effect of a negative one.

    A dynamic temperature is from max(0, T - range) to T + range, and a temperature <= 0 selects the
    largest logit.
    """
    t, width = settings.get("temperature", 1.0), settings.get("dynatemp_range", 0.0)
    if t >= 0:
        return settings
    half = max(0.0, (t + width) / 2)  # from 0 to t + width
    return {**settings, "temperature": half, "dynatemp_range": half}


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
    if engine == "llama.cpp":
        settings = _llama_temperature(settings)
    t = settings.get("temperature", 1.0)
    if t < 0:
        raise ValueError(f"temperature must be >= 0 in a request of {engine}, got {t}")
    if not _checks.boolean(given.get("do_sample", True), "do_sample") or greedy(t):
        return {"temperature": 0.0, **{k: settings[k] for k in ("order",) if k in settings}}
    if engine == "vllm" and 0 < t < 0.01:
        settings["temperature"] = 0.01
    return settings
