"""Scores of groups of rows are the bootstrap of the rows of each group."""

import numpy as np
import pytest

import logitlab


def data(n=600):
    rng = np.random.default_rng(0)
    z = rng.normal(0, 3, (n, 4)).astype(np.float32)
    return z, (z / 2 + rng.gumbel(size=z.shape)).argmax(1), rng.choice(["a", "b", "c d"], n)


@pytest.mark.parametrize("kind", ["text", "integer", "object"])
def test_groups_are_their_own_bootstrap(kind):
    z, y, groups = data()
    if kind == "integer":
        groups = np.unique(groups, return_inverse=True)[1] * 7
    given = groups.astype(object) if kind == "object" else groups
    found = logitlab.group_scores(z, y, given, rng=3, n_resamples=200, confidence_level=0.9)
    assert list(found) == np.unique(groups).tolist()
    for group, scores in found.items():
        part = groups == group
        expected = logitlab.bootstrap(
            z[part], y[part], rng=3, n_resamples=200, confidence_level=0.9
        )
        assert scores.rows == part.sum()
        for name, interval in expected.items():
            np.testing.assert_allclose(scores.intervals[name], interval, rtol=1e-12)
        assert scores.intervals["accuracy"].value == logitlab.accuracy(z[part], y[part])


def test_large_groups():
    """More than 16384 rows in a group, and blocks that are cut anywhere."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(40_000, 12))
    y, groups = rng.integers(0, 12, len(z)), (np.arange(len(z)) % 7 == 0).astype(int)
    found = logitlab.group_scores(z, y, groups, n_resamples=50)
    for group, scores in found.items():
        part = groups == group
        expected = logitlab.bootstrap(z[part], y[part], n_resamples=50)
        for name, interval in expected.items():
            np.testing.assert_allclose(scores.intervals[name], interval, rtol=1e-11)


def test_shapes():
    z, y, groups = data(60)
    flat = logitlab.group_scores(z, y, groups, n_resamples=20)
    shape = (3, 20)
    found = logitlab.group_scores(
        z.reshape(*shape, 4), y.reshape(shape), groups.reshape(shape), n_resamples=20
    )
    assert found == flat


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"groups": ["a"]}, ValueError, r"groups must have shape \(60,\), one group for each row"),
        ({"groups": np.zeros(60)}, TypeError, "groups must be integers or strings, got float64"),
        ({"n_resamples": 0}, ValueError, "n_resamples must be >= 1, got 0"),
        ({"confidence_level": 1.0}, ValueError, "confidence_level must be between 0 and 1"),
        ({"rng": -1}, ValueError, "rng must be None, an int >= 0"),
        ({"y": np.full(60, 4)}, ValueError, "y must be from 0 to 3"),
    ],
)
def test_errors(change, error, message):
    z, y, groups = data(60)
    arguments = {"z": z, "y": y, "groups": groups, **change}
    with pytest.raises(error, match=message):
        logitlab.group_scores(**arguments)


def test_a_row_without_a_distribution():
    z, y, groups = data(60)
    z[17] = np.nan
    with pytest.raises(ValueError, match="row 17 of z has no distribution"):
        logitlab.group_scores(z, y, groups)
