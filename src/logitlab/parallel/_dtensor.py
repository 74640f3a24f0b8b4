"""The ordinary functions of a DTensor whose classes are sharded: those of its local tensors."""

from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

from logitlab import parallel

_ELEMENTWISE = ("softmax", "log_softmax", "truncate")


def _mesh_dimension(x: DTensor, name: str, axis: int) -> int:
    """The dimension of the mesh over which the classes are sharded; the tensor is a replica along
    the others."""
    sharded = [i for i, placement in enumerate(x.placements) if placement == Shard(axis % x.ndim)]
    others = [p for i, p in enumerate(x.placements) if i not in sharded]
    if len(sharded) != 1 or not all(placement == Replicate() for placement in others):
        raise ValueError(
            f"{name} must be sharded along the class axis over one dimension of the mesh, and "
            f"replicated along the others, got {x.placements}"
        )
    return sharded[0]


def _local(x: Any) -> Any:
    return x.to_local() if isinstance(x, DTensor) else x


def call(name: str, z: DTensor, *args: Any, axis: int = -1, **kwargs: Any) -> Any:
    """A function of :mod:`logitlab.parallel` for the local tensors: DTensors placed like z, or the
    same on every rank. Arguments of all classes are taken as they are on this rank."""
    if not kwargs.pop("replacement", True):
        raise ValueError("replacement must be True for sharded logits, got False")
    linear = name == "linear_cross_entropy"
    layer: Any = args[0] if linear else z
    dimension = _mesh_dimension(layer, "weight" if linear else "z", 0 if linear else axis)
    kwargs = {key: _local(value) for key, value in kwargs.items()}
    if not linear:
        kwargs["axis"] = axis
    group = layer.device_mesh.get_group(dimension)
    function = getattr(parallel, name)
    result = function(_local(z), *map(_local, args), group=group, **kwargs)
    mesh = layer.device_mesh

    def placed(x: Tensor) -> DTensor:
        if name in _ELEMENTWISE:
            return DTensor.from_local(
                x, mesh, z.placements, run_check=False, shape=z.shape, stride=z.stride()
            )
        return DTensor.from_local(x, mesh, [Replicate()] * mesh.ndim, run_check=False)

    return tuple(map(placed, result)) if isinstance(result, tuple) else placed(result)
