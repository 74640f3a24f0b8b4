"""Interleaved timing: every peer is timed in turn, again and again, and the median counts."""

import statistics
import time
from collections.abc import Callable

# Thread pools that spin after work slow whatever runs next.
_PAUSE = 0.05
_LEAST = 2e-3  # seconds that one measurement takes: short calls are timed many in a row


def _once(call: Callable[[], object], loop: int) -> float:
    start = time.perf_counter()
    for _ in range(loop):
        call()
    return (time.perf_counter() - start) / loop


def interleaved(calls: dict[str, Callable[[], object]], repeats: int = 11) -> dict[str, float]:
    """The median time of each call, in seconds."""
    loops = {}
    for name, call in calls.items():
        call()
        call()
        loops[name] = max(1, min(1000, round(_LEAST / max(_once(call, 3), 1e-7))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            time.sleep(_PAUSE)
            call()
            call()
            times[name].append(_once(call, loops[name]))
    return {name: statistics.median(found) for name, found in times.items()}
