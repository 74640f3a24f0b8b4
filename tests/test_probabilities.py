"""softmax, log_softmax, logsumexp and logits, compared with exact arithmetic."""

import array_api_strict
import ml_dtypes
import numpy as np
import pytest
import torch

import arrays
import exact
import logitlab
from arrays import FLOATS, inf, nan
from logitlab import _dispatch

# The largest error, in ULP of the type of the result.
BOUND = {"float16": 0.51, "bfloat16": 0.51, "float32": 4, "float64": 4}
by_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)
by_temperature = pytest.mark.parametrize("temperature", arrays.TEMPERATURES)


def max_error(values, exact_values, dtype):
    pairs = zip(np.ravel(values).tolist(), exact_values, strict=True)
    return max(exact.distance(value, e, dtype) for value, e in pairs)


@by_dtype
@by_temperature
def test_softmax_is_exact(dtype, temperature):
    """Rows of special values at every temperature, limits included."""
    for z in arrays.rows(dtype):
        p = logitlab.softmax(z, temperature=temperature)
        assert p.dtype == dtype
        assert p.shape == z.shape
        assert max_error(p, exact.softmax(z.tolist(), temperature), dtype) <= BOUND[dtype.name], z


@by_dtype
@by_temperature
def test_log_softmax_is_exact(dtype, temperature):
    """Relative to the result itself, at the maximum too."""
    for z in arrays.rows(dtype):
        log_p = logitlab.log_softmax(z, temperature=temperature)
        assert log_p.dtype == dtype
        assert (
            max_error(log_p, exact.log_softmax(z.tolist(), temperature), dtype) <= BOUND[dtype.name]
        )


@by_dtype
@by_temperature
def test_logsumexp_is_exact(dtype, temperature):
    """Within 2 ULP of the larger of its two terms, the maximum and T log of the shifted sum."""
    for z in arrays.rows(dtype):
        total = logitlab.logsumexp(z, temperature=temperature)
        assert total.dtype == dtype
        expected = exact.logsumexp(z.tolist(), temperature)
        finite = [abs(x) for x in z.tolist() if np.isfinite(x)]
        scale = max([*finite, abs(expected)]) if np.isfinite(float(expected)) else None
        assert exact.distance(total, expected, dtype, scale) <= min(BOUND[dtype.name], 2), z


@by_dtype
@pytest.mark.parametrize("scale", [0.1, 3, 30, 300])
def test_long_rows_are_exact(dtype, scale):
    """Sums over many classes keep their accuracy."""
    z = arrays.normal((997,), dtype, scale)
    assert max_error(logitlab.softmax(z), exact.softmax(z.tolist()), dtype) <= BOUND[dtype.name]
    assert (
        max_error(logitlab.log_softmax(z), exact.log_softmax(z.tolist()), dtype)
        <= BOUND[dtype.name]
    )


def test_inputs_that_other_libraries_get_wrong():
    """Small integers, large logits, many classes in float16, extreme temperatures."""
    np.testing.assert_array_equal(
        logitlab.softmax(np.array([-128, 127], np.int8)), [np.exp(-255.0), 1]
    )
    np.testing.assert_allclose(
        logitlab.softmax(np.array([0, 5, 9], np.uint8)),
        np.exp([-9.0, -4, 0]) / np.exp([-9.0, -4, 0]).sum(),
        rtol=1e-15,
    )
    far = logitlab.softmax(np.float32([1000, 2000, 5000]))
    np.testing.assert_array_equal(far, [0, 0, 1])
    assert far.dtype == np.float32
    equal = logitlab.softmax(np.zeros(70_000, np.float16))
    np.testing.assert_array_equal(equal, np.float16(1 / 70_000))
    np.testing.assert_allclose(
        logitlab.softmax([1e308, -1e308], temperature=1e308), logitlab.softmax([2.0, 0]), rtol=1e-15
    )


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64, np.bool_])
def test_integers_become_float64(dtype):
    """Integers are converted before any arithmetic, so they do not wrap around."""
    z = np.array([[0, 1, 1], [1, 0, 0]], dtype)
    for function in (logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp):
        result = function(z)
        assert result.dtype == np.float64
        np.testing.assert_array_equal(result, function(z.astype(float)))


def test_longdouble_keeps_its_type():
    """The result is computed in longdouble."""
    z = np.array([0, np.longdouble(1) / 3])
    p = logitlab.softmax(z)
    assert p.dtype == np.longdouble
    np.testing.assert_allclose(p[0], 1 / (1 + np.exp(z[1])), rtol=4 * np.finfo(np.longdouble).eps)


@pytest.mark.parametrize(
    "z",
    [np.array([1j]), np.array(["a"]), np.array([object()]), np.array(["2020"], "datetime64[D]")],
    ids=lambda z: z.dtype.name,
)
def test_other_types_are_refused_by_name(z):
    """A TypeError that names the type."""
    kind = z.dtype.name.partition("[")[0].rstrip("0123456789")
    for function in (logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp, logitlab.logits):
        name = "p" if function is logitlab.logits else "z"
        with pytest.raises(TypeError, match=f"^{name} must be a real array .*, got {kind}"):
            function(z)
        with pytest.raises(ValueError, match=f"^{name} must be a rectangular array, got: "):
            function([[1.0], [1.0, 2.0]])


def test_masked_array_points_to_where():
    """The error for a masked array names the parameter to use instead."""
    z = np.ma.array([1.0, 2.0], mask=[True, False])
    with pytest.raises(TypeError, match="where="):
        logitlab.softmax(z)


@by_temperature
def test_where_is_the_same_as_minus_inf(temperature):
    """A masked entry has no influence, even NaN or inf."""
    rng = np.random.default_rng(1)
    z = rng.standard_normal((50, 6)) * 5
    where = rng.random(z.shape) < 0.6
    excluded = np.where(where, z, -inf)
    z[~where] = rng.choice([nan, inf, -inf, 0.0, 1e300], (~where).sum())
    for function in (logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp):
        np.testing.assert_array_equal(
            function(z, temperature=temperature, where=where),
            function(excluded, temperature=temperature),
        )


def test_where_broadcasts_to_z():
    """A mask may broadcast to z, but not z to the mask."""
    z = arrays.normal((4, 3), np.float64)
    mask = np.array([True, False, True])
    np.testing.assert_array_equal(
        logitlab.softmax(z, where=mask), logitlab.softmax(z, where=np.tile(mask, (4, 1)))
    )
    rows = np.array([[True], [False], [True], [True]])
    assert np.isnan(logitlab.softmax(z, where=rows)[1]).all()
    with pytest.raises(ValueError, match=r"where must broadcast .* got shape \(2, 4, 3\)"):
        logitlab.softmax(z, where=np.ones((2, 4, 3), bool))
    with pytest.raises(TypeError, match="where must be a boolean array, got int64"):
        logitlab.softmax(z, where=mask.astype(int))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, (0, 1), (0, 2), (2, 1), (-1, 0), None])
def test_axes(axis):
    """Any axis, a tuple of axes as one distribution, None for all axes."""
    z = arrays.normal((3, 4, 5), np.float64)
    axes = tuple(range(3)) if axis is None else np.atleast_1d(axis) % 3
    batch = [a for a in range(3) if a not in axes]
    merged = z.transpose(*batch, *sorted(axes)).reshape(*[z.shape[a] for a in batch], -1)
    p = logitlab.softmax(z, axis)
    np.testing.assert_allclose(p.sum(axis=tuple(axes)), 1, rtol=1e-15)
    merged_p = p.transpose(*batch, *sorted(axes)).reshape(merged.shape)
    np.testing.assert_allclose(merged_p, logitlab.softmax(merged), rtol=1e-15)
    total = logitlab.logsumexp(z, axis)
    np.testing.assert_allclose(total, logitlab.logsumexp(merged), rtol=1e-15)
    kept = logitlab.logsumexp(z, axis, keepdims=True)
    assert kept.shape == tuple(1 if a in axes else n for a, n in enumerate(z.shape))


def test_the_last_axis_is_the_class_axis():
    z = np.abs(arrays.normal((3, 4, 5), np.float64))
    for function in (logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp, logitlab.logits):
        np.testing.assert_array_equal(function(z), function(z, 2))
    right = np.exp(z) / np.exp(z).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(logitlab.softmax(z), right, rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_on_a_device_that_computes_them_in_float32(dtype, monkeypatch):
    monkeypatch.setattr(_dispatch, "_AUTOCAST_CPU", _dispatch._AUTOCAST)
    z = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    b = torch.arange(5.0).to(dtype)
    functions = [
        logitlab.softmax,
        logitlab.log_softmax,
        logitlab.logsumexp,
        lambda x: logitlab.logsumexp(x, b=b.to(x.dtype)),
        lambda x: logitlab.softmax(x, empty="zero"),
    ]
    for function in functions:
        assert function(z).dtype is dtype
        with torch.autocast("cpu", dtype=dtype):
            result = function(z)
        assert result.dtype is torch.float32
        torch.testing.assert_close(result, function(z.float()), rtol=1e-6, atol=1e-6)
    for function in (logitlab.softmax, logitlab.log_softmax):
        out = torch.empty_like(z)
        with torch.autocast("cpu", dtype=dtype):
            assert function(z, out=out) is out
        assert torch.equal(out, function(z))


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_common_calls_skip_the_checks(dtype, convert, monkeypatch):
    """Those of plain arrays without options are computed in one step."""
    if convert is torch.from_numpy and not logitlab.native_available():
        pytest.skip("without the kernels, tensors have no such step")
    z = convert(arrays.normal((3, 40), dtype, 3))
    functions = (logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp)
    # An int is no common temperature.
    checked = [arrays.floats(function(z, temperature=1)) for function in functions]

    def request(*_):
        raise AssertionError("the arguments were checked")

    monkeypatch.setattr("logitlab._arrays.request", request)
    for function, right in zip(functions, checked, strict=True):
        rtol = 4 * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(arrays.floats(function(z)), right, rtol=rtol)


def test_numpy_arrays_are_not_traced(monkeypatch):
    """Also while torch.compile traces the call: its operators take tensors."""
    z, where = arrays.normal((3, 4), np.float64), np.array([True, True, False, True])
    functions = (logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp)
    expected = [function(z, where=where) for function in functions]
    monkeypatch.setattr(_dispatch, "_is_compiling", lambda: True)
    for function, right in zip(functions, expected, strict=True):
        np.testing.assert_array_equal(function(z, where=where), right)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, array_api_strict.asarray])
def test_sign_of_a_sum_without_weights(convert):
    """1; 0 where every entry is -inf."""
    z = convert(np.array([[1.0, 2.0], [-inf, -inf], [-3.0, -inf]]))
    value, sign = logitlab.logsumexp(z, return_sign=True)
    right = [2 + np.log1p(np.exp(-1)), -inf, -3]
    np.testing.assert_allclose(np.asarray(value), right, rtol=1e-15)
    np.testing.assert_array_equal(np.asarray(sign), [1, 0, 1])


@pytest.mark.parametrize("axis", [3, -4, (0, 3)])
def test_axis_out_of_bounds(axis):
    """The error names the axis and the range."""
    with pytest.raises(ValueError, match=r"axis must be from -3 to 2 .*, got (3|-4)"):
        logitlab.softmax(np.zeros((2, 2, 2)), axis)


def test_invalid_axes():
    """A float, a repeated axis, a tuple where one axis is needed."""
    with pytest.raises(TypeError, match="axis must be an int"):
        logitlab.softmax([1.0], 0.0)
    with pytest.raises(ValueError, match="axis must not name the same axis twice"):
        logitlab.softmax(np.zeros((2, 2)), (1, -1))
    with pytest.raises(TypeError, match="axis must be an int"):
        logitlab.logits([[1.0]], (0, 1))


def test_one_temperature_for_each_row():
    """Temperatures broadcast to the batch shape for any class axis."""
    z = arrays.normal((4, 3, 5), np.float64)
    t = np.array([[0.5], [0.0], [inf], [-2.0]])
    p = logitlab.softmax(z, temperature=t)
    total = logitlab.logsumexp(z, 1, temperature=t)
    for i, j in np.ndindex(4, 3):
        np.testing.assert_array_equal(p[i, j], logitlab.softmax(z[i, j], temperature=t[i, 0]))
    for i, j in np.ndindex(4, 5):
        expected = logitlab.logsumexp(z[i, :, j], temperature=t[i, 0])
        np.testing.assert_allclose(total[i, j], expected, rtol=1e-15)


def test_invalid_temperatures():
    """NaN, a shape that does not broadcast, an array where only a scalar fits, a string."""
    z = np.zeros((4, 3))
    with pytest.raises(ValueError, match=r"temperature must be a number, .* got nan"):
        logitlab.softmax(z, temperature=nan)
    with pytest.raises(ValueError, match=r"temperature must hold numbers, .* index \(3,\)"):
        logitlab.softmax(z, temperature=[1, 1, 1, nan])
    with pytest.raises(ValueError, match=r"temperature\[:, 0\]"):
        logitlab.softmax(z, temperature=np.ones((4, 1)))
    with pytest.raises(ValueError, match=r"batch shape \(\)"):
        logitlab.softmax(z, None, temperature=np.ones(4))
    with pytest.raises(TypeError, match="temperature must be a real number or array, got str"):
        logitlab.softmax(z, temperature="hot")


@pytest.mark.parametrize("value", [True, False, np.True_])
def test_booleans_are_not_numbers(value):
    """A boolean axis or temperature is a TypeError; an array of booleans is no temperature."""
    z = np.zeros((4, 3))
    for function in (
        logitlab.softmax,
        logitlab.log_softmax,
        logitlab.logsumexp,
        logitlab.jacobian,
        logitlab.hessian,
    ):
        with pytest.raises(TypeError, match=f"temperature must be a real number, got .*{value}"):
            function(z, temperature=value)
        with pytest.raises(TypeError, match=f"axis must be an int.*, got .*{value}"):
            function(z, value)
    with pytest.raises(TypeError, match="axis must be an int, a tuple of ints or None, got"):
        logitlab.softmax(z, (0, value))
    with pytest.raises(TypeError, match="axis must be an int"):
        logitlab.logits(z, value)
    for temperature in ([value] * 4, np.array(value)):
        with pytest.raises(TypeError, match="temperature must be a real number or array, got bool"):
            logitlab.softmax(z, temperature=temperature)


@pytest.mark.parametrize("value", ["x", 1, None, np.array([True])])
def test_keepdims_is_a_boolean(value):
    with pytest.raises(TypeError, match=r"^keepdims must be True or False, got"):
        logitlab.logsumexp([1.0, 2.0], keepdims=value)
    assert logitlab.logsumexp([1.0, 2.0], keepdims=np.True_).shape == (1,)


def test_zero_dimensions_have_no_axis_to_keep():
    for z in (3.0, np.array(3.0), torch.tensor(3.0)):
        for keepdims in (False, True):
            assert logitlab.logsumexp(z, keepdims=keepdims).shape == ()
            value, sign = logitlab.logsumexp(z, b=2.0, keepdims=keepdims, return_sign=True)
            assert value.shape == sign.shape == ()


@by_dtype
def test_the_order_of_the_axes_does_not_matter(dtype):
    """Not even for the last digits; a temperature and a mask keep their places."""
    z = arrays.normal((3, 40, 2, 30), dtype)
    where = np.random.default_rng(0).random((40, 1, 30)) < 0.7
    temperature = np.array([[0.5, 2.0], [1.0, 3.0], [0.7, 1.5]])
    for function in (logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp):
        options = {"where": where, "temperature": temperature}
        expected = function(z, (1, 3), **options)
        for axes in ((3, 1), (-1, 1), (-3, 3), (-1, -3)):
            assert function(z, axes, **options).tobytes() == expected.tobytes()
        assert function(z, (3, 0, 2, 1)).tobytes() == function(z, None).tobytes()


@by_dtype
def test_out(dtype):
    """`out` is written and returned; it may be z itself."""
    z = arrays.normal((7, 9), dtype)
    for function in (logitlab.softmax, logitlab.log_softmax):
        expected = function(z)
        out = np.empty_like(z)
        assert function(z, out=out) is out
        np.testing.assert_array_equal(out, expected)
        alias = z.copy()
        function(alias, out=alias)
        np.testing.assert_array_equal(alias, expected)
        scattered = np.empty((9, 14), dtype)[:, ::2].T
        function(z, out=scattered)
        np.testing.assert_array_equal(scattered, expected)
        single = np.empty((), dtype)
        assert function(z[0, 0], out=single) is single
        assert single == function(z[0, 0])


def test_invalid_out():
    """Another type, shape or library, overlapping or read-only memory."""
    z = np.zeros((4, 3))
    memory = np.zeros(24)
    read_only = np.zeros((4, 3))
    read_only.flags.writeable = False
    for out in (np.zeros((4, 3), np.float32), np.zeros((3, 4)), read_only):
        with pytest.raises(ValueError, match="out"):
            logitlab.softmax(z, out=out)
    with pytest.raises(ValueError, match="out must be z itself or disjoint from z"):
        logitlab.softmax(memory[:12].reshape(4, 3), out=memory[3:15].reshape(4, 3))
    with pytest.raises(TypeError, match=r"out must be an array of .* ndarray, got list"):
        logitlab.softmax(z, out=[[0.0] * 3] * 4)


@pytest.mark.parametrize("function", [logitlab.softmax, logitlab.log_softmax])
def test_out_overlapping_another_argument(function):
    """Of z only the same entries may be overwritten, of `where` none; T may lie in `out`."""
    square = arrays.normal((5, 5), np.float64)
    for out in (square.T, square[::-1], square[:, ::-1]):
        with pytest.raises(ValueError, match="out must be z itself or disjoint from z"):
            function(square, out=out)
    function(square, out=square[:])
    memory = np.ones((4, 6))
    for where in (memory.view(bool)[:, :6], memory.view(bool)[:, ::8]):
        with pytest.raises(ValueError, match="out must be disjoint from where"):
            function(np.zeros((4, 6)), where=where, out=memory)
    z = arrays.normal((300, 3), np.float64)
    memory = np.random.default_rng(0).uniform(0.5, 2, z.shape)
    expected = function(z, temperature=memory[::-1, 1].copy())
    np.testing.assert_array_equal(function(z, temperature=memory[::-1, 1], out=memory), expected)


def shared_entries(memory):
    """Views of 5 x 3 in which entries share memory, and one in which none do."""
    one_row, strided = memory[:3], np.lib.stride_tricks.as_strided
    size = memory.itemsize
    yield strided(one_row, (5, 3), (0, size))
    yield strided(memory, (5, 3), (size, size))  # overlapping windows
    yield strided(memory, (5, 3), (size, 4 * size))
    yield strided(memory, (5, 3), (2 * size, 5 * size))


@by_dtype
@pytest.mark.parametrize("function", [logitlab.softmax, logitlab.log_softmax])
def test_out_whose_entries_share_memory(function, dtype):
    z = arrays.normal((5, 3), dtype)
    *shared, separate = shared_entries(np.zeros(40, dtype))
    message = "out must have its own memory for each entry"
    for out in shared:
        with pytest.raises(ValueError, match=message):
            function(z, out=out)
        with pytest.raises(ValueError, match=message):
            function(out, out=out)
    np.testing.assert_array_equal(function(z, out=separate), function(z))
    tensor = torch.from_numpy(z.astype(np.float32))
    memory = torch.zeros(40)
    for out in (
        memory[:3].expand(5, 3),
        memory.as_strided((5, 3), (1, 1)),
        memory.as_strided((5, 3), (1, 4)),
    ):
        with pytest.raises(ValueError, match=message):
            function(tensor, out=out)
    assert torch.equal(function(tensor, out=memory.as_strided((5, 3), (2, 5))), function(tensor))
    strict = array_api_strict.asarray(z.astype(np.float64))
    # NumPy 2.0 marks such an array as read-only.
    with pytest.raises(ValueError, match=f"{message}|read-only"):
        function(strict, out=array_api_strict.broadcast_to(strict[0, :], (5, 3)))
    with pytest.raises(ValueError, match="out must be z itself or disjoint from z"):
        function(strict[:3, :], out=strict[:3, :].T)


def test_never_writes_to_its_input():
    """Read-only arrays are accepted, and no input is modified."""
    for case in arrays.cases(np.dtype(np.float32)):
        z = case.z.copy()
        z.flags.writeable = False
        before = z.tobytes()
        for function in (logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp):
            function(z, case.axis)
        assert z.tobytes() == before


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (0,), (2, 0, 3)])
def test_empty(shape):
    """Without classes or rows the result is empty; logsumexp is -inf (T < 0: +inf)."""
    z = np.empty(shape)
    for axis in range(len(shape)):
        assert logitlab.softmax(z, axis).shape == shape
        assert logitlab.log_softmax(z, axis).shape == shape
        total = logitlab.logsumexp(z, axis)
        assert total.shape == shape[:axis] + shape[axis + 1 :]
        assert np.all(total == -inf)
        assert np.all(logitlab.logsumexp(z, axis, temperature=-1.0) == inf)


@by_dtype
@pytest.mark.parametrize("temperature", [1.0, 0.3, -2.0, 0.0, inf, 1e-300])
def test_weighted_logsumexp_is_exact(dtype, temperature):
    """T log sum b exp(z/T): weights of whole numbers count an entry so often."""
    count = np.array([3, 1, 0, 2])
    for z in ([0.0, -20.0, inf, 1.0], [5.0, 5.0, nan, 5.0], [-inf, 2.0, 7.0, -3.0], [1e4, 0, 0, 1]):
        row = np.array(z).astype(dtype)
        value = logitlab.logsumexp(row, b=count, temperature=temperature)
        assert value.dtype == dtype
        expected = logitlab.logsumexp(np.repeat(row, count), temperature=temperature)
        assert exact.distance(value, exact.mp.mpf(float(expected)), dtype) <= 2


def test_weights_of_logsumexp():
    """A sum close to 1 keeps its digits; negative sums; gradients; other libraries; errors."""
    value = logitlab.logsumexp([0.0, -40.0], b=[1.0, 2.0])
    assert value == pytest.approx(2 * np.exp(-40.0), rel=1e-14)
    assert logitlab.logsumexp([0.0, -800.0], b=[1e-300, 0.0]) == pytest.approx(np.log(1e-300))
    # At T = inf: T log sum b, or the mean where the sum is 1.
    assert logitlab.logsumexp([1.0, 3.0], b=[0.5, 0.5], temperature=inf) == 2
    assert logitlab.logsumexp([1.0, 3.0], b=[0.5, 0.25], temperature=inf) == -inf
    assert np.isnan(logitlab.logsumexp([0.0, 0.0], b=[1.0, -2.0]))
    assert logitlab.logsumexp([2.0, 2.0], b=[1.0, -1.0]) == -inf
    assert logitlab.logsumexp([2.0, 2.0], b=[1.0, -1.0], return_sign=True) == (-inf, 0)
    assert type(logitlab.logsumexp([1.0, 2.0])) is np.float64
    assert type(logitlab.logsumexp([1.0, 2.0], b=2.0)) is np.float64
    for part in logitlab.logsumexp([1.0, 2.0], b=2.0, return_sign=True):
        assert type(part) is np.float64
    value, sign = logitlab.logsumexp([0.0, 0.0], b=[1.0, -2.0], return_sign=True)
    assert (value, sign) == (0, -1)
    assert logitlab.logsumexp([1.0, 2.0], return_sign=True) == (logitlab.logsumexp([1.0, 2.0]), 1)
    assert np.isnan(logitlab.logsumexp([nan, 2.0], return_sign=True)).all()
    assert logitlab.logsumexp(np.empty((2, 0)), b=2.0, return_sign=True)[1].tolist() == [0, 0]
    z = torch.tensor([1.0, 2.0, -inf], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([1.0, 3.0, 1.0], dtype=torch.float64, requires_grad=True)
    value = logitlab.logsumexp(z, b=b, temperature=0.5)
    value.backward()
    weights = b.detach() * torch.exp(z.detach() / 0.5)
    torch.testing.assert_close(z.grad, weights / weights.sum())
    torch.testing.assert_close(b.grad, 0.5 * torch.exp(z.detach() / 0.5) / weights.sum())
    assert value.item() == pytest.approx(0.5 * np.log(weights.sum().item()))
    strict = array_api_strict.asarray([1.0, 2.0])
    assert float(logitlab.logsumexp(strict, b=strict)) == pytest.approx(
        logitlab.logsumexp([1.0, 2.0], b=[1.0, 2.0])
    )
    with pytest.raises(ValueError, match=r"^b must broadcast to the shape \(2,\) of z, got "):
        logitlab.logsumexp([1.0, 2.0], b=[1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match=r"^b must be a real array .*, got complex128$"):
        logitlab.logsumexp([1.0, 2.0], b=[1j, 2.0])
    with pytest.raises(TypeError, match=r"^b must be an array of the same library as z"):
        logitlab.logsumexp(z.detach(), b=strict)
    with pytest.raises(TypeError, match=r"^return_sign must be True or False, got 1"):
        logitlab.logsumexp([1.0, 2.0], return_sign=1)


@by_dtype
@pytest.mark.parametrize("temperature", [1.0, 0.0, inf, -1.0])
def test_rows_with_every_entry_excluded_as_zeros(dtype, temperature):
    """empty="zero" changes no other row: one with NaN stays NaN."""
    z = np.array([[-inf, -inf], [1, 2], [nan, 1], [3, 4]]).astype(dtype)
    where = np.array([[True, True], [True, True], [True, False], [False, False]])
    options = {"temperature": temperature, "where": where}
    expected = logitlab.softmax(z, **options)
    assert np.isnan(expected[[0, 2, 3]].astype(float)).all()
    expected[[0, 3]] = 0
    for axis, a, mask in ((-1, z, where), (0, z.T, where.T)):
        p = logitlab.softmax(a, axis, temperature=temperature, where=mask, empty="zero")
        assert p.dtype == dtype
        np.testing.assert_array_equal(arrays.floats(p if axis else p.T), arrays.floats(expected))
    out = z.copy()
    assert logitlab.softmax(out, out=out, empty="zero", **options) is out
    np.testing.assert_array_equal(arrays.floats(out), arrays.floats(expected))
    excluded_nan = np.array([[nan, 1]]).astype(dtype)
    p = logitlab.softmax(excluded_nan, where=[[False, False]], empty="zero")
    np.testing.assert_array_equal(arrays.floats(p), 0)
    assert logitlab.softmax(np.array(-inf).astype(dtype), empty="zero") == 0
    with pytest.raises(ValueError, match=r"^empty must be one of 'nan', 'zero', got 'one'$"):
        logitlab.softmax(z, empty="one")


def test_gradients_of_rows_with_every_entry_excluded_are_zero():
    z = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    p = logitlab.softmax(z, where=torch.tensor([[False, False], [True, True]]), empty="zero")
    (gradient,) = torch.autograd.grad(p.square().sum(), z)
    assert p[0].tolist() == gradient[0].tolist() == [0, 0]
    assert torch.isfinite(gradient).all()


def test_zero_dimensions():
    """A 0-d array is one row of one class."""
    assert logitlab.softmax(3.0) == 1
    assert logitlab.log_softmax(np.float32(3)) == 0
    assert logitlab.logsumexp(3.0) == 3
    assert logitlab.logits(0.25) == 0


def test_lists_and_frames():
    """Everything that numpy.asarray accepts."""
    import pandas
    import polars

    expected = logitlab.softmax(np.array([1.0, 2.0]))
    for z in ([1, 2], (1.0, 2.0), pandas.Series([1.0, 2.0]), polars.Series([1.0, 2.0])):
        result = logitlab.softmax(z)
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, expected)
    with pytest.raises(ValueError, match="rectangular"):
        logitlab.softmax([[1.0], [1.0, 2.0]])


@by_dtype
def test_logits_invert_softmax(dtype):
    """softmax(logits(p)) is p, and logits are centred."""
    p = logitlab.softmax(arrays.normal((20, 8), dtype))
    z = logitlab.logits(p)
    assert z.dtype == dtype
    eps = float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(z.astype(float).mean(-1), 0, atol=8 * eps)
    total = p.astype(float).sum(-1, keepdims=True)
    recovered = logitlab.softmax(z).astype(float)
    np.testing.assert_allclose(recovered, p.astype(float) / total, rtol=20 * eps)


def test_logits_of_special_values():
    """0 gives -inf, NaN a row of NaN, a negative entry an error that names it."""
    np.testing.assert_array_equal(logitlab.logits([0.0, 1.0, 1.0]), [-inf, 0, 0])
    assert np.isnan(logitlab.logits([nan, 1.0])).all()
    np.testing.assert_array_equal(logitlab.logits([0.0, 0.0]), [-inf, -inf])
    with pytest.raises(ValueError, match=r"p must be >= 0, got -0.5 at index \(1, 0\)"):
        logitlab.logits([[0.5, 0.5], [-0.5, 1.5]])


@pytest.mark.parametrize("function", [logitlab.softmax, logitlab.log_softmax, logitlab.logsumexp])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_common_calls_are_those_with_options(function, dtype, axis):
    """Arrays of the standard types, and masks of their shape, have functions of their own."""
    z = np.random.default_rng(0).normal(0, 3, (5, 4, 7)).astype(ml_dtypes.finfo(dtype).dtype)
    mask = np.random.default_rng(1).random(z.shape) < 0.7
    mask[0, 0] = False
    for where in (None, mask, mask[:, ::-1]):
        result = function(z, axis, where=where)
        other = function(z, axis, temperature=np.array(1.0), where=where)
        assert result.dtype == z.dtype
        np.testing.assert_array_equal(np.float64(result), np.float64(other))
