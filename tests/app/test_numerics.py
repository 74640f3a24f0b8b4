"""The numerical checks of a report detect a defective softmax."""

import numpy as np
import pytest

import logitlab
from logitlab._app.report import numerics

pytestmark = pytest.mark.slow

ROWS = np.array([[2.0, 1.0, 1.0, 3.0, -np.inf], [0.5, 4.0, 4.0, 2.0, 1.0]], np.float32)
NEAR = 4 * np.finfo(np.float32).eps


def check_function(monkeypatch, softmax, z=ROWS):
    """The checks of another function in place of logitlab's softmax."""
    monkeypatch.setattr(numerics, "softmax", softmax)
    return numerics.check_rows(z)


def failures(checks):
    """The names of the checks that fail."""
    return {
        name
        for name, failed in {
            "order": checks.order_violation_rows,
            "ties": checks.tie_violation_rows,
            "sum": checks.sum_max_ulp > 4,
            "shift": checks.shift_violation_rows,
            "accuracy": checks.max_ulp is not None and checks.max_ulp > 4,
        }.items()
        if failed
    }


def reordered(z):
    """The largest logit has a small probability."""
    p = logitlab.softmax(z)
    p[np.arange(len(z)), z.argmax(axis=-1)] *= np.float32(1e-3)
    return p / p.sum(axis=-1, keepdims=True)


def untied(z):
    """The probabilities of equal logits differ by a ULP."""
    p = logitlab.softmax(z)
    p[:, 2] = np.nextafter(p[:, 2], np.float32(2))
    return p


def scaled(z):
    """The temperature depends on the largest logit."""
    return logitlab.softmax(z / np.float32(1 + abs(z[np.isfinite(z)]).max()))


def leaking(z):
    """An excluded class has a small probability."""
    p = logitlab.softmax(z)
    p[np.isneginf(z)] = np.float32(1e-9)
    return p


def test_softmax_passes():
    """logitlab's softmax passes every check."""
    checks = numerics.check_rows(ROWS)
    assert failures(checks) == set()
    assert (checks.rows, checks.tie_rows) == (2, 2)
    assert checks.shift_exact_rows + checks.shift_rounded_rows == 2


@pytest.mark.parametrize(
    ("softmax", "expected"),
    [
        (reordered, {"order", "accuracy"}),
        (untied, {"ties"}),
        (scaled, {"shift", "accuracy"}),
        (leaking, {"accuracy"}),
        (lambda z: logitlab.softmax(z) * np.float32(1 + NEAR), {"sum"}),
    ],
    ids=["order", "ties", "shift", "excluded", "sum"],
)
def test_defects_are_detected(monkeypatch, softmax, expected):
    """Each defective function fails its check."""
    if np.finfo(np.longdouble).nmant <= 23:
        pytest.skip("no type wider than float32")
    assert failures(check_function(monkeypatch, softmax)) >= expected


def test_rounded_shift():
    """The rounding of z + c changes probabilities, even 0, and is no violation."""
    rng = np.random.default_rng(0)
    for size in (1e8, 1e9, 1e15, 1e30):
        z = (size + size / 1e6 * rng.normal(size=(200, 6))).astype(np.float32)
        z[:, 0] = 3.0
        near = np.float32(size) - np.array([0, 96, 104, 110, 120], np.float32)
        checks = numerics.check_rows(np.vstack([z, np.append(near, 3.0)[None]]).astype(np.float32))
        assert checks.shift_violation_rows == 0


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
def test_ulp_at_zero(monkeypatch, dtype):
    """One ULP at 0 is the smallest number of the type."""
    z = np.array([[0.0, 1.0, -np.inf, -20000.0]], dtype)
    measured = "float64" if dtype == "longdouble" else dtype
    smallest = np.finfo(measured).smallest_subnormal

    def leaks(z):
        p = logitlab.softmax(z)
        p[:, 2] = 3 * smallest
        return p

    checks = check_function(monkeypatch, leaks, z)
    if checks.max_ulp is not None:
        assert checks.max_ulp == pytest.approx(3, abs=1)
