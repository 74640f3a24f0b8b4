"""Derivatives and losses beside torch's own: times, 2 threads."""

from collections.abc import Callable
from typing import Any

import numpy as np

import logitlab
from bench import tables
from bench.probabilities import SHAPES
from bench.timing import interleaved

Call = Callable[[], Any]
Case = tuple[str, dict[str, Call]]


def _array(shape: tuple[int, ...], spread: float = 3.0, seed: int = 0) -> Any:
    z = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    z *= np.float32(spread)
    return z


def _dense() -> Case:
    import torch

    z = _array((16, 1000))
    t = torch.from_numpy(z)
    slow = torch.func.vmap(torch.func.jacrev(lambda x: torch.softmax(x, -1)))

    def formula() -> Any:
        p = torch.softmax(t, -1)
        return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]

    return "jacobian 16×1000", {
        "logitlab": lambda: logitlab.jacobian(z),
        "vmap(jacrev)": lambda: slow(t),
        "diag_embed(p) - p pᵀ": formula,
    }


def _product() -> Case:
    z, v = _array((1_000_000,)), _array((1_000_000,), 1.0, 1)
    return "jacobian_product, K = 1000000", {
        "logitlab": lambda: logitlab.jacobian_product(z, v),
        "our softmax": lambda: logitlab.softmax(z),
    }


def _backward(name: str, shape: tuple[int, ...]) -> Case:
    import torch

    z = torch.from_numpy(_array(shape)).requires_grad_()
    g = torch.from_numpy(_array(shape, 1.0, 1))
    ours = getattr(logitlab, name)(z, 1)
    theirs = getattr(torch, name)(z, 1)

    def back(value: Any) -> Call:
        return lambda: torch.autograd.grad(value, z, g, retain_graph=True)

    title = f"{name} backward {'×'.join(map(str, shape))}"
    return title, {"logitlab": back(ours), "torch": back(theirs)}


def _loss(shape: tuple[int, int], targets: str = "labels") -> Case:
    import torch

    z, rng = _array(shape), np.random.default_rng(1)
    y: Any = rng.integers(0, shape[1], shape[0])
    if targets == "distributions":
        y = logitlab.softmax(rng.standard_normal(shape, dtype=np.float32))
    smoothing = {"label_smoothing": 0.1} if targets == "smoothed labels" else {}
    tensor, label = torch.from_numpy(z).requires_grad_(), torch.from_numpy(y)

    def through(loss: Callable[..., Any]) -> Call:
        def call() -> Any:
            tensor.grad = None
            loss(tensor, label, **smoothing).backward()

        return call

    title = f"cross_entropy {'×'.join(map(str, shape))}"
    return title if targets == "labels" else f"{title}, {targets}", {
        "logitlab": lambda: logitlab.cross_entropy_and_grad(z, y, **smoothing),
        "logitlab in torch": through(logitlab.cross_entropy),
        "torch": through(torch.nn.functional.cross_entropy),
    }


def _linear(n: int, d: int, k: int) -> Case:
    import torch

    x, w = _array((n, d), 1.0), _array((k, d), 0.05, 1)
    y = np.random.default_rng(2).integers(0, k, n)
    tx, tw = (torch.from_numpy(a).requires_grad_() for a in (x, w))
    label = torch.from_numpy(y)
    options = torch.nn.LinearCrossEntropyOptions()

    def through(loss: Callable[[], Any]) -> Call:
        def call() -> Any:
            tx.grad = tw.grad = None
            loss().backward()

        return call

    functional = torch.nn.functional
    return f"linear_cross_entropy {n}×{d}, {k} classes", {
        "logitlab": lambda: logitlab.linear_cross_entropy_and_grad(x, w, y),
        "logitlab in torch": through(lambda: logitlab.linear_cross_entropy(tx, tw, label)),
        "torch": through(lambda: functional.cross_entropy(tx @ tw.T, label)),
        "torch, chunked": through(
            lambda: functional.linear_cross_entropy(tx, tw, label, options=options)
        ),
    }


def cases(what: str, quick: bool) -> list[Callable[[], Case]]:
    if what == "losses":
        shapes = [(4096, 1000), (256, 128256), (64, 1000), (100000, 10)]
        some: list[Callable[[], Case]] = [lambda s=s: _loss(s) for s in shapes]
        more = [(s, t) for s in shapes[:2] for t in ("smoothed labels", "distributions")]
        some += [lambda s=s, t=t: _loss(s, t) for s, t in more]
        return some if quick else [*some, lambda: _linear(2048, 512, 32000)]
    large = [shape for shape in SHAPES if np.prod(shape) >= 64000 and shape != (8192, 12564)]
    names = ["softmax"] if quick else ["softmax", "log_softmax"]
    return [
        _dense,
        _product,
        *(lambda n=n, s=s: _backward(n, s) for n in names for s in large),
    ]


def measure(what: str, quick: bool) -> list[dict[str, Any]]:
    """One row for each case: times in seconds by who computes."""
    rows = []
    for make in cases(what, quick):
        title, calls = make()
        slow = title.startswith("linear")
        times = interleaved(calls, 3 if slow else 9)
        rows.append({"case": title, "times": times})
        ours = times["logitlab"]
        listing = "  ".join(f"{name} {t / ours:.2f}" for name, t in times.items())
        print(f"{title}: {ours * 1e3:.3f} ms = 1; {listing}", flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Times in milliseconds; in brackets the multiple of logitlab's."""
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


def note(rows: list[dict[str, Any]]) -> str:
    return (
        f"Milliseconds, medians of one run on {tables.machine()}, 2 threads; "
        f"{tables.versions(('numpy', 'torch'))}. A loss is timed with its gradients, a backward "
        "alone. In brackets the multiple of logitlab's time."
    )


def report(what: str, quick: bool, write: bool) -> None:
    rows = measure(what, quick)
    text = f"{table(rows)}\n\n{note(rows)}"
    print(text)
    if write:
        tables.write_page(what, text)
