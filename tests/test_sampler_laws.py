"""Each defect of a sampler or a verifier fails its law; correct ones pass every law."""

import re

import numpy as np
import pytest
import torch

import logitlab
import samplers
from logitlab.laws import frequencies, sampler_evaluation, sampler_laws, verifier_laws
from logitlab.laws.law import Finding, SamplerLaw

pytestmark = pytest.mark.slow

ALL_DEFECTS = [
    pytest.param(function, law, id=f"{function.__name__}")
    for defects in (samplers.DEFECTS, samplers.VERIFIER_DEFECTS, samplers.PUBLIC_BUGS)
    for function, law in defects.items()
]


@pytest.mark.parametrize(("function", "law"), ALL_DEFECTS)
def test_defects(function, law):
    """The law of the defect reports it, with code that runs."""
    report = logitlab.check_sampler(function, laws=[law], strict=True)
    assert report.failures == [law]
    counterexample = report[law].counterexample
    *setup, call = counterexample.code.split("; ")
    scope = {}
    exec("; ".join(setup), scope)
    with np.errstate(all="ignore"):
        value = eval(call, scope)
    if match := re.match(r"counts \[([\d, ]+)\]", counterexample.result):
        counts = [int(x) for x in match[1].split(", ")]
        found = np.bincount(np.ravel(value), minlength=len(counts))
        assert found[: len(counts)].tolist() == counts


def test_every_law_has_a_defect():
    """No law is there that nothing fails."""
    laws = {law.name for law in (*sampler_laws.LAWS, *verifier_laws.LAWS)}
    found = {*samplers.DEFECTS.values(), *samplers.VERIFIER_DEFECTS.values()}
    assert laws == found


@pytest.mark.parametrize("function", [samplers.correct, samplers.verify, logitlab.sample])
@pytest.mark.parametrize("seed", [0, 100, 200])
def test_correct_functions_pass(function, seed):
    """Every law and convention."""
    report = logitlab.check_sampler(function, seed=seed, strict=True)
    assert report, report
    assert {result.level for result in report} == {"passes"}
    assert report.diagnosis == "passes"


def test_the_family_wise_level_is_printed():
    """In the text, the dictionary and the page, with the number of tests."""
    report = logitlab.check_sampler(logitlab.sample, laws=["long rows", "independent rows"])
    note = "probability of a false alarm at most 1e-06 in all 8 tests together"
    assert report.note == note
    assert note in str(report).splitlines()
    assert report.to_dict()["note"] == note
    assert note in report.to_html()


@pytest.mark.parametrize("k", [2, 5, 30])
def test_the_bound_of_the_tail(k):
    """It is above the frequency of its own event, and small for a wrong distribution."""
    rng = np.random.default_rng(k)
    p = rng.dirichlet(np.ones(k))
    bounds = np.array([frequencies.tail_bound(rng.multinomial(300, p), p) for _ in range(4000)])
    for level in (0.5, 0.1, 0.01):
        assert (bounds <= level).mean() <= level
    wrong = rng.multinomial(100_000, np.roll(p, 1))
    assert frequencies.tail_bound(wrong, p) < 1e-9
    assert frequencies.tail_bound(np.array([9, 1]), np.array([1.0, 0.0])) == 0


def torch_generator(logits, generator, temperature=1.0):
    """One token for each row, as an engine does it."""
    p = torch.softmax(logits / temperature, -1)
    return torch.multinomial(p, 1, generator=generator)


def test_one_token_for_each_row_in_torch():
    """Without n, the rows are repeated; the laws of what it does not take are not applicable."""
    laws = ["support", "frequencies", "independent rows", "independent draws", "seeds", "top_p"]
    report = logitlab.check_sampler(torch_generator, laws=[*laws, "temperature"])
    assert report, report
    assert report.array_library == "torch"
    assert report["top_p"].level == "not applicable"
    assert report["top_p"].note == "the function has no parameter for top_p"
    code = logitlab.check_sampler(
        lambda logits, generator: logits.argmax(-1), array_library="torch", name="f"
    )["frequencies"].counterexample.code
    assert "f(torch.from_numpy(np.repeat(np.array(" in code
    assert "generator=torch.Generator().manual_seed(0)" in code


def test_the_order_of_stages_is_named():
    """That of the engine whose kept sets the samples have."""

    def llama(logits, n, rng, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0):
        options = {"temperature": temperature, "top_p": top_p, "min_p": min_p, "top_k": top_k}
        return logitlab.sample(logits, n, rng=rng, order="llama.cpp", **options)

    report = logitlab.check_sampler(llama, laws=["order of stages"])
    assert report["order of stages"].note == "as llama.cpp"


def test_an_error_of_the_function_fails_the_law():
    """The text of the error is the result."""

    def fails(logits, n, seed=0):
        if np.isinf(logits).any():
            raise RuntimeError("no infinities")
        return samplers.correct(logits, n, seed)

    result = logitlab.check_sampler(fails, laws=["support"])["support"]
    assert result.level == "fails"
    assert result.counterexample.result == "RuntimeError: no infinities"


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (3, {}, "function must be a callable, got int"),
        (logitlab.softmax, {}, "function must return one token for each row, or n, .* must be int"),
        (lambda target_logits, draft_tokens: 0, {}, "function must return .accepted, next_token"),
        (samplers.correct, {"laws": ["gravity"]}, "laws must be some of support, .* got 'gravity'"),
        (samplers.correct, {"laws": "support"}, "laws must be a list of names, got 'support'"),
        (samplers.correct, {"seed": -1}, "seed must be >= 0, got -1"),
        (samplers.correct, {"array_library": "abacus"}, "array_library must be one of numpy"),
    ],
)
def test_bad_arguments(function, options, message):
    """The error names the argument."""
    with pytest.raises((TypeError, ValueError), match=message):
        logitlab.check_sampler(function, **options)


def test_the_level_is_shared():
    """A p-value above the level divided by the number of tests is no failure."""
    findings = [Finding(1e-7, "code", "a", "b")] * 11
    law = SamplerLaw("x", "", "", "", lambda function, seed: findings)
    results, n_tests = sampler_evaluation.evaluate(None, [law], 0)
    assert (results[0].level, n_tests) == ("passes", 11)
    law = SamplerLaw("x", "", "", "", lambda function, seed: findings[:10])
    assert sampler_evaluation.evaluate(None, [law], 0)[0][0].level == "fails"
