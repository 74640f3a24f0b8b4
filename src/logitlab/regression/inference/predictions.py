"""Predicted probabilities with confidence intervals."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from logitlab.probabilities import logsumexp, softmax
from logitlab.regression.inference.tables import half_width
from logitlab.regression.inference_sums import centred_rows
from logitlab.regression.rows import Rows
from logitlab.regression.solver import Floats


@dataclass(frozen=True)
class Predictions:
    """Probabilities with confidence intervals; arrays have a row for each row of X.

    Attributes
    ----------
    classes : list of labels
        The classes, in the order of the columns.
    probability, standard_error, lower, upper : numpy.ndarray, shape (N, K)
        The probabilities, their standard errors by the delta method, and the bounds of the
        confidence intervals.
    """

    classes: list[Any]
    probability: Floats
    standard_error: Floats
    lower: Floats
    upper: Floats

    def to_frame(self) -> Any:
        """Return a pandas data frame with a row for each row of X and class."""
        import pandas as pd

        rows = range(len(self.probability))
        index = pd.MultiIndex.from_product([rows, self.classes], names=["row", "class"])
        names = ("probability", "standard_error", "lower", "upper")
        return pd.DataFrame({name: getattr(self, name).ravel() for name in names}, index=index)


def predict(
    x: Any,
    coef: Floats,
    intercept: Floats,
    centre: Floats,
    root: Floats,
    classes: list[Any],
    confidence_level: Any,
) -> Predictions:
    """Return the predictions of features (N, D).

    root (r, K, D + 1) is that of the covariance of the parameters of centred features, with 0 for
    the base class.
    """
    k = len(coef)
    rows = Rows(x, np.zeros(x.shape[0], np.int64), None, k)
    log_odds, errors = [np.empty((0, k))], [np.empty((0, k))]
    for part in centred_rows(rows, coef, intercept, centre, width=len(root)):
        others = np.stack([np.delete(part.z, j, axis=1) for j in range(k)], axis=1)
        # log(p_j / (1 - p_j)) = z_j - log sum_{i != j} exp(z_i)
        log_odds.append(part.z - logsumexp(others))
        gradient = np.empty((len(part.z), k, k))
        share = softmax(others)
        for j in range(k):
            gradient[:, j] = np.insert(-share[:, j], j, 1.0, axis=1)
        by_logit = np.einsum("ne,rme->nmr", part.x, root)
        errors.append(np.linalg.norm(gradient @ by_logit, axis=2))
    logit, error = np.concatenate(log_odds), np.concatenate(errors)
    half = half_width(error, confidence_level)
    p = np.asarray(expit(logit))
    return Predictions(
        classes, p, p * expit(-logit) * error, expit(logit - half), expit(logit + half)
    )
