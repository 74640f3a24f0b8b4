"""Sharded classes: time and bytes against torch's loss_parallel and against gathering the logits.

The measurements run on the ranks of a gloo group: ``python -m bench parallel`` starts them.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import tables

RANKS = 2
ROWS, CLASSES, FEATURES, TOKENS = 256, 128_256, 512, 4096
_REPEATS, _QUICK_REPEATS = 7, 2


def _cases() -> dict[str, dict[str, Callable[[], Any]]]:
    """For each function, its implementations."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor
    from torch.distributed.tensor.parallel import loss_parallel

    import logitlab
    from logitlab import parallel

    rank, ranks = dist.get_rank(), dist.get_world_size()
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(ROWS, CLASSES, generator=generator) * 3
    y = torch.randint(0, CLASSES, (ROWS,), generator=generator)
    tensor = distribute_tensor(z, init_device_mesh("cpu", (ranks,)), [Shard(1)])
    local = tensor.to_local().clone()

    def gathered(x: Any) -> Any:
        parts = [torch.empty(ROWS, n) for n in sizes]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts, -1)

    sizes = [len(part) for part in torch.arange(CLASSES).chunk(ranks)]
    own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))

    def ours() -> None:
        x = local.detach().requires_grad_()
        parallel.cross_entropy(x, y).backward()

    def theirs() -> None:
        x = tensor.detach().requires_grad_()
        with loss_parallel():
            torch.nn.functional.cross_entropy(x, y).backward()

    def whole() -> None:
        logitlab.cross_entropy_and_grad(gathered(local), y)[1][:, own].clone()

    cases: dict[str, dict[str, Callable[[], Any]]] = {
        "cross_entropy and gradient": {
            "logitlab.parallel": ours,
            "torch loss_parallel": theirs,
            "gather, then logitlab": whole,
        },
        "softmax": {
            "logitlab.parallel": lambda: parallel.softmax(local),
            "gather, then logitlab": lambda: logitlab.softmax(gathered(local))[:, own].clone(),
        },
    }
    for name, settings in (
        ("sample", {}),
        ("sample, top_k 50", {"top_k": 50}),
        ("sample, top_p 0.9", {"top_p": 0.9}),
    ):
        cases[name] = {
            "logitlab.parallel": lambda s=settings: parallel.sample(local, rng=0, **s),
            "gather, then logitlab": lambda s=settings: logitlab.sample(
                gathered(local), rng=0, **s
            ),
        }
    return cases


def _bytes_of(call: Callable[[], Any]) -> int:
    """The bytes that this rank gives to collective operations."""
    import torch
    from torch.distributed.tensor import DTensor
    from torch.utils._python_dispatch import TorchDispatchMode

    total = 0

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal total
            if DTensor in types:  # its operations on the local tensors follow
                return NotImplemented
            name = str(function)
            if name.startswith(("c10d.", "_c10d_functional.all")):
                given = args[1] if name.startswith("c10d.allgather_") else args[0]
                leaves = torch.utils._pytree.tree_leaves(given)
                total += sum(x.nbytes for x in leaves if isinstance(x, torch.Tensor))
            return function(*args, **(kwargs or {}))

    with Counter():
        call()
    return total


def _measure(repeats: int) -> list[dict[str, Any]]:
    import torch.distributed as dist

    rows = []
    for name, calls in _cases().items():
        seconds: dict[str, list[float]] = {peer: [] for peer in calls}
        sent = {peer: _bytes_of(call) for peer, call in calls.items()}
        for _ in range(repeats):
            for peer, call in calls.items():
                dist.barrier()
                start = time.perf_counter()
                call()
                seconds[peer].append(time.perf_counter() - start)
        for peer in calls:
            median = statistics.median(seconds[peer])
            rows.append({"case": name, "peer": peer, "seconds": median, "bytes": sent[peer]})
    return rows


def _measure_memory() -> dict[str, float]:
    """MiB of the weight and of the logits of this rank, and of memory beyond all tensors."""
    import torch
    import torch.distributed as dist

    from logitlab import parallel

    ranks = dist.get_world_size()
    k = CLASSES // ranks
    x = torch.randn(TOKENS, FEATURES, requires_grad=True)
    weight = (torch.randn(k, FEATURES) / 8).requires_grad_()
    parallel.linear_cross_entropy(x[:16], weight, torch.zeros(16, dtype=torch.int64)).backward()
    x.grad = weight.grad = None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parallel.linear_cross_entropy(x, weight, torch.zeros(TOKENS, dtype=torch.int64)).backward()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "weight": k * FEATURES * 4 / 2**20,
        "logits": TOKENS * k * 4 / 2**20,
        "extra": (after - before) / 2**10,
    }


def _run_rank(task: str, repeats: int, file: str) -> None:
    import torch
    import torch.distributed as dist

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found: Any = _measure(repeats) if task == "times" else _measure_memory()
    if dist.get_rank() == 0:
        Path(file).write_text(json.dumps(found), "utf-8")
    dist.destroy_process_group()


def _on_ranks(task: str, repeats: int) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "found.json")
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launch += ["--nproc-per-node", str(RANKS), "-m", "bench.parallel"]
        subprocess.run([*launch, task, str(repeats), file], check=True)
        return json.loads(Path(file).read_text("utf-8"))


def report(quick: bool, write: bool) -> None:
    """Print the tables."""
    rows = _on_ranks("times", _QUICK_REPEATS if quick else _REPEATS)
    ours = {row["case"]: row for row in rows if row["peer"] == "logitlab.parallel"}
    lines = [
        "| function | implementation | ms | relative | KiB of a rank |",
        "|---|---|--:|--:|--:|",
    ]
    for row in rows:
        ratio = row["seconds"] / ours[row["case"]]["seconds"]
        lines.append(
            f"| {row['case']} | {row['peer']} | {row['seconds'] * 1e3:.1f} | {ratio:.2f} | "
            f"{row['bytes'] / 1024:,.0f} |"
        )
    memory = _on_ranks("memory", 0)
    text = "\n".join(lines) + (
        f"\n\nMedian times of one run on {RANKS} processes with one thread each and gloo over the "
        f"loopback interface, {tables.machine()}; {tables.versions(('torch', 'numpy'))}. "
        f"{ROWS}×{CLASSES} float32, sd 3. The bytes are those that one rank gives to collective "
        "operations of torch; those of logitlab.parallel include the comparison of the arguments, "
        "4 KiB a call.\n\n"
        f"`linear_cross_entropy` and its gradients, {TOKENS} rows of {FEATURES} features and "
        f"{CLASSES} classes on {RANKS} ranks: each holds {memory['weight']:.0f} MiB of the weight; "
        f"beyond the weight and the gradients its memory grows by {memory['extra']:.0f} MiB, "
        f"{memory['extra'] / memory['logits']:.0%} of its share of the logits "
        f"({memory['logits']:.0f} MiB)."
    )
    print(text)
    if write:
        tables.write_page("parallel", text)


if __name__ == "__main__":
    _run_rank(sys.argv[1], int(sys.argv[2]), sys.argv[3])
