"""The objectives of vector and matrix scaling, mean log-loss plus a ridge penalty, as sums."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from logitlab._backends.native import get_num_threads
from logitlab._backends.targets import Targets
from logitlab._dispatch import backend
from logitlab._distributed import Sums
from logitlab._rows import Floats, Integers, blocks
from logitlab.probabilities import softmax
from logitlab.regression.rows import Rows
from logitlab.regression.solver import InverseHessian, hessian_cost, inverse_root, minimize
from logitlab.regression.threads import map_in_threads, single_blas_thread

_BLOCK = 1 << 16  # logits of a block: its intermediate results stay in the cache
_SEPARATED = 1e-18  # a log-loss at which all probabilities are exact to the last digit
_EPS = float(np.finfo(float).eps)
_MAX_ITERATIONS = 1000


class AffineRows(ABC):
    """Rows of logits, and sums over them for an affine map of the logits; the weights add up to 1
    over all rows, of which these may be a part.
    """

    def __init__(self, x: Floats, y: Integers, weight: Floats) -> None:
        self.x, self.y, self.weight = x, y, weight

    def blocks(self) -> Iterator[slice]:
        """Return the slices of blocks of rows."""
        return blocks(len(self.x), self.x.shape[1], _BLOCK)

    def magnitude(self) -> tuple[float]:
        """Return the weighted sum of the largest finite logits."""
        largest = np.max(np.abs(self.x), axis=1, initial=0.0, where=np.isfinite(self.x))
        return (float(self.weight @ largest),)

    @abstractmethod
    def loss_and_gradient(self, theta: Floats) -> tuple[float, Floats]:
        """Return the log-loss and its gradient."""

    @abstractmethod
    def hessian(self, theta: Floats) -> tuple[Floats]:
        """Return the Hessian of the log-loss, (theta.size, theta.size)."""

    def sums(self, method: str, *arguments: Any) -> tuple[Any, ...]:
        """Return the result of a method: of rows that are all in this process."""
        return tuple(getattr(self, method)(*arguments))


class PenalizedLoss(ABC):
    """The mean log-loss of calibrated logits plus half of `penalty` times the squared deviation
    of the parameters from `start`.

    `sums` are those over all rows of the methods of :class:`AffineRows`, by name; `n` is the
    number of rows.
    """

    def __init__(self, sums: Sums, n: int, start: Floats, penalty: Floats) -> None:
        self._sums, self._n = sums, n
        self.start, self.penalty = start, penalty
        (magnitude,) = sums("magnitude")
        self._magnitude = float(magnitude)

    def loss_and_gradient(self, theta: Floats) -> tuple[float, Floats]:
        """Return the mean log-loss and its gradient."""
        loss, gradient = self._sums("loss_and_gradient", theta)
        return loss, gradient

    @abstractmethod
    def approximate_inverse_hessian(self, theta: Floats) -> InverseHessian:
        """Return an approximate inverse of the Hessian at theta."""

    def initial_inverse_hessian(self) -> InverseHessian:
        """Return an approximate inverse of the Hessian at the start."""
        return self.approximate_inverse_hessian(self.start)

    def value_and_gradient(self, theta: Floats) -> tuple[float, Floats]:
        """Return the objective and its gradient."""
        loss, gradient = self.loss_and_gradient(theta)
        deviation = theta - self.start
        pull = self.penalty * deviation
        return loss + 0.5 * float(np.vdot(pull, deviation)), gradient + pull

    def inverse_hessian(self, theta: Floats) -> InverseHessian:
        """Return the inverse of the Hessian at theta."""
        (hessian,) = self._sums("hessian", theta)
        hessian[np.diag_indices(theta.size)] += self.penalty.ravel()
        root = inverse_root(hessian)
        return lambda gradient: ((root @ gradient.ravel()) @ root).reshape(theta.shape)

    def hessian_cost(self, size: int) -> float:
        """Return the cost of the Hessian and its factor, in gradient evaluations."""
        return hessian_cost(size, self._n)

    def cancellation(self, theta: Floats) -> float:
        """Return about the mean of the largest logits: the loss is a difference of logits."""
        return self._magnitude

    def is_separated(self, value: float) -> bool:
        """Return whether larger parameters would change no probability any more."""
        return value < _SEPARATED


def minimum(objective: PenalizedLoss, tolerance: float) -> Floats:
    """Return the parameters with the least value.

    The solver stops where the probabilities are exact to the tolerance: the relative excess of
    the objective over its minimum is about half of its square.
    """
    with single_blas_thread():
        return minimize(
            objective, objective.start, tolerance, _MAX_ITERATIONS, rounding=_EPS / 2
        ).theta


class VectorRows(AffineRows):
    """Rows for a scale and a bias of each class: the parameters are (2, K)."""

    def _logits(self, x: Floats, theta: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            u: Floats = x * theta[0] + theta[1]
        # -inf excludes a class also where its scale is 0 or negative.
        np.copyto(u, -np.inf, where=x == -np.inf)
        return u

    def loss_and_gradient(self, theta: Floats) -> tuple[float, Floats]:
        loss, gradient = 0.0, np.zeros_like(theta)
        for rows in self.blocks():
            x, w = self.x[rows], self.weight[rows]
            u = self._logits(x, theta)
            losses, residual = backend(u).target_loss(u, (1,), 1.0, None, Targets(self.y[rows]), w)
            loss += float(w @ losses)
            # 0 times -inf counts as 0.
            gradient[0] += np.einsum("nk,nk->k", residual, np.where(residual == 0, 0, x))
            gradient[1] += residual.sum(axis=0)
        return loss, gradient

    def hessian(self, theta: Floats) -> tuple[Floats]:
        k = self.x.shape[1]
        hessian = np.zeros((2 * k, 2 * k))
        for rows in self.blocks():
            x, w = self.x[rows], self.weight[rows]
            p = softmax(self._logits(x, theta))
            finite = np.where(p == 0, 0, x)
            # sum of w (diag(p) - p p') (x) (x, 1) (x, 1)'
            px = np.hstack([p * finite, p])
            hessian -= (px * w[:, None]).T @ px
            for i, j in np.ndindex(2, 2):
                block = hessian[i * k : (i + 1) * k, j * k : (j + 1) * k]
                block[np.diag_indices(k)] += w @ (p * finite ** (2 - i - j))
        return (hessian,)

    def curvature(self, theta: Floats) -> tuple[Floats]:
        """Return the diagonal of the Hessian, (2, K)."""
        curvature = np.zeros_like(theta)
        for rows in self.blocks():
            x, w = self.x[rows], self.weight[rows]
            p = softmax(self._logits(x, theta))
            spread = p * (1 - p)
            curvature[0] += w @ (spread * np.where(p == 0, 0, x) ** 2)
            curvature[1] += w @ spread
        return (curvature,)


class VectorObjective(PenalizedLoss):
    """The parameters are (2, K): the scale of each class, and its bias."""

    def __init__(self, sums: Sums, n: int, k: int, ridge: float) -> None:
        start = np.stack([np.ones(k), np.zeros(k)])
        super().__init__(sums, n, start, np.full((2, k), 2 * ridge))

    def approximate_inverse_hessian(self, theta: Floats) -> InverseHessian:
        """Return the inverse of the diagonal of the Hessian."""
        (curvature,) = self._sums("curvature", theta)
        inverse = _inverse(curvature + self.penalty)
        return lambda gradient: gradient * inverse


class MatrixRows(AffineRows):
    """Rows for a matrix and a bias: the parameters are (K, K + 1), the bias in the last column."""

    def __init__(self, x: Floats, y: Integers, weight: Floats) -> None:
        super().__init__(x, y, weight)
        self._rows = Rows(x, y, weight, x.shape[1])

    def second_moments(self) -> tuple[Floats]:
        """Return the second moments of the logits, (K, K)."""
        return ((self.x * self.weight[:, None]).T @ self.x,)

    def loss_and_gradient(self, theta: Floats) -> tuple[float, Floats]:
        loss, by_coef, by_intercept = self._rows.loss_and_gradient(theta[:, :-1], theta[:, -1])
        return loss, np.hstack([by_coef, by_intercept[:, None]])

    def hessian(self, theta: Floats) -> tuple[Floats]:
        return (self._rows.hessian(theta[:, :-1], theta[:, -1], np.zeros(len(theta))),)

    def spread(self, theta: Floats) -> tuple[Floats]:
        """Return the sums of p (1 - p), (K,)."""
        return (self._rows.spread(theta[:, :-1], theta[:, -1]),)


class MatrixObjective(PenalizedLoss):
    """The parameters are (K, K + 1): the matrix, and the bias in the last column."""

    def __init__(
        self,
        sums: Sums,
        n: int,
        k: int,
        off_diagonal: float,
        bias: float,
        diagonal: float = 0.0,
    ) -> None:
        penalty = np.full((k, k + 1), 2 * off_diagonal)
        penalty[np.diag_indices(k)] = 2 * diagonal
        penalty[:, k] = 2 * bias
        super().__init__(sums, n, np.eye(k, k + 1), penalty)
        self._off_diagonal, self._diagonal = off_diagonal, diagonal

    @cached_property
    def _moments(self) -> tuple[Floats, Floats]:
        """The eigenvalues and eigenvectors of the second moments of the logits."""
        values, vectors = np.linalg.eigh(*self._sums("second_moments"))
        return np.where(values > len(values) * _EPS * values[-1], values, 0.0), vectors

    def approximate_inverse_hessian(self, theta: Floats) -> InverseHessian:
        r"""Return the inverse of an approximate Hessian.

        The part of the matrix of class i is :math:`a_i S + 2 \lambda I - 2 (\lambda - \delta) e_i
        e_i^T`, with S the second moments of the logits, :math:`a_i` the mean of :math:`p_i (1 -
        p_i)`, and the penalties :math:`\lambda` off the diagonal and :math:`\delta` on it. It is
        inverted by the eigenvectors of S and the formula of Sherman and Morrison.
        """
        k = len(theta)
        (spread,) = self._sums("spread", theta)
        spread = np.maximum(spread, _EPS * spread.max())
        values, vectors = self._moments
        inverse = _inverse(spread[:, None] * values + 2 * self._off_diagonal)
        difference = 2 * (self._off_diagonal - self._diagonal)
        inverse_bias = _inverse(spread + self.penalty[:, -1])
        # 1 - 2 (lambda - delta) (M^-1)_ii, M without the term of e_i
        remainder = 1 - difference * np.einsum("ij,ij,ij->i", vectors, inverse, vectors)
        remainder = np.maximum(remainder, np.sqrt(_EPS))

        def apply(gradient: Floats) -> Floats:
            result = np.empty_like(gradient)

            def apply_to_rows(part: slice) -> None:
                spectrum = gradient[part, :k] @ vectors
                along = np.einsum("ij,ij,ij->i", spectrum, inverse[part], vectors[part])
                spectrum += (difference * along / remainder[part])[:, None] * vectors[part]
                spectrum *= inverse[part]
                np.matmul(spectrum, vectors.T, out=result[part, :k])

            parts = list(blocks(k, k, _BLOCK))
            for _ in map_in_threads(apply_to_rows, parts, get_num_threads()):
                pass
            result[:, k] = gradient[:, k] * inverse_bias
            return result

        return apply


def _inverse(x: Floats) -> Floats:
    """Return 1/x, 0 where x is 0."""
    return np.divide(1.0, x, out=np.zeros_like(x), where=x > 0)
