"""Targets of a loss: labels or distributions, with label smoothing."""

from typing import NamedTuple

from array_api_compat import array_namespace

from logitlab._arrays import Array, Namespace


class Kept(NamedTuple):
    """The classes of each row that are not excluded, in compressed sparse row format."""

    indices: Array  # the classes of all rows
    offsets: Array  # where those of each row start in `indices`, and where the last end

    def of_rows(self, rows: slice) -> "Kept":
        """The classes of consecutive rows."""
        offsets = self.offsets[rows.start : rows.stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return Kept(self.indices[first:last], offsets - first)

    def mask(self, k: int) -> Array:
        """The boolean mask, (rows, k)."""
        xp = array_namespace(self.indices)
        device = getattr(self.indices, "device", None)
        rows = self.offsets.shape[0] - 1
        starts = xp.repeat(xp.arange(rows, device=device) * k, xp.diff(self.offsets))
        mask = xp.zeros(rows * k, dtype=xp.bool, device=device)
        mask[starts + self.indices] = True
        return xp.reshape(mask, (rows, k))


class Targets(NamedTuple):
    """Labels or distributions, and the smoothing: this share of the target of a row is spread
    evenly over the classes that are not excluded. Labels beside distributions, which need not sum
    to 1, only tell which rows are ignored."""

    label: Array | None = None  # integers of the batch shape, below 0 in an ignored row
    distribution: Array | None = None  # (..., K), nonnegative, the classes last
    smoothing: float = 0.0
    class_weight: Array | None = None  # (K,), of the targets of a linear layer
    kept: Kept | None = None  # of a linear layer: the classes that are not excluded

    def weighted(self, z: Array) -> "Targets":
        """The labels as distributions of the type of z, times the weights of the classes."""
        xp = array_namespace(z)
        y = self.probabilities(z, None, xp) * xp.astype(self.class_weight, z.dtype)
        label: Array = self.label
        return Targets(distribution=xp.where(label[..., None] < 0, 0.0, y))

    def included_rows(self) -> Array | None:
        """Mask of the rows that are not ignored; None where no row is."""
        return None if self.label is None else self.label >= 0

    def probabilities(self, z: Array, where: Array | None, xp: Namespace) -> Array:
        """The smoothed target distributions, of the shape and type of z: the classes are last."""
        y = self.distribution
        if y is None:
            label: Array = self.label
            classes = xp.arange(z.shape[-1], device=getattr(z, "device", None))
            y = classes == label[..., None]
        y = xp.astype(y, z.dtype, copy=False)
        if not self.smoothing:
            return y
        # At T = 0 a class of probability 0 is not an excluded one.
        included = z != -xp.inf
        included = xp.astype(included if where is None else included & where, z.dtype)
        uniform = included / xp.sum(included, axis=-1, keepdims=True)
        return (1 - self.smoothing) * y + self.smoothing * uniform


def argmax(p: Array, xp: Namespace) -> Array:
    """The index (..., 1) of a largest probability of each row; the classes are last."""
    return xp.argmax(xp.where(xp.isnan(p), 0.0, p), axis=-1, keepdims=True)


def is_argmax(p: Array, xp: Namespace) -> Array:
    """Mask of that entry; the classes are last, at least one."""
    return xp.arange(p.shape[-1], device=getattr(p, "device", None)) == argmax(p, xp)


def residual(p: Array, y: Array, xp: Namespace) -> Array:
    """p sum y - y, the gradient of -sum y log p; the classes are last, at least one."""
    total = xp.sum(y, axis=-1, keepdims=True)
    # For p close to 1 the difference cancels. It equals sum_j (y_j - p_j sum y) over the others.
    largest = is_argmax(p, xp)
    p_others, y_others = (xp.sum(xp.where(largest, 0.0, v), axis=-1, keepdims=True) for v in (p, y))
    return xp.where(largest & (p > 0.5), y_others - p_others * total, p * total - y)
