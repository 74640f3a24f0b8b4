"""Logits, labels and probabilities of a fitted softmax regression."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from logitlab.probabilities import log_softmax, softmax
from logitlab.regression.dataset import is_dataset
from logitlab.regression.solver import Floats


class SoftmaxPredictor(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn classifier with ``coef_``, ``intercept_`` and ``classes_``."""

    coef_: Floats
    intercept_: Floats
    classes_: Any

    def _checked_features(self, X: Any) -> Any:
        """Return the features of rows to predict, as an array or a CSR matrix."""
        check_is_fitted(self)
        if is_dataset(X):
            raise TypeError(
                "X must be rows in memory to predict, got a dataset; read its batches as tables, "
                "with pyarrow.Table.from_batches([batch])"
            )
        return validate_data(
            self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False
        )

    def _logits(self, X: Any) -> Floats:
        z: Floats = self._checked_features(X) @ self.coef_.T + self.intercept_
        return z

    def decision_function(self, X: Any) -> Floats:
        """Return the logits; for two classes the log-odds of the second class.

        Parameters
        ----------
        X : array, sparse matrix or data frame, shape (N, D)
            Features.

        Returns
        -------
        numpy.ndarray, shape (N, K) or (N,)
            In nats.
        """
        z = self._logits(X)
        return z[:, 0] if len(self.classes_) == 2 else z

    def _logits_of_all_classes(self, X: Any) -> Floats:
        z = self._logits(X)
        return np.hstack([np.zeros_like(z), z]) if len(self.classes_) == 2 else z

    def predict(self, X: Any) -> Any:
        """Return the most probable label of each row.

        Parameters
        ----------
        X : array, sparse matrix or data frame, shape (N, D)
            Features.

        Returns
        -------
        numpy.ndarray, shape (N,)
        """
        best = self._logits_of_all_classes(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> Floats:
        """Return the probability of each class, in the order of ``classes_``.

        Parameters
        ----------
        X : array, sparse matrix or data frame, shape (N, D)
            Features.

        Returns
        -------
        numpy.ndarray, shape (N, K)
        """
        p: Floats = softmax(self._logits_of_all_classes(X))
        return p

    def predict_log_proba(self, X: Any) -> Floats:
        """Return the log-probability of each class, exact where the probability rounds to 0 or 1.

        Parameters
        ----------
        X : array, sparse matrix or data frame, shape (N, D)
            Features.

        Returns
        -------
        numpy.ndarray, shape (N, K)
        """
        p: Floats = log_softmax(self._logits_of_all_classes(X))
        return p
