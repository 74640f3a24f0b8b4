"""Truncation against its definition in exact arithmetic and against transformers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import arrays
import logitlab
from arrays import inf, nan
from logitlab._backends import reference_sampling
from logitlab.sampling import ORDERS
from strategies import finite_rows, temperatures
from truncations import stages as cut_of
from truncations import truncate_exactly

truncations = st.fixed_dictionaries(
    {
        "top_k": st.one_of(st.none(), st.integers(1, 45)),
        "top_p": st.one_of(st.none(), st.floats(0.01, 1)),
        "min_p": st.one_of(st.none(), st.floats(0, 1)),
    }
)
orders = st.permutations(ORDERS["vllm"])


@given(finite_rows(), temperatures, orders, truncations)
@settings(deadline=None, max_examples=300)
def test_against_exact_arithmetic(row, temperature, order, options):
    """In every order of the stages, with ties, at T = 0, infinite and negative."""
    expected, margin = truncate_exactly([float(x) for x in row], temperature, order, **options)
    options = {"temperature": temperature, "order": tuple(order), **options}
    kept = logitlab.truncate(row, **options)
    if margin > 1e-6:
        assert set(np.flatnonzero(kept > -inf)) == expected
    samples = logitlab.sample(row, 20, rng=0, **options)
    assert (kept[samples] > -inf).all()


@pytest.mark.parametrize("temperature", [-1.0, -0.5, 1.0])
def test_the_largest_entry_is_kept_at_min_p_1(temperature):
    """Odd multiples of the smallest subnormal too, whose halves are rounded."""
    for z in ([5e-324], [-5e-324] * 20, [1.5e-323, 1.5e-323]):
        kept = logitlab.truncate(np.array(z), temperature=temperature, min_p=1.0)
        np.testing.assert_array_equal(kept, z)


def logits_warper(name, value):
    """The logits processor of transformers for one stage."""
    pytest.importorskip("transformers")
    from transformers import (
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    classes = {
        "temperature": TemperatureLogitsWarper,
        "top_k": TopKLogitsWarper,
        "top_p": TopPLogitsWarper,
        "min_p": MinPLogitsWarper,
    }
    return classes[name](value)


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("k", [10, 200, 6000])
def test_against_transformers(order, k):
    """Thousands of rows in each order, except where a cumulative sum is within 1e-5 of top_p."""
    rng = np.random.default_rng(k)
    rows = 3000 if k < 1000 else 100
    for spread in (0.5, 3.0):
        z = rng.standard_normal((rows, k)) * spread
        values = {"temperature": 0.8, "top_k": k // 3, "top_p": 0.9, "min_p": 0.02}
        expected, close = torch.from_numpy(z), np.zeros(rows, bool)
        for stage in (stage for stage in ORDERS[order] if stage in values):
            if stage == "top_p":
                mass = torch.softmax(expected, -1).sort(-1, descending=True).values.cumsum(-1)
                close |= ((mass - values["top_p"]).abs() < 1e-5).any(-1).numpy()
            expected = logits_warper(stage, values[stage])(None, expected)
        kept = logitlab.truncate(z, order=order, **values)
        same = ((kept > -inf) == (expected > -inf).numpy()).all(-1)
        assert (same | close).all()
        assert close.mean() < 0.3
        for stage in ("top_k", "top_p", "min_p"):
            expected = logits_warper(stage, values[stage])(None, torch.from_numpy(z)).numpy()
            same = (logitlab.truncate(z, **{stage: values[stage]}) == expected).all(-1)
            if stage == "top_p":
                p = torch.softmax(torch.from_numpy(z), -1).sort(-1, descending=True).values
                close = ((p.cumsum(-1) - values[stage]).abs() < 1e-5).any(-1).numpy()
                assert close.mean() < 0.3
                same |= close
            assert same.all()


def nucleus_size(z, p):
    """How many of the largest entries have a share p of the mass, by longdouble sums.

    Also the distance of the two masses on either side from p.
    """
    ordered = np.sort(z.astype(np.longdouble))[::-1]
    mass = np.exp(ordered - ordered[0]).cumsum()
    mass /= mass[-1]
    size = int((mass < np.longdouble(p)).sum()) + 1
    return size, min(float(mass[size - 1] - p), float(p - mass[size - 2]) if size > 1 else 1.0)


def long_rows(k):
    """Rows of one float32 type each: smooth, heavy-tailed, with ties, of one dominant entry."""
    rng = np.random.default_rng(k)
    normal = rng.standard_normal(k)
    rows = [normal, 3 * normal, rng.standard_t(3, k), np.round(normal * 4) / 4, normal / 1000]
    rows.append(np.where(np.arange(k) % 7, -inf, normal))
    rows.append(np.where(np.arange(k) == k // 3, 12.0, normal))
    rows.append(-np.log(np.arange(1, k + 1)) * 1.1)
    rows.append(np.full(k, -3.5))
    rows.append(np.where(np.arange(k) < 20, normal, -inf))
    return np.array(rows, np.float32)


@pytest.mark.parametrize("k", [100, 1000, 9000, 70_000])
@pytest.mark.parametrize("p", [1e-3, 0.5, 0.9, 0.999, 1 - 1e-7])
def test_top_p_of_long_rows(k, p):
    """The sampled bracket of long rows changes no result, whatever the distribution."""
    for row in long_rows(k):
        kept = np.flatnonzero(logitlab.truncate(row, top_p=p) > -inf)
        size, margin = nucleus_size(row, p)
        assert len(kept) == size or margin < 1e-12
        least = row[kept].min()
        assert (row[kept] >= least).all()
        assert set(np.flatnonzero(row > least)) <= set(kept)
        ties = np.flatnonzero(row == least)
        assert set(kept) & set(ties) == set(ties[: len(set(kept) & set(ties))])


@pytest.mark.parametrize("k", [300, 50_000])
def test_top_p_decides_by_float64_masses(k):
    """Of float32 logits too, where p is close to the mass of a set: float32 weights do not do."""
    z = (np.random.default_rng(k).standard_normal(k) * 2).astype(np.float32)
    mass = np.exp(np.sort(z.astype(np.longdouble))[::-1] - z.max()).cumsum()
    mass /= mass[-1]
    for size in (1, 2, 5, 20, 100, 150, 200, 250):
        for p in (float(mass[size - 1]) - 3e-12, float(mass[size - 1]) + 3e-12):
            kept = (logitlab.truncate(z, top_p=p) > -inf).sum()
            assert kept == nucleus_size(z, p)[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_top_p_of_nearly_1(dtype):
    """The search ends where weights are lost in the rounding of the total."""
    rng = np.random.default_rng(0)
    z = -40 + rng.standard_normal(100_000) * 0.5
    z[rng.choice(len(z), 1000, replace=False)] = rng.uniform(0, 2, 1000)
    kept = logitlab.truncate(z.astype(dtype), top_p=1 - 2**-53) > -inf
    assert kept[z > 0].all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [17, 1000, 5000, 60_000])
def test_top_k_of_long_rows(k, dtype):
    """The n-th largest by bisection, with ties, infinities and numbers of any magnitude."""
    rows = [*long_rows(k).astype(dtype)]
    rng = np.random.default_rng(0)
    rows.append((rng.standard_normal(k) * 10.0 ** rng.integers(-37, 38, k)).astype(dtype))
    rows.append(np.where(rng.random(k) < 0.01, inf, rng.standard_normal(k)).astype(dtype))
    rows.append(rng.choice([0.0, -0.0, 5e-324, -1e-40], k).astype(dtype))
    for row in rows:
        for n in {1, 2, 16, k // 100 + 1, k // 3, k - 1, k}:
            expected = (row >= np.sort(row)[::-1][n - 1]) & (row > -inf)
            kept = logitlab.truncate(row, top_k=n) > -inf
            np.testing.assert_array_equal(kept, expected)


def test_ties():
    """top_k keeps all ties of the k-th logit; top_p keeps ties of lower index first."""
    z = np.array([1.0, 2.0, 2.0, 2.0, 0.0])
    assert np.flatnonzero(logitlab.truncate(z, top_k=2) > -inf).tolist() == [1, 2, 3]
    assert np.flatnonzero(logitlab.truncate(z, top_p=0.5) > -inf).tolist() == [1, 2]
    equal = np.zeros(10_000)
    for p, count in ((0.25, 2500), (0.5, 5000), (1.0, 10_000)):
        kept = logitlab.truncate(equal, top_p=p)
        assert np.flatnonzero(kept == 0).tolist() == list(range(count))
    assert set(logitlab.sample(equal, 1000, top_p=0.001, rng=0)) <= set(range(10))


def test_special_rows():
    """Masks, infinities, NaN, T = 0 and T < 0."""
    z = np.array([[inf, 1.0, inf, inf], [nan, 1.0, 2.0, 3.0], [-inf, -inf, 5.0, -inf]])
    kept = logitlab.truncate(z, top_p=0.6)
    np.testing.assert_array_equal(kept[0], [inf, -inf, inf, -inf])
    np.testing.assert_array_equal(kept[1], z[1])
    np.testing.assert_array_equal(kept[2], z[2])
    kept = logitlab.truncate(z[2:], temperature=-1.0, top_k=3)
    np.testing.assert_array_equal(kept, z[2:])
    masked = logitlab.truncate([3.0, 2.0, 1.0], where=[False, True, True], top_k=1)
    np.testing.assert_array_equal(masked, [-inf, 2.0, -inf])
    cold = logitlab.truncate([1.0, 5.0, 5.0, 5.0, 5.0], temperature=0, top_p=0.5)
    np.testing.assert_array_equal(cold, [-inf, 5.0, 5.0, -inf, -inf])
    each = logitlab.truncate([[0.0, 1.0], [0.0, 1.0]], temperature=[1.0, -1.0], top_k=1)
    np.testing.assert_array_equal(each, [[-inf, 1.0], [0.0, -inf]])


@pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
def test_dtypes_and_axes(dtype):
    """The result has the dtype of z; rows along any axis are independent."""
    z = arrays.normal((4, 300, 3), dtype)
    kept = logitlab.truncate(z, 1, top_k=20, top_p=0.7)
    assert kept.dtype == dtype
    for i in range(4):
        for j in range(3):
            alone = logitlab.truncate(z[i, :, j], top_k=20, top_p=0.7)
            np.testing.assert_array_equal(kept[i, :, j], alone)
    assert logitlab.truncate(np.array(2.0, dtype), top_k=1) == 2


def test_torch_gradients():
    """1 for a kept logit, 0 for a removed one."""
    z = torch.tensor([1.0, 4.0, 2.0], requires_grad=True)
    kept = logitlab.truncate(z, top_k=2)
    (gradient,) = torch.autograd.grad(kept[kept > -inf].sum(), z)
    assert gradient.tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [4, 601, 5000])
def test_extreme_temperatures(dtype, k):
    """If z/T overflows, one class is kept; if it vanishes, the probabilities are equal."""
    z = np.zeros(k, dtype)
    z[-1] = 3
    for t in (5e-324, np.finfo(np.float64).tiny, 1e-300, 1e-40):
        kept = np.flatnonzero(logitlab.truncate(z, temperature=t, top_p=0.9) > -inf)
        assert kept.tolist() == [k - 1]
    for t in (1e300, 1.7e308, inf):
        kept = np.flatnonzero(logitlab.truncate(z, temperature=t, top_p=0.9) > -inf)
        assert abs(len(kept) - 0.9 * k) <= 1


def test_overflowing_differences_of_logits():
    """As in exact arithmetic: e^-2 > 0.1 > e^-2.7."""
    for k in (3, 601):
        z = np.full(k, -inf)
        z[:3] = 1e308, -1e308, -1.7e308
        kept = logitlab.truncate(z, temperature=1e308, min_p=0.1)
        np.testing.assert_array_equal(kept[:3], [1e308, -1e308, -inf])
        kept = logitlab.truncate(z, temperature=1e308, top_p=0.8)
        np.testing.assert_array_equal(kept[:3], [1e308, -inf, -inf])
    z = np.array([1000.0, 2000.0, 5000.0])
    np.testing.assert_array_equal(logitlab.truncate(z, min_p=1e-320), [-inf, -inf, 5000])


def test_row_without_a_distribution_after_the_temperature():
    """The classes that earlier stages removed are -inf."""
    order = ("top_k", "temperature", "top_p", "min_p")
    kept = logitlab.truncate(
        np.array([1.0, inf, 2.0]), temperature=-1, top_k=1, top_p=0.9, order=order
    )
    np.testing.assert_array_equal(kept, [-inf, inf, -inf])


@pytest.mark.parametrize("name", ["top_p", "min_p"])
def test_top_p_and_min_p_must_be_real_numbers(name):
    with pytest.raises(TypeError, match=f"{name} must be a real number, got '0.5'"):
        logitlab.truncate([1.0, 2.0], **{name: "0.5"})
    with pytest.raises(TypeError, match=f"{name} must be a real number or an array of real"):
        logitlab.truncate([[1.0, 2.0]], **{name: ["0.5"]})


@pytest.mark.parametrize("options", [{"top_p": 1}, {"min_p": 0}, {"top_k": 9}, {"top_k": 2**70}])
@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("k", [3, 9, 200])
def test_a_stage_that_removes_nothing_changes_nothing(options, order, k):
    """Not even a class whose probability is lost beside the others in their sum."""
    k = min(k, options.get("top_k", k))
    z = np.full((3, k), -1.0)
    z[:, 0] = 0
    z[0, 1:] -= 60
    z[1, 1:] -= 800
    z[2, 1] = -inf
    for temperature in (1.0, 0.01, 0.0, -1.0):
        settings = {"temperature": temperature, "order": order, "rng": 0}
        kept = logitlab.truncate(z, temperature=temperature, order=order, **options)
        np.testing.assert_array_equal(kept, z)
        samples = logitlab.sample(z, 20, **settings, **options)
        np.testing.assert_array_equal(samples, logitlab.sample(z, 20, **settings))
        index, log_prob = logitlab.sample_with_log_prob(z, **settings, **options)
        expected = logitlab.sample_with_log_prob(z, **settings)
        np.testing.assert_array_equal(index, expected[0])
        np.testing.assert_array_equal(log_prob, expected[1])


# The reference. Weights are powers of two at T = 1, so that the cumulative probabilities are exact.
LOG2 = math.log(2)


def reference_keep(z, temperature=1.0, where=None, order=ORDERS["transformers"], **stages):
    """The indices that the reference keeps in one row."""
    cut = cut_of(order, **stages)
    mask = None if where is None else np.array([where], bool)
    kept, _ = reference_sampling.keep(np.array([z]), temperature, mask, cut)
    assert kept.dtype == bool
    assert kept.shape == (1, len(z))
    return np.flatnonzero(kept).tolist()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("order", [*ORDERS.values(), ("min_p", "top_p", "temperature", "top_k")])
def test_reference_against_exact_arithmetic(seed, order):
    """Rows with ties at random temperatures, all stages at once and one after another."""
    rng = np.random.default_rng(seed)
    compared = 0
    for _ in range(10):
        row = np.round(rng.standard_normal(rng.integers(1, 12)) * 3, 1)
        temperature = float(rng.choice([0.0, inf, *rng.uniform(-3, 3, 8)]))
        stages = {
            "top_k": int(rng.integers(1, 14)),
            "top_p": rng.uniform(0.3, 1),
            "min_p": rng.uniform(0, 0.3),
        }
        for options in (stages, *({name: x} for name, x in stages.items())):
            expected, margin = truncate_exactly(row.tolist(), temperature, order, **options)
            if margin > 1e-6:
                assert set(reference_keep(row, temperature, order=order, **options)) == expected
                compared += 1
    assert compared > 25


@pytest.mark.parametrize(
    ("z", "options", "expected"),
    [
        ([0.0, 0.0, 0.0, 0.0], {"top_p": 0.5}, [0, 1]),  # a total of exactly 1/2 is enough
        ([0.0, 0.0, 0.0, 0.0], {"top_p": 0.51}, [0, 1, 2]),
        ([0.0, 0.0, 0.0, 0.0], {"min_p": 1.0}, [0, 1, 2, 3]),  # a ratio equal to min_p is enough
        ([0.0, 1.0, 1.0, 1.0, -1.0], {"top_k": 2}, [1, 2, 3]),  # ties of the second are kept
        ([0.0, 1.0, 2.0], {"top_k": 1}, [2]),
        ([0.0, 1.0, 2.0], {"top_k": 2}, [1, 2]),
        ([0.0, 1.0, 2.0], {"top_k": 3}, [0, 1, 2]),
        ([0.0, 1.0, 2.0], {"top_k": 4}, [0, 1, 2]),
        ([0.0, 1.0, 2.0], {"top_k": 1, "temperature": -1.0}, [0]),
        ([0.0, -inf, 2.0], {"top_k": 3}, [0, 2]),
        ([0.0, -inf, 2.0], {"top_k": 9}, [0, 2]),
        ([0.0, -inf, -inf, 2.0], {"top_k": 3}, [0, 3]),
        ([0.0, -inf, -inf, 2.0], {"top_k": 3, "temperature": -1.0}, [0, 3]),
        ([0.0, 1.0, 2.0], {"top_k": 1, "where": [True, True, False]}, [1]),
        ([0.0, 1.0, 2.0], {"where": [True, True, False]}, [0, 1]),
        ([-800.0, 0.0, -inf], {"top_p": 0.9999}, [1]),
        ([-800.0, 0.0, -inf], {"min_p": 0.5, "where": [True, True, True]}, [1]),
        # Weights 1, 2, 4, 8 at T = 1, and 1, 4, 16, 64 at T = 1/2.
        ([0, LOG2, 2 * LOG2, 3 * LOG2], {"min_p": 0.2}, [1, 2, 3]),
        ([0, LOG2, 2 * LOG2, 3 * LOG2], {"min_p": 0.2, "temperature": 0.5}, [2, 3]),
        ([0, LOG2, 2 * LOG2, 3 * LOG2], {"min_p": 0.3, "temperature": 0.5}, [3]),
        ([0, LOG2, 2 * LOG2, 3 * LOG2], {"top_p": 0.75}, [2, 3]),
        ([0, LOG2, 2 * LOG2, 3 * LOG2], {"top_p": 0.75, "temperature": 0.5}, [3]),
        ([0, LOG2, 2 * LOG2, 3 * LOG2], {"top_p": 0.5, "top_k": 2, "temperature": -1.0}, [0]),
        ([0, LOG2, 2 * LOG2, 3 * LOG2], {"top_p": 0.6, "top_k": 2, "temperature": -1.0}, [0]),
        ([0, LOG2, 2 * LOG2, 3 * LOG2], {"top_p": 0.7, "top_k": 2, "temperature": -1.0}, [0, 1]),
        # Rows without a distribution keep every entry.
        ([nan, 1.0, -inf], {"top_k": 1, "top_p": 0.5, "min_p": 0.5}, [0, 1, 2]),
        ([-inf, -inf], {"top_k": 1}, [0, 1]),
        ([-inf, -inf], {"top_p": 0.5, "where": [True, False]}, [0]),
        ([inf, inf], {"min_p": 0.5, "temperature": -1.0}, [0, 1]),
        # Limits: the entries at the maximum have equal probabilities.
        ([inf, 3.0, inf, inf], {"top_p": 0.6}, [0, 2]),
        ([inf, 3.0, inf, -inf], {"min_p": 0.1}, [0, 2]),
        ([1.0, 5.0, 5.0, 5.0, 5.0], {"temperature": 0.0, "top_p": 0.5}, [1, 2]),
        ([1.0, 5.0, 3.0, 2.0], {"temperature": inf, "top_p": 0.75}, [1, 2, 3]),
        ([1.0, 5.0, 3.0, -inf], {"temperature": inf, "min_p": 1.0}, [0, 1, 2]),
        ([], {"top_k": 1}, []),
        ([], {"top_p": 0.5, "where": []}, []),
    ],
)
def test_reference_keeps(z, options, expected):
    """Ties, thresholds that are reached exactly, excluded entries, rows without a distribution."""
    assert reference_keep(np.array(z, float), **options) == expected


def test_reference_applies_the_temperature_in_its_place():
    """Before it the probabilities are those at T = 1."""
    z = [0.0, LOG2, 2 * LOG2, 3 * LOG2]
    first, last = (
        ("temperature", "top_p", "min_p", "top_k"),
        ("top_p", "min_p", "top_k", "temperature"),
    )
    for options, at_half, at_one in (
        ({"top_p": 0.75}, [3], [2, 3]),
        ({"min_p": 0.3}, [3], [2, 3]),
    ):
        assert reference_keep(z, 0.5, order=first, **options) == at_half
        assert reference_keep(z, 0.5, order=last, **options) == at_one
    assert reference_keep(z, -1.0, order=("top_k", "temperature", "top_p", "min_p"), top_k=1) == [3]
    # 8/15 of all classes, 8/12 of the two largest.
    assert reference_keep(
        z, order=("top_k", "top_p", "min_p", "temperature"), top_k=2, top_p=0.6
    ) == [3]
    assert reference_keep(
        z, order=("top_p", "top_k", "min_p", "temperature"), top_k=2, top_p=0.6
    ) == [2, 3]


def test_reference_has_a_temperature_for_each_row():
    """And a mask of its own, or one for all rows."""
    z = np.tile([0.0, LOG2, 2 * LOG2, 3 * LOG2], (4, 1))
    cut = cut_of(top_p=0.75)
    t = np.array([1.0, 0.5, -1.0, inf])
    kept, _ = reference_sampling.keep(z, t, None, cut)
    # At T = inf too, the largest logits come first.
    expected = [[2, 3], [3], [0, 1], [1, 2, 3]]
    assert [np.flatnonzero(row).tolist() for row in kept] == expected
    mask = np.array([True, True, True, False])
    kept, _ = reference_sampling.keep(z, t, mask, cut)
    assert [np.flatnonzero(row).tolist() for row in kept] == [[1, 2], [2], [0, 1], [0, 1, 2]]
    assert kept.flags.writeable


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_reference_computes_in_float64(dtype):
    """A class of probability 2^-40 counts in the sum of a float32 row."""
    z = np.zeros(3, dtype)
    z[1:] = -28  # exp(-28) = 6.9e-13
    p = 1 - 2e-13
    cut = cut_of(top_p=p)
    assert np.flatnonzero(reference_sampling.keep(z[None], 1.0, None, cut)[0]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("k", [1, 2, 7, 100, 500, 999])
def test_reference_top_k_of_long_rows(k):
    """The k largest of 1000 distinct logits in random order."""
    for seed in range(5):
        z = np.random.default_rng(seed).permutation(1000).astype(float)
        assert reference_keep(z, top_k=k) == np.flatnonzero(z >= 1000 - k).tolist()
        assert reference_keep(z, -1.0, top_k=k) == np.flatnonzero(z < k).tolist()
