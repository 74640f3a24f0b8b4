"""Softmax regression as a scikit-learn classifier."""

from typing import Any, Self

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from logitlab import _arrays, _registry
from logitlab._arrays import bincount
from logitlab.regression.coefficients import one_row_per_class, scikit_learn_rows
from logitlab.regression.dataset import column_names, is_dataset, make_dataset_engine
from logitlab.regression.degeneracy import minimum_norm, warn_not_converged
from logitlab.regression.elastic_net import ElasticNet
from logitlab.regression.elastic_net_solver import minimize_elastic_net, warn_of_gap
from logitlab.regression.engines import WorkersLostError, make_dask_engine
from logitlab.regression.inference.mixin import InferenceMixin
from logitlab.regression.objective import Objective
from logitlab.regression.prediction import SoftmaxPredictor
from logitlab.regression.progress import progress_bar
from logitlab.regression.rows import Engine, Rows
from logitlab.regression.sample import sample_start
from logitlab.regression.saved import SavedMixin
from logitlab.regression.solver import Callback, Floats, Solution, minimize
from logitlab.regression.threads import single_blas_thread
from logitlab.regression.validation import (
    check_parameters,
    check_penalty,
    checked_class_weight,
    checked_labels,
    checked_objective,
    checked_weights,
    times_class_weight,
)


class SoftmaxRegression(InferenceMixin, SavedMixin, SoftmaxPredictor):
    r"""Multinomial logistic regression: logits W x + b, softmax, cross-entropy.

    Minimizes :math:`C \sum_n w_n \ell(W x_n + b, y_n) + \frac12 \|W\|^2`, the objective of
    scikit-learn's ``LogisticRegression`` at the same C, or with `l1_ratio` the elastic net. The
    result does not depend on the scale of the features: the solver works in coordinates in which
    they are centred and have one scale, without transforming them in memory. The rows are read in
    blocks and not changed. Where there are many rows for each parameter, the fit starts on a copy
    of at most a sixth of them.

    Two classes have one row of coefficients, as in scikit-learn (the model with a row for each
    class has the same optimum at C / 2).

    Parameters
    ----------
    C : float
        Inverse strength of the penalty, > 0. ``math.inf``: no penalty. Then, where features are
        linearly dependent, the coefficients are those of least norm; where the classes are
        separated, there is no optimum and a ``ConvergenceWarning`` is emitted.
    fit_intercept : bool
        Whether b is fitted. It is not penalized.
    tol : float
        With B the inverse curvature, the fit ends at
        :math:`\sqrt{g^T B g} \le \mathrm{tol} \sqrt{F}`, F being the objective over C times the sum
        of the weights, g its gradient. The relative error of F is then about tol² / 2. With
        `l1_ratio` > 0 the fit ends at a duality gap of at most tol F, which is proportional to the
        gradient; the error of F is at most the gap, and usually much smaller.
    max_iter : int
        Maximum number of iterations, >= 0.
    l1_ratio : float
        The elastic net of scikit-learn, from 0 to 1: the penalty is
        :math:`\rho \|W\|_1 + \frac{1-\rho}{2} \|W\|^2` with rho = `l1_ratio`. Above 0, many
        coefficients are exactly 0. It needs a finite C. Where the optimum is not unique (1, an even
        number of classes, no coefficient of a feature is 0), W is that of least norm.
    grouped : bool
        Whether :math:`\|W\|_1` is replaced by the sum over the features of the Euclidean norm of
        the coefficients of all classes, so that they are 0 in all classes or in none (group lasso).
        Two classes have one coefficient, for which it is the same. No effect with `l1_ratio` = 0.
    class_weight : dict, "balanced" or None
        Weight of each class, as in scikit-learn.
    warm_start : bool
        Whether a fit starts at the coefficients of the previous fit.
    firth : bool
        Whether the bias of the maximum likelihood estimate is reduced (Firth's method): half the
        log-determinant of the Fisher information is added to the log-likelihood (the Jeffreys
        prior). The coefficients are finite, even where the classes are separated. Needs
        ``C=math.inf``.
    verbose : bool
        Whether a progress bar is shown on standard error (needs the library rich).

    Attributes
    ----------
    coef_ : numpy.ndarray, shape (K, D), or (1, D) for two classes
        W.
    intercept_ : numpy.ndarray, shape (K,) or (1,)
        b; zeros without intercept.
    classes_ : numpy.ndarray, shape (K,)
        The labels.
    n_iter_ : numpy.ndarray, shape (1,)
        Number of iterations on all rows.
    loss_curve_ : list of float
        The objective, over C times the sum of the weights, before and after each iteration. With
        `firth` over the sum of the weights, the log-determinant being relative to that at equal
        probabilities.
    dual_gap_ : float
        With `l1_ratio` > 0: an upper bound of the last objective less the least possible one,
        scaled as in ``loss_curve_``.
    n_features_in_ : int
        D.
    feature_names_in_ : numpy.ndarray, shape (D,)
        Names of the columns, where X has names that are all strings.

    References
    ----------
    D. Böhning, "Multinomial logistic regression algorithm", Annals of the Institute of
    Statistical Mathematics 44, 1992. J. Nocedal and S. Wright, "Numerical optimization", 2006,
    section 7.2. J. Friedman, T. Hastie and R. Tibshirani, "Regularization paths for generalized
    linear models via coordinate descent", Journal of Statistical Software 33, 2010. E. Ndiaye,
    O. Fercoq, A. Gramfort and J. Salmon, "Gap safe screening rules for sparsity enforcing
    penalties", Journal of Machine Learning Research 18, 2017.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> import logitlab
    >>> X, y = load_wine(return_X_y=True)  # proline in the thousands, hue about 1
    >>> model = logitlab.SoftmaxRegression().fit(X, y)
    >>> model.predict(X[:3]), model.score(X, y)
    (array([0, 0, 0]), 0.9943820224719101)
    """

    def __init__(
        self,
        *,
        C: float = 1.0,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 1000,
        l1_ratio: float = 0.0,
        grouped: bool = False,
        class_weight: Any = None,
        warm_start: bool = False,
        firth: bool = False,
        verbose: bool = False,
    ) -> None:
        self.C = C
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.l1_ratio = l1_ratio
        self.grouped = grouped
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.firth = firth
        self.verbose = verbose

    @classmethod
    def from_formula(
        cls, formula: str, data: Any, *, sample_weight: Any = None, **parameters: Any
    ) -> "SoftmaxRegression":
        """Fit a formula on the columns of a data frame.

        The formula is one of R, read by formulaic: ``a + b``, ``a:b``, ``a * b``, ``C(a)``,
        ``C(a, contr.sum)``, ``np.log(a)``, ``center(a)``, ``poly(a, 2)``, ``bs(a, df=4)``, ``.``
        for all other columns. Text and booleans are categories; the first level is the reference.
        ``- 1`` leaves out the intercept.

        A formula is Python code that runs: do not use formulas of strangers. It sees the columns
        and the functions of formulaic, no variables of the caller.

        Parameters
        ----------
        formula : str
            The response, one column, and the terms: ``"vote ~ age + C(region)"``.
        data : data frame
            A pandas, polars or Arrow table without missing values in these columns.
        sample_weight : array, shape (N,), optional
            Weights, >= 0.
        **parameters
            The parameters of the constructor but `fit_intercept`.

        Returns
        -------
        logitlab.regression.formula.FormulaRegression
            A fitted estimator whose methods take data frames, of any of these libraries.

        Raises
        ------
        ModuleNotFoundError
            formulaic is not installed.
        TypeError, ValueError
            `data` is not a table; a formula that cannot be read or evaluated, without response or
            with names that are not columns; missing values. In the methods of the estimator:
            missing columns, columns of another type, levels that the fit had not.

        Examples
        --------
        >>> import logitlab
        >>> import pandas as pd
        >>> data = pd.DataFrame({"age": range(6), "site": list("aabbab"), "ill": list("nnynyy")})
        >>> model = logitlab.SoftmaxRegression.from_formula("ill ~ age + site", data)
        >>> model.design_.names, model.predict(data[:2])
        (['age', 'site[T.b]'], array(['n', 'n'], dtype=object))
        """
        model: SoftmaxRegression = _registry.module("formula").FormulaRegression(
            formula, **parameters
        )
        return model.fit(data, None, sample_weight)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the coefficients.

        Parameters
        ----------
        X : array, sparse matrix, data frame or dataset, shape (N, D)
            Features. Arrays of float32 and float64 in C or Fortran order and CSR matrices are
            used in place; CSC is converted to CSR. A Dask array or data frame stays on the workers
            of the current ``distributed.Client``; `y` and `sample_weight` must then be Dask
            collections with the same partitions. The files of a ``pyarrow.dataset.Dataset`` are
            read batch by batch, once in each iteration; `y` and `sample_weight` must then be names
            of its columns, and all others are features.
        y : array, shape (N,), or str
            Labels of at least two classes: integers (as floats too), booleans or strings.
            ``predict`` returns these labels. Other floats are refused as regression targets.
        sample_weight : array, shape (N,), or str, optional
            Weights, >= 0. Their sizes matter relative to the penalty, not only their ratios.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            A parameter of a wrong type or out of range; X with NaN, infinity or a column whose
            squares overflow, or without penalty underflow; only one class; labels that are floats
            but not integers; a weight below 0, or weights whose sum overflows; shapes that do not
            match; a Dask collection without a client; missing values or text in a dataset.
        logitlab.regression.engines.WorkersLostError
            The workers with the rows are lost, and Dask cannot compute the rows again. The
            coefficients of the last iterate are kept.
        """
        check_parameters(
            self.C, self.tol, self.max_iter, self.fit_intercept, self.warm_start, self.firth
        )
        check_penalty(self.l1_ratio, self.grouped, self.C)
        with single_blas_thread():
            rows = self._make_engine(X, y, sample_weight, reset=True)
            self._fit_on(*rows)
        self._keep_rows(rows, y)
        return self

    def _make_engine(
        self, X: Any, y: Any, sample_weight: Any, reset: bool
    ) -> tuple[Engine, Any, np.dtype[Any]]:
        """Return an engine with the rows, the labels of the classes, the type of the features."""
        # The residuals of float32 are too inexact for a duality gap.
        sum_dtype = np.float64 if self.l1_ratio > 0 else None
        if _arrays.is_dask(X):
            # An empty data frame gives the names of the columns, an array of one row their number.
            first = X._meta if hasattr(X, "columns") else np.empty((1, X.shape[1]))
            validate_data(self, first, reset=reset, skip_check_array=True)
            return make_dask_engine(X, y, sample_weight, self._class_weight, sum_dtype)
        if is_dataset(X):
            names = column_names(X, y, sample_weight)
            first = X.schema.empty_table().select(names)
            validate_data(self, first, reset=reset, skip_check_array=True)
            return make_dataset_engine(X, y, sample_weight, self._class_weight, sum_dtype)
        y = None if y is None else checked_labels(y)  # None: scikit-learn's error
        X, y = validate_data(
            self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32], reset=reset
        )
        check_classification_targets(y)
        classes, codes = np.unique(y, return_inverse=True)
        weight = checked_weights(sample_weight, len(codes))
        factors = self._class_weight(classes, bincount(codes, weight))
        weight = times_class_weight(weight, factors, codes)
        engine = Rows(X, codes.astype(np.int64), weight, len(classes), sum_dtype)
        return engine, classes, X.dtype

    def _class_weight(self, classes: Any, weight_by_class: Floats) -> Floats | None:
        return checked_class_weight(self.class_weight, self.C, classes, weight_by_class)

    def _objective(self, engine: Engine, k: int, dtype: np.dtype[Any]) -> Objective:
        return checked_objective(
            engine, k, self.C, self.fit_intercept, self.firth, dtype, self._feature_names()
        )

    def _feature_names(self) -> list[str]:
        names = getattr(self, "feature_names_in_", range(self.n_features_in_))
        return [name if isinstance(name, str) else f"x{name}" for name in names]

    def _fit_on(self, engine: Engine, classes: Any, dtype: np.dtype[Any]) -> Self:
        """Fit on the rows of an engine."""
        objective = self._objective(engine, len(classes), dtype)
        self._minimize(objective, self._start(objective, classes), classes, dtype)
        return self

    def _minimize(
        self, objective: Objective, start: Floats, classes: Any, dtype: np.dtype[Any]
    ) -> Floats:
        """Fit from a start, and return the parameters of centred features, a row a class."""
        last = start
        measure = "duality gap" if self.l1_ratio > 0 else "gradient"
        with progress_bar(self.verbose, self.max_iter, measure) as update_bar:

            def callback(iteration: int, value: float, decrement: float, theta: Floats) -> None:
                nonlocal last
                last = theta
                update_bar(iteration, value, decrement)

            try:
                if self.l1_ratio > 0:
                    return self._fit_elastic_net(objective, start, classes, dtype, callback)
                solution = self._solve(objective, start, float(np.finfo(dtype).eps) / 2, callback)
            except WorkersLostError as error:
                self._set_coefficients(objective, last, classes, dtype)
                raise WorkersLostError(
                    f"{error}; the coefficients of the last iterate are kept, and with "
                    "warm_start=True the next fit starts there"
                ) from error
        theta = minimum_norm(objective, solution.theta)
        warn_not_converged(objective, solution, self.tol)
        self._set_coefficients(objective, theta, classes, dtype)
        self.n_iter_ = np.array([solution.iterations], np.int32)
        self.loss_curve_ = solution.loss_curve
        return theta

    def _solve(
        self, objective: Objective, start: Floats, rounding: float, callback: Callback
    ) -> Solution:
        options = float(self.tol), int(self.max_iter)
        start, inverse_hessian = sample_start(objective, start, *options, rounding)
        return minimize(
            objective,
            start,
            *options,
            rounding=rounding,
            inverse_hessian=inverse_hessian,
            callback=callback,
        )

    def _fit_elastic_net(
        self,
        objective: Objective,
        start: Floats,
        classes: Any,
        dtype: np.dtype[Any],
        callback: Callback,
    ) -> Floats:
        problem = ElasticNet(objective, self.C, float(self.l1_ratio), bool(self.grouped))
        theta = problem.from_classes(start) if start.any() else problem.null_parameters()
        options = float(self.tol), int(self.max_iter)
        solution = minimize_elastic_net(problem, theta, *options, callback=callback)
        warn_of_gap(solution, self.tol)
        theta = problem.to_classes(solution.theta)
        self._set_coefficients(objective, theta, classes, dtype)
        self.n_iter_ = np.array([solution.iterations], np.int32)
        self.loss_curve_, self.dual_gap_ = solution.loss_curve, solution.dual_gap
        return theta

    def _set_coefficients(
        self, objective: Objective, theta: Floats, classes: Any, dtype: np.dtype[Any]
    ) -> None:
        self.classes_ = classes
        coef, intercept = objective.from_centred(theta)
        if self.l1_ratio == 0:  # an L1 penalty is not the same for all shifts of the coefficients
            coef = coef - coef.mean(axis=0)
        coef, intercept = scikit_learn_rows(coef, intercept - intercept.mean())
        self.coef_ = np.ascontiguousarray(coef, dtype)
        self.intercept_ = intercept.astype(dtype)

    def _start(self, objective: Objective, classes: Any) -> Floats:
        """Return the parameters at which the solver starts."""
        k, d = objective.classes, objective.features
        last = getattr(self, "coef_", None) if self.warm_start else None
        if last is None or last.shape[1] != d or not np.array_equal(self.classes_, classes):
            return np.zeros((k, d + bool(self.fit_intercept)))
        return self._centred_parameters(objective)

    def _centred_parameters(self, objective: Objective) -> Floats:
        """Return the fitted coefficients, a row for each class, of centred features."""
        coef, intercept = self.coef_.astype(float), self.intercept_.astype(float)
        return objective.to_centred(*one_row_per_class(coef, intercept))
