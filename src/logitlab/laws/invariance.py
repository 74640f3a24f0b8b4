"""Laws about what a result must not depend on."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from logitlab._exact.formats import rounded, spacing
from logitlab.laws.cases import Case, normal
from logitlab.laws.context import Context
from logitlab.laws.law import Measured, failed
from logitlab.laws.subject import Result, public_name

_SHAPES = ((2, 2), (3, 5), (17, 8), (5, 16), (16, 17), (40, 33), (9, 100), (4, 257), (3, 4099))


def compared(context: Context, case: Case, came: Result, wanted: Result) -> Measured:
    """Two results entry by entry, in ULP (logarithms: of 1 at least)."""
    if came.error or wanted.error:
        return failed(came.error or wanted.error)
    a, b = came.values, wanted.values
    size = np.abs(np.where(np.isfinite(b), b, 0.0))
    size = np.maximum(size, 1.0) if context.subject.log else size
    unit = spacing(size, wanted.coarser(case.dtype))
    with np.errstate(all="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        off = np.where(same, 0.0, np.abs(a - b))
        off = np.where(np.isnan(off), np.inf, off)
        ulps = (off / unit).max(axis=-1, initial=0.0)
        relative = np.where(off == 0, 0.0, off / size).max(axis=-1, initial=0.0)
    return Measured(ulps, np.nan_to_num(relative, nan=np.inf), a, b)


def first(measured: Measured) -> Measured:
    """What is found in the first of the two results that the line gives."""
    return measured._replace(place="the first: ")


def batches(context: Context, dtype: str) -> Iterator[Case]:
    """Normal rows in batches of several shapes."""
    for n, k in _SHAPES:
        yield normal(n, k, 3.0, context.seed + k, dtype)


def smaller(case: Case) -> Any:
    """Smaller batches."""
    return st.builds(
        lambda n, k, seed: normal(n, k, 3.0, seed, case.dtype),
        st.integers(1, max(1, len(case.z))),
        st.integers(1, max(1, case.classes)),
        st.integers(0, 5) | st.just(case.classes),
    )


def part(case: Case, key: Any, source: str) -> Case:
    """Some rows or another order of the classes, as a case of its own."""
    return Case(case.z[key], case.dtype, f"{case.source}{source}", options=case.options)


def _reversed(case: Case) -> Case:
    return part(case, np.s_[:, ::-1], "[:, ::-1]")


def _turned(result: Result) -> Result:
    return result._replace(values=result.values[:, ::-1]) if not result.error else result


def permutation(context: Context, case: Case) -> Measured:
    """The reversed row against the row's result reversed."""
    there = context.subject(_reversed(case))
    return first(compared(context, case, there, _turned(context.result(case))))


def permutation_line(context: Context, case: Case, row: int) -> str:
    """Both calls."""
    return context.subject.line((_reversed(case), "(%s)"), (case, "(%s)"))


def batch(context: Context, case: Case) -> Measured:
    """Each row in its batch against the row alone."""
    together = context.result(case)
    if together.error:
        return failed(together.error)
    rows = range(len(case.z)) if len(case.z) < 10 else (0, 1, len(case.z) // 2, len(case.z) - 1)
    alone = together.values.copy()
    for i in rows:
        single = context.subject(part(case, np.s_[i : i + 1], ""))
        if single.error:
            return failed(single.error)
        alone[i] = single.values[0]
    return first(compared(context, case, together, together._replace(values=alone)))


def batch_line(context: Context, case: Case, row: int) -> str:
    """The batch, and the row alone."""
    alone = part(case, np.s_[row : row + 1], f"[{row}:{row + 1}]")
    return context.subject.line((case, "(%s)"), (alone, "(%s)"))


def repeated(n: int, k: int, seed: int, dtype: str) -> Case:
    """The same row in every place of a batch."""
    row = np.random.default_rng(seed).normal(0, 3, k)
    text = f"np.tile(np.random.default_rng({seed}).normal(0, 3, {k}), ({n}, 1))"
    return Case(np.tile(rounded(row, dtype), (n, 1)), dtype, text)


def repeats(context: Context, dtype: str) -> Iterator[Case]:
    """Of several shapes."""
    for n, k in _SHAPES:
        yield repeated(n, k, context.seed + k, dtype)


def fewer_repeats(case: Case) -> Any:
    """Smaller ones."""
    return st.builds(
        lambda n, k, seed: repeated(n, k, seed, case.dtype),
        st.integers(1, max(1, len(case.z))),
        st.integers(1, max(1, case.classes)),
        st.integers(0, 5) | st.just(case.classes),
    )


def position(context: Context, case: Case) -> Measured:
    """Every row against the first."""
    result = context.result(case)
    if result.error:
        return failed(result.error)
    first = np.broadcast_to(result.values[:1], result.values.shape)
    return compared(context, case, result, result._replace(values=first))


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "np.asfortranarray(%s)": np.asfortranarray,
    "np.repeat(%s, 2, axis=-1)[..., ::2]": lambda z: np.repeat(z, 2, axis=-1)[..., ::2],
    "np.repeat(%s, 3, axis=0)[::3]": lambda z: np.repeat(z, 3, axis=0)[::3],
    "np.insert(%s, 0, 0, axis=-1)[..., 1:]": lambda z: np.insert(z, 0, 0, axis=-1)[..., 1:],
    "(%s)[::-1, ::-1].copy()[::-1, ::-1]": lambda z: z[::-1, ::-1].copy()[::-1, ::-1],
}


def layouts(context: Context, dtype: str) -> Iterator[Case]:
    """Every batch in every layout."""
    kind = context.subject.kind.name
    for n, k in _SHAPES[1:-1]:
        for name in LAYOUTS:
            if kind == "numpy" or "-1]" not in name:  # torch has no negative strides
                yield normal(n, k, 3.0, k, dtype, parameter=name)


def layout(context: Context, case: Case) -> Measured:
    """The same numbers laid out otherwise."""
    subject = context.subject
    z = subject.arrange(case.z)
    plain = subject.kind.numpy(z, case.dtype)
    array = subject.kind.make(LAYOUTS[case.parameter](plain), case.dtype)
    laid_out = subject.run(array, z.shape)
    return first(compared(context, case, laid_out, context.result(case)))


def layout_line(context: Context, case: Case, row: int) -> str:
    """The layout, and the plain array."""
    return context.subject.line((case, case.parameter), (case, "(%s)"))


def near_layouts(case: Case) -> Any:
    """The same layout of smaller batches."""
    return smaller(case).map(lambda c: Case(c.z, c.dtype, c.source, parameter=case.parameter))


def no_layouts(context: Context) -> str:
    """Only NumPy and torch let their user lay out an array."""
    name = context.subject.kind.name
    return "" if name in ("numpy", "torch") else f"{name} lays out its arrays itself"


def threads(context: Context, case: Case) -> Measured:
    """On one thread against several."""
    setter = thread_setter(context)
    before = setter[1]()
    try:
        setter[0](1)
        one = context.subject(case)
        setter[0](4)
        several = context.subject(case)
    finally:
        setter[0](before)
    return compared(context, case, several, one)


def threads_line(context: Context, case: Case, row: int) -> str:
    """The call on several threads."""
    name, module = public_name(thread_setter(context)[0])
    form = f"({name}(4), {{}})[1]"
    return context.subject.line((case, "(%s)"), form=form, module=module)


def thread_setter(context: Context) -> Any:
    """How the number of threads is set and got."""
    if context.subject.name.startswith("logitlab."):
        from logitlab._backends.native import get_num_threads, set_num_threads

        return set_num_threads, get_num_threads
    if context.subject.kind.name == "torch":
        import torch

        return torch.set_num_threads, torch.get_num_threads
    return None


def no_threads(context: Context) -> str:
    """Nothing is known of other libraries' threads."""
    if thread_setter(context) is None:
        return "its number of threads cannot be set from here"
    return ""


def large_batches(context: Context, dtype: str) -> Iterator[Case]:
    """Enough work for several threads."""
    yield normal(400, 100, 3.0, 1, dtype)
    yield normal(2, 70_000, 3.0, 2, dtype)


def determinism(context: Context, case: Case) -> Measured:
    """Three runs of the same call."""
    one, *others = (context.subject(case) for _ in range(4))
    found = [compared(context, case, one, other) for other in others]
    return first(max(found, key=lambda measured: float(measured.ulps.max())))


def determinism_line(context: Context, case: Case, row: int) -> str:
    """Two of the runs."""
    return context.subject.line((case, "(%s)"), (case, "(%s)"))


def untouched(context: Context, case: Case) -> Measured:
    """The array that was given, after the call."""
    subject = context.subject
    z = subject.arrange(case.z)
    array = subject.make(np.array(z, order="C"), case.dtype)
    result = subject.run(array, z.shape)
    if result.error:
        return failed(result.error)
    after = subject.back(array, z.shape)
    return compared(context, case, after, after._replace(values=case.z))


def untouched_line(context: Context, case: Case, row: int) -> str:
    """The array after the call."""
    return context.subject.line((case, "(z := %s)"), form="({}, z)[1]")


def immutable(context: Context) -> str:
    """Arrays that nobody can write to."""
    name = context.subject.kind.name
    return f"{name} arrays are immutable" if name in ("jax", "tensorflow") else ""
