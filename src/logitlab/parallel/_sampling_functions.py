"""truncate, sample and log_prob of rows whose classes are sharded."""

from typing import Any

import torch
from torch import Tensor

from logitlab.parallel import _sampling
from logitlab.parallel._group import Shards, agreed, shards_of
from logitlab.parallel._rows import Rows, _Softmax, check_request, describe, own_classes, shard_rows
from logitlab.sampling.log_probs import _check_tokens


class _SumOverRanks(torch.autograd.Function):  # type: ignore[misc]
    """The sum over the ranks, whose upstream gradient is the same on all of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shards: Shards) -> Tensor:
        return shards.sum(x.detach().double()).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient, None


def _log_prob(rows: Rows, z: Tensor, tokens: Tensor) -> Tensor:
    """The log-probabilities of tokens, (R, n), for the logits z of this rank."""
    shards = rows.shards
    log_p = _Softmax.apply("log_softmax", z, rows.t, shards)
    column, is_own = shards.columns(tokens)
    if not shards.size:
        log_p = torch.nn.functional.pad(log_p, (0, 1))
    value = log_p.gather(1, column)
    result: Tensor = _SumOverRanks.apply(torch.where(is_own, value, 0.0), shards)
    return result


def truncate(
    z: Tensor,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    group: Any = None,
    **settings: Any,
) -> Tensor:
    """Logits of this rank, with the classes that a truncation removes set to -inf.

    Parameters
    ----------
    z, axis, temperature, where, group
        As in :func:`logitlab.parallel.softmax`.
    **settings
        The settings of :class:`logitlab.Sampler`, the same on all ranks. The first stage in use of
        each row is `top_k`, `top_p` or `min_p`; XTC and the dynamic temperature are not available.

    Returns
    -------
    Tensor, shape of z
        As of :func:`logitlab.truncate` of all classes.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.truncate` and :func:`logitlab.parallel.softmax`.

    Notes
    -----
    What the first stage may keep is gathered on all ranks, and the other stages are computed there.
    """
    settings["temperature"] = temperature
    request = _sampling.check_call("truncate", settings, z, axis, where, None, None, group)
    found = _sampling.parts(request, samples=False)
    kept = request.rows.restore(_sampling.kept_mask(request, found))
    if where is not None:
        kept = kept & where
    return torch.where(kept, z, -torch.inf)


def sample(
    z: Tensor,
    n: int | None = None,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    rng: Any = None,
    row_keys: Any = None,
    group: Any = None,
    **settings: Any,
) -> Tensor:
    """Samples of rows whose classes are sharded, the same on all ranks.

    Parameters
    ----------
    z : Tensor, shape (..., K of this rank, ...)
        The logits of the classes of this rank, as in :func:`logitlab.parallel.softmax`.
    n : int, optional
        The number of samples of each row, >= 1; without it one, without a new axis.
    axis, temperature, where
        As in :func:`logitlab.parallel.softmax`.
    rng, row_keys
        As in :func:`logitlab.sample`; the same on all ranks. Without `rng` the seed of rank 0 is
        used.
    group : torch.distributed.ProcessGroup, optional
        The ranks; by default, all.
    **settings
        As in :func:`logitlab.parallel.truncate`.

    Returns
    -------
    Tensor of int64, shape of z without the class axis, with n as a new last axis
        Numbers among all classes: those of :func:`logitlab.sample` of all classes with the same
        seed, for any shards.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.sample` and :func:`logitlab.parallel.softmax`.

    Notes
    -----
    With `top_p` as the first stage, the tokens may differ from those of one process where a sum of
    probabilities is within about 1e-15 of p.
    """
    return _sample("sample", z, n, axis, temperature, where, rng, row_keys, group, settings)[0]


def _sample(
    function: str,
    z: Tensor,
    n: int | None,
    axis: int,
    temperature: Any,
    where: Any,
    rng: Any,
    row_keys: Any,
    group: Any,
    settings: dict[str, Any],
) -> tuple[Tensor, _sampling.Request, list[_sampling.Part]]:
    settings["temperature"] = temperature
    request = _sampling.check_call(function, settings, z, axis, where, rng, row_keys, group, n)
    count = 1 if n is None else int(n)
    found = _sampling.parts(request, samples=True)
    classes = torch.from_numpy(_sampling.sample_rows(request, count, found)).to(z.device)
    batch = request.rows.batch
    return classes.view(batch if n is None else (*batch, count)), request, found


def sample_with_log_prob(
    z: Tensor,
    n: int | None = None,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    rng: Any = None,
    row_keys: Any = None,
    group: Any = None,
    **settings: Any,
) -> tuple[Tensor, Tensor]:
    """Samples of rows whose classes are sharded, and their log-probabilities.

    Parameters
    ----------
    z, n, axis, temperature, where, rng, row_keys, group
        As in :func:`logitlab.parallel.sample`.
    **settings
        As in :func:`logitlab.parallel.truncate`.

    Returns
    -------
    tokens : Tensor of int64
        As of :func:`logitlab.parallel.sample`.
    log_prob : Tensor, shape of tokens
        Under the truncated distribution, in the type of z and the same on all ranks; gradients as
        in :func:`logitlab.parallel.logsumexp`.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.parallel.sample`.
    """
    tokens, request, found = _sample(
        "sample_with_log_prob", z, n, axis, temperature, where, rng, row_keys, group, settings
    )
    rows = request.rows
    kept = torch.where(_sampling.kept_mask(request, found), rows.z, -torch.inf)
    return tokens, _log_prob(rows, kept, tokens.reshape(len(rows.z), -1)).view(tokens.shape)


def log_prob(
    z: Tensor,
    tokens: Any,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    group: Any = None,
) -> Tensor:
    """Log-probabilities of tokens for logits whose classes are sharded, the same on all ranks.

    Parameters
    ----------
    z : Tensor, shape (..., K of this rank, ...)
        The logits of the classes of this rank, as in :func:`logitlab.parallel.softmax`.
    tokens : array of int, shape of z without the class axis, or with an axis appended
        Numbers among all classes, the same on all ranks.
    axis, temperature
        As in :func:`logitlab.parallel.softmax`.
    where : Tensor of bool, optional
        Broadcasts to z. Classes where it is False are excluded, as those that a truncation removed.
    group : torch.distributed.ProcessGroup, optional
        The ranks; by default, all.

    Returns
    -------
    Tensor, shape of tokens
        As of :func:`logitlab.log_prob` of all classes; gradients as in
        :func:`logitlab.parallel.logsumexp`.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.log_prob` and :func:`logitlab.parallel.softmax`.
    """

    def check() -> Any:
        request = check_request(z, axis, temperature, where)
        return request, describe("log_prob", request, tokens=tokens), own_classes(request)

    request, ranks = agreed(group, check)
    rows = shard_rows(request, shards_of(group, ranks))
    checked = torch.from_numpy(_check_tokens(tokens, rows.batch, rows.shards.classes))
    flat = checked.to(z.device).reshape(len(rows.z), -1)
    return _log_prob(rows, rows.z, flat).view(checked.shape)
