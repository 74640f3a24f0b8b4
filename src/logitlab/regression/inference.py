"""Inference from the likelihood: standard errors, p-values, confidence intervals."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import xlogy

from logitlab.regression.degeneracy import has_recession_direction
from logitlab.regression.objective import Objective
from logitlab.regression.solver import Floats, inverse_root

_MAX_GRADIENT = 1e-3  # in standard errors; a larger gradient shows other rows than those fitted


@dataclass(frozen=True)
class Summary:
    """Coefficients relative to a base class, with standard errors and confidence intervals.

    Arrays have a row for each class except the base, in the order of `classes`, and a column for
    each of `names`: the features, then the intercept. It prints as a table.

    Attributes
    ----------
    base, classes, names : label, list of labels, list of str
        The base class, the other classes, the names of the columns.
    coef, standard_error, z, p_value, lower, upper : numpy.ndarray
        The coefficient less that of the base class, its standard error (from the inverse Hessian),
        their ratio, its two-sided p-value under the normal distribution, and the bounds of the
        confidence interval.
    confidence_level : float
        Confidence level of the intervals.
    rows : float
        The sum of the weights.
    log_likelihood, null_log_likelihood : float
        Of the model, and of a model with intercepts only (without intercept: equal
        probabilities).
    pseudo_r2 : float
        McFadden's pseudo R²: 1 - log_likelihood / null_log_likelihood.
    """

    base: Any
    classes: list[Any]
    names: list[str]
    coef: Floats
    standard_error: Floats
    confidence_level: float
    rows: float
    log_likelihood: float
    null_log_likelihood: float
    z: Floats = field(init=False)
    p_value: Floats = field(init=False)
    lower: Floats = field(init=False)
    upper: Floats = field(init=False)

    def __post_init__(self) -> None:
        from scipy.stats import norm

        z = self.coef / self.standard_error
        half_width = norm.ppf((1 + self.confidence_level) / 2) * self.standard_error
        for name, value in (
            ("z", z),
            ("p_value", 2 * norm.sf(abs(z))),
            ("lower", self.coef - half_width),
            ("upper", self.coef + half_width),
        ):
            object.__setattr__(self, name, value)

    @property
    def pseudo_r2(self) -> float:
        return 1 - self.log_likelihood / self.null_log_likelihood

    def to_frame(self) -> Any:
        """Return a pandas data frame with a row for each class and name."""
        import pandas as pd

        index = pd.MultiIndex.from_product([self.classes, self.names], names=["class", "name"])
        columns = ("coef", "standard_error", "z", "p_value", "lower", "upper")
        return pd.DataFrame({c: getattr(self, c).ravel() for c in columns}, index=index)

    def __str__(self) -> str:
        width = max(len(name) for name in self.names)
        lines = [
            f"Softmax regression: {self.rows:g} rows, base class {self.base}",
            f"log-likelihood {self.log_likelihood:.6g}, null log-likelihood "
            f"{self.null_log_likelihood:.6g}, pseudo R² {self.pseudo_r2:.4f}",
        ]
        percent = f"{100 * self.confidence_level:g}%"
        titles = ("coef", "std err", "z", "p", f"lower {percent}", f"upper {percent}")
        header = "".join(f"{title:>12}" for title in titles)
        for k, label in enumerate(self.classes):
            lines += ["", f"class {label}", " " * width + header]
            table = (self.coef, self.standard_error, self.z, self.p_value, self.lower, self.upper)
            for j, name in enumerate(self.names):
                a, s, z, p, low, high = (float(t[k, j]) for t in table)
                lines.append(
                    f"{name:{width}}{a:12.4g}{s:12.4g}{z:12.3f}{p:12.3g}{low:12.4g}{high:12.4g}"
                )
        return "\n".join(lines)


def summarize(
    objective: Objective,
    theta: Floats,
    classes: Any,
    names: list[str],
    base: Any,
    confidence_level: float,
) -> Summary:
    """Return the summary of the parameters, of centred features, that maximize the likelihood."""
    k, size = theta.shape
    total = objective.weight_sum
    value, gradient = objective.value_and_gradient(theta)
    if value < objective.separation_bound or has_recession_direction(objective, theta):
        raise ValueError(
            "the classes are separated by the features: the likelihood has no maximum, and the "
            "coefficients have no standard errors"
        )
    others = [j for j in range(k) if classes[j] != base]
    # With the base class fixed, the Hessian by the other classes is that by the differences.
    hessian = objective.hessian(theta).reshape(k, size, k, size)[others][:, :, others]
    n = len(others) * size
    root = inverse_root(hessian.reshape(n, n) * total)
    if len(root) < n:
        raise ValueError(
            "the features are linearly dependent: single coefficients have no standard errors; "
            "drop the columns that are linear combinations of others"
        )
    gradient_norm = float(np.linalg.norm(root @ (gradient[others] * total).ravel()))
    if gradient_norm > _MAX_GRADIENT * math.sqrt(n):
        raise ValueError(
            "the coefficients do not maximize the likelihood of these rows; pass the rows (and "
            "weights) of the fit, or fit with a smaller tol"
        )
    root = root.reshape(-1, len(others), size)
    if objective.fit_intercept:
        # The intercept of features that are not centred is b = c - W mean.
        root[:, :, -1] -= root[:, :, :-1] @ objective.mean
    coef, intercept = objective.from_centred(theta)
    parameters = np.hstack([coef, intercept[:, None]])[:, :size]
    differences = parameters[others] - parameters[list(classes).index(base)]
    return Summary(
        base=base,
        classes=[classes[j] for j in others],
        names=names,
        coef=differences,
        standard_error=np.sqrt(np.sum(root * root, axis=0)),
        confidence_level=confidence_level,
        rows=total,
        log_likelihood=-value * total,
        null_log_likelihood=_null_log_likelihood(objective),
    )


def _null_log_likelihood(objective: Objective) -> float:
    """Return the log-likelihood of a model without features."""
    k = objective.classes
    if not objective.fit_intercept:
        return -objective.weight_sum * math.log(k)
    # At equal probabilities the gradient by an intercept is the sum of all weights over K, less
    # the sum of the weights of that class.
    start = np.zeros((k, objective.features))
    _, _, by_intercept = objective.engine.loss_and_gradient(start, np.zeros(k))
    weights = np.maximum(objective.weight_sum / k - by_intercept, 0.0)
    return float(np.sum(xlogy(weights, weights / objective.weight_sum)))
