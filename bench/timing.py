"""Interleaved timing: the calls are timed in turn, repeatedly; the result is the median."""

import statistics
import time
from collections.abc import Callable, Iterable

# Thread pools that spin after a call slow down the next one.
_PAUSE_SECONDS = 0.05
_MIN_SECONDS = 2e-3  # of one measurement; a short call is repeated


def _time_loop(call: Callable[[], object], n_calls: int) -> float:
    """Seconds for one of several calls in a row."""
    start = time.perf_counter()
    for _ in range(n_calls):
        call()
    return (time.perf_counter() - start) / n_calls


def medians(
    names: Iterable[str], seconds: Callable[[str], float], repeats: int
) -> dict[str, float]:
    """The median of the seconds that a function returns for each name; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name, samples in times.items():
            time.sleep(_PAUSE_SECONDS)
            samples.append(seconds(name))
    return {name: statistics.median(samples) for name, samples in times.items()}


def interleaved(calls: dict[str, Callable[[], object]], repeats: int = 11) -> dict[str, float]:
    """The median time of each call, in seconds."""
    n_calls = {}
    for name, call in calls.items():
        call()
        call()
        n_calls[name] = max(1, min(1000, round(_MIN_SECONDS / max(_time_loop(call, 3), 1e-7))))

    def seconds(name: str) -> float:
        calls[name]()
        calls[name]()
        return _time_loop(calls[name], n_calls[name])

    return medians(calls, seconds, repeats)
