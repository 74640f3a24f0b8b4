"""The results of a fit without penalty."""

from typing import Any

import numpy as np

from logitlab import _checks
from logitlab.regression.inference import hypothesis_tests as tests
from logitlab.regression.inference.diagnostics import RowDiagnostics
from logitlab.regression.inference.hypothesis_tests import HypothesisTest
from logitlab.regression.inference.marginal_effects import MarginalEffects, marginal_effects
from logitlab.regression.inference.predictions import Predictions, predict
from logitlab.regression.inference.tables import RelativeRiskRatios, Summary, half_width
from logitlab.regression.solver import Floats


class Inference(RowDiagnostics):
    """Coefficients relative to a base class, with standard errors, and all that follows from them.

    :meth:`logitlab.SoftmaxRegression.inference` returns it. A row of weight w counts as w rows.
    Arrays of shape (M, P) have a row for each class except the base, in the order of `classes`,
    and a column for each of `names`: the features, then the intercept.

    Parameters
    ----------
    objective, theta, classes, names, base, cov_type, groups, response, checked_features
        Set by the estimator.

    Attributes
    ----------
    base, classes, names : label, list of labels, list of str
        The base class, the other classes, the names of the columns.
    coef : numpy.ndarray, shape (M, P)
        The coefficients less those of the base class.
    standard_error, z, p_value : numpy.ndarray, shape (M, P)
        The standard errors, the ratios of coefficients and standard errors, and their two-sided
        p-values under the normal distribution.
    cov_type, groups : str, int or None
        The covariance of the coefficients, and the number of clusters.
    rows : float
        The sum of the weights.
    log_likelihood, null_log_likelihood : float
        Of the model, and of a model with intercepts only (without intercept: equal
        probabilities).
    parameters, df_model : int
        The number of parameters, M P, and of those that the null model does not have, M D.
    aic, bic : float
        Akaike's information criterion, 2 (parameters - log-likelihood), and the Bayesian one,
        log(rows) parameters - 2 log-likelihood.

    Examples
    --------
    >>> import math
    >>> from sklearn.datasets import load_iris
    >>> import logitlab
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> X, y = X[50:].iloc[:, :2], y[50:]
    >>> inference = logitlab.SoftmaxRegression(C=math.inf).fit(X, y).inference(cov_type="HC0")
    >>> inference.cov_type, inference.coef.shape
    ('HC0', (1, 3))
    >>> f"{inference.wald_test('sepal width (cm)').p_value:.4f}"
    '0.6003'
    >>> inference.marginal_effects().effect.round(3)
    array([[-0.355, -0.076],
           [ 0.355,  0.076]])
    """

    def confidence_interval(self, confidence_level: float = 0.95) -> tuple[Floats, Floats]:
        """Return the bounds of the confidence intervals of the coefficients.

        Parameters
        ----------
        confidence_level : float
            Confidence level of the intervals, between 0 and 1.

        Returns
        -------
        lower, upper : numpy.ndarray, shape (M, P)
        """
        half = half_width(self.standard_error, confidence_level)
        return self.coef - half, self.coef + half

    def summary(self, confidence_level: float = 0.95) -> Summary:
        """Return the table of the coefficients, in the layout of statsmodels.

        Parameters
        ----------
        confidence_level : float
            Confidence level of the intervals, between 0 and 1.

        Returns
        -------
        Summary
            It prints as a table; ``to_frame()``, ``to_html()`` and ``to_latex()`` return it in
            other forms.
        """
        return Summary.normal(
            self.coef,
            self.standard_error,
            confidence_level,
            classes=self.classes,
            names=self.names,
            response=self._response,
            base=self.base,
            cov_type=self.cov_type,
            method=self._objective.method,
            groups=self.groups,
            rows=self.rows,
            parameters=self.parameters,
            df_model=self.df_model,
            log_likelihood=self.log_likelihood,
            null_log_likelihood=self.null_log_likelihood,
            llr_p_value=self.likelihood_ratio_test().p_value,
            pseudo_r2=self.pseudo_r2(),
            aic=self.aic,
            bic=self.bic,
        )

    def relative_risk_ratios(self, confidence_level: float = 0.95) -> RelativeRiskRatios:
        """Return the exponentials of the coefficients of the features, with intervals.

        Parameters
        ----------
        confidence_level : float
            Confidence level of the intervals, between 0 and 1.

        Returns
        -------
        RelativeRiskRatios
        """
        d = self._objective.features
        lower, upper = self.confidence_interval(confidence_level)
        with np.errstate(over="ignore"):
            ratio, lower, upper = (np.exp(x[:, :d]) for x in (self.coef, lower, upper))
        return RelativeRiskRatios(
            ratio=ratio,
            standard_error=ratio * self.standard_error[:, :d],
            z=self.z[:, :d],
            p_value=self.p_value[:, :d],
            lower=lower,
            upper=upper,
            confidence_level=confidence_level,
            classes=self.classes,
            names=self.names[:d],
            response=self._response,
            base=self.base,
        )

    def wald_test(self, restriction: Any, values: Any = 0.0) -> HypothesisTest:
        """Return the Wald test of linear restrictions, under the covariance ``cov_type``.

        Parameters
        ----------
        restriction : str, list of str, or array, shape (Q, M P)
            Names: their coefficients are 0 in all classes. A matrix R: R c = `values`, with c the
            coefficients in the order of ``coef.ravel()``.
        values : float or array, shape (Q,)
            The right side.

        Returns
        -------
        HypothesisTest
            Statistic, degrees of freedom, p-value.

        Raises
        ------
        ValueError
            An unknown name; a matrix or values of another shape; restrictions that depend on each
            other, or more of them than clusters.
        """
        matrix = tests.restriction_matrix(restriction, self.names, len(self.classes))
        root = self._raw_root.reshape(len(self._raw_root), -1)
        return tests.wald_test(self.coef.ravel(), root, matrix, values)

    def likelihood_ratio_test(self, other: "Inference | None" = None) -> HypothesisTest:
        """Return the likelihood-ratio test against a nested model, or against the null model.

        It does not depend on ``cov_type``, and assumes independent rows.

        Parameters
        ----------
        other : Inference, optional
            Of the same rows and classes: a model that is a special case of this one, or of which
            this one is a special case. By default the null model.

        Returns
        -------
        HypothesisTest
            Statistic, degrees of freedom, p-value.

        Raises
        ------
        ValueError
            `other` has other rows or classes, as many parameters, or a likelihood that no nested
            model has.
        """
        df, model = self.df_model, self.log_likelihood
        if other is None:
            return tests.chi_squared_test(max(2 * (model - self.null_log_likelihood), 0.0), df)
        self._check_maximum_likelihood("likelihood_ratio_test")
        return tests.likelihood_ratio_test(self, other)

    def score_test(self, X_added: Any) -> HypothesisTest:
        """Return the score test (Rao) of features that the model does not have.

        The hypothesis is that their coefficients are 0 in all classes. No larger model is fitted;
        the test uses the information, for any ``cov_type``.

        Parameters
        ----------
        X_added : array, sparse matrix or data frame, shape (N, Q)
            The values of the features on the rows of the fit, which must be in memory.

        Returns
        -------
        HypothesisTest
            Statistic, degrees of freedom Q M, p-value.
        """
        self._check_maximum_likelihood("score_test")
        rows = self._rows_in_memory("score_test")
        added = tests.checked_columns(X_added, len(rows.y))
        return tests.score_test(self._objective, self._theta, self._others, rows, added)

    def marginal_effects(
        self, at: Any = "overall", *, dummy: bool = False, confidence_level: float = 0.95
    ) -> MarginalEffects:
        """Return the effects of the features on the probabilities of all classes.

        Parameters
        ----------
        at : str, dict or array, shape (D,)
            ``"overall"``: the mean of the effects on the rows. ``"mean"``, ``"median"``,
            ``"zero"``: the effects where each feature has its mean, its median (of rows in
            memory) or 0. A dict: the features named have these values, and the others their
            means. An array: the values of all features.
        dummy : bool
            Whether the effect of a feature with the values 0 and 1 is the difference of the
            probabilities at 1 and at 0. Otherwise it is the derivative, as of other features.
        confidence_level : float
            Confidence level of the intervals, between 0 and 1.

        Returns
        -------
        MarginalEffects
            A table with standard errors by the delta method, under the covariance ``cov_type``.
        """
        d = self._objective.features
        dummy = _checks.boolean(dummy, "dummy")
        effects, derivative, place = marginal_effects(
            self._objective, self._theta, at, dummy, self.names[:d]
        )
        root = self._spread_over_classes(self._root)
        errors = np.linalg.norm(np.tensordot(derivative, root, ((2, 3), (1, 2))), axis=-1)
        return MarginalEffects.normal(
            effects,
            errors,
            confidence_level,
            classes=self.all_classes,
            names=self.names[:d],
            response=self._response,
            at=place,
        )

    def predict(self, X: Any, confidence_level: float = 0.95) -> Predictions:
        """Return probabilities with confidence intervals.

        The intervals are those of the log-odds of each class against all others, by the delta
        method under the covariance ``cov_type``, mapped to probabilities: they are within (0, 1).

        Parameters
        ----------
        X : array, sparse matrix or data frame, shape (N, D)
            Features.
        confidence_level : float
            Confidence level of the intervals, between 0 and 1.

        Returns
        -------
        Predictions
            `probability`, `standard_error`, `lower` and `upper`, each (N, K).
        """
        return predict(
            self._checked_features(X),
            *self._objective.from_centred(self._theta),
            self._objective.mean,
            self._spread_over_classes(self._root),
            self.all_classes,
            confidence_level,
        )
