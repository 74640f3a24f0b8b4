"""Scores and calibrators of Dask arrays on 1 and 2 worker processes, against one process.

The logits are .npy shards on disk, read in every pass. The bytes are those of the loopback
interface, on which the scheduler, the workers and the client talk.
"""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench import tables

ROWS, CLASSES, SHARD = 10_000_000, 100, 250_000
_QUICK_ROWS = 1_000_000
_LARGE_ROWS, _LARGE_CLASSES, _LARGE_WORKERS = 10**9, 1000, 64
_GIB = 2**30


def _write_shards(folder: Path, rows: int) -> None:
    for start in range(0, rows, SHARD):
        rng = np.random.default_rng(start)
        z = rng.standard_normal((SHARD, CLASSES), np.float32) * 3
        # Labels by the Gumbel trick: the temperature of the logits is 1.5.
        y = (z / 1.5 + rng.gumbel(size=z.shape).astype(np.float32)).argmax(axis=1)
        np.save(folder / f"z-{start:09}.npy", z)
        np.save(folder / f"y-{start:09}.npy", y)


def _files(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}-*.npy"))


def _in_memory(folder: Path) -> tuple[Any, Any]:
    z, y = (np.concatenate([np.load(f) for f in _files(folder, name)]) for name in "zy")
    return z, y


def _chunked(folder: Path) -> tuple[Any, Any]:
    import dask
    import dask.array as da

    load = dask.delayed(np.load, pure=True)
    z = [da.from_delayed(load(f), (SHARD, CLASSES), np.float32) for f in _files(folder, "z")]
    y = [da.from_delayed(load(f), (SHARD,), np.int64) for f in _files(folder, "y")]
    return da.concatenate(z), da.concatenate(y)


def _calls() -> dict[str, Callable[[Any, Any], Any]]:
    import logitlab

    return {
        "accuracy": logitlab.accuracy,
        "brier_score": logitlab.brier_score,
        "calibration_error": logitlab.calibration_error,
        "cross_entropy": lambda z, y: float(logitlab.cross_entropy(z, y)),
        "bootstrap": lambda z, y: logitlab.bootstrap(z, y)["accuracy"].low,
        "TemperatureScaling.fit": lambda z, y: logitlab.TemperatureScaling().fit(z, y).temperature_,
    }


def _loopback_bytes() -> int:
    line = next(x for x in Path("/proc/net/dev").read_text("utf-8").splitlines() if " lo:" in x)
    return int(line.split()[1])


def _measure(arrays: Callable[[], tuple[Any, Any]]) -> dict[str, dict[str, float]]:
    from logitlab._distributed import DaskRows, LocalRows

    passes = 0
    kind: Any
    originals = {kind: kind.reduce for kind in (DaskRows, LocalRows)}

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal passes
        passes += 1
        return originals[type(self)](self, *args, **kwargs)

    z, y = arrays()
    found = {}
    try:
        for kind in originals:
            kind.reduce = counted
        for name, call in _calls().items():
            passes, before, start = 0, _loopback_bytes(), time.perf_counter()
            value = float(call(z, y))
            seconds = time.perf_counter() - start
            sent = _loopback_bytes() - before
            found[name] = {"s": seconds, "bytes": sent, "passes": passes, "value": value}
    finally:
        for kind, original in originals.items():
            kind.reduce = original
    return found


def _on_workers(folder: Path, workers: int) -> dict[str, dict[str, float]]:
    from distributed import Client, LocalCluster

    options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster):
        return _measure(lambda: _chunked(folder))


def _estimate(one: dict[str, float], rows: int) -> str:
    """Time and traffic of the temperature for the large problem, from those of one worker."""
    logits = rows * CLASSES
    per_logit = one["s"] / one["passes"] / logits
    share = _LARGE_ROWS * _LARGE_CLASSES / _LARGE_WORKERS
    seconds = one["passes"] * per_logit * share
    shards = rows / SHARD
    blocks = _LARGE_ROWS * _LARGE_CLASSES / (SHARD * CLASSES)
    traffic = one["bytes"] / shards * blocks
    subset = 2 * 2**20 * 4
    shard_size = SHARD * CLASSES * 4 / 2**20
    return (
        f"**Estimate, not a measurement**: {_LARGE_ROWS:,} rows of {_LARGE_CLASSES} classes on "
        f"{_LARGE_WORKERS} workers of one such core each, in shards of {shard_size:.0f} MiB. One "
        f"worker takes {per_logit * 1e9:.2f} ns for a logit in a pass of TemperatureScaling.fit, "
        f"reading included; {one['passes']:.0f} passes over the {share:.2g} logits of each worker "
        f"take {seconds / 60:.0f} minutes, if the {share * 4 / _GIB:.0f} GiB of a worker are read "
        f"in each pass as fast as here, from the memory of the system. On the network: "
        f"{one['bytes'] / shards / 1024:.0f} KiB for each of {blocks:,.0f} shards, "
        f"{traffic / _GIB:.1f} GiB in all, for tasks, sums and the logits of the first guess, of "
        f"which there are at most {subset / 2**20:.0f} MiB."
    )


def report(quick: bool, write: bool) -> None:
    """Print the table."""
    rows = _QUICK_ROWS if quick else ROWS
    with TemporaryDirectory() as name:
        folder = Path(name)
        _write_shards(folder, rows)
        found = {f"{n}": _on_workers(folder, n) for n in (1, 2)}
        found["in memory"] = _measure(lambda: _in_memory(folder))
    lines = [
        "| function | passes | s, 1 worker | s, 2 workers | ratio | s, one process in memory "
        "| MiB on the network, 2 workers |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for call, two in found["2"].items():
        one, memory = found["1"][call], found["in memory"][call]
        assert abs(one["value"] - memory["value"]) <= 1e-6 * abs(memory["value"])
        lines.append(
            f"| {call} | {two['passes'] or 1:.0f} | {one['s']:.1f} | {two['s']:.1f} | "
            f"{one['s'] / two['s']:.2f} | {memory['s']:.1f} | {two['bytes'] / 2**20:.1f} |"
        )
    text = "\n".join(lines) + (
        f"\n\nOne run, {tables.machine()}; {tables.versions(('dask', 'distributed', 'numpy'))}. "
        f"{rows:,} rows of {CLASSES} classes, float32 ({rows * CLASSES * 4 / _GIB:.1f} GiB), in "
        f"{rows // SHARD} .npy shards, which the workers read in every pass from the memory of the "
        "system; each worker is a process of one thread. In one process: one array in memory, all "
        "threads. All give the same results. The bytes are all those of the loopback interface.\n\n"
        + _estimate(found["1"]["TemperatureScaling.fit"], rows)
    )
    print(text)
    if write:
        tables.write_page("cluster", text)
