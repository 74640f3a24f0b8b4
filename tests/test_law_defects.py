"""Planted defects are found by the law that names them; sound functions are not accused."""

import numpy as np
import pytest

import logitlab
import softmaxes
from logitlab.laws.catalogue import LAWS

BAD = ("weak", "broken", "differs")


def assert_caught(law, function=softmaxes.sound, **options):
    report = logitlab.check(function, laws=[law], dtypes=["float32"], **options)
    verdict = report[law]
    assert verdict.level in BAD, report
    found = verdict.counterexample
    assert found is not None
    assert found.line.startswith("import numpy as np")
    assert found.came != found.exact


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
    report = logitlab.check(
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
    report = logitlab.check(softmaxes.sound_log, seed=seed, strict=True, dtypes=["float32"])
    assert report, report
    assert all(v.level != "weak" for v in report), report


def test_the_shrunk_counterexample_is_small_and_repeats():
    """The pasted line gives what it says."""
    report = logitlab.check(
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
