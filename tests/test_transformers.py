"""generate of transformers with a Sampler: kept sets, frequencies, splits of the batch, errors."""

import copy
import subprocess
import sys
from math import inf

import numpy as np
import pytest
import torch

import logitlab

transformers = pytest.importorskip("transformers")

from logitlab.transformers import SamplerProcessor, generate_tokens  # noqa: E402

VOCABULARY = 50
# The settings of generate that turn its own temperature and truncation off.
OFF = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


@pytest.fixture(scope="module")
def model():
    """GPT-2 with two layers of width 16 and random weights, in float64."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=2,
        n_embd=16,
        n_head=2,
        vocab_size=VOCABULARY,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        initializer_range=0.5,
    )
    return transformers.GPT2LMHeadModel(config).double().eval()


def prompts(rows, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(3, VOCABULARY, (rows, 5)))


def generate(model, ids, **options):
    options = {"max_new_tokens": 8, "attention_mask": torch.ones_like(ids), **options}
    return model.generate(ids, **options)


def first_scores(model, ids, **options):
    """The scores and the logits of the first generated token."""
    output = generate(
        model,
        ids,
        max_new_tokens=1,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        **options,
    )
    return output.scores[0], output.logits[0]


def test_kept_sets_of_1000_settings(model):
    """Those of generate, to the last bit, except where a threshold is within its rounding."""
    rng = np.random.default_rng(0)
    ids = prompts(4)
    compared = 0
    for _ in range(1000):
        values = {
            "temperature": rng.uniform(0.3, 2),
            "top_k": int(rng.integers(1, VOCABULARY)),
            "top_p": rng.uniform(0.2, 0.99),
            "min_p": rng.uniform(0, 0.2),
            "typical_p": rng.uniform(0.2, 0.99),
            "epsilon_cutoff": rng.uniform(1e-4, 0.2),
            "eta_cutoff": rng.uniform(1e-4, 0.2),
        }
        values = {name: x for name, x in values.items() if rng.random() < 0.5}
        expected, z = first_scores(model, ids, **{**OFF, **values})
        settings = {name.removesuffix("_cutoff"): x for name, x in values.items()}
        got = SamplerProcessor(logitlab.Sampler(**settings))(ids, z)
        # Settings a little to either side, beyond the rounding of float32.
        near = [
            logitlab.truncate(
                z, **{name: x if name == "top_k" else x * (1 + e) for name, x in settings.items()}
            )
            for e in (-1e-5, 1e-5)
        ]
        far = ((got > -inf) == (near[0] > -inf)).all(1) & ((got > -inf) == (near[1] > -inf)).all(1)
        assert torch.equal(got[far], expected[far]), settings
        compared += int(far.sum())
    assert compared > 3800


@pytest.mark.parametrize("scheme", ["processor", "loop"])
def test_scores_inside_generate(model, scheme):
    """Both give the scores of transformers' own settings to the sampled token."""
    ids = prompts(6)
    expected, _ = first_scores(model, ids, **{**OFF, "temperature": 0.7, "top_k": 9, "min_p": 0.02})
    sampler = logitlab.Sampler(temperature=0.7, top_k=9, min_p=0.02)
    assert ((expected > -inf).sum(1) > 1).any()
    if scheme == "processor":
        options = {**OFF, "logits_processor": [SamplerProcessor(sampler)]}
        options["logits_processor"] = transformers.LogitsProcessorList(options["logits_processor"])
    else:
        options = {"custom_generate": generate_tokens, "sampler": sampler}
    got, _ = first_scores(model, ids, **options)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("scheme", ["processor", "loop"])
def test_frequencies(model, scheme):
    """Chi-square of 4,000 first tokens against the distribution of the sampler."""
    sampler = logitlab.Sampler(temperature=1.5, top_p=0.8)
    ids = prompts(1)
    _, z = first_scores(model, ids, **OFF)
    p = logitlab.softmax(sampler.truncate(z), temperature=1.5)[0].double().numpy()
    if scheme == "processor":
        processors = transformers.LogitsProcessorList([SamplerProcessor(sampler)])
        options = {"logits_processor": processors}
    else:
        options = {"custom_generate": generate_tokens, "sampler": sampler, "rng": 3}
    torch.manual_seed(1)
    tokens = generate(model, ids.repeat(4000, 1), max_new_tokens=1, **{**OFF, **options})[:, -1]
    counts = np.bincount(tokens, minlength=VOCABULARY)
    kept = p > 0
    assert 3 < kept.sum() < VOCABULARY
    assert counts[~kept].sum() == 0
    statistic = ((counts - 4000 * p)[kept] ** 2 / (4000 * p[kept])).sum()
    assert statistic < 3 * kept.sum() + 20


@pytest.mark.parametrize("lengths", [[5] * 7, [5, 1, 2, 3, 4, 5, 2]], ids=["equal", "padded"])
def test_tokens_for_any_split_of_the_batch(model, lengths):
    """The end-of-sequence token, penalties, settings of rows and padded prompts included."""
    ids = prompts(7)
    mask = (torch.arange(5) >= 5 - torch.tensor(lengths)[:, None]).long()
    ids = torch.where(mask == 1, ids, 2)
    # That of transformers counts padding.
    penalty = {"repetition_penalty": 1.1} if mask.all() else {}
    temperature, top_p = np.linspace(0.5, 2.0, 7), np.linspace(1.0, 0.6, 7)

    def tokens(rows):
        sampler = logitlab.Sampler(temperature=temperature[rows], top_p=top_p[rows])
        start = 5 - max(lengths[i] for i in rows)
        generated = generate(
            model,
            ids[rows, start:],
            attention_mask=mask[rows, start:],
            custom_generate=generate_tokens,
            sampler=sampler,
            rng=5,
            row_keys=np.arange(7)[rows],
            max_new_tokens=20,
            **penalty,
        )[:, 5 - start :].tolist()
        # Until the end: what follows is padding, as long as the batch needs.
        return [x[: x.index(1) + 1] if 1 in x else x for x in generated]

    together = tokens(np.arange(7))
    assert len(set(map(len, together))) > 1
    assert tokens(np.arange(7)) == together
    for parts in ([[0], [1], [2], [3], [4], [5], [6]], [[0, 1, 2], [3, 4, 5, 6]], [[5, 0], [2, 6]]):
        for part in parts:
            assert tokens(np.array(part)) == [together[i] for i in part]


def test_tokens_are_those_of_sample(model):
    """A loop over the model without its cache, with the random numbers of the generator."""
    sampler = logitlab.Sampler(temperature=1.3, min_p=0.01, xtc_probability=0.5)
    ids = prompts(3)
    got = generate(
        model, ids, custom_generate=generate_tokens, sampler=sampler, rng=11, min_new_tokens=8
    )
    key = logitlab.sampling.draws.generator_key(11)
    steps = np.random.default_rng(key)
    for _ in range(8):
        z = model(ids).logits[:, -1].detach().float()
        z[:, 1] = -inf
        ids = torch.cat([ids, sampler.sample(z, rng=int(steps.integers(2**63)))[:, None]], -1)
    assert torch.equal(got, ids)


def test_settings_of_prompts_hold_for_their_sequences(model):
    """num_return_sequences in both; beams with the processor."""
    ids = prompts(2)
    sampler = logitlab.Sampler(temperature=[1.0, 5.0], top_k=[1, 40])
    options = {**OFF, "num_return_sequences": 3}
    processors = transformers.LogitsProcessorList([SamplerProcessor(sampler)])
    for extra in (
        {"logits_processor": processors},
        {"custom_generate": generate_tokens, "sampler": sampler, "rng": 0},
    ):
        tokens = generate(model, ids, **options, **extra).reshape(2, 3, -1)
        assert (tokens[0] == tokens[0, 0]).all()
        assert len({tuple(x) for x in tokens[1].tolist()}) == 3
    tokens = generate(model, ids, **options, num_beams=3, logits_processor=processors)
    assert tokens.shape[0] == 6


def test_own_truncation_of_generate_is_left_out_of_the_loop(model):
    """The settings of a chat model's generation_config, its top_k of 50 included."""
    ids = prompts(4)
    options = {"custom_generate": generate_tokens, "sampler": logitlab.Sampler(), "rng": 0}
    expected = generate(model, ids, **options)
    own = {"do_sample": True, "temperature": 0.1, "top_k": 2, "top_p": 0.5}
    assert torch.equal(generate(model, ids, **options, **own), expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": [0.0, inf, -1.0, 0.5]},
        {"dynatemp_range": [0.5, 1.0, 0.9, 0.0], "dynatemp_exponent": 2.0},
        {"xtc_probability": 1.0, "xtc_threshold": 0.01},
    ],
)
def test_distribution_of_every_temperature(settings):
    """The softmax of the scores has the log-probabilities of samples."""
    z = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (4, 20)).astype(np.float32))
    sampler = logitlab.Sampler(**settings, top_k=15)
    tokens, log_p = sampler.sample_with_log_prob(z, rng=0)
    for scores in (
        SamplerProcessor(sampler)(None, z),
        SamplerProcessor(copy.deepcopy(sampler), rng=1)(None, z.repeat_interleave(2, 0))[::2],
    ):
        got = torch.log_softmax(scores, -1).gather(-1, tokens[:, None])[:, 0]
        torch.testing.assert_close(got, log_p, rtol=1e-5, atol=1e-6)
        assert ((scores > -inf).sum(-1) <= 15).all()


def test_xtc_decisions_of_the_processor():
    """They differ by step, follow the seed, and are independent of the global generators."""
    z = torch.arange(6) / 10 - torch.zeros(40, 1)  # each probability is above the threshold
    sampler = logitlab.Sampler(xtc_probability=0.5)

    def steps(seed):
        processor = SamplerProcessor(sampler, rng=seed)
        return torch.stack([(processor(None, z) > -inf).sum(-1) for _ in range(3)])

    assert torch.equal(steps(1), steps(1))
    assert not torch.equal(steps(1), steps(2))
    assert not torch.equal(*steps(1)[:2])
    assert set(steps(1).flatten().tolist()) == {1, 6}


def test_errors(model):
    ids = prompts(2)
    with pytest.raises(TypeError, match=r"sampler must be a logitlab.Sampler, got dict"):
        SamplerProcessor({"top_k": 5})
    with pytest.raises(TypeError, match="rng must be None, an int >= 0"):
        SamplerProcessor(logitlab.Sampler(), rng="1")
    for options, message in [
        ({"sampler": logitlab.Sampler(), "num_beams": 3}, "num_beams must be 1, got 3"),
        (
            {"sampler": logitlab.Sampler(), "row_keys": [1, 2, 3]},
            r"row_keys must have the batch shape \(2,\) of z, got shape \(3,\)",
        ),
        (
            {"sampler": logitlab.Sampler(top_p=[0.5, 0.6, 0.7])},
            r"top_p must be a number or broadcast to the batch shape \(2,\) of z, got shape \(3,\)",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            generate(model, ids, custom_generate=generate_tokens, **options)


def test_logitlab_does_not_import_transformers():
    code = "import logitlab, sys; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
