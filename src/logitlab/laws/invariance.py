"""Laws about what a result must not depend on."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hypothesis import strategies as st

from logitlab._exact.formats import rounded, spacing
from logitlab.laws.cases import Case, Strategies, normal_case
from logitlab.laws.context import Context
from logitlab.laws.law import Deviation, from_error
from logitlab.laws.tested_function import Result, public_name

_SHAPES = ((2, 2), (3, 5), (17, 8), (5, 16), (16, 17), (40, 33), (9, 100), (4, 257), (3, 4099))


def _difference(context: Context, case: Case, result: Result, expected: Result) -> Deviation:
    """The difference of two results in ULP, of log-probabilities in ULP of 1 at least."""
    if result.error or expected.error:
        return from_error(result.error or expected.error)
    a, b = result.values, expected.values
    size = np.abs(np.where(np.isfinite(b), b, 0.0))
    size = np.maximum(size, 1.0) if context.function.log else size
    unit = spacing(size, expected.coarser_dtype(case.dtype))
    with np.errstate(all="ignore"):
        equal = (a == b) | (np.isnan(a) & np.isnan(b))
        off = np.where(equal, 0.0, np.abs(a - b))
        off = np.where(np.isnan(off), np.inf, off)
        ulps = (off / unit).max(axis=-1, initial=0.0)
        relative = np.where(off == 0, 0.0, off / size).max(axis=-1, initial=0.0)
    return Deviation(ulps, np.nan_to_num(relative, nan=np.inf), a, b)


def _of_first_result(deviation: Deviation) -> Deviation:
    """The deviation of the first of the two results that the code returns."""
    return deviation._replace(prefix="first result: ")


Build = Callable[[int, int, int, str], Case]  # of n rows, k classes, seed and dtype


def _smaller(build: Build) -> Callable[[Case], Strategies]:
    """Batches with fewer rows and classes."""

    def simpler(case: Case) -> Strategies:
        return [
            st.builds(
                lambda n, k, seed: build(n, k, seed, case.dtype),
                st.integers(1, max(1, len(case.z))),
                st.integers(1, max(1, case.n_classes)),
                st.integers(0, 5) | st.just(case.n_classes),
            )
        ]

    return simpler


def _normal_batch(n: int, k: int, seed: int, dtype: str) -> Case:
    return normal_case(n, k, 3.0, seed, dtype)


def _repeated_row(n: int, k: int, seed: int, dtype: str) -> Case:
    row = np.random.default_rng(seed).normal(0, 3, k)
    text = f"np.tile(np.random.default_rng({seed}).normal(0, 3, {k}), ({n}, 1))"
    return Case(np.tile(rounded(row, dtype), (n, 1)), dtype, text)


smaller_batches = _smaller(_normal_batch)
smaller_repeated_rows = _smaller(_repeated_row)


def batches(context: Context, dtype: str) -> Iterator[Case]:
    """Normal rows in batches of several shapes."""
    for n, k in _SHAPES:
        yield _normal_batch(n, k, context.seed + k, dtype)


def repeated_rows(context: Context, dtype: str) -> Iterator[Case]:
    """The same row at every position of batches of several shapes."""
    for n, k in _SHAPES:
        yield _repeated_row(n, k, context.seed + k, dtype)


def large_batches(context: Context, dtype: str) -> Iterator[Case]:
    """Batches large enough for several threads."""
    yield normal_case(400, 100, 3.0, 1, dtype)
    yield normal_case(2, 70_000, 3.0, 2, dtype)


def _part(case: Case, key: Any, source: str) -> Case:
    """Some rows, or another order of the classes, as a case of its own."""
    return Case(case.z[key], case.dtype, f"{case.source}{source}", options=case.options)


def _reversed_classes(case: Case) -> Case:
    return _part(case, np.s_[:, ::-1], "[:, ::-1]")


def permutation(context: Context, case: Case) -> Deviation:
    """The result of the reversed row against the reversed result of the row."""
    expected = context.result(case)
    if not expected.error:
        expected = expected._replace(values=expected.values[:, ::-1])
    result = context.function(_reversed_classes(case))
    return _of_first_result(_difference(context, case, result, expected))


def permutation_code(context: Context, case: Case, row: int) -> str:
    """Code with both calls."""
    return context.function.code((_reversed_classes(case), "(%s)"), (case, "(%s)"))


def batch(context: Context, case: Case) -> Deviation:
    """The result of a row in a batch against the result of the row alone."""
    result = context.result(case)
    if result.error:
        return from_error(result.error)
    rows = range(len(case.z)) if len(case.z) < 20 else (0, 1, len(case.z) // 2, len(case.z) - 1)
    alone = result.values.copy()
    for i in rows:
        single = context.function(_part(case, np.s_[i : i + 1], ""))
        if single.error:
            return from_error(single.error)
        alone[i] = single.values[0]
    expected = result._replace(values=alone)
    return _of_first_result(_difference(context, case, result, expected))


def batch_code(context: Context, case: Case, row: int) -> str:
    """Code with the call on the batch and that on the row alone."""
    alone = _part(case, np.s_[row : row + 1], f"[{row}:{row + 1}]")
    return context.function.code((case, "(%s)"), (alone, "(%s)"))


def position(context: Context, case: Case) -> Deviation:
    """The result of every row against that of the first, where all rows are equal."""
    result = context.result(case)
    if result.error:
        return from_error(result.error)
    first = np.broadcast_to(result.values[:1], result.values.shape)
    return _difference(context, case, result, result._replace(values=first))


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "np.asfortranarray(%s)": np.asfortranarray,
    "np.repeat(%s, 2, axis=-1)[..., ::2]": lambda z: np.repeat(z, 2, axis=-1)[..., ::2],
    "np.repeat(%s, 3, axis=0)[::3]": lambda z: np.repeat(z, 3, axis=0)[::3],
    "np.insert(%s, 0, 0, axis=-1)[..., 1:]": lambda z: np.insert(z, 0, 0, axis=-1)[..., 1:],
    "(%s)[::-1, ::-1].copy()[::-1, ::-1]": lambda z: z[::-1, ::-1].copy()[::-1, ::-1],
}


def layouts(context: Context, dtype: str) -> Iterator[Case]:
    """Every batch in every memory layout."""
    library = context.function.library.name
    for n, k in _SHAPES[1:-1]:
        for name in LAYOUTS:
            if library == "numpy" or "-1]" not in name:  # torch has no negative strides
                yield normal_case(n, k, 3.0, k, dtype, parameter=name)


def layout(context: Context, case: Case) -> Deviation:
    """The result for another memory layout against that for a contiguous array."""
    function = context.function
    z = function.to_axis(case.z)
    contiguous = function.library.numpy_array(z, case.dtype)
    array = function.library.from_numpy(LAYOUTS[case.parameter](contiguous), case.dtype)
    result = function.run(array, z.shape)
    return _of_first_result(_difference(context, case, result, context.result(case)))


def layout_code(context: Context, case: Case, row: int) -> str:
    """Code with the call on the layout and that on the contiguous array."""
    return context.function.code((case, case.parameter), (case, "(%s)"))


def smaller_layouts(case: Case) -> Strategies:
    """The same layout of smaller batches."""
    (batches,) = smaller_batches(case)
    return [batches.map(lambda c: Case(c.z, c.dtype, c.source, parameter=case.parameter))]


def no_layouts(context: Context) -> str:
    """The reason where the array library does not let its user choose the layout."""
    name = context.function.library.name
    return "" if name in ("numpy", "torch") else f"{name} chooses the memory layout itself"


def threads(context: Context, case: Case) -> Deviation:
    """The result on four threads against that on one."""
    functions = _thread_functions(context)
    assert functions is not None
    set_num_threads, get_num_threads = functions
    before = get_num_threads()
    try:
        set_num_threads(1)
        one = context.function(case)
        set_num_threads(4)
        four = context.function(case)
    finally:
        set_num_threads(before)
    return _difference(context, case, four, one)


def threads_code(context: Context, case: Case, row: int) -> str:
    """Code with the call on four threads."""
    functions = _thread_functions(context)
    assert functions is not None
    name, module = public_name(functions[0])
    form = f"({name}(4), {{}})[1]"
    return context.function.code((case, "(%s)"), form=form, module=module)


def _thread_functions(
    context: Context,
) -> tuple[Callable[[int], None], Callable[[], int]] | None:
    """The functions that set and get the number of threads, if they are known."""
    if context.function.name.startswith("logitlab."):
        from logitlab._backends.native import get_num_threads, set_num_threads

        return set_num_threads, get_num_threads
    if context.function.library.name == "torch":
        import torch

        return torch.set_num_threads, torch.get_num_threads
    return None


def no_threads(context: Context) -> str:
    """The reason where the number of threads cannot be set."""
    return "" if _thread_functions(context) else "the number of threads cannot be set"


def determinism(context: Context, case: Case) -> Deviation:
    """The largest difference of the results of repeated calls."""
    first, *others = (context.function(case) for _ in range(4))
    deviations = [_difference(context, case, first, other) for other in others]
    return _of_first_result(max(deviations, key=lambda d: float(d.ulps.max())))


def determinism_code(context: Context, case: Case, row: int) -> str:
    """Code with two calls."""
    return context.function.code((case, "(%s)"), (case, "(%s)"))


def unchanged_input(context: Context, case: Case) -> Deviation:
    """The array of logits after the call against the logits."""
    function = context.function
    z = function.to_axis(case.z)
    array = function.make_array(np.array(z, order="C"), case.dtype)
    result = function.run(array, z.shape)
    if result.error:
        return from_error(result.error)
    after = function.to_rows(array, z.shape)
    return _difference(context, case, after, after._replace(values=case.z))


def unchanged_input_code(context: Context, case: Case, row: int) -> str:
    """Code that returns the array after the call."""
    return context.function.code((case, "(z := %s)"), form="({}, z)[1]")


def immutable(context: Context) -> str:
    """The reason where arrays cannot be written to."""
    name = context.function.library.name
    return f"{name} arrays are immutable" if name in ("jax", "tensorflow") else ""
