"""Sampler: settings as an object, JSON, requests of engines; and Mirostat."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch

import arrays
import logitlab
from arrays import inf, nan
from logitlab import Sampler

SETTINGS = [
    {},
    {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "order": "vllm"},
    {"temperature": inf, "typical_p": 0.9, "xtc_probability": 0.5, "order": "llama.cpp"},
    {"temperature": [0.5, 1.0], "top_k": [3, 7], "top_n_sigma": [1.5, inf], "min_p": 0.1},
    {"epsilon": 0.1, "eta": 0.2, "top_a": 0.3, "order": ["eta", "top_a", "epsilon"]},
    {"dynatemp_range": 0.5, "dynatemp_exponent": 2.0},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_functions_and_methods(settings):
    """The methods have the results of the functions, and JSON and repr hold every setting."""
    sampler = Sampler(**settings)
    z = arrays.normal((2, 30), np.float32)
    keywords = {"rng": 4, "row_keys": [5, 9]}
    kept = sampler.truncate(z, **keywords)
    np.testing.assert_array_equal(kept, logitlab.truncate(z, **keywords, **settings))
    samples = sampler.sample(z, 6, **keywords)
    np.testing.assert_array_equal(samples, logitlab.sample(z, 6, **keywords, **settings))
    for a, b in zip(
        sampler.sample_with_log_prob(z, 6, **keywords),
        logitlab.sample_with_log_prob(z, 6, **keywords, **settings),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    again = Sampler.from_json(sampler.to_json())
    assert again == sampler
    assert hash(again) == hash(sampler)
    assert eval(repr(sampler), {"Sampler": Sampler, "inf": inf}) == sampler
    assert (sampler == Sampler()) == (not settings)


def test_repr():
    sampler = Sampler(order="vllm", top_k=50, temperature=0.8, top_p=1.0)
    assert repr(sampler) == "Sampler(temperature=0.8, top_k=50, order='vllm')"
    assert sampler.to_json() == '{"temperature": 0.8, "top_k": 50, "order": "vllm"}'
    assert repr(Sampler(top_p=torch.tensor([0.5, 1.0]))) == "Sampler(top_p=[0.5, 1.0])"


def test_frozen():
    """Neither an assignment nor a change of the caller's array changes a sampler."""
    top_p = np.array([0.5, 0.9])
    sampler = Sampler(top_p=top_p)
    top_p[:] = 1
    assert sampler.top_p.tolist() == [0.5, 0.9]
    with pytest.raises(dataclasses.FrozenInstanceError):
        sampler.top_p = 1.0
    with pytest.raises(ValueError, match="read-only"):
        sampler.top_p[0] = 1.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Sampler(temperature=nan), ValueError, "temperature must be a number, 0 and ±inf"),
        (lambda: Sampler(top_q=1), TypeError, "unexpected keyword argument 'top_q'"),
        (
            lambda: Sampler(top_p=0.5, order=["temperature", "top_k"]),
            ValueError,
            "order must name every stage in use; 'top_p' is missing",
        ),
        (lambda: Sampler.from_json("[1]"), ValueError, "text must be a JSON object, got '[1]'"),
        (lambda: Sampler.from_json('{"top_q": 1}'), ValueError, "got 'top_q'"),
        (lambda: Sampler.from_json('{"top_p": 2}'), ValueError, "top_p must be in (0, 1], got 2.0"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


LLAMA = {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "order": "llama.cpp"}


@pytest.mark.parametrize(
    ("engine", "request_", "expected"),
    [
        ("openai", {"model": "m", "messages": [], "temperature": 0, "top_p": 0.5}, {}),
        ("openai", {"temperature": 0.7, "presence_penalty": 0}, {"temperature": 0.7}),
        ("vllm", {"top_k": -1, "min_p": 0.1}, {"min_p": 0.1, "order": "vllm"}),
        ("vllm", {"top_k": 0}, {"order": "vllm"}),
        ("vllm", {"temperature": 1e-6, "top_k": 5}, {"temperature": 0.0, "order": "vllm"}),
        ("vllm", {"temperature": 0.005}, {"temperature": 0.01, "order": "vllm"}),
        ("sglang", {"top_k": -1, "top_p": 0.9}, {"top_p": 0.9, "order": "sglang"}),
        ("transformers", {}, {"top_k": 50}),
        ("transformers", {"top_k": 0, "typical_p": 0.9}, {"typical_p": 0.9}),
        ("transformers", {"top_k": 9, "epsilon_cutoff": 0.1}, {"top_k": 9, "epsilon": 0.1}),
        ("transformers", {"do_sample": False, "top_k": 9}, {"temperature": 0.0}),
        (
            "llama.cpp",
            {},
            LLAMA | {"temperature": 0.8},
        ),
        (
            "llama.cpp",
            {
                "top_k": 0,
                "top_p": 1.0,
                "min_p": 0,
                "top_n_sigma": -1,
                "temperature": 1,
                "typ_p": 0.5,
            },
            {"typical_p": 0.5, "order": "llama.cpp"},
        ),
        ("llama.cpp", {"temperature": -1}, LLAMA | {"temperature": 0.0}),
        ("llama.cpp", {"temperature": 0}, LLAMA | {"temperature": 0.0}),
        (
            "llama.cpp",
            {"temperature": 0, "dynatemp_range": 0.5},
            LLAMA | {"temperature": 0.0, "dynatemp_range": 0.5},
        ),
        (
            "llama.cpp",
            {"temperature": -1, "dynatemp_range": 2.0},
            LLAMA | {"temperature": 0.5, "dynatemp_range": 0.5},
        ),
        (
            "llama.cpp",
            {"temperature": -1, "dynatemp_range": 0.5},
            LLAMA | {"temperature": 0.0},
        ),
        (
            "llama.cpp",
            {
                "temperature": 0,
                "dry_multiplier": 0.0,
                "dry_base": 1.75,
                "dry_sequence_breakers": [":"],
                "min_keep": 0,
                "mirostat": 0,
                "mirostat_tau": 5.0,
                "repeat_last_n": 64,
                "grammar": "",
            },
            LLAMA | {"temperature": 0.0},
        ),
        (
            "openai",
            {"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}},
            {},
        ),
        (
            "llama.cpp",
            {"samplers": ["penalties", "temperature", "min_p"]},
            {"temperature": 0.8, "min_p": 0.05, "order": ["temperature", "min_p"]},
        ),
    ],
)
def test_requests(engine, request_, expected):
    if request_.get("temperature") == 0 and engine == "openai":
        expected = {"temperature": 0.0, "top_p": 0.5}
    assert Sampler.from_request(request_, engine=engine) == Sampler(**expected)


@pytest.mark.parametrize(
    ("engine", "request_", "error", "message"),
    [
        ("openai", {"top_k": 5}, ValueError, "'top_k' is unknown in a request of openai"),
        ("vllm", {"repetition_penalty": 1.2}, ValueError, "repetition_penalty must be 1 in the"),
        ("vllm", {"top_p": "0.5"}, TypeError, "top_p must be a number, got '0.5'"),
        ("vllm", {"top_p": 0}, ValueError, "top_p must be in (0, 1], got 0.0"),
        ("sglang", {"top_k": 0}, ValueError, "top_k must be >= 1, got 0"),
        ("llama.cpp", {"mirostat": 2}, ValueError, "mirostat must be 0 in the request"),
        *(
            (engine, {"temperature": -1}, ValueError, "temperature must be >= 0 in a request of")
            for engine in ("openai", "vllm", "sglang", "transformers")
        ),
        ("openai", {"logit_bias": {"5": 1}}, ValueError, "logit_bias must be {} in the request"),
        ("openai", {"response_format": {"type": "json_object"}}, ValueError, "must be {'type': 't"),
        ("openai", {"tool_choice": "required"}, ValueError, "tool_choice must be 'none' in the"),
        ("transformers", {"do_sample": "no"}, TypeError, "do_sample must be True or False"),
        ("tgi", {}, ValueError, "engine must be one of 'openai', 'vllm'"),
    ],
)
def test_request_errors(engine, request_, error, message):
    with pytest.raises(error, match=re.escape(message)):
        Sampler.from_request(request_, engine=engine)


def dynamic_temperature_of_llama_cpp(z, temperature, width, exponent):
    """Probabilities by the formulas of its source.

    `llama_sampler_temp_ext_apply` and `llama_sampler_temp_impl` in src/llama-sampling.cpp of
    github.com/ggml-org/llama.cpp, commit 0344068cf112.
    """
    if width > 0:
        if len(z) <= 1:
            return np.ones(1)
        low, high = max(0.0, temperature - width), temperature + width
        p = np.exp(z - z.max())
        p /= p.sum()
        entropy = -np.sum(p * np.log(p))
        temperature = low + (high - low) * (entropy / np.log(len(z))) ** exponent
    if temperature <= 0:
        return (np.arange(len(z)) == z.argmax()).astype(float)
    p = np.exp((z - z.max()) / temperature)
    return p / p.sum()


@pytest.mark.parametrize("temperature", [-2.0, -0.5, -0.2, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("width", [0.0, 0.2, 0.5, 1.0, -1.0])
@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_dynamic_temperature_of_llama_cpp(temperature, width, exponent):
    """At T <= 0 too: a range above 0 gives a temperature above 0."""
    request_ = {"temperature": temperature, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    request_ |= {"dynatemp_range": width, "dynatemp_exponent": exponent}
    sampler = Sampler.from_request(request_, engine="llama.cpp")
    for z in (np.array([0.5, 2.0, 1.0, -1.0]), np.array([3.0]), np.linspace(0, 1, 50)):
        p = np.zeros(len(z))
        tokens, log_p = sampler.sample_with_log_prob(z, 2000, rng=0)
        p[tokens] = np.exp(log_p)
        expected = dynamic_temperature_of_llama_cpp(z, temperature, width, exponent)
        np.testing.assert_allclose(p[tokens], expected[tokens], rtol=1e-12)
        assert expected[p == 0].sum() < 0.01


@pytest.mark.parametrize("temperature", [0, -1])
@pytest.mark.parametrize(
    ("stage", "token"),
    [({"typ_p": 0.2}, 1), ({"xtc_probability": 1, "xtc_threshold": 0.1}, 2), ({}, 0)],
)
def test_zero_temperature_of_llama_cpp_is_the_last_stage(temperature, stage, token):
    """It selects the largest of the logits that the stages before it kept."""
    sampler = Sampler.from_request({"temperature": temperature, **stage}, engine="llama.cpp")
    assert (sampler.sample(np.log([8.0, 4.0, 2.0, 1.0, 1.0]), 20, rng=0) == token).all()


def mirostat_by_definition(z, mu, version):
    """The kept classes, in plain Python; version 1 by the formula of llama.cpp."""
    p = np.exp(z - z.max())
    p /= p.sum()
    order = np.argsort(-p)
    if version == 2:
        kept = [i for i in order if -math.log2(p[i]) <= mu]
        return kept or [order[0]]
    top = p[order][:100]
    t = [math.log((i + 2) / (i + 1)) for i in range(len(top) - 1)]
    b = [math.log(top[i] / top[i + 1]) for i in range(len(top) - 1)]
    s = sum(x * y for x, y in zip(t, b, strict=True)) / sum(x * x for x in t)
    k = (((s - 1) * 2**mu) / (1 - len(z) ** -(s - 1))) ** (1 / s)
    return order[: max(int(k), 1)]


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat(version):
    """The classes, the surprise under their distribution, and the new mu of each row."""
    z = arrays.normal((40, 300), np.float64, 2.0)
    mu = np.linspace(-1, 9, 40)
    options = {"tau": 3.0, "eta": 0.1, "version": version}
    tokens, new = logitlab.mirostat(z, mu, rng=0, **options)
    for row in range(40):
        kept = mirostat_by_definition(z[row], mu[row], version)
        assert tokens[row] in kept
        p = logitlab.softmax(z[row], where=np.isin(np.arange(300), kept))
        surprise = -math.log2(p[tokens[row]])
        assert new[row] == pytest.approx(mu[row] - 0.1 * (surprise - 3.0), rel=1e-12)
    half, _ = logitlab.mirostat(z[20:], mu[20:], rng=0, row_keys=range(20, 40), **options)
    np.testing.assert_array_equal(half, tokens[20:])
    tensor, state = logitlab.mirostat(torch.from_numpy(z), torch.from_numpy(mu), rng=0, **options)
    np.testing.assert_array_equal(tensor, tokens)
    np.testing.assert_array_equal(state, new)
    # The mean surprise of a sequence approaches tau.
    surprises, state = [], 6.0
    generator = np.random.default_rng(0)
    for _ in range(400):
        previous = state
        _, state = logitlab.mirostat(z[0], state, rng=generator, **options)
        surprises.append((previous - state) / 0.1 + 3.0)
    assert np.mean(surprises[100:]) == pytest.approx(3.0, abs=0.15)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_of_special_rows(version):
    """One class, equal logits, excluded classes, T = 0."""
    options = {"tau": 3.0, "eta": 0.1, "version": version, "rng": 0}
    token, mu = logitlab.mirostat([2.0], 6.0, **options)
    assert (token, mu) == (0, pytest.approx(6.3))
    z = np.array([[0.0] * 4, [5.0, -inf, 1.0, -inf]])
    tokens, mu = logitlab.mirostat(z, 6.0, **options)
    assert np.isfinite(mu).all()
    assert tokens[1] in (0, 2)
    tokens, _ = logitlab.mirostat(z, 6.0, temperature=0.0, **options)
    assert tokens[1] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": -1.0}, "tau must be finite and >= 0, got -1.0"),
        ({"eta": inf}, "eta must be finite and >= 0, got inf"),
        ({"version": 3}, "version must be one of 1, 2, got 3"),
        ({"mu": [1.0, nan]}, "mu must not be nan, got nan in row 1"),
        ({"mu": [1.0] * 3}, "mu must be a number or broadcast to the batch shape (2,) of z"),
    ],
)
def test_mirostat_errors(options, message):
    options = {"mu": 6.0, "tau": 3.0, "eta": 0.1} | options
    with pytest.raises(ValueError, match=re.escape(message)):
        logitlab.mirostat(np.zeros((2, 3)), options.pop("mu"), **options)
