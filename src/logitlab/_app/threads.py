"""Threads of the commands."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from logitlab._backends.native import get_num_threads

_Task = tuple["Future[Any]", Callable[[], Any]]


def _work(tasks: "SimpleQueue[_Task]") -> None:
    while True:
        try:
            future, function = tasks.get_nowait()
        except Empty:
            return
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)


def run_all(functions: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of functions, called in as many threads as the kernels use.

    The error of the first one that failed is raised. The threads are daemons: an interrupt of the
    caller ends the process at once.
    """
    threads = min(get_num_threads(), len(functions))
    if threads < 2:
        return [function() for function in functions]
    tasks: SimpleQueue[_Task] = SimpleQueue()
    futures: list[Future[Any]] = [Future() for _ in functions]
    for task in zip(futures, functions, strict=True):
        tasks.put(task)
    for _ in range(threads):
        Thread(target=_work, args=(tasks,), daemon=True).start()
    wait(futures)
    return [future.result() for future in futures]
