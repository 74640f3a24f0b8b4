"""Threads of the commands."""

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
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


def thread_pool() -> Executor:
    """An executor of as many threads as the kernels use."""
    return ThreadPoolExecutor(get_num_threads())


def run_all(pool: Executor, functions: Iterable[Callable[[], Any]]) -> list[Any]:
    """The results of functions that the pool runs; the first error is raised."""
    return [future.result() for future in [pool.submit(function) for function in functions]]
