"""A process group whose ranks hold shards of the classes, and what the ranks must agree on."""

import json
import zlib
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from logitlab import _arrays

Result = TypeVar("Result")

_DESCRIPTION_BYTES = 4096
_TEXT = 200  # characters of a setting or of an error that other ranks see
_OWN = "own "  # before the name of what may differ between ranks


class Shards(NamedTuple):
    """How the classes lie in the ranks of a group: rank r has the next sizes[r] of them."""

    group: Any
    rank: int
    sizes: tuple[int, ...]

    @property
    def starts(self) -> list[int]:
        """The first class of each rank, and the number of all."""
        return list(accumulate(self.sizes, initial=0))

    @property
    def start(self) -> int:
        return self.starts[self.rank]

    @property
    def size(self) -> int:
        """The number of classes of this rank."""
        return self.sizes[self.rank]

    @property
    def classes(self) -> int:
        return sum(self.sizes)

    def local(self, x: Tensor) -> Tensor:
        """The classes of this rank, of a tensor with all of them last."""
        return x[..., self.start : self.start + self.size]

    def columns(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """The columns of some of all classes in this shard, 0 for those of other ranks; and the
        mask of its own."""
        column = classes - self.start
        is_own = (column >= 0) & (column < self.size)
        return torch.where(is_own, column, 0), is_own

    def gather(self, x: Tensor) -> Tensor:
        """A tensor of the same shape on every rank, stacked by rank."""
        return gather(x, self.group)

    def gather_classes(self, x: Tensor) -> Tensor:
        """A tensor whose last axis is sharded, as a whole."""
        padding = max(self.sizes) - self.size
        parts = self.gather(torch.nn.functional.pad(x, (0, padding)))
        return torch.cat([part[..., :n] for part, n in zip(parts, self.sizes, strict=True)], -1)

    def sum(self, x: Tensor) -> Tensor:
        """The sum over the ranks; x is overwritten."""
        x = x.contiguous()
        dist.all_reduce(x, group=self.group)
        return x


def gather(x: Tensor, group: Any) -> Tensor:
    x = x.detach().contiguous()
    out = x.new_empty(dist.get_world_size(group), *x.shape)
    dist.all_gather(list(out.unbind()), x, group=group)
    return out


def digest(x: Any) -> str:
    """A setting as text: arrays by their type, shape and checksum."""
    if x is None or isinstance(x, bool | int | float | str):
        return repr(x)
    if isinstance(x, Tensor) and x.dtype is torch.bfloat16:
        x = x.view(torch.int16)
    values = np.ascontiguousarray(_arrays.on_host(_arrays.as_array(x, "x"), "x"))
    if not values.ndim:
        return repr(values.item())
    checksum = zlib.crc32(values.tobytes())
    return f"{_arrays.dtype_name(values.dtype)} {values.shape}, checksum {checksum:08x}"


def shape_of(x: Any, axis: int | None = None) -> str:
    """The type and shape of an array, but for the length of one axis."""
    shape = ["K" if a == axis else str(n) for a, n in enumerate(x.shape)]
    return f"{_arrays.dtype_name(x.dtype)} ({', '.join(shape)})"


def _check_group(group: Any) -> None:
    if not dist.is_available() or not dist.is_initialized():
        raise ValueError(
            "group must be a process group: call torch.distributed.init_process_group first"
        )
    if group is not None and not isinstance(group, dist.ProcessGroup):
        raise TypeError(f"group must be a torch ProcessGroup or None, got {type(group).__name__}")
    if dist.get_rank(group) < 0:
        raise ValueError("group must contain this process")


def _exchange(description: Mapping[str, str], group: Any) -> list[dict[str, str]]:
    text = json.dumps(description).encode()
    if len(text) > _DESCRIPTION_BYTES:
        raise ValueError(f"the settings must fit {_DESCRIPTION_BYTES} bytes, got {len(text)}")
    device = "cuda" if dist.get_backend(group) == "nccl" else "cpu"
    padded = torch.frombuffer(bytearray(text.ljust(_DESCRIPTION_BYTES)), dtype=torch.uint8)
    return [json.loads(bytes(row.tolist())) for row in gather(padded.to(device), group)]


def agreed(
    group: Any, check: Callable[[], tuple[Result, dict[str, str], dict[str, str]]]
) -> tuple[Result, list[dict[str, str]]]:
    """The result of checking the arguments of a call on this rank, and what each rank has.

    `check` returns its result, the texts of what must be the same on all ranks, and those of what
    may differ. Where it raises an error on one rank, or the ranks differ, every rank raises one.
    """
    _check_group(group)
    failure = None
    result: Any = None
    own: dict[str, str] = {}
    try:
        result, common, own = check()
        description = {name: _short(value) for name, value in common.items()}
        description |= {_OWN + name: value for name, value in own.items()}
    except Exception as error:
        failure = error
        description = {"error": _short(f"{error}")}
    ranks = _exchange(description, group)
    if failure is not None:
        raise failure
    for rank, other in enumerate(ranks):
        if "error" in other:
            raise ValueError(f"rank {rank}: {other['error']}")
    first = ranks[0]
    for name in first:
        for rank, other in enumerate(ranks):
            if not name.startswith(_OWN) and other.get(name) != first[name]:
                raise ValueError(
                    f"{name} must be the same on all ranks, got {first[name]} on rank 0 and "
                    f"{other.get(name)} on rank {rank}"
                )
    return result, [{name: other[_OWN + name] for name in own} for other in ranks]


def _short(text: str) -> str:
    """The text, or its beginning and a checksum."""
    if len(text) <= _TEXT:
        return text
    return f"{text[: _TEXT - 12]}... {zlib.crc32(text.encode()):08x}"


def shards_of(group: Any, ranks: list[dict[str, str]]) -> Shards:
    """The shards of ranks that told their numbers of classes."""
    sizes = tuple(int(own["classes"]) for own in ranks)
    return Shards(group, dist.get_rank(group), sizes)
