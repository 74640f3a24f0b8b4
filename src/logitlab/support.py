"""The classes of each row that a truncation keeps, in compressed sparse row format."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from numpy.typing import NDArray

from logitlab import _arrays, _checks, _dispatch
from logitlab._arrays import Array, Shape, repeat
from logitlab._backends.targets import Kept

Integers = NDArray[np.int64]


def row_label(row: int, batch: Shape) -> str:
    """The words for the row of this flat number."""
    return _checks.row_label(tuple(map(int, np.unravel_index(row, batch or (1,)))))


def _row_starts(sizes: Any) -> Integers:
    """The offsets of rows of these sizes."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def _positions(starts: Integers, sizes: Integers) -> Integers:
    """The numbers from each start on, as many as the size beside it, in one array."""
    offsets = _row_starts(sizes)
    return repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])


@dataclass(frozen=True, eq=False, repr=False)
class Support:
    r"""The classes that remain in each row after truncation, in compressed sparse row format.

    Row r, in the flat order of the batch, has the classes
    ``indices[offsets[r]:offsets[r + 1]]``. :func:`sample_with_support` returns it;
    :func:`log_prob`, :func:`cross_entropy` and :func:`linear_cross_entropy` evaluate under it.

    Parameters
    ----------
    indices : array of int32 or int64, shape (total,)
        The classes of all rows, ascending in each: a NumPy array or a torch tensor.
    offsets : array of int64, shape (rows + 1,)
        Where the classes of each row start; the last offset is their total number.
    shape : tuple of int
        The batch shape, then K: the shape of logits with the class axis last.

    Raises
    ------
    TypeError
        `indices` or `offsets` are not integers.
    ValueError
        Classes that are not ascending or not from 0 to K - 1, offsets that decrease or do not fit:
        the message names the first row.

    Notes
    -----
    An index, as of an array of the batch shape, selects rows: ``support[2:5]``,
    ``support[order]``. ``support == other`` compares shapes and classes.

    Examples
    --------
    >>> import logitlab
    >>> support = logitlab.Support([0, 2, 1], [0, 2, 3], (2, 4))
    >>> support.to_mask()
    array([[ True, False,  True, False],
           [False,  True, False, False]])
    >>> support[1:]
    Support(shape=(1, 4), 1 class)
    """

    indices: Array
    offsets: Array
    shape: Shape

    def __post_init__(self) -> None:
        try:
            shape = tuple(map(operator.index, self.shape))
        except TypeError:
            raise TypeError(f"shape must be a tuple of ints, got {self.shape!r}") from None
        indices = _integers(self.indices, "indices")
        offsets = _integers(self.offsets, "offsets")
        if not shape or min(shape) < 0:
            raise ValueError(f"shape must be the batch shape and K, got {self.shape}")
        _check_rows(_arrays.on_host(indices), _arrays.on_host(offsets), shape)
        if is_torch_array(indices):
            offsets = _in_library_of(indices, offsets)
        else:
            indices, offsets = _arrays.on_host(indices), _arrays.on_host(offsets)
        for name, value in (("indices", indices), ("offsets", offsets), ("shape", shape)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_mask(cls, mask: Any, axis: int = -1) -> "Support":
        """The support of a boolean mask.

        Parameters
        ----------
        mask : array of bool, shape (..., K, ...)
            True at the classes that remain.
        axis : int
            The class axis.

        Returns
        -------
        Support
            With tensors for a tensor, else with NumPy arrays.

        Examples
        --------
        >>> import numpy as np
        >>> import logitlab
        >>> logitlab.Support.from_mask(np.array([[True, False], [True, True]])).indices
        array([0, 0, 1], dtype=int32)
        """
        mask = _arrays.as_array(mask, "mask")
        if not _arrays.dtype_name(mask.dtype).startswith("bool"):
            raise TypeError(f"mask must be a boolean array, got {_arrays.dtype_name(mask.dtype)}")
        (class_axis,) = _arrays.one_axis(axis, mask.ndim) or (0,)
        if not is_torch_array(mask):
            mask = _arrays.on_host(mask, "mask")
        xp = array_namespace(mask)
        mask = _arrays.move_axis(mask, class_axis, -1, xp) if mask.ndim else mask[None]
        shape = tuple(mask.shape)
        dtype = xp.int32 if shape[-1] <= 2**31 else xp.int64
        k, rows = shape[-1], math.prod(shape[:-1])
        positions = xp.nonzero(xp.reshape(mask, (-1,)))[0]
        starts = _in_library_of(positions, np.arange(rows + 1) * k)
        columns = positions % k if k else positions
        return cls(xp.astype(columns, dtype), xp.searchsorted(positions, starts), shape)

    def to_mask(self) -> Array:
        """The boolean mask of the classes that remain.

        Returns
        -------
        array of bool, shape `shape`
            A tensor on the device of `indices` if that is one.
        """
        mask = Kept(self.indices, self.offsets).mask(self.shape[-1])
        return mask.reshape(self.shape)

    @property
    def sizes(self) -> Integers:
        """The number of classes of each row, of the batch shape, as a NumPy array."""
        return np.diff(_arrays.on_host(self.offsets)).reshape(self.shape[:-1])

    @classmethod
    def concatenate(cls, supports: "Sequence[Support]") -> "Support":
        """The rows of several supports along the first axis of their batches.

        Parameters
        ----------
        supports : sequence of Support
            At least one; equal in the other axes and in K.

        Returns
        -------
        Support
            With arrays of the library of the first.
        """
        if not supports:
            raise ValueError("supports must have at least one element, got none")
        first = supports[0]
        for number, support in enumerate(supports):
            if not isinstance(support, Support):
                raise TypeError(
                    f"supports must be of logitlab.Support, got {support!r} at {number}"
                )
            if len(support.shape) < 2 or support.shape[1:] != first.shape[1:]:
                raise ValueError(
                    "supports must have a batch axis and agree in the others and in K, got shapes "
                    f"{first.shape} and, at {number}, {support.shape}"
                )
        xp = array_namespace(first.indices)
        indices = xp.concat([_in_library_of(first.indices, s.indices) for s in supports])
        sizes = np.concatenate([s.sizes.reshape(-1) for s in supports])
        return cls(indices, _row_starts(sizes), (sum(map(len, supports)), *first.shape[1:]))

    def __len__(self) -> int:
        if len(self.shape) < 2:
            raise TypeError("a support of one row without a batch axis has no length")
        return self.shape[0]

    def __getitem__(self, index: Any) -> "Support":
        index = _arrays.on_host(index) if is_torch_array(index) else index
        batch = self.shape[:-1]
        rows = np.arange(math.prod(batch)).reshape(batch)[index]
        offsets, sizes = _arrays.on_host(self.offsets), self.sizes.reshape(-1)
        selected = np.reshape(rows, -1)
        positions = _positions(offsets[selected], sizes[selected])
        indices = self.indices[_in_library_of(self.indices, positions)]
        return Support(indices, _row_starts(sizes[selected]), (*np.shape(rows), self.shape[-1]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Support):
            return NotImplemented
        return self.shape == other.shape and all(
            np.array_equal(_arrays.on_host(a), _arrays.on_host(b))
            for a, b in ((self.offsets, other.offsets), (self.indices, other.indices))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        total = self.indices.shape[0]
        return f"Support(shape={self.shape}, {total} class{'' if total == 1 else 'es'})"


def _in_library_of(other: Array, x: Array) -> Array:
    """`x`, NumPy's or torch's, as an array of the library and on the device of another."""
    if is_torch_array(x) and is_torch_array(other):
        return x.to(other.device)
    return _arrays.like(_arrays.on_host(x), other, array_namespace(other), "support")


def _integers(x: Any, name: str) -> Array:
    """A one-dimensional array of int64, or of int32 for `indices`."""
    x = _arrays.as_array(x, name)
    dtype = _arrays.dtype_name(x.dtype)
    if not dtype.startswith(("int", "uint")) and 0 not in x.shape:
        raise TypeError(f"{name} must be an integer array, got {dtype}")
    if x.ndim != 1:
        raise ValueError(f"{name} must have 1 dimension, got shape {tuple(x.shape)}")
    xp = array_namespace(x)
    narrow = dtype == "int32" and name == "indices"
    return xp.astype(x, xp.int32 if narrow else xp.int64, copy=False)


def _check_rows(indices: Integers, offsets: Integers, shape: Shape) -> None:
    """Check the classes and offsets of all rows; the error names the first wrong row."""
    batch, k = shape[:-1], shape[-1]
    rows = math.prod(batch)
    if len(offsets) != rows + 1:
        raise ValueError(
            f"offsets must have {rows + 1} entries for {rows} rows, got {len(offsets)}"
        )
    if offsets[0] != 0 or offsets[-1] != len(indices):
        raise ValueError(
            f"offsets must be from 0 to {len(indices)}, the number of indices, "
            f"got {offsets[0]} to {offsets[-1]}"
        )
    sizes = np.diff(offsets)
    if (sizes < 0).any():
        row = int(np.argmax(sizes < 0))
        raise ValueError(
            f"offsets must not decrease, got {offsets[row + 1]} after {offsets[row]} "
            f"in {row_label(row, batch)}"
        )
    if not len(indices):
        return
    invalid = (indices < 0) | (indices >= k)
    first_of_row = np.zeros(len(indices), bool)
    first_of_row[offsets[:-1][sizes > 0]] = True
    invalid[1:] |= (indices[1:] <= indices[:-1]) & ~first_of_row[1:]
    if invalid.any():
        position = int(np.argmax(invalid))
        row = int(np.searchsorted(offsets, position, side="right")) - 1
        raise ValueError(
            f"indices must be ascending and from 0 to {k - 1} in each row, "
            f"got {indices[position]} in {row_label(row, batch)}"
        )


def check_support(support: Any, batch: Shape, k: int, name: str, classes_of: str) -> Support:
    """The support, checked to have the rows and the classes of these arguments."""
    if not isinstance(support, Support):
        raise TypeError(f"support must be a logitlab.Support, got {type(support).__name__}")
    *given, width = support.shape
    if tuple(given) != batch:
        rows, expected = math.prod(given), math.prod(batch)
        first = f": {name} has no row {expected}" if rows > expected else ""
        first = f": row {rows} of {name} has no support" if rows < expected else first
        raise ValueError(
            f"support must have the batch shape {batch} of {name}, got {tuple(given)}{first}"
        )
    if width != k:
        raise ValueError(f"support must have {k} classes, as {classes_of} has, got {width}")
    return support


@_dispatch.breaks_graph
def support_mask(z: Any, axis: int, where: Any, support: Support) -> Array:
    """`where` without the classes outside of the support, in the library of z."""
    z = _arrays.as_floating(z, "z")
    _arrays.one_axis(axis, z.ndim)
    request = _arrays.request(z, axis, 1.0, where)
    (class_axis,), shape = request.axes, request.z.shape
    batch = (*shape[:class_axis], *shape[class_axis + 1 :])
    checked = check_support(support, batch, shape[class_axis], "z", "z")
    xp = array_namespace(request.z)
    mask = _arrays.move_axis(_in_library_of(z, checked.to_mask()), -1, class_axis, xp)
    mask = mask if request.where is None else request.where & mask
    return request.restore(mask)


def kept_classes(x: Array, batch: Shape, k: int, support: Support) -> Kept:
    """The classes of the rows of x for a linear layer with k classes."""
    checked = check_support(support, batch, k, "x", "weight")
    of_x = x if is_torch_array(x) else np.empty(0)
    return Kept(*(_in_library_of(of_x, a) for a in (checked.indices, checked.offsets)))
