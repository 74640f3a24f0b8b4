"""What the likelihood says of fitted coefficients: standard errors and what follows from them."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import xlogy

from logitlab.regression.objective import Floats, Objective
from logitlab.regression.solver import inverse_root, recedes

_NOT_FITTED_TO = 1e-3  # a gradient of so many standard errors is no optimum


@dataclass(frozen=True)
class Summary:
    """Coefficients relative to a base class, with what the likelihood says of them.

    Arrays have a row for each class but the base, in the order of `classes`, and a column for each
    of `names`: the features, then the intercept. Printed, it is a table.

    Attributes
    ----------
    base, classes, names : label, list of labels, list of str
        The base class, the others, the columns.
    coef, standard_error, z, p_value, lower, upper : numpy.ndarray
        The difference of the logit from the base class's, its standard error (of the inverse
        Hessian), their ratio, its two-sided normal tail, and the bounds of the confidence interval.
    level : float
        Of confidence.
    rows : float
        The sum of the weights.
    log_likelihood, null_log_likelihood : float
        Of the model, and of one with intercepts alone (without intercept: of equal probabilities).
    pseudo_r2 : float
        McFadden's: 1 - log_likelihood / null_log_likelihood.
    """

    base: Any
    classes: list[Any]
    names: list[str]
    coef: Floats
    standard_error: Floats
    level: float
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
        reach = norm.ppf((1 + self.level) / 2) * self.standard_error
        for name, value in (
            ("z", z),
            ("p_value", 2 * norm.sf(abs(z))),
            ("lower", self.coef - reach),
            ("upper", self.coef + reach),
        ):
            object.__setattr__(self, name, value)

    @property
    def pseudo_r2(self) -> float:
        return 1 - self.log_likelihood / self.null_log_likelihood

    def to_frame(self) -> Any:
        """A pandas data frame, with a row for each class and name."""
        import pandas as pd

        index = pd.MultiIndex.from_product([self.classes, self.names], names=["class", "name"])
        columns = ("coef", "standard_error", "z", "p_value", "lower", "upper")
        return pd.DataFrame({c: getattr(self, c).ravel() for c in columns}, index=index)

    def __str__(self) -> str:
        width = max(len(name) for name in self.names)
        lines = [
            f"Softmax regression: {self.rows:g} rows, base class {self.base}",
            f"log-likelihood {self.log_likelihood:.6g}, with intercepts alone "
            f"{self.null_log_likelihood:.6g}, pseudo R² {self.pseudo_r2:.4f}",
        ]
        percent = f"{100 * self.level:g}%"
        header = ("coef", "std err", "z", "p", f"{percent} from", "to")
        for k, label in enumerate(self.classes):
            head = "".join(f"{title:>11}" for title in header)
            lines += ["", f"class {label}", " " * width + head]
            table = (self.coef, self.standard_error, self.z, self.p_value, self.lower, self.upper)
            for j, name in enumerate(self.names):
                a, s, z, p, low, high = (float(t[k, j]) for t in table)
                lines.append(
                    f"{name:{width}}{a:11.4g}{s:11.4g}{z:11.3f}{p:11.3g}{low:11.4g}{high:11.4g}"
                )
        return "\n".join(lines)


def infer(
    objective: Objective, theta: Floats, classes: Any, names: list[str], base: Any, level: float
) -> Summary:
    """The summary of centred parameters at which the likelihood is at its maximum."""
    k, size = theta.shape
    total = objective.total
    value, gradient = objective.value_and_gradient(theta)
    if value < objective.separated_below or recedes(objective, theta):
        raise ValueError(
            "the classes are separated by the features: the likelihood has no maximum, and "
            "coefficients have no standard errors"
        )
    others = [j for j in range(k) if classes[j] != base]
    # With the base class held, the Hessian by the other classes is that of the differences.
    hessian = objective.hessian(theta).reshape(k, size, k, size)[others][:, :, others]
    n = len(others) * size
    root = inverse_root(hessian.reshape(n, n) * total)
    if len(root) < n:
        raise ValueError(
            "the features depend on each other linearly: single coefficients have no standard "
            "errors; leave out the columns that others make up"
        )
    away = float(np.linalg.norm(root @ (gradient[others] * total).ravel()))
    if away > _NOT_FITTED_TO * math.sqrt(n):
        raise ValueError(
            "the coefficients do not maximise the likelihood of these rows; pass the rows (and "
            "weights) of the fit, and fit with a smaller tol"
        )
    root = root.reshape(-1, len(others), size)
    if objective.fit_intercept:
        # b = c - W mean
        root[:, :, -1] -= root[:, :, :-1] @ objective.mean
    coef, intercept = objective.plain(theta)
    plain = np.hstack([coef, intercept[:, None]])[:, :size]
    plain = plain[others] - plain[list(classes).index(base)]
    return Summary(
        base=base,
        classes=[classes[j] for j in others],
        names=names,
        coef=plain,
        standard_error=np.sqrt(np.sum(root * root, axis=0)),
        level=level,
        rows=total,
        log_likelihood=-value * total,
        null_log_likelihood=_null(objective),
    )


def _null(objective: Objective) -> float:
    """The log-likelihood without features."""
    k = objective.classes
    if not objective.fit_intercept:
        return -objective.total * math.log(k)
    # At equal probabilities the gradient by the intercepts is total / K less the class's weight.
    start = np.zeros((k, objective.features))
    _, _, by_intercept = objective.engine.loss_and_gradient(start, np.zeros(k))
    weight = np.maximum(objective.total / k - by_intercept, 0.0)
    return float(np.sum(xlogy(weight, weight / objective.total)))
