"""Labels and weights of rows: array types, ranges, ignored labels and messages."""

import re
import tracemalloc

import array_api_strict
import jax
import numpy as np
import pytest
import torch
from array_api_compat import array_namespace

from logitlab import _labels
from logitlab._arrays import dtype_name

JAX = jax.numpy.asarray
LIBRARIES = [np.asarray, torch.from_numpy, JAX, array_api_strict.asarray]
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
JAX_INTEGERS = ("uint8", "int32", "uint32")  # JAX compiles for each type
each_library = pytest.mark.parametrize("convert", LIBRARIES)
each_library_but_jax = pytest.mark.parametrize("convert", [c for c in LIBRARIES if c is not JAX])


def values(x):
    return np.asarray(x).tolist()


def integers(convert):
    return JAX_INTEGERS if convert is JAX else INTEGERS


@each_library
def test_labels_have_the_default_integer_type_of_the_library(convert):
    """int64, or int32 in JAX; of the batch shape, from any integer type."""
    z, y = convert(np.zeros((2, 3, 5))), np.array([[0, 4, 2], [1, 1, 3]])
    right = "int32" if convert is JAX else "int64"
    for name in integers(convert):
        for given in (convert(y.astype(name)), y.astype(name), y.astype(name).tolist()):
            for ignored in (None, 100):
                result = _labels.labels(given, z, (2, 3), 5, ignored)
                assert type(result) is type(z)
                assert dtype_name(result.dtype) == right
                assert values(result) == y.tolist()


def test_valid_labels_are_not_copied():
    z, y = np.zeros((3, 5)), np.array([4, 0, 2])
    assert _labels.labels(y, z, (3,), 5) is y


def test_valid_labels_need_no_mask():
    y, z = np.zeros(1_000_000, np.int64), np.zeros((1_000_000, 1), np.float16)
    _labels.labels(y, z, y.shape, 1)
    tracemalloc.start()
    try:
        _labels.labels(y, z, y.shape, 1)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@each_library_but_jax
def test_there_may_be_no_rows(convert):
    y = convert(np.empty((0, 2), np.int64))
    for ignored in (None, 3):
        assert _labels.labels(y, convert(np.empty((0, 2, 3))), (0, 2), 3, ignored).shape == (0, 2)


@each_library
@pytest.mark.parametrize("ignored", [None, 50])
@pytest.mark.parametrize(("label", "classes"), [(3, 3), (-100, 3), (0, 0), (127, 127)])
def test_labels_out_of_range(convert, ignored, label, classes):
    """The message has the range, the value and the first such row, counted over the batch."""
    z = convert(np.zeros((2, 2, classes)))
    for name in integers(convert):
        label_of_type = int(np.array(label).astype(name))  # -1 is 255 as uint8
        y = np.full((2, 2), 50 if ignored else classes // 2).astype(name)
        y[0, 1] = y[1, 0] = label_of_type
        row = 1 if classes or ignored else 0
        message = (
            f"y must be from 0 to {classes - 1}, as other has {classes} classes, "
            f"got {label_of_type} in row {row}"
        )
        for given in (y, convert(y)):
            with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
                _labels.labels(given, z, (2, 2), classes, ignored, of="other")


@each_library_but_jax
def test_labels_from_the_first_to_the_last_class_are_valid(convert):
    y = np.array([0, 1, 2])
    for ignored in (None, 2**70, -(2**70), 2**31, 2**63, (-1, 3)):
        result = _labels.labels(convert(y), convert(np.zeros((3, 3))), (3,), 3, ignored)
        assert values(result) == [0, 1, 2]


@each_library
def test_ignored_labels_are_minus_one(convert):
    """One or several, among them the extreme values of a type."""
    y, z = np.array([3, -100, 0, 7, 7, 2]), convert(np.zeros((6, 4)))
    for labels in (y, convert(y)):
        assert values(_labels.labels(labels, z, (6,), 4, (7, -100))) == [3, -1, 0, -1, -1, 2]
        assert values(_labels.labels(labels, z, (6,), 4, (0, 7, -100))) == [3, -1, -1, -1, -1, 2]
    for extreme in (2**63 - 1, -(2**63)):
        y = np.array([3, extreme])
        assert values(_labels.labels(y, z[:2, :], (2,), 4, extreme)) == [3, -1]
    for name in integers(convert):
        y = convert(np.array([3, 0, 100], name))
        assert values(_labels.labels(y, z[:3, :], (3,), 4, (0, 100))) == [3, -1, -1]


@pytest.mark.parametrize("ignored", [2**8 + 1, -255, 2**64 + 1, -(2**64) + 1])
@pytest.mark.parametrize("name", INTEGERS)
def test_a_label_is_not_compared_modulo_the_size_of_its_type(name, ignored):
    y = np.array([1, 0], name)
    assert values(_labels.labels(y, np.zeros((2, 2)), (2,), 2, ignored)) == [1, 0]


def test_an_unsigned_label_is_not_negative():
    """2^64 - 1, whose bits are those of -1."""
    y = np.array([2**64 - 1, 0], np.uint64)
    with pytest.raises(ValueError, match=r"got 18446744073709551615 in row 0$"):
        _labels.labels(y, np.zeros((2, 2)), (2,), 2, -1)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([0.0, 1.0], TypeError, "y must be integer labels or p, got float64"),
        (np.array([0, 1], np.float32), TypeError, "y must be integer labels or p, got float32"),
        ([True, False], TypeError, "y must be integer labels or p, got bool"),
        (["a", "b"], TypeError, "y must be integer labels or p, got str"),
        ([0, 1j], TypeError, "y must be integer labels or p, got complex128"),
        ([0.0, np.nan, 1.0], TypeError, "y must be integer labels or p, got float64"),
        (torch.tensor([0.0, np.nan]), TypeError, "y must be an array of the same library as z, "),
        (torch.tensor([0, 1]), TypeError, "y must be an array of the same library as z, "),
        ([0.0, np.nan], ValueError, "y must have no missing values, got nan in row 1"),
        ([0, None], ValueError, "y must have no missing values, got None in row 1"),
        ([0, [1]], ValueError, "y must be a rectangular array, got: "),
        ([0, 1, 0], ValueError, "y must be labels of shape (2,) or p, got shape (3,)"),
        ([[0], [1]], ValueError, "y must be labels of shape (2,) or p, got shape (2, 1)"),
        (1, ValueError, "y must be labels of shape (2,) or p, got shape ()"),
    ],
)
def test_y_that_is_not_labels(y, error, message):
    """The error has the argument, the rule and the type or shape."""
    pattern = re.escape(message) + ("" if message[-1] == " " else "$")
    with pytest.raises(error, match=f"^{pattern}"):
        _labels.labels(y, np.zeros((2, 3)), (2,), 3, alternative=" or p")


def test_default_messages():
    """Labels are the only choice, and z has the classes."""
    z = np.zeros((2, 3))
    for y, error, message in (
        ([0.0, 1.0], TypeError, "y must be integer labels, got float64"),
        ([0], ValueError, "y must be labels of shape (2,), got shape (1,)"),
        ([0, 3], ValueError, "y must be from 0 to 2, as z has 3 classes, got 3 in row 1"),
    ):
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            _labels.labels(y, z, (2,), 3)
    tensor = torch.tensor([0.0, np.nan])
    with pytest.raises(TypeError, match=r"^y must be integer labels, got float32$"):
        _labels.labels(tensor, torch.zeros(2, 3), (2,), 3)
    with pytest.raises(TypeError, match=r"^ignore_index must be an int, got 1\.5$"):
        _labels.labels([0, 1], z, (2,), 3, 1.5)


def test_labels_without_values_are_not_checked():
    """Under jax.jit and torch.vmap; ignored ones are still -1."""
    y, z = np.array([0, 7, 9]), np.zeros((3, 3))
    for ignored, right in ((None, [0, 7, 9]), (7, [0, -1, 9])):

        def checked(labels, logits, ignored=ignored):
            return _labels.labels(labels, logits, (3,), 3, ignored)

        assert values(jax.jit(checked)(*map(jax.numpy.asarray, (y, z)))) == right
        batch = (torch.from_numpy(x)[None] for x in (y, z))
        assert values(torch.vmap(checked)(*batch)) == [right]
        meta = checked(*(torch.from_numpy(x).to("meta") for x in (y, z)))
        assert meta.shape == (3,)


@each_library_but_jax
def test_range_of_labels(convert):
    """From 0 to K - 1; no labels are in range, and labels without values are not known to be."""
    xp = array_namespace(convert(np.zeros(1)))
    for y, right in (([0, 2], True), ([2, 1], True), ([0, 3], False), ([-1, 2], False), ([], True)):
        assert _labels._all_in_range(convert(np.array(y, np.int64)), 3, xp) is right


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_range_of_traced_labels():
    y, xp = torch.tensor([0, 1]), array_namespace(torch.ones(1))

    def next_label(y):
        assert not _labels._all_in_range(y, 3, xp)
        return y + 1

    assert torch.jit.trace(next_label, (y,), check_trace=False)(y + 5).tolist() == [6, 7]
    assert not _labels._all_in_range(y.to("meta"), 3, xp)


@each_library
def test_row_weights_are_of_the_widest_real_type(convert):
    """float64, or float32 in JAX, in the library of z, from any real type."""
    z = convert(np.zeros((2, 3, 5), np.float32))
    weight = np.array([[0, 1, 2], [3, 4, 5]])
    right = "float32" if convert is JAX else "float64"
    for name in ("uint8", "float32", "float64"):
        for given in (convert(weight.astype(name)), weight.astype(name), weight.tolist()):
            result = _labels.row_weights(given, (2, 3), z)
            assert type(result) is type(z)
            assert dtype_name(result.dtype) == right
            assert values(result) == weight.tolist()


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        ([1.0], ValueError, "have shape (2,), one weight for each row, got (1,)"),
        ([[1.0, 2.0]], ValueError, "have shape (2,), one weight for each row, got (1, 2)"),
        ([1.0, -0.5], ValueError, "be finite and >= 0, got -0.5 at index (1,)"),
        ([np.inf, 1.0], ValueError, "be finite and >= 0, got inf at index (0,)"),
        ([1.0, np.nan], ValueError, "be finite and >= 0, got nan at index (1,)"),
        ([1j, 1.0], TypeError, "be a real array "),
        ([1.0, None], ValueError, "have no missing values, got None in row 1"),
        (torch.ones(2), TypeError, "be an array of the same library as z, "),
    ],
)
def test_invalid_row_weights(weight, error, message):
    pattern = re.escape(message) + ("" if message[-1] == " " else "$")
    with pytest.raises(error, match=f"^sample_weight must {pattern}"):
        _labels.row_weights(weight, (2,), np.zeros((2, 3)))


@each_library
@pytest.mark.parametrize("largest", [1e-300, 0.25, 0.3, 0.5, 1, 2, 3, 1e300, np.inf])
def test_scale_of_weights(convert, largest):
    """Two powers of two, whose product brings the largest weight to [1/2, 1)."""
    dtype = np.float32 if convert is JAX else np.float64
    largest = dtype(np.clip(largest, np.finfo(dtype).tiny, np.finfo(dtype).max))
    weight = convert(np.array([0, largest, 0.75 * largest], dtype))
    a, b = _labels.weight_scale(weight, array_namespace(weight))
    assert np.frexp([a, b])[0].tolist() == [0.5, 0.5]
    assert 0.5 <= float(largest) * a * b < 1


def test_scale_of_the_smallest_weight_is_finite():
    a, b = _labels.weight_scale(np.array([5e-324]), np)
    assert 5e-324 * a * b == 0.5


def test_scale_of_weights_without_values_is_one():
    """Also if there are no weights; a tensor that requires a gradient has values."""
    assert _labels.weight_scale(np.empty(0), np) == (1, 1)
    xp = array_namespace(torch.ones(1))
    assert _labels.weight_scale(torch.ones(2, device="meta"), xp) == (1, 1)

    def check(weight):
        assert _labels.weight_scale(weight, jax.numpy) == (1, 1)
        return weight

    jax.jit(check)(jax.numpy.full(2, 8.0))
    a, b = _labels.weight_scale(torch.tensor([8.0, 2.0], requires_grad=True), xp)
    assert a * b == 2**-4


def test_numpy_labels_are_checked_before_jax_narrows_them():
    """2^32 + 1 would be 1 in int32."""
    z = jax.numpy.zeros((2, 3))
    for y in ([0, 2**32 + 1], np.array([0, 2**32 + 1])):
        with pytest.raises(ValueError, match=r"got 4294967297 in row 1$"):
            _labels.labels(y, z, (2,), 3)


def test_labels_of_a_parameter():
    """z may be of a subclass of Tensor."""
    y, z = torch.tensor([0, 2]), torch.nn.Parameter(torch.zeros(2, 3))
    assert _labels.labels(y, z, (2,), 3) is y
    assert _labels.labels(y, z, (2,), 3, 2).tolist() == [0, -1]
    assert _labels.labels([0, 2], z, (2,), 3).tolist() == [0, 2]


def test_numpy_labels_are_on_the_device_of_z():
    z = torch.zeros(2, 3, device="meta")
    assert _labels.labels([0, 2], z, (2,), 3).device == z.device
    assert _labels.row_weights([0, 2], (2,), z).device == z.device
