"""Sums over the rows for a penalized fit: the Hessian of some parameters, the dual objective."""

from typing import Any, NamedTuple

import numpy as np

from logitlab._rows import Integers
from logitlab.probabilities import softmax
from logitlab.regression.solver import Floats


class DualPoint(NamedTuple):
    """A point of the dual problem, made of the probabilities p of the rows.

    It holds (1 - scale) y + scale q with y the indicator of the label and
    q = keep * p + share * sum((1 - keep) * p): some classes give a part of their probability,
    which is shared among the others.
    """

    keep: Floats
    share: Floats
    scale: float


class WorkingHessian:
    """The Hessian of the losses of a block by some of the parameters of each class.

    They are listed class by class, D being the intercept; of two classes those of the log-odds of
    the second one alone.
    """

    def __init__(
        self, coef: Floats, intercept: Floats, centre: Floats, columns: list[Integers]
    ) -> None:
        used = np.unique(np.concatenate(columns))
        self._features = used[used < len(centre)]
        self._places = [np.searchsorted(used, part) for part in columns]
        self._width = len(used)
        self._to_logits, self._intercept = coef.T.astype(float), intercept
        self._centre = centre[self._features]
        self.size = sum(len(part) for part in columns)

    def __call__(self, block: Any) -> Floats:
        """Return the Hessian, (size, size)."""
        features, y, weights = block
        p = softmax(features @ self._to_logits + self._intercept)
        chosen = features[:, self._features]
        x = np.ones((len(y), self._width))
        x[:, : len(self._features)] = chosen if isinstance(chosen, np.ndarray) else chosen.toarray()
        x[:, : len(self._features)] -= self._centre
        if weights is not None:
            x *= np.sqrt(weights)[:, None]
        if len(self._places) == 1:
            x *= np.sqrt(p[:, :1] * p[:, 1:])
            return np.asarray(x.T @ x)
        # The sum of (diag(p) - p p') (x) x x'.
        px = np.empty((len(y), self.size))
        diagonal, first = [], 0
        for label, places in enumerate(self._places):
            x_of_class = x if len(places) == self._width else x[:, places]
            part = px[:, first : first + len(places)]
            np.multiply(x_of_class, p[:, label, None], out=part)
            diagonal.append(part.T @ x_of_class)
            first += len(places)
        result = px.T @ px
        np.negative(result, out=result)
        first = 0
        for of_class in diagonal:
            end = first + len(of_class)
            result[first:end, first:end] += of_class
            first = end
        return np.asarray(result)


def dual_entropy(block: Any, coef: Floats, intercept: Floats, point: DualPoint) -> float:
    """Return the sum of the entropies of the probabilities of a dual point."""
    x, y, weight = block
    p = softmax(x @ coef.T + intercept)
    given = 1 - point.keep
    if given.any():
        shared = p @ given
        p *= point.keep
        p += shared[:, None] * point.share
    p *= point.scale
    p[np.arange(len(y)), y] += 1 - point.scale
    entropies = -np.einsum("nk,nk->n", p, np.log(np.maximum(p, np.finfo(float).tiny)))
    return float(entropies.sum() if weight is None else entropies @ weight)
