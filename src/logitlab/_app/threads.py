"""Threads of the commands."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from logitlab._backends.native import get_num_threads


def one_blas_thread() -> Any:
    """A context in which a matrix product takes one thread.

    The commands multiply blocks of rows that stay in a cache. More threads of OpenBLAS gain little
    on these, and where another program uses a processor, they wait for each other: products took
    up to ten times as long.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "blas")


def run_all(functions: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of functions, called in as many threads as the kernels use.

    The error of the first one that failed is raised.
    """
    threads = min(get_num_threads(), len(functions))
    if threads < 2:
        return [function() for function in functions]
    with ThreadPoolExecutor(threads) as pool:
        return [future.result() for future in [pool.submit(f) for f in functions]]
