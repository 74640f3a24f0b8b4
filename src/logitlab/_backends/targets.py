"""What the softmax of a row is held to: a label or a distribution, smoothed or not."""

from typing import Any, NamedTuple

from array_api_compat import array_namespace


class Targets(NamedTuple):
    """Of every row: one of `label` and `distribution`, and the share of it that is spread evenly
    over the classes that are not excluded."""

    label: Any = None  # integers of the batch shape, below 0 where a row counts for nothing
    distribution: Any = None  # (..., K), not negative, the classes last
    smoothing: float = 0.0

    def kept(self) -> Any:
        """The rows that count; None where all do."""
        return None if self.label is None else self.label >= 0

    def whole(self, z: Any, where: Any) -> Any:
        """(..., K) in the type of z, which has its classes last, as has `where`."""
        xp = array_namespace(z)
        if self.label is None:
            y = self.distribution
        else:
            place = xp.arange(z.shape[-1], device=getattr(z, "device", None))
            y = place == self.label[..., None]
        y = xp.astype(y, z.dtype, copy=False)
        if not self.smoothing:
            return y
        # At T = 0 over losing classes too.
        left = z != -xp.inf
        left = xp.astype(left if where is None else left & where, z.dtype)
        spread = left / xp.sum(left, axis=-1, keepdims=True)
        return (1 - self.smoothing) * y + self.smoothing * spread


def top(p: Any, xp: Any) -> Any:
    """The place of a largest probability; the classes are last."""
    return xp.argmax(xp.where(xp.isnan(p), 0.0, p), axis=-1, keepdims=True)


def at_top(p: Any, xp: Any) -> Any:
    """Where that is; the classes are last, at least one."""
    return xp.arange(p.shape[-1], device=getattr(p, "device", None)) == top(p, xp)


def difference(p: Any, y: Any, xp: Any) -> Any:
    """p sum y - y, the classes last, at least one."""
    total = xp.sum(y, axis=-1, keepdims=True)
    # Close to 1, that is what the others have of y, less their p sum y.
    most = at_top(p, xp)
    others, rest = (xp.sum(xp.where(most, 0.0, v), axis=-1, keepdims=True) for v in (p, y))
    return xp.where(most & (p > 0.5), rest - others * total, p * total - y)
