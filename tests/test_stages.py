"""Every stage of truncation, per row: exact arithmetic, transformers, reference, edge values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import arrays
import logitlab
from arrays import inf, nan
from logitlab._backends import native_sampling, reference_sampling
from logitlab._backends.reference_sampling import STAGES, Stage
from logitlab.sampling import ORDERS
from strategies import finite_rows, temperatures
from truncations import stages, truncate_exactly

VALUES = {
    "top_k": st.integers(1, 45),
    "top_p": st.floats(0.01, 1),
    "min_p": st.floats(0, 1),
    "typical_p": st.floats(0.01, 1),
    "epsilon": st.floats(0, 1),
    "eta": st.floats(0, 1),
    "top_n_sigma": st.floats(0, 4),
    "top_a": st.floats(0, 1),
    "xtc": st.floats(0, 0.6),
}
NEUTRAL = {
    "top_k": 10**6,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "epsilon": 0.0,
    "eta": 0.0,
    "top_n_sigma": inf,
    "top_a": 0.0,
    "xtc_probability": 0.0,
}


def arguments(values):
    """The settings of a sampler for the parameters of stages."""
    values = dict(values)
    if "xtc" in values:
        values |= {"xtc_probability": 1.0, "xtc_threshold": values.pop("xtc")}
    return values


@pytest.mark.parametrize("stage", list(VALUES))
@given(row=finite_rows(), temperature=temperatures, data=st.data())
@settings(deadline=None, max_examples=60)
def test_one_stage_against_exact_arithmetic(stage, row, temperature, data):
    """With ties, at T = 0, infinite and negative."""
    values = {stage: data.draw(VALUES[stage])}
    order = ("temperature", stage)
    expected, margin = truncate_exactly([float(x) for x in row], temperature, order, **values)
    kept = logitlab.truncate(row, temperature=temperature, order=order, **arguments(values))
    if margin > 1e-6:
        assert set(np.flatnonzero(kept > -inf)) == expected


@given(
    row=finite_rows(),
    temperature=temperatures,
    order=st.permutations(STAGES),
    values=st.fixed_dictionaries({}, optional=VALUES),
    width=st.sampled_from([0.0, 0.5, 2.0]),
    exponent=st.sampled_from([0.0, 1.0, 2.5]),
)
@settings(deadline=None, max_examples=200)
def test_chains_against_exact_arithmetic(row, temperature, order, values, width, exponent):
    """Any stages in any order, with a dynamic temperature."""
    width = width if temperature >= 0 else 0.0
    expected, margin = truncate_exactly(
        [float(x) for x in row], temperature, order, width, exponent, **values
    )
    options = arguments(values) | {"dynatemp_range": width, "dynatemp_exponent": exponent}
    kept = logitlab.truncate(row, temperature=temperature, order=order, **options)
    if margin > 1e-6:
        assert set(np.flatnonzero(kept > -inf)) == expected
    samples = logitlab.sample(row, 20, rng=0, temperature=temperature, order=order, **options)
    assert (kept[samples] > -inf).all()


def hostile(k, dtype):
    """Rows with ties, infinities, excluded entries, large and equal entries."""
    z = arrays.normal((12, k), dtype, 3.0, seed=k)
    z[1] = np.round(z[1])
    z[3, k // 2] = inf
    z[4, : k // 2] = -inf
    z[5] = z[5, 0]
    z[6, 0] = 50.0
    z[7] = np.linspace(-60_000, 0, k).astype(dtype)
    z[8] = nan
    z[9] = -inf
    return z


ROW_VALUES = {
    "top_k": [1, 5, 50, 2**32],
    "top_p": [0.3, 0.9, 0.999, 1.0],
    "min_p": [0.0, 0.01, 0.3, 1.0],
    "typical_p": [0.2, 0.9, 0.99, 1.0],
    "epsilon": [0.0, 1e-3, 0.02, 1.0],
    "eta": [0.0, 1e-3, 0.02, 1.0],
    "top_n_sigma": [0.0, 1.0, 1.7, inf],
    "top_a": [0.0, 0.1, 0.5, 1.0],
    "xtc": [0.0, 0.004, 0.1, inf],
}
CHAINS = [(name,) for name in ROW_VALUES] + [
    ("top_k", "typical_p", "top_p", "min_p", "xtc"),
    ("xtc", "typical_p", "top_n_sigma", "epsilon"),
    ("eta", "xtc", "top_a", "top_p"),
]


@pytest.mark.skipif(not logitlab.native_available(), reason="installed without a C++ compiler")
@pytest.mark.parametrize("chain", CHAINS, ids=str)
@pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
@pytest.mark.parametrize("k", [1, 3, 129, 5000, 40_000])
def test_kernels_against_the_reference(chain, dtype, k):
    """One value for each row, every stage, hostile rows, dynamic and limiting temperatures."""
    z = hostile(k, dtype)
    each = {name: np.resize(np.array(ROW_VALUES[name], float), 12) for name in chain}
    for t in (1.0, 0.3, 0.0, inf, -1.5, 1e-6) if k < 10_000 else (1.0, 0.3):
        cut = stages(("temperature", *chain), **each)
        cut = cut[1:] + cut[:1] if t == 0.3 else cut
        if t == 1.0:
            cut[0] = Stage("temperature", (np.resize([0.0, 0.7], 12), 1.5))
        kept, used = native_sampling.keep(z, 1, t, None, cut)
        expected, expected_t = reference_sampling.keep(z, t, None, cut)
        differ = ((kept != expected) & (z > -inf)).any(1)
        # Half types have ties of one value; a threshold within rounding of them is rare.
        assert differ[[0, 1, 2, 3, 4, 5, 8, 9]].sum() <= 1
        assert differ.sum() <= 2
        if used is not None:
            np.testing.assert_allclose(used, expected_t, rtol=1e-13)


@pytest.mark.parametrize("k", [300, 50_000])
@pytest.mark.parametrize("t", [1.0, 0.7])
def test_float32_logits_are_decided_in_float64(k, t):
    """A bound within 1e-11 of the probability of an entry: float32 weights do not do."""
    z = (np.random.default_rng(k).standard_normal(k) * 2).astype(np.float32)
    x = (z.astype(np.longdouble) - z.max()) / np.longdouble(t)
    p = np.exp(x) / np.exp(x).sum()
    p_sorted = np.sort(p)[::-1]
    distance = np.abs(x - (p * x).sum())
    nearest = np.argsort(distance)
    mass = p[nearest].cumsum()

    def kept(**options):
        return int((logitlab.truncate(z, temperature=t, **options) > -inf).sum())

    for sign in (-1, 1):
        factor = np.longdouble(1 + sign * 1e-11)
        for n in (3, 20, 100, 190):
            size = n if sign < 0 else n - 1
            bound = p_sorted[n - 1] * factor
            assert kept(epsilon=float(bound)) == size
            assert kept(xtc_probability=1.0, xtc_threshold=float(bound)) == k - size + 1
            kept_nearest = z[nearest[: n if sign < 0 else n + 1]]
            within = (z >= kept_nearest.min()) & (z <= kept_nearest.max())
            assert kept(typical_p=float(mass[n - 1] * factor)) == within.sum()
        for n in (k // 2, k // 3):
            bound = p_sorted[n - 1] * factor / p.max() ** 2
            assert kept(top_a=float(bound)) == (n if sign < 0 else n - 1)


@pytest.mark.parametrize("k", [10, 400])
def test_against_transformers(k):
    """Chains of all its processors at 300 random settings, those within rounding left out."""
    transformers = pytest.importorskip("transformers")
    warpers = {
        "temperature": transformers.TemperatureLogitsWarper,
        "top_k": transformers.TopKLogitsWarper,
        "top_p": transformers.TopPLogitsWarper,
        "min_p": transformers.MinPLogitsWarper,
        "typical_p": transformers.TypicalLogitsWarper,
        "epsilon": transformers.EpsilonLogitsWarper,
        "eta": transformers.EtaLogitsWarper,
    }
    rng = np.random.default_rng(k)
    compared = 0
    for _ in range(300):
        z = rng.standard_normal((4, k)) * rng.choice([0.5, 3.0])
        values = {
            "temperature": rng.uniform(0.3, 2),
            "top_k": int(rng.integers(1, k)),
            "top_p": rng.uniform(0.2, 0.99),
            "min_p": rng.uniform(0, 0.2),
            "typical_p": rng.uniform(0.2, 0.99),
            "epsilon": rng.uniform(1e-4, 0.2),
            "eta": rng.uniform(1e-4, 0.2),
        }
        values = {name: x for name, x in values.items() if rng.random() < 0.5}
        expected = torch.from_numpy(z)
        for stage in ORDERS["transformers"]:
            if stage in values:
                expected = warpers[stage](values[stage])(None, expected)
        kept = [
            logitlab.truncate(
                z,
                **{name: x if name == "top_k" else x * (1 + e) for name, x in values.items()},
            )
            > -inf
            for e in (0.0, -1e-7, 1e-7)
        ]
        far = (kept[0] == kept[1]).all(1) & (kept[0] == kept[2]).all(1)
        np.testing.assert_array_equal(kept[0][far], (expected > -inf).numpy()[far])
        compared += far.sum()
    assert compared > 1100


@pytest.mark.parametrize("name", list(NEUTRAL))
def test_neutral_value_of_a_row(name):
    """It turns a stage off in one row; the other has the result of one number."""
    z = np.array([[3.0, 2.9, 1.0, -2.0, -90.0]] * 2)
    active = {"top_k": 1, "top_n_sigma": 0.1, "xtc_probability": 1.0}.get(name, 0.5)
    alone = logitlab.truncate(z[0], **{name: active})
    assert (alone == -inf).any()
    for convert in (np.array, torch.tensor, list):
        kept = logitlab.truncate(z, **{name: convert([active, NEUTRAL[name]])})
        np.testing.assert_array_equal(kept, [alone, z[1]])
    np.testing.assert_array_equal(logitlab.truncate(z, **{name: NEUTRAL[name]}), z)


def test_definitions():
    """Weights 8, 4, 2, 1, 1 of 16."""
    z = np.log([8.0, 4.0, 2.0, 1.0, 1.0])
    for options, expected in (
        # H = 1.875 bits: the surprises are 1, 2, 3, 4 and 4 bits.
        ({"typical_p": 0.2}, [1]),
        ({"typical_p": 0.5}, [0, 1]),
        ({"typical_p": 0.8}, [0, 1, 2]),
        ({"typical_p": 0.9}, [0, 1, 2, 3, 4]),
        ({"epsilon": 0.12}, [0, 1, 2]),
        ({"epsilon": 0.9}, [0]),
        ({"eta": 0.2}, [0, 1, 2]),  # sqrt(0.2) 2^-1.875 = 0.122
        ({"top_a": 0.51}, [0, 1]),  # 0.51/4 = 0.1275
        ({"top_a": 0.49}, [0, 1, 2]),
        ({"xtc_probability": 1.0, "xtc_threshold": 0.2}, [1, 2, 3, 4]),
        ({"xtc_probability": 1.0, "xtc_threshold": 0.06}, [3, 4]),
        ({"xtc_probability": 1.0, "xtc_threshold": 0.51}, [0, 1, 2, 3, 4]),
    ):
        kept = logitlab.truncate(z, **options)
        assert np.flatnonzero(kept > -inf).tolist() == expected, options
    # A standard deviation of 2, by N.
    z = [4.0, 0.0, 4.0, 0.0]
    assert logitlab.truncate(z, top_n_sigma=1.9).tolist() == [4, -inf, 4, -inf]
    assert logitlab.truncate(z, top_n_sigma=2.0).tolist() == z


def test_dynamic_temperature():
    """From T - range at entropy 0 to T + range at the largest; samples have that temperature."""
    z = np.array([[0.0, 0.0, 0.0, -inf], [900.0, 0.0, 0.0, 0.0], np.log([4.0, 2.0, 1.0, 1.0])])
    options = {"temperature": 1.0, "dynatemp_range": 0.5}
    _, used = native_sampling.keep(z, 1, 1.0, None, [Stage("temperature", (0.5, 1.0))])
    np.testing.assert_allclose(used, [1.5, 0.5, 0.5 + 1.75 / 2], rtol=1e-14)
    index, log_prob = logitlab.sample_with_log_prob(z, rng=0, **options)
    expected = logitlab.log_softmax(z, temperature=used)
    np.testing.assert_allclose(log_prob, expected[np.arange(3), index], rtol=1e-14)
    fixed = logitlab.sample(z, 50, temperature=used, rng=0)
    np.testing.assert_array_equal(logitlab.sample(z, 50, rng=0, **options), fixed)
    for t, message in ((-1.0, ">= 0 if dynatemp_range > 0, got -1.0"), ([1, 2, -3.0], "in row 2")):
        with pytest.raises(ValueError, match=message):
            logitlab.sample(z, temperature=t, dynatemp_range=0.5)


def test_xtc_decisions():
    """A share of the rows, the same for any split of the batch, and those of the samples."""
    z = np.tile(np.log([6.0, 3.0, 1.0]), (4000, 1))
    options = {"xtc_probability": 0.3, "xtc_threshold": 0.2, "rng": 3}
    removed = logitlab.truncate(z, **options)[:, 0] == -inf
    assert abs(removed.mean() - 0.3) < 0.04
    keys = np.arange(4000)
    parts = [
        logitlab.truncate(z[rows], row_keys=keys[rows], **options)[:, 0] == -inf
        for rows in (slice(0, 1500), slice(1500, 4000))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), removed)
    index, log_prob = logitlab.sample_with_log_prob(z, **options)
    assert (index[removed] > 0).all()
    p = np.where(removed[:, None], [0, 0.75, 0.25], [0.6, 0.3, 0.1])
    np.testing.assert_allclose(log_prob, np.log(p[keys, index]), rtol=1e-12)
    # Each sample of a row has a decision; the first is that of one sample.
    many, log_prob = logitlab.sample_with_log_prob(z[:10], 3000, **options)
    np.testing.assert_array_equal(many[:, 0], index[:10])
    mixture = 0.7 * np.array([0.6, 0.3, 0.1]) + 0.3 * np.array([0, 0.75, 0.25])
    np.testing.assert_allclose(
        np.bincount(many.ravel(), minlength=3) / many.size, mixture, atol=0.015
    )
    assert set(np.exp(log_prob).round(6).ravel()) == {0.6, 0.3, 0.1, 0.75, 0.25}
    once = logitlab.sample(z[:10], 2, replacement=False, **options)
    assert (once[removed[:10]] > 0).all()


def test_rows_of_every_layout():
    """Settings of the batch shape, for any class axis and number of batch axes."""
    z = arrays.normal((3, 50, 2), np.float32)
    settings_ = {
        "top_k": np.arange(1, 7).reshape(3, 2),
        "top_p": np.linspace(0.5, 1, 3)[:, None],
        "temperature": np.linspace(0.5, 2, 6).reshape(3, 2),
    }
    kept = logitlab.truncate(z, 1, **settings_)
    samples = logitlab.sample(z, 4, 1, rng=0, **settings_)
    for i in range(3):
        for j in range(2):
            alone = {n: np.broadcast_to(x, (3, 2))[i, j].item() for n, x in settings_.items()}
            np.testing.assert_array_equal(kept[i, :, j], logitlab.truncate(z[i, :, j], **alone))
            one = logitlab.sample(z[i, :, j], 4, rng=0, row_keys=2 * i + j, **alone)
            np.testing.assert_array_equal(samples[i, j], one)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"top_p": [0.5, 1.5]}, ValueError, "top_p must be in (0, 1], got 1.5 in row 1"),
        ({"top_p": [[0.5], [nan]]}, ValueError, "top_p must be in (0, 1], got nan in row (1, 0)"),
        ({"top_k": [3, 0]}, ValueError, "top_k must be >= 1, got 0 in row 1"),
        ({"top_k": [3.0, 1]}, TypeError, "top_k must be an int or an array of ints, got float64"),
        (
            {"min_p": [True, False]},
            TypeError,
            "min_p must be a real number or an array of real numbers, got bool",
        ),
        (
            {"typical_p": [0.5, 0.5, 0.5]},
            ValueError,
            "typical_p must be a number or broadcast to the batch shape (2,) of z, got shape (3,)",
        ),
        ({"typical_p": 0}, ValueError, "typical_p must be in (0, 1], got 0.0"),
        ({"epsilon": -0.1}, ValueError, "epsilon must be in [0, 1], got -0.1"),
        ({"eta": 2}, ValueError, "eta must be in [0, 1], got 2.0"),
        ({"top_n_sigma": nan}, ValueError, "top_n_sigma must be >= 0, got nan"),
        ({"top_a": "1"}, TypeError, "top_a must be a real number, got '1'"),
        ({"xtc_probability": 1.1}, ValueError, "xtc_probability must be in [0, 1], got 1.1"),
        ({"dynatemp_range": inf}, ValueError, "dynatemp_range must be finite and >= 0, got inf"),
    ],
)
def test_errors(options, error, message):
    """The argument, the rule, the value and the row."""
    with pytest.raises(error) as caught:
        logitlab.sample(np.zeros((2, 3)), **options)
    assert str(caught.value) == message


def test_stages_that_an_engine_lacks_follow_its_own():
    z = np.log([8.0, 4.0, 2.0, 1.0, 1.0])
    options = {"temperature": 0.5, "top_a": 0.6}
    order = (*ORDERS["llama.cpp"], "top_a")
    expected = logitlab.truncate(z, order=order, **options)
    np.testing.assert_array_equal(logitlab.truncate(z, order="llama.cpp", **options), expected)
    first = logitlab.truncate(z, order=("top_a", "temperature"), **options)
    assert (first != expected).any()
    assert math.isclose(expected[0], z[0])


INTERVALS = {
    "typical_p": 0.5,
    "epsilon": 0.1,
    "eta": 0.1,
    "top_n_sigma": 1.0,
    "top_a": 0.1,
    "xtc_probability": 1.0,
}


@pytest.mark.parametrize("dtype", [np.float64, np.longdouble])
@pytest.mark.parametrize("name", INTERVALS)
def test_infinite_logits(name, dtype):
    """+inf has all of the probability at T >= 0 and none at T < 0, in the reference too."""
    z = np.array([np.inf, 1.0, 2.0, -np.inf], dtype)
    for temperature in (0.5, 1.0, np.inf):
        kept = logitlab.truncate(z, temperature=temperature, **{name: INTERVALS[name]}) > -np.inf
        assert kept[0]
        assert name == "xtc_probability" or not kept[1:].any()
    for temperature in (-1.0, -np.inf):
        kept = logitlab.truncate(z, temperature=temperature, **{name: INTERVALS[name]}) > -np.inf
        assert not kept[[0, 3]].any()
        assert kept.any()


def test_dynamic_temperature_of_a_subnormal_entropy():
    """An exponent of 0 gives temperature + range, whatever the entropy."""
    z = np.array([[0.0, -720.0]])
    assert logitlab.sample(z, dynatemp_range=0.5, dynatemp_exponent=0.0, rng=0).tolist() == [0]
