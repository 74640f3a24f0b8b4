"""Threads of a fit: those of BLAS, and those that share the blocks of rows."""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_lock = threading.Lock()
_fits = 0  # that run now
_limits: Any = None  # of the first of them


@functools.cache
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def single_blas_thread() -> Iterator[None]:
    """Let BLAS use one thread while a fit runs, and as many as before once the last fit ended.

    The products of one block are small: the threads of BLAS would wait for each other in every one
    of them, which takes many times as long where other programs use the processor. Without
    threadpoolctl, which comes with scikit-learn, nothing changes.
    """
    global _fits, _limits
    with _lock:
        if _fits == 0:
            with contextlib.suppress(ModuleNotFoundError):
                _limits = _controller().limit(limits=1)
        _fits += 1
    try:
        yield
    finally:
        with _lock:
            _fits -= 1
            if _fits == 0 and _limits is not None:
                _limits.restore_original_limits()
                _limits = None


def map_in_threads(
    task: Callable[[Item], Result], items: Sequence[Item], threads: int
) -> Iterator[Result]:
    """Yield the results of a task in the order of the items, computed on several threads."""
    if threads > 1 and len(items) > 1:
        # While the interpreter ends, no thread can be started.
        with contextlib.suppress(RuntimeError):
            return _executor(os.getpid(), threads).map(task, items)
    return map(task, items)


@functools.lru_cache(maxsize=1)
def _executor(process: int, threads: int) -> ThreadPoolExecutor:
    """Return the threads for blocks of rows; a forked process has its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="logitlab-rows")


def _reset_after_fork() -> None:
    """In a forked child the fits of other threads do not run on."""
    global _lock, _fits, _limits
    _lock = threading.Lock()
    if _limits is not None:
        _limits.restore_original_limits()
    _fits, _limits = 0, None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
