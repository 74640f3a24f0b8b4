"""Expected costs and Bayes decisions: formulas, ties, infinite costs, rejection, libraries."""

import array_api_strict
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import logitlab

inf, nan = np.inf, np.nan
Z = np.random.default_rng(0).normal(0, 2, (50, 4))
COSTS = np.array([[-1.0, 2, 3, 4], [3, 0, 1, 3], [4, 4, 0.5, 0]])
CONVERT = {
    "numpy": np.asarray,
    "torch": torch.from_numpy,
    "jax": jnp.asarray,
    "strict": array_api_strict.asarray,
}


def zero_one(k):
    return 1 - np.eye(k)


@pytest.mark.parametrize("library", CONVERT)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_formula(library, dtype):
    """The costs are those of the probabilities, in z's library and dtype; A differs from K."""
    z = CONVERT[library](Z.astype(dtype))
    cost = logitlab.expected_cost(z, COSTS, temperature=1.5)
    decision = logitlab.decide(z, COSTS, temperature=1.5)
    assert type(cost) is type(decision) is type(z)
    assert cost.dtype == z.dtype
    expected = logitlab.softmax(Z, temperature=1.5) @ COSTS.T
    np.testing.assert_allclose(np.asarray(cost), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(decision), expected.argmin(-1))


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, jnp.asarray])
def test_axis(convert):
    """The decisions take the place of the classes; costs may be of z's library."""
    z = np.random.default_rng(0).normal(0, 2, (2, 4, 3, 5))
    moved = np.moveaxis(z, 1, -1)
    cost = logitlab.expected_cost(convert(z), convert(COSTS), axis=1)
    assert cost.shape == (2, 3, 3, 5)
    expected = logitlab.expected_cost(moved, COSTS)
    np.testing.assert_allclose(np.moveaxis(np.asarray(cost), 1, -1), expected, atol=1e-5)
    options = {"axis": 1, "reject_cost": 1.0, "temperature": 2.0}
    decision = logitlab.decide(convert(z), COSTS, **options)
    expected = logitlab.decide(moved, COSTS, **{**options, "axis": -1})
    np.testing.assert_array_equal(np.asarray(decision), expected)
    assert len(np.unique(expected)) == 4


def test_one_row():
    assert logitlab.expected_cost([0.0, 0.0], [[1, 3]]).tolist() == [2.0]
    assert logitlab.decide([0.0, 1.0]) == 1
    assert logitlab.decide(Z, COSTS[:1]).tolist() == [0] * 50


def test_infinite_costs():
    """They count where the class has a probability above 0, also where it rounds to 0."""
    costs = [[0, inf], [5, 7]]
    z = [[0.0, -inf], [0.0, 0.0], [0.0, -2000.0], [inf, 0.0], [0.0, -200.0]]
    expected = [[0, 5], [inf, 6], [inf, 5], [0, 5], [inf, 5]]
    np.testing.assert_allclose(logitlab.expected_cost(z, costs), expected)
    assert logitlab.decide(z, costs).tolist() == [0, 1, 1, 0, 1]
    float32 = np.array(z, np.float32)
    np.testing.assert_allclose(logitlab.expected_cost(float32, costs), expected)
    everything = [[inf, inf], [inf, inf]]
    assert logitlab.decide([[1.0, 2.0]], everything).tolist() == [0]
    assert logitlab.decide([[1.0, 2.0]], everything, reject_cost=9).tolist() == [-1]
    assert logitlab.decide([[1.0, 2.0]], everything, reject_cost=inf).tolist() == [0]


def test_undefined_rows():
    """Their costs are NaN and they have no decision; also with infinite costs."""
    z = [[0.0, 1.0], [nan, 1.0], [-inf, -inf]]
    for costs in ([[0, 1], [1, 0]], [[0, inf], [0, 0]]):
        rows = logitlab.expected_cost(z, costs)
        assert np.isnan(rows).all(axis=-1).tolist() == [False, True, True]
        for options in ({"costs": costs}, {"costs": costs, "reject_cost": 1.0}, {}):
            with pytest.raises(ValueError, match="row 1 of z has no distribution: it contains NaN"):
                logitlab.decide(z, **options)
    with pytest.raises(ValueError, match="row 2 of z has no distribution"):
        logitlab.decide([z[0], z[0], z[2]], reject_cost=0.1)


@pytest.mark.parametrize("k", range(2, 70))
def test_ties(k):
    """Equal costs up to rounding: the first decision, and none is rejected."""
    z = np.zeros((1, k))
    assert logitlab.decide(z).tolist() == [0]
    assert logitlab.decide(z, zero_one(k)).tolist() == [0]
    assert logitlab.decide(z, reject_cost=1 - 1 / k).tolist() == [0]
    assert logitlab.decide(z, zero_one(k), reject_cost=1 - 1 / k).tolist() == [0]
    assert logitlab.decide(z, reject_cost=1 - 1 / k - 1e-9).tolist() == [-1]
    assert logitlab.decide(z, zero_one(k), reject_cost=1 - 1 / k - 1e-9).tolist() == [-1]


def test_zero_one_loss():
    """Without costs: the matrix of ones off the diagonal, the predicted class, Chow's rule."""
    assert (logitlab.decide(Z) == Z.argmax(-1)).all()
    for reject_cost in (None, 0.0, 0.2, 0.5, 1.0, inf):
        decision = logitlab.decide(Z, reject_cost=reject_cost)
        same = logitlab.decide(Z, zero_one(4), reject_cost=reject_cost)
        np.testing.assert_array_equal(decision, same)
        p = logitlab.softmax(Z).max(-1)
        rejected = 1 - p > (inf if reject_cost is None else reject_cost)
        np.testing.assert_array_equal(decision == -1, rejected)
    p = [[0.9, 0.1], [0.1, 0.9], [0.89, 0.11]]
    assert logitlab.decide(np.log(p), reject_cost=0.1).tolist() == [0, 1, -1]


def test_logits_that_differ_by_less_than_rounding_of_p():
    """The decision is the class that accuracy() calls predicted."""
    z = np.array([[0.0, 1e-20], [1e-300, 0.0]])
    assert logitlab.decide(z).tolist() == [1, 0]
    assert logitlab.decide(z, reject_cost=0.5).tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [0.0, 1e-3, 3.0, inf, -1.0, -inf, -0.0])
def test_temperature(temperature):
    """Any temperature of softmax; -inf stays excluded."""
    z = np.array([[1.0, 3.0, 2.0], [-inf, 1.0, 2.0], [inf, 0.0, 1.0], [2.0, -inf, 2.0]])
    p = logitlab.softmax(z, temperature=temperature)
    np.testing.assert_array_equal(logitlab.decide(z, temperature=temperature), p.argmax(-1))
    each = logitlab.decide(z, temperature=np.full(4, temperature))
    np.testing.assert_array_equal(each, p.argmax(-1))


def test_tensors():
    """Gradients of the expected cost are those of the formula; the result stays on the device."""
    z = torch.tensor(Z, requires_grad=True)
    logitlab.expected_cost(z, COSTS).sum().backward()
    p = logitlab.softmax(Z)
    gradient = p * (COSTS.sum(0) - (p * COSTS.sum(0)).sum(-1, keepdims=True))
    np.testing.assert_allclose(z.grad.numpy(), gradient, atol=1e-12)
    assert logitlab.decide(z, COSTS).dtype == torch.int64
    meta = torch.zeros(5, 4, device="meta")
    assert logitlab.decide(meta, torch.zeros(2, 4, device="meta")).device.type == "meta"


@pytest.mark.parametrize("options", [{}, {"costs": COSTS}, {"costs": COSTS, "reject_cost": 0.1}])
def test_jit(options):
    """Under jax.jit; a row without a distribution is rejected there, as it cannot be an error."""
    z = jnp.asarray(Z.astype(np.float32))
    decide = jax.jit(lambda z: logitlab.decide(z, **options))
    np.testing.assert_array_equal(decide(z), logitlab.decide(z, **options))
    assert int(decide(z.at[3, 1].set(nan))[3]) == -1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: logitlab.expected_cost(Z, [[1, 2]]),
            ValueError,
            r"costs must have shape \(A, 4\), a row for each decision .* got shape \(1, 2\)",
        ),
        (lambda: logitlab.decide(Z, np.zeros((0, 4))), ValueError, r"costs must have shape"),
        (lambda: logitlab.decide(Z, np.zeros(4)), ValueError, r"costs must have shape"),
        (
            lambda: logitlab.decide(Z, [[0, 0, 0, 0], [0, nan, 0, 0]]),
            ValueError,
            r"costs must be real numbers or \+inf, got nan for decision 1 and class 1",
        ),
        (lambda: logitlab.decide(Z, [[0, 0, 0, -inf]]), ValueError, "got -inf for decision 0"),
        (lambda: logitlab.decide(Z, [["a"] * 4]), TypeError, "costs must be a real array"),
        (lambda: logitlab.decide(1.0), ValueError, r"z must hold at least one class, got shape"),
        (lambda: logitlab.decide(np.zeros((3, 0))), ValueError, r"z must hold at least one class"),
        (
            lambda: logitlab.decide(Z, reject_cost=nan),
            ValueError,
            "reject_cost must be > -inf, got nan",
        ),
        (lambda: logitlab.decide(Z, reject_cost="a"), TypeError, "reject_cost must be a real"),
        (lambda: logitlab.decide(Z, axis=(0, 1)), TypeError, "axis must be an int"),
        (lambda: logitlab.decide(Z, temperature=nan), ValueError, "temperature must be"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
