"""The cause of a planted fault is named, in every dtype and in native half arithmetic too."""

import numpy as np
import pytest
import scipy.special

import logitlab
import softmaxes

pytestmark = pytest.mark.slow


def native(z):
    """The stable formula in the arithmetic of the dtype itself."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / np.add.accumulate(e, axis=-1)[..., -1:]


def maximum_not_subtracted(z):
    e = np.exp(z)
    return e / e.sum(axis=-1, keepdims=True)


def maximum_not_subtracted_log(z):
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def maximum_of_all_axes(z):
    e = np.exp(z - z.max())
    return e / e.sum(axis=-1, keepdims=True)


def normalised_over_rows(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=0, keepdims=True)


def normalised_over_all_axes(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum()


def not_normalised(z):
    return np.exp(z - z.max(axis=-1, keepdims=True))


def last_of_odd_not_summed(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    k = z.shape[-1]
    return e / e[..., : k - k % 2 if k > 1 else k].sum(axis=-1, keepdims=True)


def last_of_odd_not_written(z):
    p = native(z)
    k = z.shape[-1]
    p[..., k - k % 4 if k > 4 else k :] = 0
    return p


def row_copied_in_batches_above_7(z):
    p = native(z)
    if p.ndim == 2 and len(p) > 7:
        p[5] = p[4]
    return p


def computed_in_float16(z):
    return native(z.astype(np.float16)).astype(z.dtype)


def computed_in_float32(z):
    return native(z.astype(np.float32)).astype(z.dtype)


def sum_in_float16(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True, dtype=np.float16).astype(z.dtype)


def sum_in_float32(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True, dtype=np.float32).astype(z.dtype)


def exponentials_in_float32(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True)).astype(np.float32).astype(z.dtype)
    return e / e.sum(axis=-1, keepdims=True)


def logarithm_of_softmax(z):
    return np.log(native(z))


def logarithm_of_rounded_sum(z):
    shifted = z - z.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def temperature_on_probabilities(z, temperature=1.0):
    p = native(z) ** (1 / temperature)
    return p / p.sum(axis=-1, keepdims=True)


def temperature_on_float16(z, temperature=1.0):
    return softmaxes.correct_softmax(z.astype(np.float16).astype(z.dtype), temperature)


def temperature_ignored(z, temperature=1.0):
    return native(z)


def zeros(z):
    return np.zeros_like(z)


FLOAT16, WIDE = ["float16"], ["float32", "float64"]
FAULTS = [
    (maximum_not_subtracted, "overflow", None, "the maximum is not subtracted"),
    (maximum_not_subtracted_log, "overflow", None, "the maximum is not subtracted"),
    (maximum_of_all_axes, "batch", None, "the maximum of the whole array is subtracted"),
    (normalised_over_rows, "batch", None, "normalised over another axis"),
    (normalised_over_all_axes, "batch", None, "normalised over all axes"),
    (not_normalised, "translation", None, "probabilities are not normalised"),
    (last_of_odd_not_summed, "translation", None, "lost where K is not a multiple of 2 (K = 3)"),
    (last_of_odd_not_written, "translation", None, "lost where K is not a multiple of 4 (K = 5)"),
    (
        row_copied_in_batches_above_7,
        "batch",
        None,
        "depends on the batch size (first at 8 rows; row 5 gets the result of row 4)",
    ),
    (computed_in_float16, "translation", WIDE, "computed in float16"),
    (computed_in_float32, "translation", ["float64"], "computed in float32"),
    (sum_in_float16, "translation", WIDE, "the sum is accumulated in float16"),
    (sum_in_float32, "translation", ["float64"], "the sum is accumulated in float32"),
    (exponentials_in_float32, "translation", ["float64"], "exponentials are computed in float32"),
    (native, "ties", FLOAT16, "the sum is accumulated in float16"),
    (logarithm_of_softmax, "maximum", None, "logarithm of a rounded softmax"),
    (logarithm_of_rounded_sum, "maximum", None, "the logarithm of a sum that was rounded to 1"),
    (temperature_on_probabilities, "temperature", None, "applied after rounding: to probabilities"),
    (temperature_on_float16, "temperature", WIDE, "after rounding the logits to float16"),
    (temperature_ignored, "temperature", None, "the temperature has no effect"),
    (zeros, "overflow", None, "the result does not depend on the logits"),
]


@pytest.mark.parametrize(
    ("function", "law", "dtypes", "cause"), FAULTS, ids=[row[0].__name__ for row in FAULTS]
)
def test_the_cause_of_a_planted_fault(function, law, dtypes, cause):
    """The first line names it, for every dtype that was checked."""
    laws = [law, "accuracy"] if law == "ties" else [law]
    report = logitlab.check_softmax(function, laws=laws, dtypes=dtypes)
    assert [c.dtypes for c in report.causes] == [report.dtypes], report
    assert cause in report.causes[0].text
    first = str(report).splitlines()[0]
    assert first.endswith(f"likely cause: {report.causes[0].text}")
    assert report.to_dict()["causes"][0]["text"] == report.causes[0].text


def test_one_line_for_each_dtype():
    """The dtypes that pass, the laws that fail in the others; then the shortest counterexample."""
    report = logitlab.check_softmax(
        lambda z: native(z) * (1 if z.dtype != np.float16 else np.float16(1.05)),
        laws=["one class", "order"],
        name="f",
        dtypes=["float16", "float32", "float64"],
    )
    lines = str(report).splitlines()
    text = "f: float32 and float64 pass; fails in float16: one class"
    assert lines[0].startswith(text)
    assert "not normalised (in float16)" in lines[0]
    assert lines[1] == "shortest counterexample (one class):"
    assert lines[2].endswith("f(np.array([0.0], dtype=np.float16))")
    correct = logitlab.check_softmax(softmaxes.correct_softmax, laws=["order"])
    assert str(correct).splitlines()[0].endswith("float16, bfloat16, float32 and float64 pass")


def test_a_known_library():
    """SciPy computes float16 in float16: long rows overflow."""
    report = logitlab.check_softmax(
        scipy.special.softmax, dtypes=["float16", "float32"], laws=["sum"]
    )
    text = "fails in float16: sum; likely cause: the sum is accumulated in float16 (in float16)"
    assert report.diagnosis == f"float32 passes; {text}"


def test_results_that_depend_on_the_batch_fail():
    """Beyond rounding they are no convention; the numbers of the rows are written out."""
    report = logitlab.check_softmax(
        row_copied_in_batches_above_7, laws=["batch"], dtypes=["float32"]
    )
    assert report.failures == ["batch"]
    code = report["batch"].counterexample.code
    assert "random" not in code
    assert code.count("[") >= 8


def float16_only(z):
    if z.dtype != np.float16:
        raise TypeError("float16 only")
    return softmaxes.correct_softmax(z)


@pytest.mark.parametrize("dtypes", [None, ["float16"]])
def test_a_kernel_of_one_dtype(dtypes):
    """It is called with its own dtype only, where dtypes names it."""
    called = set()

    def kernel(z):
        called.add(z.dtype.name)
        return float16_only(z)

    report = logitlab.check_softmax(kernel, laws=["accuracy", "order"], dtypes=dtypes)
    assert report
    assert report.dtypes == ("float16",)
    assert dtypes is None or called == {"float16"}
