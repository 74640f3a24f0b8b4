"""Each known defect fails its law; correct functions pass every law."""

import re

import numpy as np
import pytest

import logitlab
import softmaxes
from logitlab.laws.catalogue import LAWS

pytestmark = pytest.mark.slow

NOT_PASSED = ("inaccurate", "fails", "differs")


def parse_numbers(text):
    """The numbers of a printed value; an Ellipsis where some are left out."""
    return eval(text, {"nan": np.nan, "inf": np.inf})


def assert_reproducible(counterexample, law):
    """The code returns the printed result, or raises the printed error."""
    setup, _, call = counterexample.code.partition("; ")
    scope = {}
    exec(setup, scope)
    text = counterexample.result
    if "Error: " in text:
        with pytest.raises(Exception, match=re.escape(text.partition(": ")[2])):
            eval(call, scope)
        return
    with np.errstate(all="ignore"):
        value = eval(call, scope)
    if text.startswith("an array of "):
        assert text == f"an array of {value.dtype}"
    elif law in softmaxes.BAD_SAMPLERS.values():
        assert len(value) == (3 if law == "reproducibility" else 40_000)
    elif law != "determinism":
        if text.startswith("first result: "):
            text, value = text.removeprefix("first result: "), value[0]
        if match := re.match(r"rows? (\d+)(?: and \d+)?: ", text):
            text, row = text[match.end() :], int(match[1])
            value = value[row : row + 2] if " and " in match[0] else value[row]
        if match := re.match(r"entry ([\d, ]+): ", text):
            text, value = text[match.end() :], value[tuple(map(int, match[1].split(", ")))]
        text, _, quantity = text.partition("; ")
        numbers, entries = parse_numbers(text), np.ravel(value)
        first_half, every_other = entries[: (entries.size + 1) // 2], entries[::2]
        sums = {
            "sum": entries,
            "sum over the first half": first_half,
            "sum over every other class": every_other,
        }
        name, _, number = quantity.partition(" = ")
        if name in sums:
            assert float(number) == pytest.approx(np.sum(sums[name], dtype=float), rel=1e-6)
        if isinstance(numbers, list) and ... in numbers:
            numbers, entries = numbers[:3] + numbers[4:], entries[[0, 1, 2, -1]]
        np.testing.assert_allclose(np.ravel(numbers).astype(float), entries, rtol=1e-6)


def assert_detected(law, function=softmaxes.correct_softmax, **options):
    report = logitlab.check_softmax(function, laws=[law], dtypes=["float32"], **options)
    result = report[law]
    assert result.level in NOT_PASSED, report
    counterexample = result.counterexample
    assert counterexample is not None
    assert counterexample.code.startswith("import numpy as np")
    assert counterexample.result != counterexample.expected
    assert_reproducible(counterexample, law)


@pytest.mark.parametrize(
    ("function", "law"), [pytest.param(*x, id=x[0].__name__) for x in softmaxes.DEFECTS.items()]
)
def test_defects_of_a_function(function, law):
    """The law of the defect reports it."""
    assert_detected(law, function)


@pytest.mark.parametrize(
    ("jacobian", "law"),
    [pytest.param(*x, id=x[0].__name__) for x in softmaxes.BAD_JACOBIANS.items()],
)
def test_defects_of_a_jacobian(jacobian, law):
    """The law of the defect reports it."""
    assert_detected(law, jacobian=jacobian)


@pytest.mark.parametrize(
    ("sampler", "law"),
    [pytest.param(*x, id=x[0].__name__) for x in softmaxes.BAD_SAMPLERS.items()],
)
def test_defects_of_a_sampler(sampler, law):
    """The law of the defect reports it."""
    assert_detected(law, sampler=sampler)


def test_every_law_has_a_defect():
    """Every law but "threads" has a function that fails it."""
    tested = {*softmaxes.DEFECTS.values(), *softmaxes.BAD_JACOBIANS.values()}
    assert set(LAWS) - tested - set(softmaxes.BAD_SAMPLERS.values()) == {"threads"}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_correct_functions_pass(seed):
    """Every law and convention, in every dtype."""
    report = logitlab.check_softmax(
        softmaxes.correct_softmax,
        seed=seed,
        strict=True,
        dtypes=None if seed == 0 else ["float32"],
        jacobian=softmaxes.correct_jacobian,
        sampler=softmaxes.correct_sampler,
    )
    assert report, report
    assert all(result.level != "inaccurate" for result in report), report
    assert report["accuracy"].worst_ulp <= 0.501
    report = logitlab.check_softmax(
        softmaxes.correct_log_softmax, seed=seed, strict=True, dtypes=["float32"]
    )
    assert report, report
    assert all(result.level != "inaccurate" for result in report), report


def test_the_counterexample_is_small_and_reproducible():
    """The code returns the printed result, of at most two entries."""
    report = logitlab.check_softmax(
        softmaxes.no_shift, laws=["overflow"], dtypes=["float32"], name="softmaxes.no_shift"
    )
    counterexample = report["overflow"].counterexample
    setup, _, call = counterexample.code.partition("; ")
    scope = {}
    exec(setup, scope)
    with np.errstate(all="ignore"):
        value = eval(call, scope)
    assert value.size <= 2
    assert counterexample.result == str(value.tolist()).replace("[nan]", "nan")
