"""Errors of penalize: each names the argument, the row and the token."""

import re

import numpy as np
import pytest
import torch

from arrays import inf, nan
from logitlab import penalize

ERRORS = [
    (([[0]] * 3 + [[7]],), {}, "tokens, row 3: token 7 must be >= 0 and < 7"),
    (([[0], [1, -2], [], []],), {}, "tokens, row 1: token -2 must be >= 0 and < 7"),
    ((), {"prompt": np.full((4, 2), 9)}, "prompt, row 0: token 9 must be >= 0 and < 7"),
    (([[0]],), {}, "tokens must have a list for each of the 4 rows of z, got 1"),
    (([1, 2, 3, 4],), {}, "a list for each of the 4 rows of z, got shape (4,)"),
    (
        (np.zeros((3, 2), int),),
        {},
        "tokens must have a list for each of the 4 rows of z, got shape",
    ),
    (([[0], [1.5], [], []],), {}, "tokens, row 1: must be integers, got float64"),
    ((np.zeros((4, 2)),), {}, "tokens must be integers, got float64"),
    (([[0], [[1]], [], []],), {}, "tokens, row 1: must be a list of tokens, got shape (1, 1)"),
    ((([0, 1], [0, 1, 2]),), {}, "with shapes (n,) and (5,) for 4 rows, got (2,) and (3,)"),
    ((([0, 1], [0, 2, 1, 2, 2]),), {}, "offsets of tokens must increase from 0 to 2"),
    (((1, 2, 3),), {}, "tokens must be (tokens, offsets) if it is a tuple, got 3 entries"),
    ((), {"repetition_penalty": 0.0}, "repetition_penalty must be finite and > 0, got 0.0"),
    ((), {"repetition_penalty": [1, 1, inf, 1]}, "finite and > 0, got inf in row 2"),
    ((), {"frequency_penalty": nan}, "frequency_penalty must be finite, got nan"),
    ((), {"presence_penalty": [1.0, 2.0]}, "presence_penalty must be a number or broadcast"),
    ((), {"dry_base": 0.5}, "dry_base must be finite and >= 1, got 0.5"),
    ((), {"dry_allowed_length": 0}, "dry_allowed_length must be >= 1, got 0"),
    (
        (),
        {"no_repeat_ngram_size": [2, 0, 1, 1]},
        "no_repeat_ngram_size must be >= 1, got 0 in row 1",
    ),
    ((), {"dry_sequence_breakers": [[]]}, "dry_sequence_breakers must have no empty or nested"),
    ((), {"dry_sequence_breakers": [8]}, "dry_sequence_breakers: token 8 must be >= 0 and < 7"),
    ((), {"min_tokens": 1}, "eos_token_id must be given if min_tokens > 0, got None"),
    ((), {"logit_bias": {7: 1.0}}, "logit_bias, row 0: token 7 must be >= 0 and < 7"),
    ((), {"logit_bias": {0: nan}}, "logit_bias must be a number or ±inf, got nan"),
    ((), {"logit_bias": [{}]}, "logit_bias must be a mapping, one mapping for each of the 4 rows"),
    (
        (),
        {"logit_bias": np.zeros(6)},
        "logit_bias must have the shape (4, 7) or (7,), got (6,)",
    ),
    ((), {"logit_bias": np.full((4, 7), nan)}, "must not be nan, got nan for token 0 in row 0"),
    (
        (),
        {"bitmask": np.zeros((4, 2), np.int32)},
        "bitmask must have the shape (4, 1) for 7 tokens",
    ),
    ((), {"bitmask": np.zeros((4, 7), bool)}, "bitmask must be an int32 array, got bool"),
    ((), {"banned_token_ids": list(range(7))}, "row 0: all 7 tokens are banned"),
    ((), {"allowed_token_ids": [None, [], [1], None]}, "row 1: all 7 tokens are banned"),
    ((), {"bitmask": np.array([[1], [2], [1], [128]], np.int32)}, "row 3: all 7 tokens are banned"),
]


@pytest.mark.parametrize(("arguments", "options", "message"), ERRORS, ids=lambda x: str(x)[:30])
def test_errors(arguments, options, message):
    """Each names the argument, the row and the token."""
    for z in (np.zeros((4, 7)), torch.zeros(4, 7)):
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            penalize(z, *arguments, **options)


def test_errors_of_one_row():
    for arguments, message in (
        ({"tokens": [7]}, "tokens: token 7 must be >= 0 and < 7"),
        ({"banned_token_ids": range(7)}, "z: all 7 tokens are banned"),
        ({"tokens": [0], "dry_sequence_breakers": "ab"}, "dry_sequence_breakers must be a list"),
    ):
        with pytest.raises((TypeError, ValueError), match=re.escape(message)):
            penalize(np.zeros(7), **arguments)
    with pytest.raises(ValueError, match=re.escape("z must have the shape (N, K) or (K,)")):
        penalize(np.zeros((2, 3, 4)))
    # A row without a distribution before the bans is left to sampling.
    assert np.isneginf(penalize(np.full((1, 7), -inf), banned_token_ids=[1])).all()
