"""The laws that a report looks for on its own rows: a fault of softmax does not stay hidden."""

import numpy as np
import pytest

import logitlab
from logitlab._app.report import numerics

ROWS = np.array([[2.0, 1.0, 1.0, 3.0, -np.inf], [0.5, 4.0, 4.0, 2.0, 1.0]], np.float32)
NEAR = 4 * np.finfo(np.float32).eps


def found(monkeypatch, softmax, z=ROWS):
    monkeypatch.setattr(numerics, "softmax", softmax)
    return numerics.look(z)


def faults(seen):
    """The names of what such a report would not call kept."""
    return {
        name
        for name, bad in {
            "order": seen.order_broken_rows,
            "ties": seen.ties_broken_rows,
            "sum": seen.sum_worst_ulp > 4,
            "shift": seen.shift_broken_rows,
            "accuracy": seen.worst_ulp is not None and seen.worst_ulp > 4,
        }.items()
        if bad
    }


def turned(z):
    """The largest logit loses most of its probability to the others."""
    p = logitlab.softmax(z)
    p[np.arange(len(z)), z.argmax(axis=-1)] *= np.float32(1e-3)
    return p / p.sum(axis=-1, keepdims=True)


def untied(z):
    """Equal logits, a ULP apart by their place."""
    p = logitlab.softmax(z)
    p[:, 2] = np.nextafter(p[:, 2], np.float32(2))
    return p


def of_the_size(z):
    """The temperature hangs on the size of the logits."""
    return logitlab.softmax(z / np.float32(1 + abs(z[np.isfinite(z)]).max()))


def leaking(z):
    """A class that is excluded keeps a little."""
    p = logitlab.softmax(z)
    p[np.isneginf(z)] = np.float32(1e-9)
    return p


def test_logitlab_has_no_fault():
    seen = numerics.look(ROWS)
    assert faults(seen) == set()
    assert (seen.rows, seen.tie_rows) == (2, 2)
    assert seen.shift_exact_rows + seen.shift_rounded_rows == 2


@pytest.mark.parametrize(
    ("softmax", "wanted"),
    [
        (turned, {"order", "accuracy"}),
        (untied, {"ties"}),
        (of_the_size, {"shift", "accuracy"}),
        (leaking, {"accuracy"}),
        (lambda z: logitlab.softmax(z) * np.float32(1 + NEAR), {"sum"}),
    ],
    ids=["order", "ties", "shift", "excluded", "sum"],
)
def test_a_planted_fault_is_found(monkeypatch, softmax, wanted):
    if np.finfo(np.longdouble).nmant <= 23:
        pytest.skip("no type wider than float32")
    assert faults(found(monkeypatch, softmax)) >= wanted


def test_a_shift_that_rounds_accuses_nobody():
    """Where z + c rounds by whole units, a probability of 0 may become one that is not."""
    rng = np.random.default_rng(0)
    for size in (1e8, 1e9, 1e15, 1e30):
        z = (size + size / 1e6 * rng.normal(size=(200, 6))).astype(np.float32)
        z[:, 0] = 3.0
        near = np.float32(size) - np.array([0, 96, 104, 110, 120], np.float32)
        seen = numerics.look(np.vstack([z, np.append(near, 3.0)[None]]).astype(np.float32))
        assert seen.shift_broken_rows == 0


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
def test_a_probability_of_exactly_0_is_measured_in_the_least_numbers(monkeypatch, dtype):
    """One ULP at 0 is the smallest number of the type."""
    z = np.array([[0.0, 1.0, -np.inf, -20000.0]], dtype)
    measured = "float64" if dtype == "longdouble" else dtype
    least = np.finfo(measured).smallest_subnormal

    def leaks(z):
        p = logitlab.softmax(z)
        p[:, 2] = 3 * least
        return p

    seen = found(monkeypatch, leaks, z)
    if seen.worst_ulp is not None:
        assert seen.worst_ulp == pytest.approx(3, abs=1)
