"""Logits under other class frequencies, and the estimate of these frequencies."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import logitlab
from logitlab.decisions import priors

inf, nan = np.inf, np.nan
FROM, TO = [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]


def shifted(n, to, separation=1.5, seed=0):
    """Exact logits for equal frequencies, of rows whose classes have the frequencies `to`."""
    rng = np.random.default_rng(seed)
    y = rng.choice(len(to), n, p=to)
    return separation * (rng.normal(size=(n, len(to))) + separation * np.eye(len(to))[y])


def log_likelihood(z, prior, q):
    return np.log(logitlab.softmax(z) @ (q / prior)).sum()


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, jnp.asarray])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bayes_rule(convert, dtype):
    """The posterior under the other prior, in z's library and type; counts are frequencies."""
    z = np.random.default_rng(0).normal(0, 2, (20, 3))
    p = logitlab.softmax(z) * TO / np.array(FROM)
    expected = p / p.sum(-1, keepdims=True)
    adjusted = logitlab.adjust_prior(convert(z.astype(dtype)), FROM, TO)
    assert type(adjusted) is type(convert(z))
    assert adjusted.dtype == convert(z.astype(dtype)).dtype
    np.testing.assert_allclose(np.asarray(logitlab.softmax(adjusted)), expected, rtol=2e-6)
    counts = logitlab.adjust_prior(z, np.multiply(FROM, 1e300), to=np.multiply(TO, 1000))
    np.testing.assert_allclose(counts, logitlab.adjust_prior(z, FROM, TO), atol=1e-12)
    back = logitlab.adjust_prior(counts, from_=TO, to=FROM)
    np.testing.assert_allclose(back, z, atol=1e-12)


def test_axis_and_half_types():
    z = np.random.default_rng(0).normal(0, 2, (2, 3, 5))
    expected = logitlab.adjust_prior(np.moveaxis(z, 1, -1), FROM, TO)
    adjusted = logitlab.adjust_prior(z, FROM, TO, axis=1)
    np.testing.assert_array_equal(adjusted, np.moveaxis(expected, -1, 1))
    half = logitlab.adjust_prior(torch.tensor(z).bfloat16(), FROM, TO, axis=1)
    assert half.dtype == torch.bfloat16
    np.testing.assert_allclose(half.float().numpy(), adjusted, rtol=0.02, atol=0.02)


def test_excluded_classes():
    """A class of frequency 0 is excluded at any logit; NaN stays."""
    z = [[1.0, 2.0], [inf, 0.0], [-inf, 0.0], [0.0, inf], [nan, 1.0]]
    adjusted = logitlab.adjust_prior(z, [1, 1], [0, 2])
    log2 = np.log(2)
    expected = [
        [-inf, 2 + log2],
        [-inf, log2],
        [-inf, log2],
        [-inf, inf],
        [nan, 1 + log2],
    ]
    np.testing.assert_allclose(adjusted, expected)


def test_extreme_frequencies():
    """Subnormal and huge ones do not overflow."""
    adjusted = logitlab.adjust_prior([0.0, 0.0], [5e-324, 1e308], [1e308, 1e308])
    assert np.isfinite(adjusted).all()
    assert adjusted[0] - adjusted[1] == pytest.approx(np.log(1e308) - np.log(5e-324))


@pytest.mark.parametrize("to", [[0.1, 0.2, 0.7], [0.0, 0.5, 0.5], [1.0, 0.0, 0.0]])
def test_maximum_likelihood(to):
    """The estimate has the largest log-likelihood, as a general optimizer finds it."""
    z = shifted(500, to)
    prior = np.full(3, 1 / 3)
    estimate = logitlab.estimate_prior(z, prior, n_resamples=1)
    assert estimate.prior.sum() == pytest.approx(1)
    constraint = {"type": "eq", "fun": lambda q: q.sum() - 1}
    best = minimize(
        lambda q: -log_likelihood(z, prior, q),
        prior,
        bounds=[(0, 1)] * 3,
        constraints=constraint,
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    assert log_likelihood(z, prior, estimate.prior) >= -best.fun - 1e-6
    np.testing.assert_allclose(estimate.prior, best.x, atol=2e-3)


def test_em_algorithm():
    """The fixed point of the update as it is published, also for unequal frequencies before."""
    prior = np.array([0.5, 0.3, 0.2])
    z = logitlab.adjust_prior(shifted(400, TO), np.ones(3), prior)
    p, q = logitlab.softmax(z), prior
    for _ in range(3000):
        posterior = p * q / prior
        q = (posterior / posterior.sum(-1, keepdims=True)).mean(0)
    estimate = logitlab.estimate_prior(z, prior, n_resamples=1)
    np.testing.assert_allclose(estimate.prior, q, atol=1e-5)
    assert estimate.n_iterations < 50


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("separation", [0.2, 1.0, 3.0])
def test_log_likelihood_never_decreases(seed, separation):
    """At any separation of the classes, from any start."""
    rng = np.random.default_rng(seed)
    likelihoods = logitlab.softmax(shifted(200, rng.dirichlet(np.ones(4)), separation, seed))
    start = rng.dirichlet(np.ones(4) / 2)
    values = []
    for n in range(30):
        q, iterations = priors._maximize(likelihoods, np.ones((1, 200)), start, 1e-8, n)
        assert iterations <= n
        values.append(np.log(likelihoods @ q[0]).sum())
    assert (np.diff(values) >= -1e-11).all()
    assert values[-1] > values[0]


def test_stopping_rule():
    """The log-likelihood that is left to gain is at most the tolerance."""
    likelihoods = logitlab.softmax(shifted(300, TO, 0.7))
    start, once = np.ones(3) / 3, np.ones((1, 300))
    best = priors._maximize(likelihoods, once, start, 1e-10)[0][0]
    for tolerance in (1.0, 1e-2, 1e-4):
        q = priors._maximize(likelihoods, once, start, tolerance)[0][0]
        gain = np.log(likelihoods @ best).sum() - np.log(likelihoods @ q).sum()
        assert 0 <= gain <= tolerance


def test_resamples():
    """Each resample has the estimate of its own rows; the seed determines them."""
    z = shifted(300, TO)
    likelihoods = logitlab.softmax(z)
    counts = priors._counts(np.random.default_rng(0), 5, 300)
    assert (counts.sum(-1) == 300).all()
    together = priors._maximize(likelihoods, counts, np.ones(3) / 3, 1e-9)[0]
    for count, one in zip(counts.astype(int), together, strict=True):
        alone = logitlab.estimate_prior(np.repeat(z, count, axis=0), np.ones(3), n_resamples=1)
        np.testing.assert_allclose(one, alone.prior, atol=1e-5)
    near = priors._newton_step(
        likelihoods / (likelihoods @ together[0])[:, None], counts[:1], together[0]
    )
    assert np.abs(near - together[0]).max() < 0.02
    first, second = (logitlab.estimate_prior(z, np.ones(3), rng=3) for _ in range(2))
    np.testing.assert_array_equal(first.low, second.low)
    assert (first.low < first.prior).all()
    assert (first.prior < first.high).all()


def test_coverage_of_the_intervals():
    """About 90 % of 300 intervals contain the frequency."""
    covered = [
        result.low[2] <= TO[2] <= result.high[2]
        for seed in range(300)
        for result in [
            logitlab.estimate_prior(
                shifted(200, TO, seed=seed),
                np.ones(3),
                confidence_level=0.9,
                n_resamples=200,
                rng=seed,
            )
        ]
    ]
    assert 0.85 < np.mean(covered) < 0.95


def test_classes_that_cannot_be_told_apart():
    """Their log-likelihood is constant: the estimate is the prior."""
    estimate = logitlab.estimate_prior(np.zeros((20, 2)) + np.log([0.3, 0.7]), [0.3, 0.7])
    np.testing.assert_allclose(estimate.prior, [0.3, 0.7])
    assert estimate.n_iterations == 0


def test_warning(monkeypatch):
    monkeypatch.setattr(priors, "_MAX_ITERATIONS", 1)
    monkeypatch.setattr(priors._maximize, "__defaults__", (1,))
    with pytest.warns(RuntimeWarning, match="has not converged after 1 iterations"):
        logitlab.estimate_prior(shifted(50, TO, 0.3), np.ones(3), n_resamples=1)


def test_batches_and_tensors():
    z = shifted(60, TO)
    expected = logitlab.estimate_prior(z, FROM).low
    for same in (z.reshape(3, 20, 3), torch.tensor(z), jnp.asarray(z), z.tolist()):
        np.testing.assert_allclose(logitlab.estimate_prior(same, FROM).low, expected, atol=1e-6)


Z = shifted(10, TO)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: logitlab.adjust_prior(Z, [1, 1], TO), r"from_ must be a list of 3 numbers"),
        (lambda: logitlab.adjust_prior(Z, FROM, [TO]), r"to must be a list of 3 numbers"),
        (
            lambda: logitlab.adjust_prior(Z, [1, 0, 1], TO),
            "from_ must be finite and > 0, got 0.0 for class 1",
        ),
        (
            lambda: logitlab.adjust_prior(Z, FROM, [1, 2, -1]),
            "to must be finite and >= 0, got -1.0 for class 2",
        ),
        (lambda: logitlab.adjust_prior(Z, FROM, [1, nan, 1]), "got nan for class 1"),
        (lambda: logitlab.adjust_prior(Z, FROM, [0, 0, 0]), "to must be > 0 for one class"),
        (lambda: logitlab.adjust_prior(3.0, [1], [1]), "z must hold at least one class"),
        (lambda: logitlab.estimate_prior(Z[:1], FROM), "z must hold at least 2 rows, got 1"),
        (lambda: logitlab.estimate_prior(Z[0], FROM), "z must hold at least 2 rows, got 1"),
        (lambda: logitlab.estimate_prior(Z, [1, 1]), "prior must be a list of 3 numbers"),
        (lambda: logitlab.estimate_prior(Z, [0, 1, 1]), "prior must be finite and > 0, got 0.0"),
        (
            lambda: logitlab.estimate_prior([[0.0, 1], [nan, 1]], [1, 1]),
            "row 1 of z has no distribution",
        ),
        (
            lambda: logitlab.estimate_prior(Z, FROM, confidence_level=1),
            "confidence_level must be between 0 and 1, got 1",
        ),
        (lambda: logitlab.estimate_prior(Z, FROM, n_resamples=0), "n_resamples must be >= 1"),
        (lambda: logitlab.estimate_prior(Z, FROM, rng=-1), "rng must be None, an int"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_intervals_of_certain_rows():
    """A resample may lack the only row of a class."""
    p = np.eye(3)[[0] * 60 + [1] * 40 + [2]]
    estimate = logitlab.estimate_prior(logitlab.logits(p), [1, 1, 1], n_resamples=100, rng=0)
    np.testing.assert_allclose(estimate.prior, [60 / 101, 40 / 101, 1 / 101], rtol=1e-6)
    assert (estimate.low <= estimate.prior).all()
    assert (estimate.prior <= estimate.high).all()
