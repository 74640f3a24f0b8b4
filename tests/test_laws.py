"""The conformance suite: its arithmetic, and what it finds in known functions."""

import numpy as np
import pytest
import scipy.special
import torch

import logitlab
from logitlab._exact import doubledouble, multiprecision
from logitlab._exact.formats import FORMATS, Exact, errors, rounded, spacing

mp = multiprecision.mp


def rows_of_every_size():
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1, (120, 20)) * 10.0 ** rng.integers(-3, 4, (120, 1))
    z[::3, -1] = z[::3].max(-1) - 40.0
    z[1::3, 0] = -np.inf
    return z


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_double_double_is_held_to_multiprecision(name):
    """To 100 bits, far below the least number of any type too."""
    z = rows_of_every_size()
    found = getattr(doubledouble, name)(z)
    for i, row in enumerate(z.tolist()):
        for j, true in enumerate(getattr(multiprecision, name)(row)):
            hi, lo, e = (part[i, j].item() for part in found)
            if not mp.isfinite(true) or true == 0 or true < mp.ldexp(1, -40000) < abs(true):
                continue
            value = mp.ldexp(mp.mpf(hi) + mp.mpf(lo), e)
            if abs(true) > mp.ldexp(1, -40000):
                assert abs(value - true) <= abs(true) * mp.ldexp(1, -100)
            else:
                assert abs(value) < mp.ldexp(1, -39000)


def test_a_sum_of_a_million_terms_keeps_100_bits():
    """1/3 a million times."""
    third = np.full((1, 1_000_000), 1.0)
    hi, lo = doubledouble.total((third / 3, np.full_like(third, (1 - 3 * (1 / 3)) / 3)))
    exact = mp.mpf(1 / 3) * 1_000_000
    assert abs(mp.mpf(hi[0]) + mp.mpf(lo[0]) - exact) < exact * mp.ldexp(1, -95)


@pytest.mark.parametrize("dtype", FORMATS)
def test_distances_in_ulp(dtype):
    """Of neighbours of 1/3: what mpmath says; of special values: 0 or infinite."""
    third = multiprecision.exact([mp.mpf(1) / 3])
    value = rounded(1 / 3, dtype)
    for step in (0, 1, 5):
        moved = np.array([[value + step * spacing(value, dtype)]])
        ulps, relative = errors(moved, third, dtype)
        off = abs(mp.mpf(float(moved[0, 0])) - mp.mpf(1) / 3)
        assert ulps[0, 0] == pytest.approx(float(off / float(spacing(1 / 3, dtype))), rel=1e-12)
        assert relative[0, 0] == pytest.approx(float(off * 3), rel=1e-12)
    special = Exact(np.array([0, np.nan, -np.inf, 0]), np.zeros(4), np.zeros(4, np.int64))
    ulps, _ = errors(np.array([0, np.nan, -np.inf, np.nan]), special, dtype)
    assert ulps.tolist() == [0, 0, 0, np.inf]
    least = spacing(0.0, dtype)
    assert errors(np.array([least]), Exact(*(x[:1] for x in special)), dtype)[0] == [1]


def broken_or_different(function, laws, **kwargs):
    report = logitlab.check_softmax(function, laws=laws, **kwargs)
    bad = {v.law.name: v for v in report if v.level in ("broken", "differs")}
    for verdict in bad.values():
        assert verdict.counterexample.line.startswith("import numpy as np")
    return bad


def test_finds_what_scipy_gets_wrong():
    """Integers wrap around, half types lose the sum, the maximum is lost, +inf is NaN."""
    bad = broken_or_different(scipy.special.softmax, ["integers", "sum", "+inf"])
    assert set(bad) == {"integers", "sum", "+inf"}
    assert {"int8", "uint8"} <= {
        dtype for dtype, (level, _) in bad["integers"].by_dtype.items() if level == "differs"
    }
    assert bad["sum"].by_dtype["float16"][0] == "broken"
    assert bad["sum"].counterexample.came == "[0.0, 0.0, 0.0, ..., 0.0]; the sum 0.0"
    bad = broken_or_different(scipy.special.log_softmax, ["maximum"], dtypes=["float32"])
    assert bad["maximum"].counterexample.came.count("0.0") == 2


def test_finds_what_jax_gets_wrong():
    """Integers wrap around, bfloat16 sums to 1.003, the maximum is lost, +inf is NaN."""
    jax = pytest.importorskip("jax")
    laws = ["integers", "sum", "+inf"]
    softmax = jax.jit(lambda z: jax.nn.softmax(z))
    bad = broken_or_different(softmax, laws, kind="jax", dtypes=["bfloat16"])
    assert set(bad) == {"integers", "sum", "+inf"}
    assert bad["sum"].by_dtype["bfloat16"][0] == "broken"
    assert bad["integers"].by_dtype["int8"][0] == "differs"
    assert broken_or_different(jax.nn.log_softmax, ["maximum"], kind="jax", dtypes=["float32"])


def test_finds_what_torch_gets_wrong():
    """+inf is NaN; the logarithm at the maximum is lost."""
    assert broken_or_different(torch.softmax, ["+inf"], dtypes=["float32"])
    assert broken_or_different(torch.log_softmax, ["maximum"], dtypes=["float32"])


def squared(z, dim=-1):
    """Of which only the derivative is not that of softmax."""
    return torch.softmax(z.detach(), dim) + 1e-3 * (z**2 - z.detach() ** 2)


def on_threads(z, dim=-1):
    return torch.softmax(z, dim) * (1 + torch.get_num_threads() * 1e-3)


def doubled_in_place(z, dim=-1):
    return torch.softmax(z.mul_(2), dim)


@pytest.mark.parametrize(
    ("function", "law"),
    [
        (squared, "jacobian"),
        (squared, "jacobian rows"),
        (on_threads, "threads"),
        (doubled_in_place, "input"),
    ],
)
@pytest.mark.parametrize("axis", [-1, 0])
def test_what_takes_more_than_a_call_to_show(function, law, axis):
    """The pasted line differentiates, sets the threads, gives the array after the call."""
    before = torch.get_num_threads()
    report = logitlab.check_softmax(
        function, laws=[law], dtypes=["float32"], kind="torch", axis=axis
    )
    found = report[law].counterexample
    setup, _, text = found.line.partition("; ")
    scope = {"squared": squared, "on_threads": on_threads, "doubled_in_place": doubled_in_place}
    try:
        exec(setup, scope)
        given = eval(text, scope)
    finally:
        torch.set_num_threads(before)
    values = found.came.partition("; ")[0].replace("[", "").replace("]", "").split(", ")
    np.testing.assert_allclose(np.ravel(given), [float(x) for x in values], rtol=1e-6)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_logitlab_keeps_its_contract(kind, name):
    """Every law, every convention, within 4 ULP (half types: 0.51)."""
    dtypes = None if kind == "numpy" else ["bfloat16", "float32"]
    report = logitlab.check_softmax(getattr(logitlab, name), kind=kind, strict=True, dtypes=dtypes)
    assert report, report
    for law in ("accuracy", "tail", "maximum", "translation", "scaling", "overflow", "underflow"):
        for dtype, (_, ulps) in report[law].by_dtype.items():
            assert ulps <= (0.51 if dtype.endswith("float16") else 4), (law, dtype)
    for law in ("order", "ties", "batch", "position", "layout", "threads", "input", "determinism"):
        assert report[law].level == "exact", law


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": "a"}, "seed must be an int, got 'a'"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
        ({"axis": "a"}, "axis must be an int, got 'a'"),
        ({"dtypes": "float32"}, "dtypes is 'float32'; accepted: a list of names, as"),
        ({"laws": "order"}, "laws is 'order'; accepted: a list of names, as"),
        ({"laws": 3}, "laws is 3; accepted: a list of names, as"),
        ({"dtypes": ["float8"]}, "dtypes holds 'float8'"),
    ],
)
def test_bad_options(options, message):
    """One line that names the argument."""
    with pytest.raises((TypeError, ValueError), match=message):
        logitlab.check_softmax(
            logitlab.softmax, **{"dtypes": ["float32"], "laws": ["order"], **options}
        )
