"""The methods of an estimator that return inference."""

import copy
import math
from typing import Any

from sklearn.utils.validation import check_is_fitted

from logitlab import _checks
from logitlab.regression.inference.kept_rows import KeepsRows
from logitlab.regression.inference.results import Inference
from logitlab.regression.inference.tables import Summary
from logitlab.regression.posterior import Posterior, posterior
from logitlab.regression.profile import ProfileIntervals, profile_intervals
from logitlab.regression.threads import single_blas_thread


class InferenceMixin(KeepsRows):
    """The inference of an estimator that keeps the rows of a fit without penalty."""

    def inference(
        self,
        X: Any = None,
        y: Any = None,
        sample_weight: Any = None,
        *,
        base: Any = None,
        cov_type: str = "nonrobust",
        groups: Any = None,
    ) -> Inference:
        """Return standard errors, tests, marginal effects and more of a fit without penalty.

        They come from the exact Hessian of the likelihood on the rows of the fit. A row of weight
        w counts as w rows, with robust covariances too.

        Parameters
        ----------
        X, y, sample_weight
            The arguments of ``fit``. They are needed only after pickling or copying: a fit with
            ``C=math.inf`` keeps a reference to its rows.
        base : label, optional
            The class that the others are compared with; by default the first of ``classes_``.
        cov_type : str
            The covariance of the coefficients. ``"nonrobust"``: the inverse of the information.
            ``"HC0"``: the sandwich covariance, robust to a wrong model of the probabilities;
            ``"HC1"``: times n / (n - p), with n the sum of the weights and p the number of
            parameters. ``"cluster"``: robust to dependence within `groups` too, times
            G / (G - 1) (n - 1) / (n - p) with G the number of groups, as in statsmodels.
        groups : array, shape (N,), optional
            The group of each row, with ``cov_type="cluster"``.

        Returns
        -------
        logitlab.Inference

        Raises
        ------
        TypeError, ValueError
            The fit had a penalty, which biases the coefficients, so that the likelihood does not
            give their errors; no rows are kept; the classes are separated; features are linearly
            dependent; other rows than those of the fit, or rows changed since; `base` is not a
            class; an unknown `cov_type`; `groups` of another length, or without use.
        """
        objective, base, response = self._objective_of(X, y, sample_weight, base)
        return Inference(
            objective,
            self._centred_parameters(objective),
            self.classes_.tolist(),
            self._parameter_names(),
            base=base,
            cov_type=cov_type,
            groups=groups,
            response=response,
            checked_features=copy.copy(self)._checked_features,
        )

    def profile_intervals(
        self,
        X: Any = None,
        y: Any = None,
        sample_weight: Any = None,
        *,
        base: Any = None,
        confidence_level: float = 0.95,
    ) -> ProfileIntervals:
        """Return profile likelihood intervals and likelihood ratio tests of the coefficients.

        A value of a coefficient is in the interval if the likelihood ratio test does not reject
        the best fit with this value. With ``firth=True`` the likelihood has the Jeffreys penalty
        (Heinze and Schemper). Unlike the intervals of :meth:`inference` these need not be
        symmetric, and hold for separated classes: one of their bounds is then infinite without
        penalty, and finite with it. Each bound takes a few fits.

        Parameters
        ----------
        X, y, sample_weight, base
            The arguments of :meth:`inference`.
        confidence_level : float
            Confidence level of the intervals, between 0 and 1.

        Returns
        -------
        logitlab.regression.profile.ProfileIntervals
            It prints as a table; ``to_frame()``, ``to_html()`` and ``to_latex()`` return it in
            other forms.

        Raises
        ------
        TypeError, ValueError
            As :meth:`inference`, but only completely separated classes of a fit without `firth`
            are refused; `confidence_level` out of range.

        References
        ----------
        D. Venzon and S. Moolgavkar, "A method for computing profile-likelihood-based confidence
        intervals", Applied Statistics 37, 1988. G. Heinze and M. Schemper, "A solution to the
        problem of separation in logistic regression", Statistics in Medicine 21, 2002.

        Examples
        --------
        >>> import math
        >>> import numpy as np
        >>> import logitlab
        >>> X, y = np.arange(8.0)[:, None], [0, 0, 0, 0, 1, 1, 1, 1]  # separated
        >>> model = logitlab.SoftmaxRegression(C=math.inf, firth=True).fit(X, y)
        >>> print(model.profile_intervals())
                                 Profile Likelihood Intervals
        ==============================================================================
        Dep. Variable:                      y   Base Class:                          0
        ==============================================================================
                                       y=1       coef          p     [0.025     0.975]
        ------------------------------------------------------------------------------
        x0                                      1.033     0.0166     0.1341      5.746
        intercept                              -3.615     0.0399     -20.41    -0.1228
        ==============================================================================
        """
        confidence_level = _checks.between_0_and_1(confidence_level, "confidence_level")
        objective, base, response = self._objective_of(X, y, sample_weight, base)
        with single_blas_thread():
            return profile_intervals(
                objective,
                self._centred_parameters(objective),
                self.classes_.tolist(),
                self._parameter_names(),
                base,
                confidence_level,
                response,
            )

    def posterior(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, base: Any = None
    ) -> Posterior:
        """Return the posterior distribution of the coefficients of a fit with a ridge penalty.

        The penalty is a normal prior of mean 0 and variance C for each coefficient, and a flat one
        for the intercepts: the fit is the mode of the posterior. Its normal approximation (of
        Laplace) has the inverse Hessian of the objective as covariance. The intervals say what
        rows and prior together leave open; they are no confidence intervals, and the prior
        matters where a feature varies little.

        Parameters
        ----------
        X, y, sample_weight
            The arguments of ``fit``. A model of a formula takes y from X.
        base : label, optional
            The class that the others are compared with; by default the first of ``classes_``.

        Returns
        -------
        logitlab.regression.posterior.Posterior

        Raises
        ------
        TypeError, ValueError
            A fit without penalty or with `l1_ratio`; other rows than those of the fit; `base` is
            not a class.

        References
        ----------
        C. Bishop, "Pattern recognition and machine learning", 2006, section 4.5.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> import logitlab
        >>> X, y = load_iris(return_X_y=True)
        >>> posterior = logitlab.SoftmaxRegression().fit(X[50:, :2], y[50:]).posterior(
        ...     X[50:, :2], y[50:]
        ... )
        >>> posterior.coef.round(2), posterior.standard_deviation.round(2)
        (array([[  1.59,   0.41, -11.11]]), array([[0.41, 0.63, 2.62]]))
        """
        check_is_fitted(self)
        if math.isinf(self.C):
            raise ValueError(
                "posterior needs a fit with a ridge penalty, got C=inf; inference has standard "
                "errors of a fit without penalty"
            )
        if self.l1_ratio > 0:
            raise ValueError(
                f"posterior needs a fit with a ridge penalty, got l1_ratio={self.l1_ratio}: around "
                "coefficients that are 0 the posterior is not normal"
            )
        objective, base, _ = self._fitted_objective(X, y, sample_weight, base)
        theta = self._centred_parameters(objective)
        names = self._parameter_names()
        return posterior(objective, theta, self.classes_.tolist(), names, base)

    def summary(
        self,
        X: Any = None,
        y: Any = None,
        sample_weight: Any = None,
        *,
        base: Any = None,
        confidence_level: float = 0.95,
        cov_type: str = "nonrobust",
        groups: Any = None,
    ) -> Summary:
        """Return the table of the coefficients of a fit without penalty.

        It is ``inference(...).summary(confidence_level)``.

        Parameters
        ----------
        X, y, sample_weight, base
            The arguments of :meth:`inference`.
        confidence_level : float
            Confidence level of the intervals, between 0 and 1.
        cov_type, groups
            The arguments of :meth:`inference`.

        Returns
        -------
        logitlab.regression.inference.tables.Summary
            It prints as a table; ``to_frame()`` returns a data frame.

        Raises
        ------
        TypeError, ValueError
            As :meth:`inference`; `confidence_level` out of range.

        Examples
        --------
        >>> import math
        >>> from sklearn.datasets import load_iris
        >>> import logitlab
        >>> X, y = load_iris(return_X_y=True, as_frame=True)
        >>> X, y = X[50:].iloc[:, :2], y[50:]
        >>> model = logitlab.SoftmaxRegression(C=math.inf).fit(X, y)
        >>> print(model.summary())
                                     Softmax Regression Results
        ===================================================================================
        Dep. Variable:                    target   No. Observations:                    100
        Base Class:                            1   Df Residuals:                         97
        Model:                Softmax regression   Df Model:                              2
        Method:                              MLE   Pseudo R-squ.:                    0.2042
        Covariance Type:               nonrobust   Log-Likelihood:                  -55.163
        AIC:                              116.33   LL-Null:                         -69.315
        BIC:                              124.14   LLR p-value:                   7.144e-07
        ===================================================================================
                 target=2       coef    std err          z      P>|z|     [0.025     0.975]
        -----------------------------------------------------------------------------------
        sepal length (cm)      1.902     0.5169      3.680   0.000233     0.8892      2.916
        sepal width (cm)      0.4047     0.8628      0.469      0.639     -1.286      2.096
        intercept             -13.05      3.097     -4.212   2.53e-05     -19.12     -6.975
        ===================================================================================
        """
        _checks.between_0_and_1(confidence_level, "confidence_level")
        inference = self.inference(X, y, sample_weight, base=base, cov_type=cov_type, groups=groups)
        return inference.summary(confidence_level)
