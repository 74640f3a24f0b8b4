"""softmax, log_softmax, logsumexp and entropy of logits whose classes are sharded."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from logitlab import _arrays, probabilities
from logitlab._backends.torch_autograd import divide_by_temperature
from logitlab.parallel import _sums
from logitlab.parallel._group import Shards, agreed, digest, shape_of, shards_of


class Rows(NamedTuple):
    """The checked logits of a call as rows, the classes of this rank last.

    Those of a row with T < 0 have the other sign, and excluded ones are -inf.
    """

    z: Tensor  # (R, K of this rank)
    t: Tensor  # (R,): |T|, float64, on the device of z
    sign: Tensor | None  # (R,): -1 where T < 0; None where no T is
    shards: Shards
    batch: tuple[int, ...]
    axis: int

    def restore(self, rows: Tensor) -> Tensor:
        """A tensor like z in the shape of the argument."""
        return rows.view(*self.batch, rows.shape[-1]).movedim(-1, self.axis)


def check_tensor(z: Any, name: str) -> Tensor:
    if not isinstance(z, Tensor):
        raise TypeError(f"{name} must be a torch tensor, got {type(z).__name__}")
    return z


def check_request(z: Any, axis: Any, temperature: Any, where: Any) -> _arrays.Request:
    """The checked arguments of one shard."""
    z = _arrays.as_floating(check_tensor(z, "z"), "z")
    _arrays.one_axis(axis, z.ndim)
    request = _arrays.request(z, axis, temperature, where)
    if isinstance(request.temperature, Tensor) and request.temperature.requires_grad:
        raise ValueError("temperature must not require a gradient for sharded logits")
    return request


def row_temperatures(temperature: Any, z: Tensor, batch: tuple[int, ...], axis: int) -> Tensor:
    """T of each row as float64."""
    if isinstance(temperature, float):
        t = torch.tensor(temperature, dtype=torch.float64, device=z.device)
    else:
        t = temperature.detach().double().movedim(axis, -1)[..., 0]
    return t.expand(batch).reshape(-1)


def shard_rows(request: _arrays.Request, shards: Shards) -> Rows:
    z, (axis,), temperature, where, _ = request
    if where is not None:
        z = torch.where(where, z, -torch.inf)
    z = z.movedim(axis, -1)
    batch = tuple(z.shape[:-1])
    t = row_temperatures(temperature, z, batch, axis)
    rows = z.reshape(t.numel(), z.shape[-1])
    sign = None
    if bool((t < 0).any()):
        sign = torch.where(t < 0, -1.0, 1.0)
        turned = torch.where(rows.isinf(), -torch.inf, -rows)
        rows = torch.where((t < 0)[:, None], turned, rows)
    return Rows(rows, t.abs(), sign, shards, batch, axis)


def describe(function: str, request: _arrays.Request, **settings: Any) -> dict[str, str]:
    """What must be the same on all ranks."""
    t = request.temperature
    return {
        "function": function,
        "z": shape_of(request.z, request.axes[0]),
        "temperature": digest(t if isinstance(t, float) else t.detach()),
        **{name: digest(value) for name, value in settings.items()},
    }


def own_classes(request: _arrays.Request) -> dict[str, str]:
    """What may differ between ranks: the number of classes."""
    return {"classes": str(request.z.shape[request.axes[0]])}


def check_rows(function: str, z: Any, axis: Any, temperature: Any, where: Any, group: Any) -> Rows:
    def check() -> tuple[_arrays.Request, dict[str, str], dict[str, str]]:
        request = check_request(z, axis, temperature, where)
        return request, describe(function, request), own_classes(request)

    request, ranks = agreed(group, check)
    return shard_rows(request, shards_of(group, ranks))


def gather_sums(sums: Tensor, shards: Shards) -> tuple[Tensor, int]:
    """The sums of the chunks of all ranks, (R, chunks, 5), and the number of this rank's first."""
    counts = [_sums.chunks_of(size) for size in shards.sizes]
    padding = max(counts) - counts[shards.rank]
    parts = shards.gather(torch.nn.functional.pad(sums, (0, 0, 0, padding)))
    own = [part[:, :count] for part, count in zip(parts, counts, strict=True)]
    return torch.cat(own, 1), sum(counts[: shards.rank])


def out_of_range(totals: Tensor) -> Tensor:
    """The numbers of the rows without a result."""
    return torch.nonzero(totals[:, 3] == 0)[:, 0]


def _forward(name: str, z: Tensor, t: Tensor, shards: Shards) -> tuple[Tensor, Tensor, int]:
    """The results of a function, the sums of all chunks and the number of the first own one."""
    if shards.classes <= _sums.CHUNK:
        # A row of one chunk has other sums.
        everything = torch.arange(len(z), device=z.device)
        sums = z.new_empty(0)
        out = z.new_empty(len(z)) if name == "logsumexp" else torch.empty_like(z)
        _fill(name, z, t, shards, everything, out)
        return out, sums, 0
    sums, first = gather_sums(_sums.chunk_sums(name, z, t), shards)
    out, totals = _sums.results(name, z, t, sums, first, shards.classes)
    _fill(name, z, t, shards, out_of_range(totals), out)
    return out, sums, first


def _fill(name: str, z: Tensor, t: Tensor, shards: Shards, rows: Tensor, out: Tensor) -> None:
    """Writes the results of some rows, which are gathered for the unsharded function."""
    if not len(rows):
        return
    function: Callable[..., Tensor] = getattr(probabilities, name)
    result = function(shards.gather_classes(z[rows]), temperature=t[rows])
    out[rows] = result if name == "logsumexp" else shards.local(result)


def softmax_of(z: Tensor, t: Tensor, sums: Tensor, first: int, shards: Shards) -> Tensor:
    """The softmax from the sums of any other function."""
    if not sums.numel():
        return _forward("softmax", z, t, shards)[0]
    p, totals = _sums.results("gradient", z, t, sums, first, shards.classes)
    _fill("softmax", z, t, shards, out_of_range(totals), p)
    return p


def wide(x: Tensor) -> Tensor:
    """In at least float32."""
    return x.float() if x.itemsize < 4 else x


class _Softmax(torch.autograd.Function):  # type: ignore[misc]
    """softmax or log_softmax."""

    @staticmethod
    def forward(ctx: Any, name: str, z: Tensor, t: Tensor, shards: Shards) -> Tensor:
        out, _, _ = _forward(name, z.detach(), t, shards)
        ctx.save_for_backward(out, t)
        ctx.name, ctx.shards = name, shards
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Any:
        out, t = ctx.saved_tensors
        out, g = wide(out), wide(gradient)
        p = out if ctx.name == "softmax" else out.exp()
        product = p * g if ctx.name == "softmax" else g
        total = ctx.shards.sum(product.sum(-1, keepdim=True, dtype=torch.float64)).to(g.dtype)
        result = p * (g - total) if ctx.name == "softmax" else g - p * total
        result = torch.where(p == 0, 0.0, result) if ctx.name == "softmax" else result
        return None, divide_by_temperature(result, t[:, None]).to(gradient.dtype), None, None


class _LogSumExp(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, z: Tensor, t: Tensor, shards: Shards) -> Tensor:
        z = z.detach()
        out, sums, first = _forward("logsumexp", z, t, shards)
        ctx.save_for_backward(z, t, sums)
        ctx.first, ctx.shards = first, shards
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Any:
        z, t, sums = ctx.saved_tensors
        p = softmax_of(z, t, sums, ctx.first, ctx.shards)
        return (p * gradient[:, None]).to(z.dtype), None, None


class _Entropy(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, z: Tensor, t: Tensor, shards: Shards) -> Tensor:
        log_p, _, _ = _forward("log_softmax", wide(z.detach()), t, shards)
        p = log_p.exp()
        terms = torch.where(log_p == -torch.inf, 0.0, -p * log_p)
        h = shards.sum(terms.sum(-1, dtype=torch.float64))
        ctx.save_for_backward(log_p, h, t)
        ctx.dtype = z.dtype
        return h.to(z.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Any:
        log_p, h, t = ctx.saved_tensors
        x = -log_p.exp() * (log_p + h[:, None].to(log_p.dtype))
        x = torch.where(log_p == -torch.inf, 0.0, x)
        x = divide_by_temperature(x * wide(gradient)[:, None], t[:, None])
        return x.to(ctx.dtype), None, None
