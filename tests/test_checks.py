"""The checks of arguments that are not arrays."""

import math

import numpy as np
import pytest

from logitlab import _checks

BOOLEANS = [True, False, np.True_, np.False_]


@pytest.mark.parametrize("value", BOOLEANS)
def test_booleans_are_not_numbers(value):
    with pytest.raises(TypeError, match="n must be an int, got"):
        _checks.integer(value, "n")
    with pytest.raises(TypeError, match="x must be a real number, got"):
        _checks.real(value, "x", "finite", math.isfinite)
    with pytest.raises(TypeError, match="rng must be None, an int >= 0 or a"):
        _checks.generator(value)
    assert _checks.boolean(value, "flag") is bool(value)


def test_numbers():
    assert _checks.integer(np.int8(3), "n", 1) == 3
    assert _checks.real(np.float32(0.5), "x", "finite", math.isfinite) == 0.5
    with pytest.raises(ValueError, match="n must be >= 1, got 0"):
        _checks.integer(0, "n", 1)
    with pytest.raises(TypeError, match=r"n must be an int, got 1\.0"):
        _checks.integer(1.0, "n")
    with pytest.raises(ValueError, match="x must be finite, got inf"):
        _checks.real(math.inf, "x", "finite", math.isfinite)
    with pytest.raises(TypeError, match="x must be a real number, got '1'"):
        _checks.real("1", "x", "finite", math.isfinite)


@pytest.mark.parametrize("value", [1, 0, "x", None, [True]])
def test_only_booleans_are_booleans(value):
    with pytest.raises(TypeError, match="flag must be True or False, got"):
        _checks.boolean(value, "flag")


def test_choices_differ_by_type():
    """1 is not True, and an unhashable value is refused with the same message."""
    assert _checks.choice("a", "order", ("a", "b")) == "a"
    for value in (True, [1], "c"):
        with pytest.raises(ValueError, match="norm must be one of 1, 'max', got"):
            _checks.choice(value, "norm", (1, "max"))


@pytest.mark.parametrize("rng", [-1, 1.5, "seed"])
def test_seeds(rng):
    with pytest.raises((TypeError, ValueError), match="rng must be None, an int >= 0 or a"):
        _checks.generator(rng)
    assert _checks.generator(3).integers(1 << 30) == _checks.generator(3).integers(1 << 30)


def test_names():
    """A list of known names or None."""
    _checks.names(None, "laws", ["a"])
    _checks.names(("a",), "laws", ["a", "b"])
    with pytest.raises(TypeError, match="laws must be a list of names, got 'a'"):
        _checks.names("a", "laws", ["a"])
    with pytest.raises(ValueError, match="laws must be some of a, b, got 'c'"):
        _checks.names(["c"], "laws", ["a", "b"])
