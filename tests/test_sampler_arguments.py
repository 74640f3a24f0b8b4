"""Unusual arguments of samplers and supports: infinite logits, equality, errors."""

import re

import numpy as np
import pytest
import torch

import logitlab
from arrays import inf, nan
from logitlab import Sampler, Support


@pytest.mark.parametrize(
    ("z", "temperature", "expected"),
    [
        ([inf, 1.0, 2.0], 1.0, [0]),
        ([inf, 1.0, inf], inf, [0, 2]),
        ([inf, 1.0, 2.0], -1.0, [1, 2]),
        ([inf, 1.0, 2.0], -inf, [1, 2]),
        ([3.0, 1.0, 3.0], 0.0, [0, 2]),
        ([-inf, -800.0, 800.0], 1.0, [1, 2]),  # a probability of 0 by rounding alone
    ],
)
@pytest.mark.parametrize("convert", [np.array, torch.tensor])
def test_support_has_no_classes_of_probability_zero(convert, z, temperature, expected):
    z = convert(z)
    token, support = logitlab.sample_with_support(z, temperature=temperature, rng=0)
    assert support.indices.tolist() == expected
    assert int(token) in expected


def test_support_of_rows_with_their_temperatures():
    z = np.array([[inf, 1.0, 2.0], [inf, 1.0, 2.0], [1.0, 2.0, 2.0], [1.0, 2.0, 3.0]])
    for axis, x in ((-1, z), (0, z.T)):
        _, support = logitlab.sample_with_support(x, axis=axis, temperature=[1, -1, 0, 2], rng=0)
        assert support.indices.tolist() == [0, 1, 2, 1, 2, 0, 1, 2]
        assert support.sizes.tolist() == [1, 2, 2, 3]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"temperature": 0.0}, {"temperature": -0.0}),
        ({"temperature": [1, 2]}, {"temperature": [1.0, 2.0]}),
        ({"temperature": [0.0, 2.0]}, {"temperature": [-0.0, 2.0]}),
        ({"temperature": [1.0, 2.0]}, {"temperature": torch.tensor([1, 2])}),
        ({"temperature": 0.5}, {"temperature": np.array(0.5)}),
        ({"top_n_sigma": 0.0}, {"top_n_sigma": -0.0}),
        ({"top_a": [0.0, 1.0]}, {"top_a": [-0.0, 1.0]}),
    ],
)
def test_equal_samplers_have_equal_hashes(a, b):
    assert Sampler(**a) == Sampler(**b)
    assert hash(Sampler(**a)) == hash(Sampler(**b))


def test_temperature_is_copied():
    temperature = np.array([0.5, 1.0])
    sampler = Sampler(temperature=temperature)
    temperature[0] = 9
    assert sampler.temperature.tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match="read-only"):
        sampler.temperature[0] = 9
    assert sampler.truncate(torch.zeros(2, 3)).shape == (2, 3)  # without a warning
    tensor = torch.ones(2, requires_grad=True)
    assert Sampler(temperature=tensor).temperature is tensor


def test_large_top_k_of_rows():
    kept = logitlab.truncate([[1.0, 2.0], [1.0, 2.0]], top_k=[10**30, 1])
    assert kept.tolist() == [[1.0, 2.0], [-inf, 2.0]]
    with pytest.raises(ValueError, match="top_k must be >= 1"):
        Sampler(top_k=[-(10**30)])


def test_truncation_checks_random_numbers_without_using_them():
    generator = np.random.default_rng(0)
    logitlab.truncate([1.0, 2.0], rng=generator, row_keys=3)
    assert generator.random() == np.random.default_rng(0).random()


def test_support_of_no_class():
    assert Support([], [0, 0], (1, 3)).to_mask().tolist() == [[False] * 3]


Z = np.zeros((2, 3))
DRAFT = np.zeros((1, 2, 300))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Sampler.from_json('{"temperature": "abc"}'), TypeError, "temperature must be a"),
        (lambda: Sampler(temperature=None), TypeError, "temperature must be a real number"),
        (lambda: Sampler(temperature=[1.0, nan]), ValueError, "included, got nan in row 1"),
        (lambda: Sampler(temperature=torch.tensor([True])), TypeError, "or array, got bool"),
        (
            lambda: Sampler(temperature=10**400),
            ValueError,
            "temperature must be a number, 0 and ±inf included, got a number too large for a float",
        ),
        (
            lambda: logitlab.sample([0.0, 1.0], foo=1),
            TypeError,
            "sample() got an unexpected keyword argument 'foo'; the settings are temperature, top_",
        ),
        (
            lambda: logitlab.verify_draft(DRAFT, None, [[0]], foo=1),
            TypeError,
            "verify_draft() got an unexpected keyword argument 'foo'",
        ),
        (lambda: logitlab.truncate(Z, rng="a"), TypeError, "rng must be None"),
        (lambda: logitlab.truncate(Z, rng=-1), ValueError, "rng must be None"),
        (lambda: logitlab.truncate(Z, row_keys=[1]), ValueError, "row_keys must have the batch"),
        (
            lambda: logitlab.verify_draft(DRAFT, None, np.array([[2**64 - 1]], np.uint64)),
            ValueError,
            "from 0 to 299, or -1 after the end of a draft, got 18446744073709551615",
        ),
        (
            lambda: logitlab.penalize(Z[0], np.array([2**64 - 1], np.uint64), frequency_penalty=1),
            ValueError,
            "must be < 2**63, got 18446744073709551615",
        ),
        (
            lambda: logitlab.mirostat(np.zeros((1, 0)), [5.0], tau=5.0, eta=0.1, version=1),
            ValueError,
            "row 0 has no distribution",
        ),
        (lambda: Support([0], [0, 1], 5), TypeError, "shape must be a tuple of ints, got 5"),
        (lambda: Support([0], [0, 1], (1.5, 3)), TypeError, "tuple of ints, got (1.5, 3)"),
        (lambda: Support([0], [0, 1], "13"), TypeError, "shape must be a tuple of ints, got '13'"),
        (lambda: Support.concatenate([1]), TypeError, "of logitlab.Support, got 1 at 0"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
