"""The functions of rows whose classes are sharded."""

from typing import Any

from torch import Tensor

from logitlab.parallel._rows import (
    Rows,
    _Entropy,
    _LogSumExp,
    _Softmax,
    check_rows,
)


def _elementwise(name: str, rows: Rows) -> Tensor:
    result: Tensor = _Softmax.apply(name, rows.z, rows.t, rows.shards)
    return rows.restore(result)


def softmax(
    z: Tensor, axis: int = -1, *, temperature: Any = 1.0, where: Any = None, group: Any = None
) -> Tensor:
    """Softmax of logits whose classes are sharded over the ranks of a process group.

    Every rank calls it with its own shard, as of :func:`logitlab.softmax` of all classes.

    Parameters
    ----------
    z : Tensor, shape (..., K of this rank, ...)
        The logits of the classes of this rank: those of rank 0 come first, then those of rank 1,
        and so on. Ranks may have different numbers of classes, and none. float16, bfloat16,
        float32 or float64.
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one for each row; the same on all ranks.
    where : Tensor of bool, optional
        Broadcasts to z. Classes where it is False are excluded.
    group : torch.distributed.ProcessGroup, optional
        The ranks; by default, all.

    Returns
    -------
    Tensor, shape of z
        The probabilities of the classes of this rank, with gradients.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.softmax`, on all ranks if on one; ranks that differ in shape, type,
        temperature or function: the message names the first such rank.

    Notes
    -----
    Where the shards begin at multiples of 4096 classes, the result has the bits of that of one
    process on CPUs with the compiled kernels. Rows with NaN, with +inf or out of the range of the
    kernels (such as T = 0), and all rows of at most 4096 classes, are gathered.
    """
    return _elementwise("softmax", check_rows("softmax", z, axis, temperature, where, group))


def log_softmax(
    z: Tensor, axis: int = -1, *, temperature: Any = 1.0, where: Any = None, group: Any = None
) -> Tensor:
    """The logarithms of :func:`logitlab.parallel.softmax`.

    Parameters
    ----------
    z, axis, temperature, where, group
        As in :func:`logitlab.parallel.softmax`.

    Returns
    -------
    Tensor, shape of z
        The log-probabilities of the classes of this rank, with gradients.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.parallel.softmax`.
    """
    return _elementwise(
        "log_softmax", check_rows("log_softmax", z, axis, temperature, where, group)
    )


def logsumexp(
    z: Tensor,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    keepdims: bool = False,
    group: Any = None,
) -> Tensor:
    """T log sum exp(z/T) of logits whose classes are sharded, the same on all ranks.

    Parameters
    ----------
    z, axis, temperature, where
        As in :func:`logitlab.parallel.softmax`.
    keepdims : bool
        Keep the class axis with length 1.
    group : torch.distributed.ProcessGroup, optional
        The ranks; by default, all.

    Returns
    -------
    Tensor, shape of z without the class axis
        As of :func:`logitlab.logsumexp` of all classes.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.parallel.softmax`.

    Notes
    -----
    In the backward pass each rank has the gradient of its own classes for the upstream gradient
    that it has itself, which must be the same on all ranks.
    """
    rows = check_rows("logsumexp", z, axis, temperature, where, group)
    result = _LogSumExp.apply(rows.z, rows.t, rows.shards)
    if rows.sign is not None:
        result = result * rows.sign.to(result.dtype)
    result = result.view(rows.batch)
    return result.unsqueeze(rows.axis) if keepdims else result


def entropy(
    z: Tensor, axis: int = -1, *, temperature: Any = 1.0, where: Any = None, group: Any = None
) -> Tensor:
    """Shannon entropy in nats of the softmax of logits whose classes are sharded.

    Parameters
    ----------
    z, axis, temperature, where, group
        As in :func:`logitlab.parallel.softmax`.

    Returns
    -------
    Tensor, shape of z without the class axis
        As of :func:`logitlab.entropy` of all classes, the same on all ranks; gradients as in
        :func:`logitlab.parallel.logsumexp`.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.parallel.softmax`.
    """
    rows = check_rows("entropy", z, axis, temperature, where, group)
    result: Tensor = _Entropy.apply(rows.z, rows.t, rows.shards)
    return result.view(rows.batch)
