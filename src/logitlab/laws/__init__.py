"""The laws of softmax as a conformance suite for anyone's implementation."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from logitlab import _checks
from logitlab.laws.array_types import program
from logitlab.laws.law import Counterexample, Law, Verdict
from logitlab.laws.report import LawReport

__all__ = ["Counterexample", "Law", "LawReport", "Verdict", "as_tests", "check_softmax", "program"]


def check_softmax(
    function: Any,
    *,
    axis: int = -1,
    dtypes: Sequence[str] | None = None,
    laws: Sequence[str] | None = None,
    differentiate: Any = None,
    sampler: Any = None,
    seed: int = 0,
    effort: str = "quick",
    strict: bool = False,
    kind: str | None = None,
    name: str | None = None,
) -> LawReport:
    """How far a softmax keeps the laws of softmax.

    Every law is stated for floating point, judged against exact arithmetic (mpmath; double-double
    beyond 1000 classes) and given a level: ``exact``, ``within`` n ULP (up to 16), ``weak`` (beyond
    16 ULP but within 1e-3 relative) or ``broken``; a convention that is not kept ``differs``; what
    the function does not claim is ``not applicable``. Errors are measured in ULP of the result's
    type, or of the logits' where that has fewer digits.

    Parameters
    ----------
    function : callable, onnxruntime session, or list of str
        Takes logits, gives probabilities or their logarithms (which, is found out). A list is the
        command of a program that reads an .npy file on standard input and writes one on standard
        output. Parameters named ``axis`` or ``dim`` are given the axis; one named
        ``temperature`` or ``T`` is tried out.
    axis : int
        The class axis.
    dtypes : sequence of str, optional
        Of float16, bfloat16, float32 and float64; by default those that the function takes.
    laws : sequence of str, optional
        The names of the laws to look at; by default all.
    differentiate : callable, optional
        Takes a row of shape (K,), gives the Jacobian of `function` there, of shape (K, K). For
        torch and JAX it is found by automatic differentiation.
    sampler : callable, optional
        ``sampler(z, n, rng=seed)`` draws n categories from a row of logits.
    seed : int
        Of the random rows.
    effort : str
        ``"quick"`` or ``"full"``: more rows, up to a million classes, longer searches.
    strict : bool
        Whether a convention that differs makes the report false.
    kind : str, optional
        The arrays to call it with: numpy, torch, jax, tensorflow, cupy, or torch:DEVICE. By default
        NumPy's, or those of the first library in use that it works on.
    name : str, optional
        How the function is called in the counterexamples.

    Returns
    -------
    LawReport
        True where no law of mathematics is broken, so ``assert check_softmax(function)`` is a
        test.

    Raises
    ------
    TypeError
        `function` is no callable, or gives no array for a small array of logits; `seed` or `axis`
        is no int; `dtypes` or `laws` is no list.
    ValueError
        An unknown law, type, kind or effort.

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
    >>> "nan" in report["overflow"].counterexample.came
    True
    """
    from logitlab.laws.evaluation import evaluate

    context = _prepare(function, axis, dtypes, differentiate, sampler, seed, effort, kind, name)
    subject = context.subject
    return LawReport(
        function=subject.name,
        kind=subject.kind.name,
        computes="log_softmax" if subject.log else "softmax",
        dtypes=subject.dtypes,
        verdicts=tuple(evaluate(context, law) for law in _named(laws)),
        strict=strict,
    )


def as_tests(
    function: Any, *, laws: Sequence[str] | None = None, strict: bool = False, **options: Any
) -> Callable[[str], None]:
    """A test for pytest, one case for each law.

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
        To be named ``test_...`` in a test module. A law that is not applicable is skipped.

    Examples
    --------
    In a file ``test_softmax.py``:

    >>> import logitlab
    >>> from logitlab.laws import as_tests
    >>> test_softmax = as_tests(logitlab.softmax, laws=["order", "ties"])
    """
    import pytest

    given: dict[str, Any] = {
        "axis": -1,
        "dtypes": None,
        "differentiate": None,
        "sampler": None,
        "seed": 0,
        "effort": "quick",
        "kind": None,
        "name": None,
        **options,
    }
    from logitlab.laws.evaluation import evaluate

    context = functools.cache(lambda: _prepare(function, **given))
    chosen = {law.name: law for law in _named(laws)}

    @pytest.mark.parametrize("law", chosen)
    def test(law: str) -> None:
        verdict = evaluate(context(), chosen[law])
        if verdict.level == "not applicable":
            pytest.skip(verdict.note)
        if verdict.level == "broken" or (strict and verdict.level == "differs"):
            c = verdict.counterexample
            shown = "" if c is None else f"\n{c.line}\n  gives {c.came}\n  exact {c.exact}"
            pytest.fail(f"{law}: {verdict}\n{verdict.law.statement}{shown}", pytrace=False)

    return test


def _names(given: Sequence[str] | None, name: str, example: str) -> Sequence[str]:
    """A list of names, none of None."""
    if given is None:
        return ()
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"{name} is {given!r}; accepted: a list of names, as [{example!r}]")
    return given


def _named(laws: Sequence[str] | None) -> list[Law]:
    from logitlab.laws.catalogue import LAWS

    unknown = [name for name in _names(laws, "laws", "order") if name not in LAWS]
    if unknown:
        raise ValueError(f"laws holds {unknown[0]!r}; accepted: {', '.join(LAWS)}")
    return [law for law in LAWS.values() if laws is None or law.name in laws]


def _prepare(
    function: Any,
    axis: int,
    dtypes: Sequence[str] | None,
    differentiate: Any,
    sampler: Any,
    seed: int,
    effort: str,
    kind: str | None,
    name: str | None,
) -> Any:
    from logitlab._exact.formats import FORMATS
    from logitlab.laws.context import Context
    from logitlab.laws.subject import Subject

    if effort not in ("quick", "full"):
        raise ValueError(f"effort is {effort!r}; accepted: 'quick' and 'full'")
    seed, axis = _checks.integer(seed, "seed", 0), _checks.integer(axis, "axis")
    unknown = [dtype for dtype in _names(dtypes, "dtypes", "float32") if dtype not in FORMATS]
    if unknown:
        raise ValueError(f"dtypes holds {unknown[0]!r}; accepted: {', '.join(FORMATS)}")
    subject = Subject(function, axis=axis, kind=kind, name=name)
    if dtypes is not None:
        missing = [dtype for dtype in dtypes if dtype not in subject.dtypes]
        if missing:
            taken = ", ".join(subject.dtypes)
            raise TypeError(f"dtypes holds {missing[0]!r}; the function takes {taken}")
        subject.dtypes = tuple(dtypes)
    return Context(subject, seed=seed, effort=effort, differentiate=differentiate, sampler=sampler)
