"""The coefficients that maximize the likelihood, and their covariance."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from logitlab import _checks
from logitlab.regression import inference_sums
from logitlab.regression.inference import covariance
from logitlab.regression.objective import Objective
from logitlab.regression.partitions import sum_arrays
from logitlab.regression.solver import Floats

_PSEUDO_R2 = ("mcfadden", "adjusted", "cox_snell", "nagelkerke", "tjur")


class Estimates:
    """The coefficients relative to a base class, their covariance and the likelihood."""

    def __init__(
        self,
        objective: Objective,
        theta: Floats,
        classes: list[Any],
        names: list[str],
        *,
        base: Any,
        cov_type: str,
        groups: Any,
        response: str,
        checked_features: Callable[[Any], Any],
    ) -> None:
        """Take the parameters of centred features that maximize the likelihood."""
        _checks.choice(cov_type, "cov_type", covariance.COV_TYPES)
        checked = covariance.checked_groups(groups, objective.rows, cov_type)
        reference = classes.index(base)
        others = [j for j in range(len(classes)) if j != reference]
        self.base, self.names, self.cov_type = base, names, cov_type
        self.classes, self.all_classes = [classes[j] for j in others], classes
        self._objective, self._others = objective, others
        self._theta = theta - theta[reference]
        self._response, self._checked_features = response, checked_features
        self.rows, self.has_intercept = objective.weight_sum, objective.fit_intercept
        self.log_likelihood, root = covariance.information_root(objective, theta, others)
        self.null_log_likelihood = covariance.null_log_likelihood(objective)
        shape = (-1, len(others), theta.shape[1])
        self._information_root, self.groups = root.reshape(shape), None
        if cov_type != "nonrobust":
            root, self.groups = covariance.robust_root(
                objective, theta, others, root, cov_type, checked
            )
        self._root = root.reshape(shape)
        coef, intercept = objective.from_centred(self._theta)
        self.coef = np.hstack([coef, intercept[:, None]])[others, : theta.shape[1]]
        self.standard_error = np.sqrt(np.sum(self._raw_root**2, axis=0))

    @cached_property
    def _raw_root(self) -> Floats:
        """R (r, M, P) with R' R the covariance of the coefficients of the features as they are."""
        root = self._root
        if self._objective.fit_intercept:
            # The intercept of features that are not centred is b = c - W mean.
            root = root.copy()
            root[:, :, -1] -= root[:, :, :-1] @ self._objective.mean
        return root

    def _spread_over_classes(self, root: Floats) -> Floats:
        """Return a root (r, K, D + 1), with 0 for the base class and for missing intercepts."""
        full = np.zeros((len(root), len(self.all_classes), self._objective.features + 1))
        full[:, self._others, : root.shape[2]] = root
        return full

    @property
    def z(self) -> Floats:
        return np.asarray(self.coef / self.standard_error)

    @property
    def p_value(self) -> Floats:
        from scipy.stats import norm

        return np.asarray(2 * norm.sf(abs(self.z)))

    @property
    def parameters(self) -> int:
        """The number of parameters, M P."""
        return self.coef.size

    @property
    def df_model(self) -> int:
        """The number of parameters that the null model does not have, M D."""
        return len(self._others) * self._objective.features

    @property
    def aic(self) -> float:
        """Akaike's information criterion, 2 (parameters - log-likelihood)."""
        return 2 * (self.parameters - self.log_likelihood)

    @property
    def bic(self) -> float:
        """The Bayesian information criterion, log(rows) parameters - 2 log-likelihood."""
        return math.log(self.rows) * self.parameters - 2 * self.log_likelihood

    def cov_params(self) -> Floats:
        """Return the covariance of the coefficients, in the order of ``coef.ravel()``.

        Returns
        -------
        numpy.ndarray, shape (M P, M P)
        """
        root = self._raw_root.reshape(len(self._raw_root), -1)
        return np.asarray(root.T @ root)

    def pseudo_r2(self, kind: str = "mcfadden") -> float:
        """Return a pseudo R².

        Parameters
        ----------
        kind : str
            With L the likelihood, L0 that of the null model, p the number of parameters and n the
            sum of the weights: ``"mcfadden"`` 1 - log L / log L0, ``"adjusted"``
            1 - (log L - p) / log L0, ``"cox_snell"`` 1 - (L0 / L)^(2 / n), ``"nagelkerke"`` the
            last over its maximum, 1 - L0^(2 / n), and of two classes ``"tjur"``: the mean
            probability of the second class on its rows less that on rows of the first.

        Returns
        -------
        float
        """
        _checks.choice(kind, "kind", _PSEUDO_R2)
        model, null = self.log_likelihood, self.null_log_likelihood
        if kind == "tjur":
            return self._tjur()
        if kind in ("mcfadden", "adjusted"):
            return 1 - (model - (self.parameters if kind == "adjusted" else 0)) / null
        cox_snell = -math.expm1(2 * (null - model) / self.rows)
        return cox_snell if kind == "cox_snell" else cox_snell / -math.expm1(2 * null / self.rows)

    def _tjur(self) -> float:
        if len(self.all_classes) != 2:
            raise ValueError(
                f"kind='tjur' needs two classes, got {len(self.all_classes)}; take another kind"
            )
        objective = self._objective
        arguments = *objective.from_centred(self._theta), objective.mean
        parts = objective.engine.map_parts(inference_sums.probability_sums, *arguments)
        sums = sum_arrays(parts)
        means = sums[:, 1] / sums.sum(axis=1)
        return float(means[1] - means[0])
