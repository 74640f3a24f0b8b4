"""Softmax regression whose penalty is selected by cross-validation."""

from typing import Any, Self

import numpy as np
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from logitlab import _arrays, _checks
from logitlab.regression.dataset import is_dataset
from logitlab.regression.estimator import SoftmaxRegression
from logitlab.regression.path import checked_strengths, compute_path, default_strengths
from logitlab.regression.prediction import SoftmaxPredictor
from logitlab.regression.solver import Floats
from logitlab.regression.threads import single_blas_thread
from logitlab.regression.validation import (
    check_parameters,
    check_penalty,
    checked_labels,
    checked_weights,
)


class SoftmaxRegressionCV(SoftmaxPredictor):
    """Softmax regression with the C and l1_ratio of the best cross-validated score.

    For each fold and l1_ratio, the fits for all C start at each other, from the strongest penalty
    to the weakest. The selected model is then fitted on all rows.

    Parameters
    ----------
    Cs : int or array
        Inverse strengths of the penalty, or their number. In the latter case they are in geometric
        progression from the largest C at which all coefficients are 0 to 10⁴ times as much, or 100
        times where there are no more rows than features. If all l1_ratios are 0, they are from 10⁻⁴
        to 10⁴, as in scikit-learn.
    l1_ratios : array of float
        Elastic-net mixes, each from 0 to 1.
    grouped, fit_intercept, tol, max_iter, class_weight
        Parameters of :class:`logitlab.SoftmaxRegression`.
    cv : int, splitter or iterable, optional
        The folds, as in scikit-learn; by default 5 stratified folds. The rows of each fit must have
        all classes.
    scoring : str or callable, optional
        A scorer of scikit-learn, higher being better. By default minus the log-loss, with the
        weights of the rows.
    selection : {"min", "one_standard_error"}
        The C of the best mean score over the folds; or, of the best l1_ratio, the strongest penalty
        whose mean score is at most one standard error below it.

    Attributes
    ----------
    C_, l1_ratio_ : float
        The selected ones.
    Cs_ : numpy.ndarray, shape (n_Cs,)
        Inverse strengths of the penalty, ascending.
    l1_ratios_ : numpy.ndarray, shape (n_l1_ratios,)
        Elastic-net mixes.
    scores_ : numpy.ndarray, shape (n_folds, n_l1_ratios, n_Cs)
        Scores of the held-out rows.
    coef_, intercept_, classes_, n_iter_, loss_curve_, dual_gap_, n_features_in_, feature_names_in_
        Attributes of the selected ``SoftmaxRegression``.

    References
    ----------
    T. Hastie, R. Tibshirani and J. Friedman, "The elements of statistical learning", 2009, section
    7.10 (the rule of one standard error).

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> import logitlab
    >>> X, y = load_wine(return_X_y=True)
    >>> options = {"l1_ratios": [1.0], "grouped": True, "selection": "one_standard_error"}
    >>> model = logitlab.SoftmaxRegressionCV(**options).fit(X, y)
    >>> int(model.coef_.any(axis=0).sum())  # features of 13
    7
    """

    def __init__(
        self,
        *,
        Cs: Any = 10,
        l1_ratios: Any = (0.0,),
        grouped: bool = False,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 1000,
        class_weight: Any = None,
        cv: Any = None,
        scoring: Any = None,
        selection: str = "min",
    ) -> None:
        self.Cs = Cs
        self.l1_ratios = l1_ratios
        self.grouped = grouped
        self.fit_intercept = fit_intercept
        self.cv = cv
        self.scoring = scoring
        self.selection = selection
        self.tol = tol
        self.max_iter = max_iter
        self.class_weight = class_weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Select C and l1_ratio, and fit the coefficients on all rows.

        Parameters
        ----------
        X : array, sparse matrix or data frame, shape (N, D)
            Features, in memory.
        y : array, shape (N,)
            Labels, as in ``SoftmaxRegression.fit``.
        sample_weight : array, shape (N,), optional
            Weights, >= 0, of the fits and of the default scores.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As ``SoftmaxRegression.fit``; a Dask collection or a dataset; `selection` is not a known
            one; the rows of a fit lack a class.
        """
        ratios = self._checked_ratios()
        Cs = checked_strengths(self.Cs)
        if _arrays.is_dask(X) or is_dataset(X):
            raise TypeError(f"X must be in memory, got a {type(X).__name__}")
        y = None if y is None else checked_labels(y)  # None: scikit-learn's error
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32])
        check_classification_targets(y)
        weight = checked_weights(sample_weight, len(y))
        final = self._model(ratios[0])
        # Checks of the classes and weights come before the folds.
        engine, classes, dtype = final._make_engine(X, y, weight, reset=True)
        if isinstance(Cs, int):
            with single_blas_thread():
                objective = final._objective(engine, len(classes), dtype)
                Cs = default_strengths(objective, Cs, ratios, bool(self.grouped))
        folds = list(check_cv(self.cv, y, classifier=True).split(X, y))
        scores = np.empty((len(folds), len(ratios), len(Cs)))
        with single_blas_thread():
            for fold, (train, test) in enumerate(folds):
                self._check_classes(classes, y[train], fold)
                for position, ratio in enumerate(ratios):
                    scores[fold, position] = self._scores(ratio, Cs, X, y, weight, train, test)
        best, C = self._selected(scores)
        self.l1_ratios_, self.Cs_, self.scores_ = np.array(ratios), Cs, scores
        self.l1_ratio_, self.C_ = ratios[best], float(Cs[C])
        final = self._model(self.l1_ratio_).set_params(C=self.C_).fit(X, y, weight)
        for name in ("coef_", "intercept_", "classes_", "n_iter_", "loss_curve_"):
            setattr(self, name, getattr(final, name))
        if self.l1_ratio_ > 0:
            self.dual_gap_ = final.dual_gap_
        return self

    def _checked_ratios(self) -> list[float]:
        """Check the parameters; return the values of l1_ratio."""
        check_parameters(1.0, self.tol, self.max_iter, self.fit_intercept, False, False)
        _checks.choice(self.selection, "selection", ("min", "one_standard_error"))
        ratios = list(np.atleast_1d(self.l1_ratios).tolist())
        if not ratios:
            raise ValueError("l1_ratios must hold at least one number, got none")
        for ratio in ratios:
            check_penalty(ratio, self.grouped, 1.0)
        return [float(ratio) for ratio in ratios]

    def _model(self, l1_ratio: float) -> SoftmaxRegression:
        return SoftmaxRegression(
            l1_ratio=l1_ratio,
            grouped=self.grouped,
            fit_intercept=self.fit_intercept,
            tol=self.tol,
            max_iter=self.max_iter,
            class_weight=self.class_weight,
        )

    def _check_classes(self, classes: Any, y: Any, fold: int) -> None:
        missing = np.setdiff1d(classes, y).tolist()
        if missing:
            raise ValueError(
                f"cv must leave rows of every class to fit, got none of class {missing[0]!r} in "
                f"fold {fold}"
            )

    def _scores(
        self, ratio: float, Cs: Floats, X: Any, y: Any, weight: Floats | None, train: Any, test: Any
    ) -> Floats:
        """Return the score of the held-out rows for each C."""
        model = self._model(ratio)
        of = [None if weight is None else weight[rows] for rows in (train, test)]
        engine, classes, dtype = model._make_engine(X[train], y[train], of[0], reset=True)
        objective = model._objective(engine, len(classes), dtype)
        path = compute_path(model, objective, classes, dtype, Cs)
        scorer = None if self.scoring is None else check_scoring(model, self.scoring)
        codes = np.searchsorted(classes, y[test])
        scores = np.empty(len(Cs))
        for position, C in enumerate(Cs):
            model.C, model.coef_ = C, path.coefs[position]
            model.intercept_ = path.intercepts[position]
            if scorer is not None:
                scores[position] = scorer(model, X[test], y[test])
                continue
            log_p = model.predict_log_proba(X[test])[np.arange(len(codes)), codes]
            scores[position] = np.average(log_p, weights=of[1])
        return scores

    def _selected(self, scores: Floats) -> tuple[int, int]:
        """Return the positions of l1_ratio and C."""
        mean = scores.mean(axis=0)
        best, C = np.unravel_index(int(np.argmax(mean)), mean.shape)
        if self.selection == "one_standard_error" and len(scores) > 1:
            error = scores[:, best, C].std(ddof=1) / np.sqrt(len(scores))
            C = np.argmax(mean[best] >= mean[best, C] - error)
        return int(best), int(C)
