"""Planted defects are found by the law that names them; sound functions are not accused."""

import re

import numpy as np
import pytest

import logitlab
import softmaxes
from logitlab.laws.catalogue import LAWS

BAD = ("weak", "broken", "differs")


def said(text):
    """The numbers of a printed value; an Ellipsis where some are left out."""
    return eval(text, {"nan": np.nan, "inf": np.inf})


def assert_repeats(found, law):
    """The pasted line gives what is printed, or raises it."""
    setup, _, call = found.line.partition("; ")
    scope = {}
    exec(setup, scope)
    if "Error: " in found.came:
        with pytest.raises(Exception, match=re.escape(found.came.partition(": ")[2])):
            eval(call, scope)
        return
    with np.errstate(all="ignore"):
        value = eval(call, scope)
    came = found.came
    if came.startswith("an array of "):
        assert came == f"an array of {value.dtype}"
    elif law in softmaxes.BAD_SAMPLERS.values():
        assert len(value) == (3 if law == "reproducibility" else 40_000)
    elif law != "determinism":
        if came.startswith("the first: "):
            came, value = came.removeprefix("the first: "), value[0]
        if place := re.match(r"rows? (\d+)(?: and \d+)?: ", came):
            came, row = came[place.end() :], int(place[1])
            value = value[row : row + 2] if " and " in place[0] else value[row]
        if place := re.match(r"entry ([\d, ]+): ", came):
            came, value = came[place.end() :], value[tuple(map(int, place[1].split(", ")))]
        came, _, made = came.partition("; ")
        numbers, given = said(came), np.ravel(value)
        whole, *parts = given, given[: (given.size + 1) // 2], given[::2]
        if isinstance(numbers, list) and ... in numbers:
            numbers, given = numbers[:3] + numbers[4:], given[[0, 1, 2, -1]]
        np.testing.assert_allclose(np.ravel(numbers).astype(float), given, rtol=1e-6)
        names = "the sum over the first half", "the sum over every other class"
        some = {"the sum": whole, **dict(zip(names, parts, strict=True))}
        name, _, number = made.rpartition(" ")
        if name in some:
            assert float(number) == pytest.approx(np.sum(some[name], dtype=float), rel=1e-6)


def assert_caught(law, function=softmaxes.sound, **options):
    report = logitlab.check_softmax(function, laws=[law], dtypes=["float32"], **options)
    verdict = report[law]
    assert verdict.level in BAD, report
    found = verdict.counterexample
    assert found is not None
    assert found.line.startswith("import numpy as np")
    assert found.came != found.exact
    assert_repeats(found, law)


@pytest.mark.parametrize(
    ("function", "law"), [pytest.param(*x, id=x[0].__name__) for x in softmaxes.DEFECTS.items()]
)
def test_defects(function, law):
    """Of the function itself."""
    assert_caught(law, function)


@pytest.mark.parametrize(
    ("jacobian", "law"),
    [pytest.param(*x, id=x[0].__name__) for x in softmaxes.BAD_JACOBIANS.items()],
)
def test_defects_of_a_jacobian(jacobian, law):
    """Of its derivative."""
    assert_caught(law, differentiate=jacobian)


@pytest.mark.parametrize(
    ("sampler", "law"),
    [pytest.param(*x, id=x[0].__name__) for x in softmaxes.BAD_SAMPLERS.items()],
)
def test_defects_of_a_sampler(sampler, law):
    """Of its draws."""
    assert_caught(law, sampler=sampler)


def test_every_law_has_its_defect():
    """A law that no planted defect breaks would be no law."""
    named = {*softmaxes.DEFECTS.values(), *softmaxes.BAD_JACOBIANS.values()}
    assert set(LAWS) - named - set(softmaxes.BAD_SAMPLERS.values()) == {"threads"}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sound_functions_are_not_accused(seed):
    """Of no law, of no convention, in no type."""
    report = logitlab.check_softmax(
        softmaxes.sound,
        seed=seed,
        strict=True,
        dtypes=None if seed == 0 else ["float32"],
        differentiate=softmaxes.sound_jacobian,
        sampler=softmaxes.sound_sampler,
    )
    assert report, report
    assert all(v.level != "weak" for v in report), report
    assert report["accuracy"].ulps <= 0.501
    report = logitlab.check_softmax(softmaxes.sound_log, seed=seed, strict=True, dtypes=["float32"])
    assert report, report
    assert all(v.level != "weak" for v in report), report


def test_the_shrunk_counterexample_is_small_and_repeats():
    """The pasted line gives what it says."""
    report = logitlab.check_softmax(
        softmaxes.no_shift, laws=["overflow"], dtypes=["float32"], name="softmaxes.no_shift"
    )
    found = report["overflow"].counterexample
    setup, _, call = found.line.partition("; ")
    scope = {}
    exec(setup, scope)
    with np.errstate(all="ignore"):
        value = eval(call, scope)
    assert value.size <= 2
    assert found.came == str(value.tolist()).replace("[nan]", "nan")
