"""Laws of the Jacobian."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from logitlab._exact import multiprecision
from logitlab._exact.formats import FORMATS, Exact, Floats, spacing
from logitlab.laws import array_libraries
from logitlab.laws.cases import Case, Strategies, explicit_case, normal_case, short_rows
from logitlab.laws.context import Context
from logitlab.laws.law import Deviation, Law, from_condition, from_error
from logitlab.laws.tested_function import call_quietly, error_text

mp = multiprecision.mp


def _automatic_jacobian(library: str) -> Any:
    """The function of a library that differentiates another at an array; None if it has none."""
    if library == "torch":
        import torch

        return torch.autograd.functional.jacobian
    if library == "jax":
        import jax

        return lambda function, x: jax.jacrev(function)(x)
    if library == "tensorflow":
        import tensorflow as tf

        def jacobian(function: Any, x: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(x)
            return tape.jacobian(y, x)

        return jacobian
    return None


def _no_jacobian(context: Context) -> str:
    if context.jacobian or _automatic_jacobian(context.function.library.name):
        return ""
    return "no Jacobian is available; pass jacobian="


def _not_symmetric(context: Context) -> str:
    log = "the Jacobian of log_softmax is not symmetric" if context.function.log else ""
    return _no_jacobian(context) or log


def _jacobian(context: Context, case: Case) -> Floats | str:
    """The Jacobian (K, K) at the row of a case; or the text of the error."""
    function, k = context.function, case.n_classes
    try:
        if context.jacobian is not None:
            jacobian, row = context.jacobian, function.make_array(np.array(case.z[0]), case.dtype)
            result = call_quietly(lambda: jacobian(row))
        else:
            automatic = _automatic_jacobian(function.library.name)
            x = function.make_array(np.array(function.to_axis(case.z), order="C"), case.dtype)
            result = automatic(function.apply, x)
        return array_libraries.to_float64(result)[0].reshape(k, k)
    except Exception as error:  # the function may raise any class
        return error_text(error)


def _exact_jacobian(context: Context, case: Case) -> tuple[Floats, Floats]:
    """The exact Jacobian as hi and lo."""
    row = case.z[0].tolist()
    s = multiprecision.softmax(row)
    indices = range(len(row))
    if context.function.log:
        rows = [[mp.mpf(i == j) - s[j] for j in indices] for i in indices]
    else:
        rows = [[s[i] * ((1 if i == j else 0) - s[j]) for j in indices] for i in indices]
    parts = [multiprecision.to_exact(r) for r in rows]
    exact = Exact(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    with np.errstate(under="ignore"):
        return np.ldexp(exact.hi, exact.exponent), np.ldexp(exact.lo, exact.exponent)


def _worst_deviation(
    off: Any, scale: Any, result: Floats, expected: Floats, dtype: str, **fields: Any
) -> Deviation:
    """The largest of several absolute errors, in ULP of a scale."""
    with np.errstate(all="ignore"):
        off = np.where(np.isnan(off), np.inf, off)
        ulps = np.where(off == 0, 0.0, off / spacing(scale, dtype))
        relative = np.where(off == 0, 0.0, off / scale)
    at = np.unravel_index(ulps.argmax(), ulps.shape)
    return Deviation(
        ulps[at].reshape(1),
        np.broadcast_to(relative, ulps.shape)[at].reshape(1),
        result[None],
        expected[None],
        **fields,
    )


def _scale(context: Context, case: Case) -> Floats:
    """σ_i: the size of a row of the Jacobian before the cancellation in σ_i (1 - σ_i)."""
    if context.function.log:
        return np.ones(case.n_classes)
    return np.array([float(x) for x in multiprecision.softmax(case.z[0].tolist())])


Measure = Callable[[Context, Case], Deviation]


def _on_jacobian(deviation: Callable[[Context, Case, Floats], Deviation]) -> Measure:
    """The deviation of a law from a function of the Jacobian."""

    def measure(context: Context, case: Case) -> Deviation:
        jacobian = _jacobian(context, case)
        if isinstance(jacobian, str):
            return from_error(jacobian)
        return deviation(context, case, jacobian)

    return measure


def _entries(context: Context, case: Case, jacobian: Floats) -> Deviation:
    """The error of every entry, in ULP of σ_i."""
    hi, lo = _exact_jacobian(context, case)
    off = np.abs((jacobian - hi) - lo)
    scale = np.broadcast_to(_scale(context, case)[:, None], off.shape)
    return _worst_deviation(off, scale, jacobian, hi, case.dtype)


def _row_sums(context: Context, case: Case, jacobian: Floats) -> Deviation:
    """The distance of the sum of each row from 0."""
    sums, scale = jacobian.sum(axis=-1), _scale(context, case)
    names = tuple(f"sum of row {i}" for i in range(case.n_classes))
    return _worst_deviation(
        np.abs(sums),
        scale,
        sums,
        np.zeros_like(sums),
        case.dtype,
        values=jacobian[None],
        quantities=names,
    )


def _symmetry(context: Context, case: Case, jacobian: Floats) -> Deviation:
    """The distance of each entry from its transpose."""
    scale = np.full(jacobian.shape, _scale(context, case).max())
    off = np.abs(jacobian - jacobian.T)
    return _worst_deviation(off, scale, jacobian, jacobian.T, case.dtype)


def _semidefinite(context: Context, case: Case, jacobian: Floats) -> Deviation:
    """By how much the smallest eigenvalue is negative."""
    if not np.isfinite(jacobian).all():
        return from_error("entries that are not finite")
    smallest = np.linalg.eigvalsh((jacobian + jacobian.T) / 2).min(keepdims=True)
    return _worst_deviation(
        np.maximum(-smallest, 0.0),
        _scale(context, case).max(keepdims=True),
        smallest,
        np.maximum(smallest, 0.0),
        case.dtype,
        values=jacobian[None],
        quantities=("smallest eigenvalue",),
    )


def _finite(context: Context, case: Case, jacobian: Floats) -> Deviation:
    """Whether every entry is finite."""
    if np.isfinite(jacobian).all():
        return from_condition(False, "", "")
    return from_condition(True, str(jacobian.tolist()), "finite entries")


def _ordinary_rows(context: Context, dtype: str) -> Iterator[Case]:
    for k, sd in ((2, 0.1), (2, 1.0), (3, 1.0), (5, 1.0), (5, 3.0), (9, 1.0)):
        for seed in range(3):
            yield normal_case(1, k, sd, context.seed + seed, dtype)
    yield explicit_case([[0.0, 0.0, 0.0]], dtype)


def _saturated_rows(context: Context, dtype: str) -> Iterator[Case]:
    top = FORMATS[dtype].max / 4
    for row in ([0, 1000], [-50, 0, 50], [-1e4, 0, 0], [top, 0, -top], [-np.inf, 0, 1]):
        yield explicit_case([row], dtype)


def _shorter_rows(case: Case) -> Strategies:
    rows = short_rows(case.dtype, case.z)
    return [rows.map(lambda row: explicit_case([row[:3]], case.dtype))]


_AUTOMATIC_CODE = {
    "torch": ("torch.autograd.functional.jacobian({}, {})", "torch"),
    "jax": ("jax.jacrev({})({})", "jax"),
}


def _code(context: Context, case: Case, row: int) -> str:
    function = context.function
    if context.jacobian is not None:
        return function.code_on_row(context.jacobian, "jacobian", case, "")
    library = function.library.name
    if library in _AUTOMATIC_CODE:
        return function.derivative_code(case, *_AUTOMATIC_CODE[library])
    return f"{function.code(case)}  # differentiated by {library}"


def _law(
    name: str,
    statement: str,
    reason: str,
    deviation: Callable[[Context, Case, Floats], Deviation],
    cases: Callable[[Context, str], Iterable[Case]] = _ordinary_rows,
) -> Law:
    symmetric = deviation in (_symmetry, _semidefinite)
    return Law(
        name,
        statement,
        "∂σ_i/∂z_j = σ_i(δ_ij - σ_j); J. S. Bridle, 1990",
        reason,
        cases,
        _on_jacobian(deviation),
        simpler=_shorter_rows,
        not_applicable=_not_symmetric if symmetric else _no_jacobian,
        code=_code,
    )


LAWS = (
    _law(
        "jacobian",
        "|J_ij - exact| ≤ n ulp(σ_i) (log_softmax: n ulp(1))",
        "Gradient descent follows it.",
        _entries,
    ),
    _law(
        "jacobian rows",
        "|Σ_j J_ij| ≤ n ulp(σ_i) (log_softmax: n ulp(1))",
        "Adding a constant to the logits does not change the result.",
        _row_sums,
    ),
    _law(
        "jacobian symmetry",
        "|J_ij - J_ji| ≤ n ulp(max σ)",
        "It is the Hessian of log-sum-exp.",
        _symmetry,
    ),
    _law(
        "jacobian semidefinite",
        "its smallest eigenvalue is at least -n ulp(max σ)",
        "log-sum-exp is convex.",
        _semidefinite,
    ),
    _law(
        "gradient",
        "every entry of the Jacobian is finite, for saturated rows and excluded classes too",
        "One NaN makes every parameter NaN.",
        _finite,
        _saturated_rows,
    ),
)
