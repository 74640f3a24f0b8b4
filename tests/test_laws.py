"""The conformance suite: its exact arithmetic, and its results for known functions."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.special
import torch

import logitlab
from logitlab._exact import doubledouble, multiprecision
from logitlab._exact.formats import FORMATS, Exact, errors, rounded, spacing

pytestmark = pytest.mark.slow

mp = multiprecision.mp


def logits_of_every_magnitude():
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1, (120, 20)) * 10.0 ** rng.integers(-3, 4, (120, 1))
    z[::3, -1] = z[::3].max(-1) - 40.0
    z[1::3, 0] = -np.inf
    return z


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_double_double_agrees_with_multiprecision(name):
    """To 100 bits, far below the smallest number of any dtype too."""
    z = logits_of_every_magnitude()
    result = getattr(doubledouble, name)(z)
    for i, row in enumerate(z.tolist()):
        for j, exact in enumerate(getattr(multiprecision, name)(row)):
            hi, lo, e = (part[i, j].item() for part in result)
            if not mp.isfinite(exact) or exact == 0 or exact < mp.ldexp(1, -40000) < abs(exact):
                continue
            value = mp.ldexp(mp.mpf(hi) + mp.mpf(lo), e)
            if abs(exact) > mp.ldexp(1, -40000):
                assert abs(value - exact) <= abs(exact) * mp.ldexp(1, -100)
            else:
                assert abs(value) < mp.ldexp(1, -39000)


def test_the_sum_of_a_million_terms_is_exact_to_95_bits():
    """The sum of a million times 1/3."""
    third = np.full((1, 1_000_000), 1.0)
    hi, lo = doubledouble.pairwise_sum((third / 3, np.full_like(third, (1 - 3 * (1 / 3)) / 3)))
    exact = mp.mpf(1 / 3) * 1_000_000
    assert abs(mp.mpf(hi[0]) + mp.mpf(lo[0]) - exact) < exact * mp.ldexp(1, -95)


@pytest.mark.parametrize("dtype", FORMATS)
def test_errors_in_ulp(dtype):
    """Near 1/3 as in mpmath; of special values 0 or infinite."""
    third = multiprecision.to_exact([mp.mpf(1) / 3])
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
    smallest = spacing(0.0, dtype)
    assert errors(np.array([smallest]), Exact(*(x[:1] for x in special)), dtype)[0] == [1]


def failing_laws(function, laws, **kwargs):
    report = logitlab.check_softmax(function, laws=laws, **kwargs)
    failing = {result.law.name: result for result in report if not result.passed}
    for result in failing.values():
        assert result.counterexample.code.startswith("import numpy as np")
    return failing


def test_known_failures_of_scipy():
    """Integers wrap around, float16 sums are wrong, log p at the maximum is 0, +inf gives NaN."""
    failing = failing_laws(scipy.special.softmax, ["integers", "sum", "+inf"])
    assert set(failing) == {"integers", "sum", "+inf"}
    assert {"int8", "uint8"} <= {
        dtype for dtype, (level, _) in failing["integers"].by_dtype.items() if level == "differs"
    }
    assert failing["sum"].by_dtype["float16"][0] == "fails"
    assert failing["sum"].counterexample.result == "[0.0, 0.0, 0.0, ..., 0.0]; sum = 0.0"
    failing = failing_laws(scipy.special.log_softmax, ["maximum"], dtypes=["float32"])
    assert failing["maximum"].counterexample.result.count("0.0") == 2


def compiled_for_few_shapes(function):
    """A function of JAX of rows that excluded classes and zeros extend to powers of two."""
    jax = pytest.importorskip("jax")
    compiled = jax.jit(lambda z: function(z))

    def call(z):
        if z.ndim != 2 or not jax.numpy.issubdtype(z.dtype, jax.numpy.floating):
            return compiled(z)
        n, k = z.shape
        extended = np.zeros((1 << (n - 1).bit_length(), 1 << (k - 1).bit_length()), z.dtype)
        extended[:, k:] = -np.inf
        extended[:n, :k] = z
        return jax.numpy.asarray(np.asarray(compiled(extended))[:n, :k])

    return call


def test_known_failures_of_jax():
    """Integers wrap around, bfloat16 sums to 1.003, log p at the maximum is 0, +inf gives NaN."""
    jax = pytest.importorskip("jax")
    laws = ["integers", "sum", "+inf"]
    softmax = compiled_for_few_shapes(jax.nn.softmax)
    failing = failing_laws(softmax, laws, array_library="jax", dtypes=["bfloat16"])
    assert set(failing) == {"integers", "sum", "+inf"}
    assert failing["sum"].by_dtype["bfloat16"][0] == "fails"
    assert failing["integers"].by_dtype["int8"][0] == "differs"
    log_softmax = compiled_for_few_shapes(jax.nn.log_softmax)
    assert failing_laws(log_softmax, ["maximum"], array_library="jax", dtypes=["float32"])


def test_known_failures_of_torch():
    """+inf gives NaN; log p at the maximum is 0."""
    assert failing_laws(torch.softmax, ["+inf"], dtypes=["float32"])
    assert failing_laws(torch.log_softmax, ["maximum"], dtypes=["float32"])


def squared(z, dim=-1):
    """softmax with a wrong derivative."""
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
        (doubled_in_place, "input unchanged"),
    ],
)
@pytest.mark.parametrize("axis", [-1, 0])
def test_code_that_is_more_than_a_call(function, law, axis):
    """The code differentiates, sets the number of threads, returns the array after the call."""
    before = torch.get_num_threads()
    report = logitlab.check_softmax(
        function, laws=[law], dtypes=["float32"], array_library="torch", axis=axis
    )
    counterexample = report[law].counterexample
    setup, _, call = counterexample.code.partition("; ")
    scope = {"squared": squared, "on_threads": on_threads, "doubled_in_place": doubled_in_place}
    try:
        exec(setup, scope)
        value = eval(call, scope)
    finally:
        torch.set_num_threads(before)
    numbers = counterexample.result.partition("; ")[0].replace("[", "").replace("]", "").split(", ")
    np.testing.assert_allclose(np.ravel(value), [float(x) for x in numbers], rtol=1e-6)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_logitlab_conforms(library, name):
    """To every law and convention, within 4 ULP (float16 and bfloat16: 0.51)."""
    dtypes = None if library == "numpy" else ["bfloat16", "float32"]
    report = logitlab.check_softmax(
        getattr(logitlab, name), array_library=library, strict=True, dtypes=dtypes
    )
    assert report, report
    for law in ("accuracy", "tail", "maximum", "translation", "scaling", "overflow", "underflow"):
        for dtype, (_, ulps) in report[law].by_dtype.items():
            assert ulps <= (0.51 if dtype.endswith("float16") else 4), (law, dtype)
    for law in (
        "order",
        "ties",
        "batch",
        "position",
        "layout",
        "threads",
        "input unchanged",
        "determinism",
    ):
        assert report[law].level == "exact", law


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": "a"}, "seed must be an int, got 'a'"),
        ({"seed": -1}, "seed must be >= 0, got -1"),
        ({"axis": "a"}, "axis must be an int, got 'a'"),
        ({"dtypes": "float32"}, "dtypes must be a list of names, got 'float32'"),
        ({"laws": "order"}, "laws must be a list of names, got 'order'"),
        ({"laws": 3}, "laws must be a list of names, got 3"),
        ({"dtypes": ["float8"]}, "dtypes must be some of float16, .* got 'float8'"),
        ({"laws": ["gravity"]}, "laws must be some of bounds, .* got 'gravity'"),
        ({"effort": "high"}, "effort must be one of 'quick', 'full', got 'high'"),
        ({"array_library": "abacus"}, "array_library must be one of numpy, .* got 'abacus'"),
    ],
)
def test_bad_options(options, message):
    """The error names the argument."""
    with pytest.raises((TypeError, ValueError), match=message):
        logitlab.check_softmax(
            logitlab.softmax, **{"dtypes": ["float32"], "laws": ["order"], **options}
        )


def test_import_loads_neither_hypothesis_nor_mpmath():
    """The other commands work without the extra `laws`."""
    code = "import sys, logitlab.laws; print({'hypothesis', 'mpmath'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout == "set()\n", process.stderr


def test_an_unknown_law_is_a_key_error():
    """A report has the laws that were checked."""
    report = logitlab.check_softmax(logitlab.softmax, dtypes=["float32"], laws=["empty"])
    with pytest.raises(KeyError, match="order"):
        report["order"]
