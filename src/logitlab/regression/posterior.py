"""The coefficients of a fit with a ridge penalty as a posterior distribution."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from logitlab import _checks
from logitlab.regression.inference.covariance import check_maximum
from logitlab.regression.objective import Objective
from logitlab.regression.solver import Floats, inverse_root


@dataclass(frozen=True)
class Posterior:
    """The normal approximation of the posterior distribution of the coefficients.

    Arrays have a row for each class except the base, in the order of `classes`, and a column for
    each of `names`: the features, then the intercept.

    Attributes
    ----------
    base, classes, names : label, list of labels, list of str
        The base class, the other classes, the names of the columns.
    coef : numpy.ndarray
        The coefficients less those of the base class.
    standard_deviation : numpy.ndarray
        Of the posterior distribution.
    """

    base: Any
    classes: list[Any]
    names: list[str]
    coef: Floats
    standard_deviation: Floats

    def credible_interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Return the lower and the upper bounds that contain a coefficient with a probability.

        Parameters
        ----------
        level : float
            The probability, between 0 and 1.

        Returns
        -------
        low, high : numpy.ndarray
            Of the shape of ``coef``.
        """
        from scipy.special import ndtri

        half = ndtri((1 + _checks.between_0_and_1(level, "level")) / 2) * self.standard_deviation
        return self.coef - half, self.coef + half


def posterior(
    objective: Objective, theta: Floats, classes: list[Any], names: list[str], base: Any
) -> Posterior:
    """Return the posterior distribution near theta, the parameters of centred features."""
    k, size = theta.shape
    blocks = objective.hessian(theta).reshape(k, size, k, size) * objective.weight_sum
    # Along equal shifts of all classes the intercepts have no curvature. Differences of classes do
    # not change there, so that any curvature may be added.
    curvature = np.einsum("iaia->a", blocks) / k**2
    for a in range(size):
        blocks[:, a, :, a] += curvature[a]
    root = inverse_root(blocks.reshape(k * size, k * size))
    check_maximum(objective, root, objective.value_and_gradient(theta)[1])
    root = root.reshape(-1, k, size)
    if objective.fit_intercept:
        # The intercept of features that are not centred is b = c - W mean.
        root[:, :, -1] -= root[:, :, :-1] @ objective.mean
    coef, intercept = objective.from_centred(theta)
    parameters = np.hstack([coef, intercept[:, None]])[:, :size]
    reference = classes.index(base)
    others = [j for j in range(k) if j != reference]
    differences = root[:, others] - root[:, [reference]]
    return Posterior(
        base=base,
        classes=[classes[j] for j in others],
        names=names,
        coef=parameters[others] - parameters[reference],
        standard_deviation=np.sqrt(np.sum(differences**2, axis=0)),
    )
