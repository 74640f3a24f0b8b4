"""Passes over the shards of a folder on the workers of a Dask cluster."""

import contextlib
import copy
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from logitlab._app.io.source import Logits, Track, UserError

LOCAL = "local"
_CONNECT_TIMEOUT = 10  # seconds
_NO_WORKERS_TIMEOUT = 60.0  # seconds without a worker, after which the command ends
_POLL = 1.0  # seconds between two looks at the workers
_FAN_IN = 16  # results that one task merges

Merge = Callable[[Sequence[Any]], Any]


def merged_sums(parts: Sequence[Any]) -> Any:
    """The sums of a pass over ranges of rows. Dask may need a part again: none is changed."""
    sums = copy.deepcopy(parts[0])
    for part in parts[1:]:
        sums.merge(part)
    return sums


def _merge(merge: Merge, *parts: Any) -> Any:
    return merge(parts)


class Cluster:
    """A Dask cluster that computes a function of each shard."""

    def __init__(self, client: Any, name: str) -> None:
        """`name` is the value of --scheduler, for messages."""
        self._client, self._name = client, name

    def run(
        self,
        calls: Sequence[Callable[[], Any]],
        merge: Merge,
        sizes: Sequence[int],
        track: Track,
        task: str,
    ) -> Any:
        """The results of the calls, one for each shard, merged in the order of the shards.

        The calls can be pickled. `sizes` are the rows of the shards, `track` shows the progress of
        `task`. The error of the first shard that has one is raised.
        """
        submit = functools.partial(self._client.submit, pure=False)
        with _no_warning_of_size():
            level = [submit(call) for call in calls]
        # Futures are kept until they are done: merged results need no memory.
        pending = dict(zip(level, enumerate(sizes), strict=True))
        while len(level) > 1:
            groups = (level[i : i + _FAN_IN] for i in range(0, len(level), _FAN_IN))
            level = [submit(_merge, merge, *group) for group in groups]
            pending |= {future: (len(calls), 0) for future in level}
        result = level.pop()
        try:
            for _ in track(self._completed(pending), sum(sizes), task):
                pass
            return result.result()
        except (UserError, ValueError):
            raise
        except Exception as error:
            raise self._error(error) from error

    def _completed(self, pending: dict[Any, tuple[int, int]]) -> Iterator[range]:
        """The rows of each shard, as a range of their number, when it is done.

        `pending` has the number and the rows of the shard of each future, which are removed.
        """
        first_failed: tuple[int, Any] | None = None
        while pending:
            for future in self._wait(list(pending)):
                if future not in pending:  # cancelled
                    continue
                number, rows = pending.pop(future)
                if future.status == "finished":
                    yield range(rows)
                    continue
                if first_failed is None or number < first_failed[0]:
                    first_failed = number, future
                # Later shards are not needed, earlier ones may fail too.
                later = [f for f, (other, _) in pending.items() if other > number]
                self._client.cancel(later)
                for other in later:
                    del pending[other]
        if first_failed is not None:
            first_failed[1].result()

    def _wait(self, futures: list[Any]) -> list[Any]:
        """Some of the futures that are done."""
        from distributed import wait

        start = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                return list(wait(futures, timeout=_POLL, return_when="FIRST_COMPLETED").done)
            if self._client.nthreads():
                start = time.monotonic()
            elif time.monotonic() - start > _NO_WORKERS_TIMEOUT:
                raise UserError(f"--scheduler {self._name}: all workers are lost")

    def _error(self, error: Exception) -> UserError:
        from distributed import CancelledError
        from distributed.scheduler import KilledWorker

        if isinstance(error, KilledWorker):
            reason = "the workers of a shard were killed again and again, perhaps for their memory"
        elif isinstance(error, CancelledError | OSError):
            reason = "the connection to the scheduler is lost"
        else:
            reason = f"error on a worker: {type(error).__name__}: {error}"
        return UserError(f"--scheduler {self._name}: {reason}")


def check_shards(scheduler: str | None, sources: Sequence[Logits]) -> None:
    """Refuse a scheduler for logits that are not in a folder."""
    for source in sources:
        if scheduler is not None and not source.shards:
            raise UserError(f"{source.source}: --scheduler is for a folder of shards, got a file")


def _no_warning_of_size() -> Any:
    """A context without the warning that labels are sent with the tasks of large shards."""
    import dask

    return dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"})


@contextlib.contextmanager
def connect(scheduler: str | None) -> Iterator[Cluster | None]:
    """The cluster with this address, a new one of this machine for ``local``, or None for None."""
    if scheduler is None:
        yield None
        return
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster

    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        address: Any = scheduler
        if scheduler == LOCAL:
            address = stack.enter_context(
                LocalCluster(
                    n_workers=CPU_COUNT,
                    threads_per_worker=1,
                    dashboard_address=":0",
                    silence_logs=logging.CRITICAL,
                )
            )
        try:
            client = stack.enter_context(Client(address, timeout=_CONNECT_TIMEOUT))
        except Exception as error:  # what answers at the address may be something else
            reason = str(error).partition("\n")[0]
            raise UserError(f"--scheduler {scheduler}: no Dask scheduler found: {reason}") from None
        yield Cluster(client, scheduler)
