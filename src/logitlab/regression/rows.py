"""The rows of a fit, and weighted sums over them, read in blocks."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from logitlab._arrays import bincount
from logitlab._backends import native
from logitlab._backends.native import get_num_threads
from logitlab._backends.targets import Targets
from logitlab._rows import Integers
from logitlab.probabilities import softmax
from logitlab.regression import binary
from logitlab.regression.penalized_sums import DualPoint, WorkingHessian, dual_entropy
from logitlab.regression.solver import Floats
from logitlab.regression.threads import map_in_threads

Memory = TypeVar("Memory")
Result = TypeVar("Result")

_LOSS_COST = 20  # of a logit, in multiplications
_PARALLEL_COST = 1 << 22  # multiplications in a block from which on threads share the blocks
_BLOCK_ROWS = 4096
_PRODUCT_SIZE = 1 << 20  # numbers in a matrix of rows and parameters whose products are summed
_BLOCK_SIZE = 1 << 18  # features, or logits, of a block: they stay in the cache


class Engine(Protocol):
    """Holds the rows and computes weighted sums over them."""

    def totals(self) -> tuple[int, float, float, Floats, Floats]:
        """Return the number of rows, the sum of the weights, the least weight above 0,
        the sum of the features and the sum of their absolute values."""

    def sample(self, step: int) -> "Rows":
        """Return about one of every `step` rows."""

    def scatter(self, centre: Floats, full: bool) -> tuple[Floats, Floats]:
        """Return the sum of the centred features (D,), and of their products or squares.

        `centre` is the mean up to rounding, or 0. If `full`, the second result holds products of
        shape (D, D), otherwise squares (D,).
        """

    def loss_and_gradient(self, coef: Floats, intercept: Floats) -> tuple[float, Floats, Floats]:
        """Return the sum of the losses, and its gradient by coef (K, D) and intercept (K,)."""

    def spread(self, coef: Floats, intercept: Floats) -> Floats:
        """Return the sum of p (1 - p) for each class, p being its probability."""

    def hessian(self, coef: Floats, intercept: Floats, centre: Floats) -> Floats:
        """Return the Hessian of the loss by the coefficients of centred features and intercepts.

        Its shape is (K (D + 1), K (D + 1)): class by class, the intercept last.
        """

    def entries(self) -> int:
        """Return the number of stored features: of all rows, or those of a sparse matrix."""

    def working_hessian(
        self, coef: Floats, intercept: Floats, centre: Floats, columns: list[Integers]
    ) -> Floats:
        """Return the Hessian of the loss by some of the parameters of :meth:`hessian`.

        `columns` lists those of each class, D being the intercept. Of two classes the parameters
        are those of the log-odds of the second one, listed alone.
        """

    def dual_entropy(self, coef: Floats, intercept: Floats, point: DualPoint) -> float:
        """Return the sum of the entropies of the probabilities of a dual point."""

    def margins(self, coef: Floats, intercept: Floats) -> tuple[float, float]:
        """Return the least and the largest difference of the label's logit from another logit."""

    def map_parts(
        self, function: Callable[..., Result], *arguments: Any, by_row: Any = None
    ) -> Iterable[Result]:
        """Return function(part, *arguments) of each part, a :class:`Rows`, of the rows.

        `by_row` has an entry for each row; those of the part become the last argument.
        """


class Block(NamedTuple):
    """A part of the rows."""

    x: Any  # (rows, D), dense or CSR
    y: Integers  # the class of each row
    weight: Floats | None


def _loss_and_residual(z: Floats, y: Integers, weight: Floats | None) -> tuple[float, Floats]:
    """Return the sum of the losses of logits, and its derivative, which may overwrite them."""
    scale = 1.0 if weight is None else weight
    losses, residual = native.target_loss_in_place(z, (1,), 1.0, None, Targets(y), scale)
    return float(losses.sum() if weight is None else losses @ weight), residual


class Rows:
    """The engine of rows in memory: an array in C or Fortran order, or a CSR matrix.

    Sums are computed in `dtype`, by default that of x; blocks of another type are converted.
    """

    def __init__(
        self, x: Any, y: Integers, weight: Floats | None, classes: int, dtype: Any = None
    ) -> None:
        if not isinstance(x, np.ndarray) and not x.has_canonical_format:
            # SciPy merges duplicates and sorts indices in place: do it in a copy.
            x = x.copy()
            x.sum_duplicates()
        self.x, self.y, self.weight, self.classes = x, y, weight, classes
        self.dtype = np.dtype(x.dtype if dtype is None else dtype)
        width = max(x.shape[1] if isinstance(x, np.ndarray) else 1, classes, 1)
        self._step = max(64, min(_BLOCK_ROWS, _BLOCK_SIZE // width))

    def blocks(self, step: int | None = None) -> Iterator[Block]:
        rows, step = self.x.shape[0], step or self._step
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            weight = None if self.weight is None else self.weight[part]
            yield Block(self._slice(part), self.y[part], weight)

    def _map(
        self,
        work: Callable[[Block, Memory], Result],
        scratch: Callable[[], Memory],
        step: int | None = None,
    ) -> Iterator[Result]:
        """Yield the results of the blocks in order, computed on several threads if they are large.

        `scratch` returns memory for one thread; `step` is the number of rows in a block.
        """
        step = step or self._step
        x = self.x
        stored = x.shape[1] if isinstance(x, np.ndarray) else x.nnz / max(x.shape[0], 1)
        entries = step * self.classes * (stored + _LOSS_COST)
        threads = get_num_threads() if entries >= _PARALLEL_COST else 1
        if threads == 1:
            memory = scratch()
            yield from (work(block, memory) for block in self.blocks(step))
            return
        unused = [scratch() for _ in range(threads)]

        def task(block: Block) -> Result:
            memory = unused.pop()
            try:
                return work(block, memory)
            finally:
                unused.append(memory)

        yield from map_in_threads(task, list(self.blocks(step)), threads)

    def _slice(self, part: slice) -> Any:
        x = self.x
        if isinstance(x, np.ndarray):
            return x[part].astype(self.dtype, copy=False)
        # A view of the same memory; x[part] would copy.
        first, last = x.indptr[part.start], x.indptr[part.stop]
        indptr = x.indptr[part.start : part.stop + 1] - first
        view = type(x)((part.stop - part.start, x.shape[1]), dtype=x.dtype)
        view.data, view.indices, view.indptr = x.data[first:last], x.indices[first:last], indptr
        return view.astype(self.dtype, copy=False)

    def sample(self, step: int) -> "Rows":
        """Return one of every `step` rows, at random but the same ones in every call."""
        n = self.x.shape[0]
        count = max(n // step, min(n, 1))  # one row at least, as a partition may be small
        rows = np.arange(count) * step
        rows += np.random.default_rng(0).integers(max(1, min(step, n)), size=count)
        weight = None if self.weight is None else self.weight[rows]
        return Rows(self.x[rows], self.y[rows], weight, self.classes, self.dtype)

    def _scratch(self, dtype: Any) -> Any:
        """Return memory for a dense block: new memory for each block costs more than a pass."""
        rows, d = self.x.shape
        return np.empty((min(self._step, rows), d), dtype)

    def totals(self) -> tuple[int, float, float, Floats, Floats]:
        total, least = 0.0, math.inf
        sums, sizes = np.zeros((2, self.x.shape[1]))
        dense = isinstance(self.x, np.ndarray)
        scratch = self._scratch(self.dtype) if dense else None
        for x, y, weight in self.blocks():
            w = np.ones(len(y)) if weight is None else weight
            total += float(w.sum())
            least = min(least, float(w.min(initial=math.inf, where=w > 0)))
            sums += x.T @ w
            sizes += (abs(x) if scratch is None else np.abs(x, out=scratch[: len(y)])).T @ w
        return len(self.y), total, least, sums, sizes

    def scatter(self, centre: Floats, full: bool) -> tuple[Floats, Floats]:
        if not isinstance(self.x, np.ndarray):
            return self._scatter_sparse(centre, full)
        d = len(centre)
        sums, result = np.zeros(d), np.zeros((d, d) if full else d)
        scratch = self._scratch(np.float64)
        for x, y, weight in self.blocks():
            centred = np.subtract(x, centre, out=scratch[: len(y)])
            sums += (np.ones(len(y)) if weight is None else weight) @ centred
            if weight is not None:
                centred *= np.sqrt(weight)[:, None]
            if full:
                result += centred.T @ centred
            else:
                result += np.einsum("nd,nd->d", centred, centred)
        return sums, result

    def _scatter_sparse(self, centre: Floats, full: bool) -> tuple[Floats, Floats]:
        """As :meth:`scatter`, without centring the zeros, which would make the matrix dense.

        Zeros are counted instead, and the products of columns that were not centred are corrected
        at the end. The correction loses digits to cancellation where the mean is far above the
        standard deviation. Hence columns whose zeros have less than half of the weight of a block
        are centred as dense ones; in the others the deviation is as large as the mean.
        """
        d = len(centre)
        sums, squares, products = np.zeros(d), np.zeros(d), np.zeros((d, d) if full else 0)
        left, right = [], []  # factors of the correction of the products
        for x, y, weight in self.blocks():
            w = np.ones(len(y)) if weight is None else weight
            each = np.repeat(w, np.diff(x.indptr))
            stored = bincount(x.indices, minlength=d)
            zero_w = w.sum() - bincount(x.indices, each, minlength=d)
            zero_w = np.where(stored == len(y), 0.0, np.maximum(zero_w, 0.0))
            centred = x.data - centre[x.indices]
            sums += bincount(x.indices, each * centred, minlength=d) - zero_w * centre
            squares += bincount(x.indices, each * centred**2, minlength=d) + zero_w * centre**2
            if not full:
                continue
            dense = zero_w < w.sum() / 2
            rest = np.where(dense, 0.0, centre)
            if dense.any():
                x_dense = x[:, dense].toarray() - centre[dense]
                weighted = x_dense * w[:, None]
                x = x.copy()
                x.data[dense[x.indices]] = 0
                x.eliminate_zeros()
                mixed = x.T @ weighted - np.outer(rest, weighted.sum(axis=0))
                mixed[dense] = x_dense.T @ weighted / 2  # added twice
                products[:, dense] += mixed
                products[dense] += mixed.T
            products += (x.T @ x.multiply(w[:, None]).tocsr()).toarray()
            column_sums = w @ x
            left += [column_sums, rest]
            right += [rest, column_sums - w.sum() * rest]
        if not full:
            return sums, squares
        if left:
            products -= np.stack(left).T @ np.stack(right)
        np.fill_diagonal(products, squares)
        return sums, products

    def loss_and_gradient(self, coef: Floats, intercept: Floats) -> tuple[float, Floats, Floats]:
        if self.classes == 2:
            return self._binary_loss_and_gradient(coef[1] - coef[0], intercept[1] - intercept[0])
        if not isinstance(self.x, np.ndarray) or self.x.shape[1] > 4 * self.classes:
            return self._wide_loss_and_gradient(coef, intercept)
        # Where the logits are not much fewer than the features, a column of ones saves passes.
        to_logits = np.vstack([coef.T, intercept]).astype(self.dtype)
        loss, by_parameters = 0.0, np.zeros((len(coef), coef.shape[1] + 1))

        def scratch() -> tuple[Floats, Floats]:
            with_ones = np.ones((self._step, coef.shape[1] + 1), self.dtype)
            return with_ones, np.empty((self._step, len(coef)), self.dtype)

        def sums(block: Block, memory: tuple[Floats, Floats]) -> tuple[float, Floats]:
            x, z = (a[: len(block.y)] for a in memory)
            x[:, :-1] = block.x
            np.matmul(x, to_logits, out=z)
            loss, residual = _loss_and_residual(z, block.y, block.weight)
            return loss, residual.T @ x

        for part, product in self._map(sums, scratch):
            loss += part
            by_parameters += product
        return loss, by_parameters[:, :-1], by_parameters[:, -1]

    def _wide_loss_and_gradient(
        self, coef: Floats, intercept: Floats
    ) -> tuple[float, Floats, Floats]:
        """As :meth:`loss_and_gradient`, without a copy of the features."""
        to_logits, shift = coef.T.astype(self.dtype), intercept.astype(self.dtype)
        loss, by_coef, by_intercept = 0.0, np.zeros_like(coef), np.zeros_like(intercept)
        # Rows of few classes are too short for NumPy's loops: a flat block is added at once.
        shifts, ones = np.tile(shift, self._step), np.ones(self._step, self.dtype)

        def sums(block: Block, memory: None) -> tuple[float, Floats, Floats]:
            z = np.ascontiguousarray(block.x @ to_logits)
            flat = z.reshape(-1)
            flat += shifts[: len(flat)]
            loss, residual = _loss_and_residual(z, block.y, block.weight)
            return loss, (block.x.T @ residual).T, ones[: len(z)] @ residual

        for part, product, column_sums in self._map(sums, lambda: None):
            loss += part
            by_coef += product
            by_intercept += column_sums
        return loss, by_coef, by_intercept

    def _binary_loss_and_gradient(
        self, coef: Floats, intercept: Floats
    ) -> tuple[float, Floats, Floats]:
        to_log_odds, shift = coef.astype(self.dtype), intercept.astype(self.dtype)
        loss, by_coef, by_intercept = 0.0, np.zeros_like(coef), 0.0
        for x, y, weight in self.blocks():
            losses, residual = binary.loss_and_residual(x @ to_log_odds + shift, y)
            if weight is None:
                loss += float(losses.sum(dtype=np.float64))
            else:
                loss += float(losses @ weight)
                residual *= weight
            by_coef += residual @ x
            by_intercept += float(residual.sum(dtype=np.float64))
        return loss, np.stack([-by_coef, by_coef]), np.array([-by_intercept, by_intercept])

    def spread(self, coef: Floats, intercept: Floats) -> Floats:
        to_logits, shift = coef.T.astype(self.dtype), intercept.astype(self.dtype)
        total = np.zeros(self.classes)
        for x, y, weight in self.blocks():
            p = softmax(x @ to_logits + shift)
            p -= p * p
            total += (np.ones(len(y), p.dtype) if weight is None else weight) @ p
        return total

    def hessian(self, coef: Floats, intercept: Floats, centre: Floats) -> Floats:
        if self.classes == 2:
            return binary.hessian(self.blocks(), coef, intercept, centre)
        k, d = self.classes, self.x.shape[1]
        to_logits, shift = coef.T.astype(self.dtype), intercept.astype(self.dtype)
        result = np.zeros((k, d + 1, k, d + 1))
        products = result.reshape(k * (d + 1), k * (d + 1))
        step = max(16, _BLOCK_SIZE // (k * (d + 1)))
        for block, _, weights in self.blocks():
            for start in range(0, block.shape[0], step):
                x = block[start : start + step]
                p = softmax(x @ to_logits + shift).astype(np.float64)
                ones = np.ones((len(p), 1))
                x = np.hstack([_dense(x) - centre, ones])
                if weights is not None:
                    x *= np.sqrt(weights[start : start + step])[:, None]
                # sum of (diag(p) - p p') (x) x x'
                px = (p[:, :, None] * x[:, None, :]).reshape(len(p), -1)
                products -= px.T @ px
                for j in range(k):
                    result[j, :, j] += x.T @ px[:, j * (d + 1) : (j + 1) * (d + 1)]
        return products

    def entries(self) -> int:
        return int(self.x.size if isinstance(self.x, np.ndarray) else self.x.nnz)

    def working_hessian(
        self, coef: Floats, intercept: Floats, centre: Floats, columns: list[Integers]
    ) -> Floats:
        hessian_of = WorkingHessian(coef, intercept, centre, columns)
        result = np.zeros((hessian_of.size, hessian_of.size))
        step = max(64, _PRODUCT_SIZE // max(hessian_of.size, 1))
        for part in self._map(lambda block, memory: hessian_of(block), lambda: None, step):
            result += part
        return result

    def dual_entropy(self, coef: Floats, intercept: Floats, point: DualPoint) -> float:
        def entropy(block: Block, memory: None) -> float:
            return dual_entropy(block, coef, intercept, point)

        return sum(self._map(entropy, lambda: None))

    def margins(self, coef: Floats, intercept: Floats) -> tuple[float, float]:
        least, largest = math.inf, -math.inf
        for x, y, weight in self.blocks():
            z = x @ coef.T + intercept
            margin = np.take_along_axis(z, y[:, None], axis=1) - z
            other = np.arange(self.classes) != y[:, None]
            if weight is not None:
                other &= weight[:, None] > 0
            least = min(least, float(margin.min(initial=math.inf, where=other)))
            largest = max(largest, float(margin.max(initial=-math.inf, where=other)))
        return least, largest

    def map_parts(
        self, function: Callable[..., Result], *arguments: Any, by_row: Any = None
    ) -> list[Result]:
        return [function(self, *arguments, *([] if by_row is None else [by_row]))]


def _dense(x: Any) -> Floats:
    return x if isinstance(x, np.ndarray) else np.asarray(x.toarray())
