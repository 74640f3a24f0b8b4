"""Laws of the derivatives."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from logitlab._exact import multiprecision
from logitlab._exact.formats import FORMATS, Exact, spacing
from logitlab.laws import array_types
from logitlab.laws.cases import Case, explicit, normal, short_rows
from logitlab.laws.context import Context
from logitlab.laws.law import Law, Measured, failed, stated
from logitlab.laws.subject import quietly

mp = multiprecision.mp


def _automatic(kind: str) -> Any:
    """The Jacobian of a function of one array by a library's own differentiation."""
    if kind == "torch":
        import torch

        return torch.autograd.functional.jacobian
    if kind == "jax":
        import jax

        return lambda function, x: jax.jacrev(function)(x)
    if kind == "tensorflow":
        import tensorflow as tf

        def jacobian(function: Any, x: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(x)
            return tape.jacobian(y, x)

        return jacobian
    return None


def _no_derivative(context: Context) -> str:
    if context.differentiate or _automatic(context.subject.kind.name):
        return ""
    return "no derivative is given (differentiate=)"


def _no_symmetry(context: Context) -> str:
    log = "a logarithm's Jacobian is not symmetric" if context.subject.log else ""
    return _no_derivative(context) or log


def _jacobian(context: Context, case: Case) -> Any:
    """(K, K) as float64; or the error."""
    subject, k = context.subject, case.classes
    try:
        if context.differentiate:
            row = subject.make(np.array(case.z[0]), case.dtype)
            found = quietly(lambda: context.differentiate(row))
        else:
            x = subject.make(np.array(subject.arrange(case.z), order="C"), case.dtype)
            found = _automatic(subject.kind.name)(subject.apply, x)
        return array_types.to_values(found)[0].reshape(k, k)
    except Exception as error:  # a stranger's function
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _true(context: Context, case: Case) -> tuple[Any, Any]:
    """The exact Jacobian as hi and lo."""
    row = case.z[0].tolist()
    s = multiprecision.softmax(row)
    places = range(len(row))
    if context.subject.log:
        rows = [[mp.mpf(i == j) - s[j] for j in places] for i in places]
    else:
        rows = [[s[i] * ((1 if i == j else 0) - s[j]) for j in places] for i in places]
    parts = [multiprecision.exact(r) for r in rows]
    exact = Exact(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    with np.errstate(under="ignore"):
        return np.ldexp(exact.hi, exact.exponent), np.ldexp(exact.lo, exact.exponent)


def _report(off: Any, scale: Any, came: Any, wanted: Any, dtype: str, **made_of: Any) -> Measured:
    """The worst of several distances beside a scale."""
    with np.errstate(all="ignore"):
        off = np.where(np.isnan(off), np.inf, off)
        ulps = np.where(off == 0, 0.0, off / spacing(scale, dtype))
        relative = np.where(off == 0, 0.0, off / scale)
    at = np.unravel_index(ulps.argmax(), ulps.shape)
    return Measured(
        ulps[at].reshape(1),
        np.broadcast_to(relative, ulps.shape)[at].reshape(1),
        came[None],
        wanted[None],
        **made_of,
    )


def _scale(context: Context, case: Case) -> Any:
    """σ_i: the size of a row of the Jacobian before the cancellation in σ_i (1 - σ_i)."""
    if context.subject.log:
        return np.ones(case.classes)
    return np.array([float(x) for x in multiprecision.softmax(case.z[0].tolist())])


def equal(context: Context, case: Case) -> Measured:
    """Entry by entry against the exact one, in ULP of σ_i."""
    found = _jacobian(context, case)
    if isinstance(found, str):
        return failed(found)
    hi, lo = _true(context, case)
    off = np.abs((found - hi) - lo)
    scale = np.broadcast_to(_scale(context, case)[:, None], off.shape)
    return _report(off, scale, found, hi, case.dtype)


def rows(context: Context, case: Case) -> Measured:
    """The sum of each row."""
    found = _jacobian(context, case)
    if isinstance(found, str):
        return failed(found)
    total = found.sum(axis=-1)
    sums = {"of": found[None], "made": tuple(f"the sum of row {i}" for i in range(case.classes))}
    scale = _scale(context, case)
    return _report(np.abs(total), scale, total, np.zeros_like(total), case.dtype, **sums)


def symmetry(context: Context, case: Case) -> Measured:
    """Each entry against its mirror image."""
    found = _jacobian(context, case)
    if isinstance(found, str):
        return failed(found)
    scale = np.full(found.shape, _scale(context, case).max())
    return _report(np.abs(found - found.T), scale, found, found.T, case.dtype)


def semidefinite(context: Context, case: Case) -> Measured:
    """The least eigenvalue, where it is negative."""
    found = _jacobian(context, case)
    if isinstance(found, str):
        return failed(found)
    if not np.isfinite(found).all():
        return failed("entries that are not finite")
    least = np.linalg.eigvalsh((found + found.T) / 2).min(keepdims=True)
    scale = _scale(context, case).max(keepdims=True)
    value = {"of": found[None], "made": ("the least eigenvalue",)}
    wanted = np.maximum(least, 0.0)
    return _report(np.maximum(-least, 0.0), scale, least, wanted, case.dtype, **value)


def gradient(context: Context, case: Case) -> Measured:
    """Whether every entry is finite."""
    found = _jacobian(context, case)
    if isinstance(found, str):
        return failed(found)
    if np.isfinite(found).all():
        return stated(False, "", "")
    return stated(True, str(found.tolist()), "finite entries")


def _ordinary(context: Context, dtype: str) -> Iterator[Case]:
    for k, spread in ((2, 0.1), (2, 1.0), (3, 1.0), (5, 1.0), (5, 3.0), (9, 1.0)):
        for seed in range(3):
            yield normal(1, k, spread, context.seed + seed, dtype)
    yield explicit([[0.0, 0.0, 0.0]], dtype)


def _saturated(context: Context, dtype: str) -> Iterator[Case]:
    top = FORMATS[dtype].largest / 4
    for row in ([0, 1000], [-50, 0, 50], [-1e4, 0, 0], [top, 0, -top], [-np.inf, 0, 1]):
        yield explicit([row], dtype)


def _near(case: Case) -> Any:
    return short_rows(case.dtype, case.z).map(lambda row: explicit([row[:3]], case.dtype))


_TEXTS = {
    "torch": ("torch.autograd.functional.jacobian({}, {})", "torch"),
    "jax": ("jax.jacrev({})({})", "jax"),
}


def _line(context: Context, case: Case, row: int) -> str:
    subject = context.subject
    if context.differentiate:
        return subject.line_of(context.differentiate, "differentiate", case, "")
    kind = subject.kind.name
    if kind in _TEXTS:
        return subject.derivative_line(case, *_TEXTS[kind])
    return f"{subject.line(case)}  # differentiated by {kind}"


def _law(name: str, statement: str, reason: str, measure: Any, cases: Any = _ordinary) -> Law:
    probabilities = measure in (symmetry, semidefinite)
    return Law(
        name,
        statement,
        "∂σ_i/∂z_j = σ_i(δ_ij - σ_j); J. S. Bridle, 1990",
        reason,
        cases,
        measure,
        near=_near,
        absent=_no_symmetry if probabilities else _no_derivative,
        line=_line,
    )


LAWS = (
    _law(
        "jacobian",
        "|J_ij - exact| ≤ n ulp(σ_i) (logarithms: of 1)",
        "Training follows it.",
        equal,
    ),
    _law(
        "jacobian rows",
        "|Σ_j J_ij| ≤ n ulp(σ_i) (logarithms: of 1)",
        "A constant added to the logits changes nothing.",
        rows,
    ),
    _law(
        "jacobian symmetry",
        "|J_ij - J_ji| ≤ n ulp(max σ)",
        "It is the Hessian of log-sum-exp.",
        symmetry,
    ),
    _law(
        "jacobian semidefinite",
        "its least eigenvalue is at least -n ulp(max σ)",
        "log-sum-exp is convex.",
        semidefinite,
    ),
    _law(
        "gradient",
        "finite where the softmax saturates and where a class is excluded",
        "One NaN ends the training.",
        gradient,
        _saturated,
    ),
)
