"""A conformance suite: laws to check any softmax, sampler or speculative verifier against."""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from logitlab import _checks
from logitlab._exact.formats import FORMATS
from logitlab.laws.array_libraries import program
from logitlab.laws.law import Counterexample, Law, LawResult
from logitlab.laws.report import LawReport
from logitlab.laws.samplers import check_sampler

if TYPE_CHECKING:  # these modules need Hypothesis and mpmath
    from logitlab.laws.context import Context

__all__ = [
    "Counterexample",
    "Law",
    "LawReport",
    "LawResult",
    "as_tests",
    "check_sampler",
    "check_softmax",
    "program",
]


def check_softmax(
    function: Any,
    *,
    axis: int = -1,
    dtypes: Sequence[str] | None = None,
    laws: Sequence[str] | None = None,
    jacobian: Callable[..., Any] | None = None,
    sampler: Callable[..., Any] | None = None,
    seed: int = 0,
    effort: str = "quick",
    strict: bool = False,
    array_library: str | None = None,
    name: str | None = None,
) -> LawReport:
    """Conformance of a function to the laws of softmax.

    Each law is stated for floating-point arithmetic and checked against exact arithmetic (mpmath;
    double-double beyond 1000 classes). Its result has a level: ``exact``; ``within`` n ULP, n up to
    16; ``inaccurate``, beyond 16 ULP but within a relative error of 1e-3; or ``fails``. A
    convention that is not followed ``differs``; a law of something that the function does not
    offer is ``not applicable``. Errors are in ULP of the dtype of the result, or of that of the
    logits where it is coarser.

    Parameters
    ----------
    function : callable, onnxruntime session, or list of str
        Returns the probabilities of logits, or their logarithms (detected automatically). A list
        is the command of a program that reads an .npy file on standard input and writes one on
        standard output. A parameter named ``axis`` or ``dim`` gets the axis; one named
        ``temperature`` or ``T`` is checked too.
    axis : int
        The class axis.
    dtypes : sequence of str, optional
        Of float16, bfloat16, float32 and float64; by default those that the function takes.
    laws : sequence of str, optional
        The names of the laws to check; by default all.
    jacobian : callable, optional
        Returns the Jacobian of `function`, of shape (K, K), at a row of shape (K,). By default
        that of automatic differentiation in torch, JAX and TensorFlow.
    sampler : callable, optional
        ``sampler(z, n, rng=seed)`` samples n categories from a row of logits.
    seed : int
        The seed of the random rows.
    effort : str
        ``"quick"`` or ``"full"``: more rows, up to a million classes, longer searches for a
        small counterexample.
    strict : bool
        Whether a convention that differs is a failure.
    array_library : str, optional
        The library of the arrays to call the function with: numpy, torch, jax, tensorflow, cupy,
        or torch:DEVICE. By default NumPy, or the first imported library that the function takes.
    name : str, optional
        The name of the function in the code of the counterexamples.

    Returns
    -------
    LawReport
        True where no law of mathematics fails, so ``assert check_softmax(function)`` is a test.

    Raises
    ------
    TypeError
        `function` is not callable, or returns no array for a small array of logits; `seed` or
        `axis` is not an int; `dtypes` or `laws` is not a list.
    ValueError
        An unknown law, dtype, array library or effort.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> def softmax(z):
    ...     e = np.exp(z)
    ...     return e / e.sum(axis=-1, keepdims=True)
    >>> report = logitlab.check_softmax(softmax, dtypes=["float32"], laws=["-inf", "overflow"])
    >>> report.failures
    ['overflow']
    >>> "nan" in report["overflow"].counterexample.result
    True
    """
    from logitlab.laws.diagnosis import diagnose
    from logitlab.laws.evaluation import evaluate

    selected = _select_laws(laws)
    context = _make_context(
        function,
        axis=axis,
        dtypes=dtypes,
        jacobian=jacobian,
        sampler=sampler,
        seed=seed,
        effort=effort,
        array_library=array_library,
        name=name,
    )
    tested = context.function
    results = tuple(evaluate(context, law) for law in selected)
    return LawReport(
        function=tested.name,
        array_library=tested.library.name,
        computes="log_softmax" if tested.log else "softmax",
        dtypes=tested.dtypes,
        results=results,
        strict=strict,
        causes=diagnose(tested, results),
    )


def as_tests(
    function: Any, *, laws: Sequence[str] | None = None, strict: bool = False, **options: Any
) -> Callable[[str], None]:
    """A parametrized pytest function with one case for each law.

    Parameters
    ----------
    function : callable, onnxruntime session, or list of str
        As in :func:`check_softmax`.
    laws : sequence of str, optional
        The laws to test; by default all.
    strict : bool
        Whether a convention that differs fails its test.
    **options
        The other arguments of :func:`check_softmax`.

    Returns
    -------
    callable
        To be assigned to a name ``test_...`` in a test module. A law that is not applicable is
        skipped.

    Examples
    --------
    In a file ``test_softmax.py``:

    >>> import logitlab
    >>> from logitlab.laws import as_tests
    >>> test_softmax = as_tests(logitlab.softmax, laws=["order", "ties"])
    """
    import pytest

    from logitlab.laws.evaluation import evaluate

    context = functools.cache(lambda: _make_context(function, **options))
    selected = {law.name: law for law in _select_laws(laws)}

    @pytest.mark.parametrize("law", selected)
    def test(law: str) -> None:
        result = evaluate(context(), selected[law])
        if result.level == "not applicable":
            pytest.skip(result.note)
        if result.level == "fails" or (strict and result.level == "differs"):
            c = result.counterexample
            lines = [f"{law}: {result}", result.law.statement]
            if c is not None:
                lines += [c.code, f"  result    {c.result}", f"  expected  {c.expected}"]
            pytest.fail("\n".join(lines), pytrace=False)

    return test


def _select_laws(names: Sequence[str] | None) -> list[Law]:
    from logitlab.laws.catalogue import LAWS

    _checks.names(names, "laws", LAWS)
    return [law for law in LAWS.values() if names is None or law.name in names]


def _make_context(
    function: Any,
    *,
    axis: int = -1,
    dtypes: Sequence[str] | None = None,
    jacobian: Callable[..., Any] | None = None,
    sampler: Callable[..., Any] | None = None,
    seed: int = 0,
    effort: str = "quick",
    array_library: str | None = None,
    name: str | None = None,
) -> "Context":
    from logitlab.laws.context import Context
    from logitlab.laws.tested_function import TestedFunction

    _checks.choice(effort, "effort", ("quick", "full"))
    seed, axis = _checks.integer(seed, "seed", 0), _checks.integer(axis, "axis")
    _checks.names(dtypes, "dtypes", FORMATS)
    tested = TestedFunction(
        function, axis=axis, array_library=array_library, name=name, dtypes=dtypes
    )
    if dtypes is not None:
        for dtype in dtypes:
            if dtype not in tested.dtypes:
                raise TypeError(
                    f"dtypes must be some of those that the function takes, "
                    f"{', '.join(tested.dtypes)}, got {dtype!r}"
                )
        tested.dtypes = tuple(dtypes)
    return Context(tested, seed=seed, full=effort == "full", jacobian=jacobian, sampler=sampler)
