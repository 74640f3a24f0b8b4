"""The cells of `python -m bench sweep`: a computation, a type, a layout and a shape, and for each
the calls of logitlab and of other libraries that compute it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import logitlab
from bench import peers
from bench.probabilities import normal_logits

Call = Callable[[], Any]
Calls = dict[str, Call]

LAYOUTS = ("last axis", "inner axis", "strided", "where=")
_CONTIGUOUS = ("JAX jit", "onnxruntime", "XNNPACK")  # they were given a contiguous copy
_INNER = 64  # columns after the class axis in the layout "inner axis"


@dataclass(frozen=True)
class Cell:
    """One place of the heat map."""

    work: str
    dtype: str
    layout: str
    rows: int
    k: int

    @property
    def line(self) -> str:
        """The line of the heat map; the shape is its column."""
        parts = [self.work, self.dtype]
        return ", ".join(parts if self.layout == "last axis" else [*parts, self.layout])

    @property
    def key(self) -> str:
        return f"{self.line}, {self.rows}x{self.k}"


def _arrays(cell: Cell) -> tuple[Any, int, Any]:
    """Logits of the layout, the class axis, and a mask."""
    shape: tuple[int, ...] = (cell.rows, cell.k)
    mask = None
    if cell.layout == "inner axis":
        shape = (max(1, cell.rows // _INNER), cell.k, _INNER)
    elif cell.layout == "strided":
        shape = (cell.rows, 2 * cell.k)
    z = normal_logits(cell.dtype, 3.0, shape)
    if cell.layout == "strided":
        z = z[:, ::2]
    if cell.layout == "where=":
        mask = np.random.default_rng(1).random(z.shape) < 0.8
    return z, 1, mask


def _probabilities(cell: Cell) -> Calls:
    z, axis, mask = _arrays(cell)
    name = cell.work
    if mask is not None:
        import torch

        tensor, excluded = torch.from_numpy(z), torch.from_numpy(~mask)
        theirs = getattr(torch, name)
        return {
            "logitlab": lambda: getattr(logitlab, name)(z, where=mask),
            "torch": lambda: theirs(tensor.masked_fill(excluded, -torch.inf), axis),
        }
    calls = {}
    for peer, make in peers.PEERS.items():
        if cell.layout == "strided" and peer in _CONTIGUOUS:
            continue
        small = z.size <= 1 << 22 or peer in ("copy", "logitlab", "torch")
        call = make(name, z, axis) if small else None
        if call is not None and peer != "torch out=":
            calls[peer] = call
    return calls


def _labels(cell: Cell) -> tuple[Any, Any]:
    z = normal_logits(cell.dtype, 3.0, (cell.rows, cell.k))
    return z, np.random.default_rng(2).integers(0, cell.k, cell.rows)


def _jitted(function: Callable[..., Any], *arrays: Any) -> Call:
    import jax

    compiled, arguments = jax.jit(function), [jax.numpy.asarray(a) for a in arrays]
    return lambda: jax.block_until_ready(compiled(*arguments))


def _losses(cell: Cell) -> Calls:
    import jax
    import torch

    z, y = _labels(cell)
    tensor, labels = torch.from_numpy(z), torch.from_numpy(y)

    def jax_loss(z: Any, y: Any) -> Any:
        log_p = jax.nn.log_softmax(z)
        return -jax.numpy.mean(jax.numpy.take_along_axis(log_p, y[:, None], -1))

    if cell.work == "cross_entropy":
        return {
            "logitlab": lambda: logitlab.cross_entropy(z, y),
            "torch": lambda: torch.nn.functional.cross_entropy(tensor, labels),
            "JAX jit": _jitted(jax_loss, z, y),
        }
    variable = tensor.clone().requires_grad_()

    def torch_gradient() -> Any:
        variable.grad = None
        torch.nn.functional.cross_entropy(variable, labels).backward()

    def our_gradient_in_torch() -> Any:
        variable.grad = None
        logitlab.cross_entropy(variable, labels).backward()

    if cell.work == "torch loss and gradient":
        return {"logitlab": our_gradient_in_torch, "torch": torch_gradient}
    return {
        "logitlab": lambda: logitlab.cross_entropy_and_grad(z, y),
        "torch": torch_gradient,
        "JAX jit": _jitted(jax.value_and_grad(jax_loss), z, y),
    }


def _scores(cell: Cell) -> Calls:
    import jax
    import torch

    z, y = _labels(cell)
    other = normal_logits(cell.dtype, 2.0, z.shape)[:, ::-1].copy()
    tensor, labels = torch.from_numpy(z), torch.from_numpy(y)
    functional = torch.nn.functional

    def jax_entropy(z: Any) -> Any:
        return -(jax.nn.softmax(z) * jax.nn.log_softmax(z)).sum(-1)

    def jax_divergence(z: Any, w: Any) -> Any:
        return (jax.nn.softmax(z) * (jax.nn.log_softmax(z) - jax.nn.log_softmax(w))).sum(-1)

    def jax_product(z: Any, v: Any) -> Any:
        q = jax.nn.softmax(z)
        return q * (v - (q * v).sum(-1, keepdims=True))

    def jax_second_product(z: Any, u: Any, v: Any) -> Any:
        q = jax.nn.softmax(z)
        du = u - (q * u).sum(-1, keepdims=True)
        dv = v - (q * v).sum(-1, keepdims=True)
        return q * (du * dv - (q * du * dv).sum(-1, keepdims=True))

    w = torch.from_numpy(other)

    def torch_product() -> Any:
        q = torch.softmax(tensor, -1)
        return q * (w - (q * w).sum(-1, keepdim=True))

    def torch_second_product() -> Any:
        q = torch.softmax(tensor, -1)
        d = w - (q * w).sum(-1, keepdim=True)
        d = d * d
        return q * (d - (q * d).sum(-1, keepdim=True))

    def torch_brier_score() -> Any:
        one_hot = functional.one_hot(labels, z.shape[1])
        return (torch.softmax(tensor, -1) - one_hot).square().sum(-1).mean()

    def torch_entropy() -> Any:
        log_p = torch.log_softmax(tensor, -1)
        return -(log_p.exp() * log_p).sum(-1)

    return {
        "entropy": lambda: {
            "logitlab": lambda: logitlab.entropy(z),
            "torch": torch_entropy,
            "JAX jit": _jitted(jax_entropy, z),
        },
        "kl_divergence": lambda: {
            "logitlab": lambda: logitlab.kl_divergence(z, other),
            "torch": lambda: functional.kl_div(
                torch.log_softmax(torch.from_numpy(other), -1),
                torch.log_softmax(tensor, -1),
                log_target=True,
                reduction="none",
            ).sum(-1),
            "JAX jit": _jitted(jax_divergence, z, other),
        },
        "brier_score": lambda: {
            "logitlab": lambda: logitlab.brier_score(z, y),
            "torch": torch_brier_score,
        },
        "jacobian_product": lambda: {
            "logitlab": lambda: logitlab.jacobian_product(z, other),
            "torch": torch_product,
            "JAX jit": _jitted(jax_product, z, other),
        },
        "hessian_product": lambda: {
            "logitlab": lambda: logitlab.hessian_product(z, other, other),
            "torch": torch_second_product,
            "JAX jit": _jitted(jax_second_product, z, other, other),
        },
    }[cell.work]()


def _torch_backward(cell: Cell) -> Calls:
    import torch

    z = torch.from_numpy(normal_logits(cell.dtype, 3.0, (cell.rows, cell.k))).requires_grad_()
    # The gradient of a sum of probabilities is 0: ones would be no example.
    g = torch.from_numpy(normal_logits(cell.dtype, 1.0, z.shape))

    def with_gradient(softmax: Callable[..., Any]) -> Call:
        return lambda: torch.autograd.grad(softmax(z, -1), z, g)

    return {"logitlab": with_gradient(logitlab.softmax), "torch": with_gradient(torch.softmax)}


def _torch_forward(cell: Cell) -> Calls:
    import torch

    z = peers.tensor(normal_logits(cell.dtype, 3.0, (cell.rows, cell.k)))
    return {"logitlab": lambda: logitlab.softmax(z, -1), "torch": lambda: torch.softmax(z, -1)}


def _jax(cell: Cell) -> Calls:
    import jax

    z = normal_logits(cell.dtype, 3.0, (cell.rows, cell.k))
    if cell.work == "JAX softmax":
        return {"logitlab": _jitted(logitlab.softmax, z), "JAX jit": _jitted(jax.nn.softmax, z)}

    def with_gradient(softmax: Callable[..., Any]) -> Call:
        g = normal_logits(cell.dtype, 1.0, z.shape)
        return _jitted(lambda z, g: jax.vjp(softmax, z)[1](g), z, g)

    return {"logitlab": with_gradient(logitlab.softmax), "JAX jit": with_gradient(jax.nn.softmax)}


def _sampling(cell: Cell) -> Calls:
    import torch

    from bench.sampling import TOP_P, torch_top_p

    z = normal_logits(cell.dtype, 3.0, (cell.rows, cell.k))
    tensor, rng = torch.from_numpy(z), np.random.default_rng(0)
    generator = np.random.default_rng(1)

    def exponential_trick(logits: Any) -> Any:
        p = torch.softmax(logits, -1)
        return (p / torch.empty_like(p).exponential_()).argmax(-1)

    if cell.work == "sample, top_p":
        return {
            "logitlab": lambda: logitlab.sample(z, top_p=TOP_P, rng=rng),
            "torch, exponential": lambda: exponential_trick(torch_top_p(tensor)),
        }
    return {
        "logitlab": lambda: logitlab.sample(z, rng=rng),
        "torch, exponential": lambda: exponential_trick(tensor),
        "NumPy, Gumbel": lambda: (z + generator.gumbel(size=z.shape)).argmax(-1),
    }


_MAKERS: dict[str, Callable[[Cell], Calls]] = {
    **dict.fromkeys(("softmax", "log_softmax", "logsumexp"), _probabilities),
    **dict.fromkeys(("cross_entropy", "loss and gradient", "torch loss and gradient"), _losses),
    **dict.fromkeys(
        ("entropy", "kl_divergence", "brier_score", "jacobian_product", "hessian_product"), _scores
    ),
    "torch softmax": _torch_forward,
    "torch softmax and gradient": _torch_backward,
    **dict.fromkeys(("JAX softmax", "JAX softmax and gradient"), _jax),
    **dict.fromkeys(("sample", "sample, top_p"), _sampling),
}


def calls(cell: Cell) -> Calls:
    """The calls that compute a cell; those of logitlab begin with its name."""
    return _MAKERS[cell.work](cell)


_K = (2, 10, 32, 100, 128, 129, 200, 1000, 4096, 32000, 128256, 1 << 22)
_ROWS = (1, 16, 64, 1000, 4096, 100_000, 1_000_000)
_FEW = [(1, 10), (64, 1000), (1000, 129), (1000, 200), (1000, 1000), (100_000, 10), (16, 128256)]


def cells(quick: bool) -> Iterator[Cell]:
    """The cells of the sweep, or of the one that takes five minutes."""
    limit = 1 << 25
    shapes = sorted(
        {(n, k) for n in _ROWS for k in _K if n * k <= limit and (n == 1 or k < 1 << 22)}
    )
    for work in _MAKERS:
        family = work in ("softmax", "log_softmax", "logsumexp")
        for dtype in ("float32", "float64", "float16", "bfloat16"):
            for layout in LAYOUTS:
                main = dtype == "float32" and layout == "last axis"
                if not main and (not family or work == "logsumexp"):
                    continue
                if layout == "where=" and dtype != "float32":
                    continue
                if quick and not main and work != "softmax":
                    continue
                for rows, k in shapes if main and family and not quick else _FEW:
                    yield Cell(work, dtype, layout, rows, k)
