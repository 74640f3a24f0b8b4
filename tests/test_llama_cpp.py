"""Logits processors for llama-cpp-python: by its call protocol, and inside it where it is there."""

import subprocess
import sys
from math import inf

import numpy as np
import pytest

import logitlab
from logitlab.llama_cpp import SampledTokenProcessor, SamplerProcessor

K = 270
# The settings of llama-cpp-python that turn its own truncation and temperature off.
OFF = {"temp": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def candidates(seed=0, k=50):
    """Scores as llama-cpp-python passes them: the field of an array of records."""
    record = np.dtype([("id", np.intc), ("logit", np.single), ("p", np.single)], align=True)
    array = np.recarray((k,), record)
    array.logit[:] = np.random.default_rng(seed).normal(0, 2, k)
    return array


def apply(processor, array):
    """The call of llama-cpp-python."""
    array.logit[:] = processor(np.array([3, 4], np.intc), array.logit)
    return array.logit


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.5, "top_k": 7},
        {"temperature": 2.0, "typical_p": 0.6, "top_a": 0.1, "order": "llama.cpp"},
        {"temperature": 1.5, "top_n_sigma": 1.0, "order": "vllm"},
        {"temperature": 0.0, "min_p": 0.1},
        {"temperature": -0.5, "top_p": 0.9},
        {"temperature": inf, "epsilon": 0.01},
        {"dynatemp_range": 0.5, "eta": 0.01},
        {"xtc_probability": 1.0, "xtc_threshold": 0.02},
    ],
)
def test_scores(settings):
    """The softmax of the scores has the log-probabilities of the sampler, in every class."""
    array = candidates()
    z = array.logit.copy()
    sampler = logitlab.Sampler(**settings)
    tokens, log_p = sampler.sample_with_log_prob(z, 500, rng=0)
    got = apply(SamplerProcessor(sampler), array)
    assert got.dtype == np.single
    assert (got[sampler.truncate(z) == -inf] == -inf).all()
    np.testing.assert_allclose(logitlab.log_softmax(got)[tokens], log_p, rtol=1e-5, atol=1e-5)


def test_scores_are_logits_over_t():
    array = candidates()
    z = array.logit.copy()
    sampler = logitlab.Sampler(temperature=0.7, top_k=5)
    got = apply(SamplerProcessor(sampler), array)
    np.testing.assert_array_equal(got, sampler.truncate(z) / np.float32(0.7))


def test_sampled_tokens():
    """Those of sample with the random numbers of the generator; the other scores are -inf."""
    sampler = logitlab.Sampler(temperature=1.3, min_p=0.01, xtc_probability=0.5)
    processor = SampledTokenProcessor(sampler, rng=11)
    steps = np.random.default_rng(logitlab.sampling.draws.generator_key(11))
    for i in range(50):
        array = candidates(i)
        token = sampler.sample(array.logit, rng=int(steps.integers(2**63)))
        got = apply(processor, array)
        assert got[token] == 0
        assert (got == -inf).sum() == len(got) - 1


def test_tokens_are_those_of_transformers():
    """With the same seed and logits, as generate_tokens samples them for one sequence."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from logitlab.transformers import _SampledTokens

    sampler = logitlab.Sampler(temperature=1.3, xtc_probability=0.5)
    processor = SampledTokenProcessor(sampler, rng=4)
    others = _SampledTokens(sampler, 4, None, False)
    for i in range(20):
        array = candidates(i)
        expected = others(None, torch.from_numpy(array.logit.copy())[None])[0]
        np.testing.assert_array_equal(apply(processor, array), expected.numpy())


def test_xtc_decisions():
    """They follow the seed and differ by step."""
    sampler = logitlab.Sampler(xtc_probability=0.5, xtc_threshold=0.001)

    def kept(seed):
        processor = SamplerProcessor(sampler, rng=seed)
        return [(apply(processor, candidates()) > -inf).sum() for _ in range(40)]

    assert kept(1) == kept(1)
    assert kept(1) != kept(2)
    assert len(set(kept(1))) == 2


@pytest.mark.parametrize("kind", [SamplerProcessor, SampledTokenProcessor])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (({"top_k": 5},), TypeError, "sampler must be a logitlab.Sampler, got dict"),
        ((logitlab.Sampler(), "1"), TypeError, "rng must be None, an int >= 0"),
        ((logitlab.Sampler(top_p=[0.5]),), ValueError, r"top_p must be one number, got shape \(1,"),
        (
            (logitlab.Sampler(temperature=-1.0, dynatemp_range=0.1),),
            ValueError,
            "temperature must be >= 0 if dynatemp_range > 0, got -1.0",
        ),
    ],
)
def test_errors(kind, arguments, error, message):
    """All before the first token: llama-cpp-python ignores exceptions of a processor."""
    sampler, *rng = arguments
    with pytest.raises(error, match=message):
        kind(sampler, rng=rng[0] if rng else None)


def test_row_without_distribution():
    with pytest.raises(ValueError, match="z has no distribution: it contains NaN"):
        SampledTokenProcessor(logitlab.Sampler(), rng=0)(None, np.full(5, -inf, np.single))


def test_needs_neither_llama_cpp_nor_torch():
    code = "import logitlab.llama_cpp, sys; assert not {'llama_cpp', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of one layer with random weights, run by llama-cpp-python."""
    llama_cpp = pytest.importorskip("llama_cpp")
    gguf = pytest.importorskip("gguf")
    path = str(tmp_path_factory.mktemp("model") / "random.gguf")
    width, hidden = 32, 64
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // 2)
    writer.add_vocab_size(K)
    writer.add_tokenizer_model("llama")
    words = [f"<0x{i:02X}>" for i in range(256)] + [f"▁w{i}" for i in range(K - 259)]
    writer.add_token_list(["<unk>", "<s>", "</s>", *words])
    writer.add_token_scores([0.0] * K)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (K - 259))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd": (K, width),
        "output": (K, width),
        **{f"blk.0.attn_{x}": (width, width) for x in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (hidden, width),
        "blk.0.ffn_up": (hidden, width),
        "blk.0.ffn_down": (width, hidden),
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(0, 0.3, shape).astype(np.float32))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return llama_cpp.Llama(path, n_ctx=128, logits_all=True, n_threads=1, seed=1, verbose=False)


def generated(model, processor, n=12, **options):
    model.reset()
    tokens = model.generate([1, 40, 50], logits_processor=[processor], **options)
    return [next(tokens) for _ in range(n)]


SAMPLER = logitlab.Sampler(temperature=1.2, typical_p=0.9, xtc_probability=0.5, top_n_sigma=2.0)


def test_tokens_inside_llama_cpp(model):
    """Whatever the seed and the settings of llama.cpp; those of a loop over its logits."""
    tokens = generated(model, SampledTokenProcessor(SAMPLER, rng=3), temp=0.0)
    assert len(set(tokens)) > 4
    for seed, options in [
        (5, {}),
        (6, {"temp": 0.1, "top_k": 1}),
        (7, {"temp": 1.5, "repeat_penalty": 1.5, "frequency_penalty": 0.5}),
        (8, OFF),
    ]:
        model.set_seed(seed)
        assert generated(model, SampledTokenProcessor(SAMPLER, rng=3), **options) == tokens
    assert generated(model, SampledTokenProcessor(SAMPLER, rng=4), temp=0.0) != tokens

    steps = np.random.default_rng(logitlab.sampling.draws.generator_key(3))
    model.reset()
    model.eval([1, 40, 50])
    for token in tokens:
        z = model.scores[model.n_tokens - 1]
        assert SAMPLER.sample(z, rng=int(steps.integers(2**63))) == token
        model.eval([token])


def test_completion(model):
    """create_completion, with its text."""
    texts = [
        model.create_completion(
            [1, 40, 50],
            max_tokens=12,
            temperature=0.0,
            logits_processor=[SampledTokenProcessor(SAMPLER, rng=rng)],
        )["choices"][0]["text"]
        for rng in (3, 3, 4)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_frequencies_inside_llama_cpp(model):
    """Chi-square of the tokens of llama.cpp against the distribution of the sampler."""
    sampler = logitlab.Sampler(temperature=1.5, top_k=8)
    model.reset()
    model.eval([1, 40, 50])
    z = model.scores[model.n_tokens - 1].copy()
    p = logitlab.softmax(sampler.truncate(z).astype(float), temperature=1.5)
    processor, n = SamplerProcessor(sampler), 2000
    counts = np.zeros(K)
    for seed in range(n):
        model.set_seed(seed)
        counts[generated(model, processor, n=1, **OFF)] += 1
    kept = p > 0
    assert kept.sum() == 8
    assert counts[~kept].sum() == 0
    assert ((counts - n * p)[kept] ** 2 / (n * p[kept])).sum() < 40


def test_temperature_zero_of_llama_cpp(model):
    """It takes the most probable token that the sampler keeps."""
    model.reset()
    model.eval([1, 40, 50])
    z = model.scores[model.n_tokens - 1].copy()
    sampler = logitlab.Sampler(xtc_probability=1.0, xtc_threshold=0.01)
    [token] = generated(model, SamplerProcessor(sampler), n=1, temp=0.0)
    assert token == sampler.truncate(z).argmax() != z.argmax()
