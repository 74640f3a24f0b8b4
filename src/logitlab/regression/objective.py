"""What softmax regression minimises, as sums over rows that are read in blocks."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from logitlab._backends.targets import Targets
from logitlab._dispatch import backend
from logitlab.probabilities import softmax

Floats = NDArray[Any]
Integers = NDArray[np.int64]

FULL_FEATURES = 1024  # the covariance of so many features is formed; beyond, their variances

_BLOCK_ROWS = 4096
_BLOCK_NUMBERS = 1 << 19  # of the features, or of the logits, of one block: they stay in the cache


class Engine(Protocol):
    """Who holds the rows, and adds up over them. All sums are weighted."""

    def totals(self) -> tuple[int, float, float, Floats, Floats]:
        """The rows, the sum of the weights, the least of them above 0.

        Then the sum of the features, and of their absolute values.
        """

    def scatter(self, centre: Floats, full: bool) -> tuple[Floats, Floats]:
        """The sum of the centred features (D,), and of their products (D, D) or squares (D,).

        `centre` is their mean but for rounding, or 0.
        """

    def loss_and_gradient(self, coef: Floats, intercept: Floats) -> tuple[float, Floats, Floats]:
        """The sum of the losses, and its gradient by coef (K, D) and intercept (K,)."""

    def hessian(self, coef: Floats, intercept: Floats, centre: Floats) -> Floats:
        """That of the loss by the coefficients of centred features and by the intercepts.

        Of shape (K (D + 1), K (D + 1)): class by class, the intercept last.
        """

    def margins(self, coef: Floats, intercept: Floats) -> tuple[float, float]:
        """The least and the largest lead of the label's logit over every other."""


class Block(NamedTuple):
    x: Any  # (rows, D), dense or CSR
    y: Integers  # the class of each row
    weight: Floats | None


class Rows:
    """The engine of rows that lie in memory: an array in either order, or a CSR matrix."""

    def __init__(self, x: Any, y: Integers, weight: Floats | None, classes: int) -> None:
        self.x, self.y, self.weight, self.classes = x, y, weight, classes
        width = max(x.shape[1] if isinstance(x, np.ndarray) else 1, classes, 1)
        self._step = max(64, min(_BLOCK_ROWS, _BLOCK_NUMBERS // width))

    def blocks(self) -> Iterator[Block]:
        rows = self.x.shape[0]
        for start in range(0, rows, self._step):
            part = slice(start, min(start + self._step, rows))
            weight = None if self.weight is None else self.weight[part]
            yield Block(self._rows(part), self.y[part], weight)

    def _rows(self, part: slice) -> Any:
        x = self.x
        if isinstance(x, np.ndarray):
            return x[part]
        # A view of the same memory, where x[part] would be a copy.
        first, last = x.indptr[part.start], x.indptr[part.stop]
        indptr = x.indptr[part.start : part.stop + 1] - first
        view = type(x)((part.stop - part.start, x.shape[1]), dtype=x.dtype)
        view.data, view.indices, view.indptr = x.data[first:last], x.indices[first:last], indptr
        return view

    def totals(self) -> tuple[int, float, float, Floats, Floats]:
        total, least = 0.0, math.inf
        sums, sizes = np.zeros((2, self.x.shape[1]))
        for x, y, weight in self.blocks():
            w = np.ones(len(y)) if weight is None else weight
            total += float(w.sum())
            least = min(least, float(w.min(initial=math.inf, where=w > 0)))
            sums += x.T @ w
            sizes += abs(x).T @ w
        return len(self.y), total, least, sums, sizes

    def scatter(self, centre: Floats, full: bool) -> tuple[Floats, Floats]:
        if not isinstance(self.x, np.ndarray):
            return self._scatter_sparse(centre, full)
        d = len(centre)
        sums, result = np.zeros(d), np.zeros((d, d) if full else d)
        for x, y, weight in self.blocks():
            centred = x - centre
            sums += (np.ones(len(y)) if weight is None else weight) @ centred
            if weight is not None:
                centred *= np.sqrt(weight)[:, None]
            if full:
                result += centred.T @ centred
            else:
                result += np.einsum("nd,nd->d", centred, centred)
        return sums, result

    def _scatter_sparse(self, centre: Floats, full: bool) -> tuple[Floats, Floats]:
        """Centring would fill the matrix: zeros are counted, and products corrected at the end.

        The correction cancels what a mean far above the deviation leaves in the products. A column
        whose zeros weigh half of the block deviates as much as its mean; others are centred.
        """
        d = len(centre)
        sums, squares, products = np.zeros(d), np.zeros(d), np.zeros((d, d) if full else 0)
        left, right = [], []  # what centring takes from the products, as an outer product
        for x, y, weight in self.blocks():
            if not x.has_canonical_format:
                x = x.copy()
                x.sum_duplicates()
            w = np.ones(len(y)) if weight is None else weight
            each = np.repeat(w, np.diff(x.indptr))
            held = np.bincount(x.indices, minlength=d)
            absent = w.sum() - np.bincount(x.indices, each, minlength=d)
            absent = np.where(held == len(y), 0.0, np.maximum(absent, 0.0))
            centred = x.data - centre[x.indices]
            sums += np.bincount(x.indices, each * centred, minlength=d) - absent * centre
            squares += np.bincount(x.indices, each * centred**2, minlength=d) + absent * centre**2
            if not full:
                continue
            often = absent < w.sum() / 2
            rest = np.where(often, 0.0, centre)
            if often.any():
                dense = x[:, often].toarray() - centre[often]
                weighted = dense * w[:, None]
                x = x.copy()
                x.data[often[x.indices]] = 0
                x.eliminate_zeros()
                mixed = x.T @ weighted - np.outer(rest, weighted.sum(axis=0))
                mixed[often] = dense.T @ weighted / 2  # added twice
                products[:, often] += mixed
                products[often] += mixed.T
            products += (x.T @ x.multiply(w[:, None]).tocsr()).toarray()
            seen = w @ x
            left += [seen, rest]
            right += [rest, seen - w.sum() * rest]
        if not full:
            return sums, squares
        if left:
            products -= np.stack(left).T @ np.stack(right)
        np.fill_diagonal(products, squares)
        return sums, products

    def loss_and_gradient(self, coef: Floats, intercept: Floats) -> tuple[float, Floats, Floats]:
        to_logits, shift = coef.T.astype(self.x.dtype), intercept.astype(self.x.dtype)
        loss, by_coef, by_intercept = 0.0, np.zeros_like(coef), np.zeros_like(intercept)
        # A row of few classes is too short for NumPy's loops: whole blocks are added at once.
        shifts, ones = np.tile(shift, self._step), np.ones(self._step, self.x.dtype)
        for x, y, weight in self.blocks():
            z = np.ascontiguousarray(x @ to_logits)
            flat = z.reshape(-1)
            flat += shifts[: len(flat)]
            w = 1.0 if weight is None else weight
            losses, residual = backend(z).target_loss(z, (1,), 1.0, None, Targets(y), w)
            loss += float(losses.sum() if weight is None else losses @ weight)
            by_coef += (x.T @ residual).T
            by_intercept += ones[: len(y)] @ residual
        return loss, by_coef, by_intercept

    def hessian(self, coef: Floats, intercept: Floats, centre: Floats) -> Floats:
        k, d = self.classes, self.x.shape[1]
        to_logits, shift = coef.T.astype(self.x.dtype), intercept.astype(self.x.dtype)
        result = np.zeros((k, d + 1, k, d + 1))
        products = result.reshape(k * (d + 1), k * (d + 1))
        step = max(16, _BLOCK_NUMBERS // (k * (d + 1)))
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

    def margins(self, coef: Floats, intercept: Floats) -> tuple[float, float]:
        least, largest = math.inf, -math.inf
        for x, y, weight in self.blocks():
            z = x @ coef.T + intercept
            lead = np.take_along_axis(z, y[:, None], axis=1) - z
            other = np.arange(self.classes) != y[:, None]
            if weight is not None:
                other &= weight[:, None] > 0
            least = min(least, float(lead.min(initial=math.inf, where=other)))
            largest = max(largest, float(lead.max(initial=-math.inf, where=other)))
        return least, largest


def _dense(x: Any) -> Floats:
    return x if isinstance(x, np.ndarray) else np.asarray(x.toarray())


class Objective:
    r"""Mean loss and ridge penalty, with the features taken from their means.

    .. math:: F(W, c) = \frac1S \sum_n w_n \ell\big(W (x_n - \mu) + c,\; y_n\big)
              + \frac{\alpha}{2} \|W\|^2, \qquad \alpha = \frac{1}{C S}

    with S the sum of the weights. Parameters are one array (K, D + 1), the c last; without
    intercepts (K, D), and the mean is taken to be 0. Where F without penalty is below
    `separated_below`, the label of every row is likelier than 1/2: the classes are separated.
    """

    def __init__(self, engine: Engine, classes: int, C: float, fit_intercept: bool) -> None:
        self.engine, self.classes, self.fit_intercept = engine, classes, fit_intercept
        self.rows, self.total, least, sums, sizes = engine.totals()
        self.separated_below = least * math.log(2) / self.total
        self.features = len(sums)
        self.empty = sizes == 0
        self.alpha = 1 / (C * self.total)
        self.mean, self.covariance = self._moments(sums / self.total)

    def _moments(self, mean: Floats) -> tuple[Floats, Floats]:
        """Of the features the mean, and the covariance (D, D), or the variances (D,) of many.

        In two passes, the second correcting what the first one rounded (Chan, Golub and LeVeque,
        "Algorithms for computing the sample variance", American Statistician 37, 1983).
        """
        full = self.features <= FULL_FEATURES
        mean = mean if self.fit_intercept else np.zeros_like(mean)
        off, spread = (part / self.total for part in self.engine.scatter(mean, full))
        if self.fit_intercept:
            mean = mean + off
            spread -= np.outer(off, off) if full else off * off
        variance = np.diagonal(spread) if full else spread
        constant = variance <= (8 * np.finfo(float).eps * mean) ** 2  # but for rounding
        spread[constant] = 0
        if full:
            spread[:, constant] = 0
        return mean, spread

    def variances(self) -> Floats:
        """Of the features; 0 for one that does not vary."""
        c = self.covariance
        return np.diagonal(c) if c.ndim == 2 else c

    def centred(self, coef: Floats, intercept: Floats) -> Floats:
        """The parameters of logits x W' + b."""
        if not self.fit_intercept:
            return coef.copy()
        return np.hstack([coef, (intercept + coef @ self.mean)[:, None]])

    def plain(self, theta: Floats) -> tuple[Floats, Floats]:
        """W and b of the logits x W' + b."""
        if not self.fit_intercept:
            return theta, np.zeros(self.classes)
        coef = theta[:, :-1]
        return coef, theta[:, -1] - coef @ self.mean

    def cancelled(self, theta: Floats) -> float:
        """The size of what cancels in the logits, as the features are not centred in memory."""
        return float((np.abs(theta[:, : self.features]) @ np.abs(self.mean)).max())

    def value_and_gradient(self, theta: Floats) -> tuple[float, Floats]:
        coef, intercept = self.plain(theta)
        loss, by_coef, by_intercept = self.engine.loss_and_gradient(coef, intercept)
        gradient = np.empty_like(theta)
        gradient[:, : self.features] = by_coef
        if self.fit_intercept:
            gradient[:, :-1] -= np.outer(by_intercept, self.mean)
            gradient[:, -1] = by_intercept
        gradient /= self.total
        gradient[:, : self.features] += self.alpha * coef
        return loss / self.total + 0.5 * self.alpha * float(np.vdot(coef, coef)), gradient

    def hessian_cost(self, size: int) -> float:
        """What the Hessian and its factor cost, in evaluations of the gradient (measured)."""
        return 10 + 0.1 * size + size**2 / (3 * self.rows)

    def hessian(self, theta: Floats) -> Floats:
        """Of shape (theta.size, theta.size). Equal shifts of all classes are in its kernel."""
        coef, intercept = self.plain(theta)
        k, d = self.classes, self.features
        full = self.engine.hessian(coef, intercept, self.mean).reshape(k, d + 1, k, d + 1)
        size = theta.shape[1]
        result: Floats = np.ascontiguousarray(full[:, :size, :, :size]) / self.total
        diagonal = np.einsum("iaia->ia", result)
        diagonal[:, :d] += self.alpha
        return result.reshape(theta.size, theta.size)
