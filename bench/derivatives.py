"""Derivatives and losses compared with torch: times on 2 threads."""

from collections.abc import Callable
from typing import Any

import numpy as np

import logitlab
from bench import tables
from bench.probabilities import SHAPES
from bench.timing import interleaved

Call = Callable[[], Any]
Case = tuple[str, dict[str, Call]]


def _normal(shape: tuple[int, ...], spread: float = 3.0, seed: int = 0) -> Any:
    z = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    z *= np.float32(spread)
    return z


def _jacobian() -> Case:
    import torch

    z = _normal((16, 1000))
    t = torch.from_numpy(z)
    automatic = torch.func.vmap(torch.func.jacrev(lambda x: torch.softmax(x, -1)))

    def formula() -> Any:
        p = torch.softmax(t, -1)
        return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]

    return "jacobian 16×1000", {
        "logitlab": lambda: logitlab.jacobian(z),
        "vmap(jacrev)": lambda: automatic(t),
        "diag_embed(p) - p pᵀ": formula,
    }


def _jacobian_product() -> Case:
    z, v = _normal((1_000_000,)), _normal((1_000_000,), 1.0, 1)
    return "jacobian_product, K = 1000000", {
        "logitlab": lambda: logitlab.jacobian_product(z, v),
        "logitlab.softmax": lambda: logitlab.softmax(z),
    }


def _backward(name: str, shape: tuple[int, ...]) -> Case:
    import torch

    z = torch.from_numpy(_normal(shape)).requires_grad_()
    g = torch.from_numpy(_normal(shape, 1.0, 1))
    ours = getattr(logitlab, name)(z, 1)
    reference = getattr(torch, name)(z, 1)

    def backward(value: Any) -> Call:
        return lambda: torch.autograd.grad(value, z, g, retain_graph=True)

    title = f"{name} backward {'×'.join(map(str, shape))}"
    return title, {"logitlab": backward(ours), "torch": backward(reference)}


def _loss(shape: tuple[int, int], targets: str = "labels") -> Case:
    import torch

    z, rng = _normal(shape), np.random.default_rng(1)
    y: Any = rng.integers(0, shape[1], shape[0])
    if targets == "distributions":
        y = logitlab.softmax(rng.standard_normal(shape, dtype=np.float32))
    smoothing = {"label_smoothing": 0.1} if targets == "smoothed labels" else {}
    tensor, target = torch.from_numpy(z).requires_grad_(), torch.from_numpy(y)

    def with_gradients(loss: Callable[..., Any]) -> Call:
        def call() -> Any:
            tensor.grad = None
            loss(tensor, target, **smoothing).backward()

        return call

    title = f"cross_entropy {'×'.join(map(str, shape))}"
    return title if targets == "labels" else f"{title}, {targets}", {
        "logitlab": lambda: logitlab.cross_entropy_and_grad(z, y, **smoothing),
        "logitlab in torch": with_gradients(logitlab.cross_entropy),
        "torch": with_gradients(torch.nn.functional.cross_entropy),
    }


def _linear(n: int, d: int, k: int) -> Case:
    import torch

    x, w = _normal((n, d), 1.0), _normal((k, d), 0.05, 1)
    y = np.random.default_rng(2).integers(0, k, n)
    tx, tw = (torch.from_numpy(a).requires_grad_() for a in (x, w))
    target = torch.from_numpy(y)
    options = torch.nn.LinearCrossEntropyOptions()

    def with_gradients(loss: Callable[[], Any]) -> Call:
        def call() -> Any:
            tx.grad = tw.grad = None
            loss().backward()

        return call

    functional = torch.nn.functional
    return f"linear_cross_entropy {n}×{d}, {k} classes", {
        "logitlab": lambda: logitlab.linear_cross_entropy_and_grad(x, w, y),
        "logitlab in torch": with_gradients(lambda: logitlab.linear_cross_entropy(tx, tw, target)),
        "torch": with_gradients(lambda: functional.cross_entropy(tx @ tw.T, target)),
        "torch, chunked": with_gradients(
            lambda: functional.linear_cross_entropy(tx, tw, target, options=options)
        ),
    }


def cases(benchmark: str, quick: bool) -> list[Callable[[], Case]]:
    """The functions that prepare the cases of a benchmark, derivatives or losses."""
    if benchmark == "losses":
        shapes = [(4096, 1000), (256, 128256), (64, 1000), (100000, 10)]
        losses: list[Callable[[], Case]] = [lambda s=s: _loss(s) for s in shapes]
        other_targets = [(s, t) for s in shapes[:2] for t in ("smoothed labels", "distributions")]
        losses += [lambda s=s, t=t: _loss(s, t) for s, t in other_targets]
        return losses if quick else [*losses, lambda: _linear(2048, 512, 32000)]
    large = [shape for shape in SHAPES if np.prod(shape) >= 64000 and shape != (8192, 12564)]
    names = ["softmax"] if quick else ["softmax", "log_softmax"]
    return [
        _jacobian,
        _jacobian_product,
        *(lambda n=n, s=s: _backward(n, s) for n in names for s in large),
    ]


def measure(benchmark: str, quick: bool) -> list[dict[str, Any]]:
    """One row for each case: times in seconds, by library."""
    rows = []
    for make in cases(benchmark, quick):
        title, calls = make()
        slow = title.startswith("linear")
        times = interleaved(calls, 3 if slow else 9)
        rows.append({"case": title, "times": times})
        ours = times["logitlab"]
        listing = "  ".join(f"{name} {t / ours:.2f}" for name, t in times.items())
        print(f"{title}: {ours * 1e3:.3f} ms = 1; {listing}", flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Times in milliseconds; in brackets relative to logitlab."""
    names = list(dict.fromkeys(name for row in rows for name in row["times"]))
    lines = ["| float32 | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in rows:
        times = row["times"]
        cells = [row["case"]]
        for name in names:
            if name not in times:
                cells.append("")
            elif name == "logitlab":
                cells.append(f"{times[name] * 1e3:.3g}")
            else:
                cells.append(f"{times[name] * 1e3:.3g} ({times[name] / times['logitlab']:.2f}×)")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def note() -> str:
    """The note under the table: units, machine and versions."""
    return (
        f"Median times in milliseconds of one run on {tables.machine()}, 2 threads; "
        f"{tables.versions(('numpy', 'torch'))}. A loss is timed with its gradients, a backward "
        "pass alone. In brackets: the time relative to logitlab's."
    )


def report(benchmark: str, quick: bool, write: bool) -> None:
    """Measure, print the table and write its page."""
    text = f"{table(measure(benchmark, quick))}\n\n{note()}"
    print(text)
    if write:
        tables.write_page(benchmark, text)
