"""Functions that run on the ranks of a torch process group, each in a process of its own."""

import multiprocessing
import os
import tempfile
import time
import traceback
from multiprocessing.connection import wait


def run(function, world_size, *args, timeout=60):
    """The results of function(*args) on the ranks of a gloo group, in the order of the ranks.

    The function is of a module that other processes can import. The error of the first rank that
    fails is raised as an AssertionError with its traceback; all processes end with the call.
    """
    context = multiprocessing.get_context("spawn")
    deadline = time.monotonic() + timeout
    results, connections, processes = {}, {}, []
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "store")
        try:
            for rank in range(world_size):
                ours, theirs = context.Pipe()
                target = (function, args, rank, world_size, store, timeout, theirs)
                processes.append(context.Process(target=_run_rank, args=target, daemon=True))
                processes[-1].start()
                theirs.close()
                connections[ours] = rank
            while len(results) < world_size:
                waiting = [c for c, rank in connections.items() if rank not in results]
                ready = wait(waiting, max(0, deadline - time.monotonic()))
                if not ready:
                    missing = sorted(set(range(world_size)) - set(results))
                    raise AssertionError(f"ranks {missing} did not end in {timeout} s")
                for connection in ready:
                    _receive(connection, connections[connection], processes, results)
        finally:
            for connection in connections:
                connection.close()  # the ranks that wait for the others end
            for process in processes:
                process.join(5 if len(results) == world_size else 0)
                if process.is_alive():
                    process.kill()
                    process.join()
    return [results[rank] for rank in range(world_size)]


def _receive(connection, rank, processes, results):
    try:
        failure, result = connection.recv()
    except EOFError:
        processes[rank].join()
        code = processes[rank].exitcode
        raise AssertionError(f"rank {rank} ended with exit code {code}") from None
    if failure is not None:
        raise AssertionError(f"rank {rank} failed:\n{failure}")
    results[rank] = result


def _run_rank(function, args, rank, world_size, store, timeout, connection):
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo",
            store=dist.FileStore(store, world_size),
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout),
        )
        connection.send((None, function(*args)))
    except BaseException:
        connection.send((traceback.format_exc(), None))
    # The connections of the group stay open until no other rank needs them.
    wait([connection])
    os._exit(0)
