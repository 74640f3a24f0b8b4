"""Softmax regression as a scikit-learn classifier."""

import contextlib
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from logitlab import _checks
from logitlab.probabilities import log_softmax, softmax
from logitlab.regression.engines import WorkersLostError, is_dask, on_dask
from logitlab.regression.inference import Summary, infer
from logitlab.regression.objective import Engine, Floats, Objective, Rows
from logitlab.regression.solver import Solution, minimise, minimum_norm, recedes

_LARGEST = 1e300  # sum of the weights; its inverse is the least, and the least penalty's too


@contextlib.contextmanager
def _watch(shown: bool, most: int) -> Iterator[Callable[[int, float, float], Any]]:
    """What the solver tells each iterate: a progress bar on standard error."""
    if not shown:
        yield lambda iteration, value, decrement: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("fit"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("objective {task.fields[value]:.8f}, gradient {task.fields[decrement]:.1e}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("fit", total=most, value=math.nan, decrement=math.nan)
        yield lambda iteration, value, decrement: bar.update(
            task, completed=iteration, value=value, decrement=decrement
        )


class SoftmaxRegression(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    r"""Multinomial logistic regression: logits W x + b, softmax, cross-entropy.

    Minimises :math:`C \sum_n w_n \ell(W x_n + b, y_n) + \frac12 \|W\|^2`, the objective of
    scikit-learn's ``LogisticRegression`` at the same C. The scale of the features does not
    matter to the fit: it is made in coordinates where they are centred and of one scale, which
    exist only implicitly; the rows are read in blocks, and neither copied nor changed.

    Two classes have one row of coefficients, as in scikit-learn (the model with a row for each
    class has the same optimum at C / 2).

    Parameters
    ----------
    C : float
        Inverse strength of the penalty, above 0. ``math.inf``: no penalty; where features depend
        on each other the coefficients are those of least norm, and where the classes are
        separated, so that there is no optimum, a warning says so.
    fit_intercept : bool
        Whether there is b. It is not penalised.
    tol : float
        With B the inverse curvature, the fit ends at
        :math:`\sqrt{g^T B g} \le \mathrm{tol} \sqrt{F}`, F being the objective over C times the sum
        of the weights, g its gradient: F is then within a share of about tol² / 2 of its minimum.
    max_iter : int
        Most iterations.
    class_weight : dict, "balanced" or None
        Weight of each class, as in scikit-learn.
    warm_start : bool
        Whether a fit begins from the coefficients of the last.
    verbose : bool
        Whether a progress bar is shown (with the library rich).

    Attributes
    ----------
    coef_ : numpy.ndarray, shape (K, D), or (1, D) for two classes
        W.
    intercept_ : numpy.ndarray, shape (K,) or (1,)
        b; zeros without intercept.
    classes_ : numpy.ndarray, shape (K,)
        The labels.
    n_iter_ : numpy.ndarray, shape (1,)
        Iterations made.
    loss_curve_ : list of float
        The objective, over C times the sum of the weights, before and after each iteration.
    n_features_in_ : int
        D.
    feature_names_in_ : numpy.ndarray, shape (D,)
        Names of the columns, where X had names that are all strings.

    References
    ----------
    D. Böhning, "Multinomial logistic regression algorithm", Annals of the Institute of
    Statistical Mathematics 44, 1992. J. Nocedal and S. Wright, "Numerical optimization", 2006,
    section 7.2.

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
        class_weight: Any = None,
        warm_start: bool = False,
        verbose: bool = False,
    ) -> None:
        self.C = C
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the coefficients.

        Parameters
        ----------
        X : array, sparse matrix or data frame, shape (N, D)
            Features. float32 and float64 are used where they lie, in either order of memory, and
            so is CSR; CSC becomes CSR. A Dask array or data frame stays on the workers of the
            current ``distributed.Client``, which may keep it on disk; y and the weights are then
            Dask's too, in the same partitions.
        y : array, shape (N,)
            Labels of at least two classes: whole numbers (as floats too), booleans, strings. They
            are names: ``predict`` gives them back. Other numbers are taken for regression's.
        sample_weight : array, shape (N,), optional
            Weights, 0 and up; against the penalty their sizes count, not their ratios alone.

        Returns
        -------
        SoftmaxRegression
            Itself.

        Raises
        ------
        ValueError
            A parameter out of range; X that holds NaN, infinity or a column whose squares
            overflow, or without penalty underflow; one class only; numbers as labels that are not
            whole; a weight below 0, or weights whose sum overflows; shapes that do not fit; a Dask
            collection and no client.
        logitlab.regression.engines.WorkersLostError
            The workers with the rows are gone, and Dask cannot compute these again. The last
            iterate is kept.
        """
        self._check_parameters()
        return self._fit_on(*self._hold(X, y, sample_weight, reset=True))

    def _hold(self, X: Any, y: Any, sample_weight: Any, reset: bool) -> tuple[Engine, Any, Any]:
        """An engine with the rows, the labels of the classes, and the type of the features."""
        if is_dask(X):
            # Of a data frame without rows the names are learned, of an array the width.
            first = X._meta if hasattr(X, "columns") else np.empty((1, X.shape[1]))
            validate_data(self, first, reset=reset, skip_check_array=True)
            return on_dask(X, y, sample_weight, self._by_class)
        X, y = validate_data(
            self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32], reset=reset
        )
        check_classification_targets(y)
        classes, codes = np.unique(y, return_inverse=True)
        weight: Floats | None = None
        if sample_weight is not None:
            weight = _check_sample_weight(
                sample_weight, X, dtype=np.float64, ensure_non_negative=True
            )
        by_class = self._by_class(classes, np.bincount(codes, weight))
        if by_class is not None:
            weight = by_class[codes] if weight is None else by_class[codes] * weight
        return Rows(X, codes.astype(np.int64), weight, len(classes)), classes, X.dtype

    def _check_parameters(self) -> None:
        for name, least in (("C", 0.0), ("tol", 0.0)):
            value = getattr(self, name)
            if not isinstance(value, Real) or not float(value) > least:
                raise ValueError(f"{name} is {value!r}; accepted: a number above 0")
        if not isinstance(self.max_iter, Integral) or int(self.max_iter) < 0:
            raise ValueError(f"max_iter is {self.max_iter!r}; accepted: an int, 0 and up")
        for name in ("fit_intercept", "warm_start"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                raise TypeError(f"{name} is {value!r}; accepted: True and False")

    def _by_class(self, classes: Any, share: Floats) -> Floats | None:
        """The weights of the classes, of which the rows weigh so much."""
        names = classes.tolist()
        if len(names) < 2:
            raise ValueError(
                f"y holds one class, {names[0]!r}; this solver needs samples of at least 2 classes"
            )
        weights: Floats | None = None
        if self.class_weight is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                weights = compute_class_weight(
                    self.class_weight, classes=classes, y=classes, sample_weight=share
                )
                share = share * weights
            for name, weight in zip(names, weights.tolist(), strict=True):
                if weight < 0:
                    raise ValueError(
                        f"class_weight of class {name!r} is {weight}; accepted: 0 and up"
                    )
        if np.count_nonzero(share) < 2:
            raise ValueError("fewer than two classes of y have a row of weight above 0")
        total = float(share.sum())
        if not 1 / _LARGEST <= total <= _LARGEST:
            raise ValueError(
                f"the weights of the rows (sample_weight, class_weight) add up to {total}; "
                f"accepted: {1 / _LARGEST} to {_LARGEST}"
            )
        if self.C * total < 1 / _LARGEST:
            raise ValueError(
                f"C is {self.C}, and the rows have a weight of {total} in all; accepted: a product "
                f"of {1 / _LARGEST} and up"
            )
        return weights

    def _objective(self, engine: Engine, k: int, dtype: Any) -> Objective:
        # A row for each of two classes shares one difference evenly: half of the squared norm.
        C = self.C / 2 if k == 2 else self.C
        with np.errstate(over="ignore", invalid="ignore"):
            objective = Objective(engine, k, C, self.fit_intercept)
        size = np.hypot(np.sqrt(objective.variances()), objective.mean)
        # Squares are added up in float64, gradients block by block in the type of the features.
        squares = math.sqrt(sys.float_info.max / objective.total)
        most = min(squares, float(np.finfo(dtype).max) / 1e3) / 10
        least = 0.0
        if objective.alpha == 0:  # with a penalty what is so small has a coefficient of next to 0
            squares = math.sqrt(sys.float_info.min / min(objective.total, 1.0))
            least = max(squares, float(np.finfo(dtype).tiny) * 1e3) * 10
        for what, accepted, refused in (
            ("large", f"up to {most:.0e}", ~(size <= most)),
            ("small", f"from {least:.0e}, and 0", (size < least) & ~objective.empty),
        ):
            if refused.any():
                raise ValueError(
                    f"X holds numbers too {what} to be squared and summed in column "
                    f"{self._names()[int(np.argmax(refused))]}; accepted: {accepted}"
                )
        return objective

    def _names(self) -> list[str]:
        """Of the features."""
        names = getattr(self, "feature_names_in_", range(self.n_features_in_))
        return [name if isinstance(name, str) else f"x{name}" for name in names]

    def _fit_on(self, engine: Engine, classes: Any, dtype: Any) -> Self:
        """Fit with the rows that an engine holds."""
        k = len(classes)
        objective = self._objective(engine, k, dtype)
        theta = self._start(objective, classes)
        last = theta
        with _watch(self.verbose, self.max_iter) as show:

            def watch(iteration: int, value: float, decrement: float, theta: Floats) -> None:
                nonlocal last
                last = theta
                show(iteration, value, decrement)

            try:
                solution = minimise(
                    objective,
                    theta,
                    float(self.tol),
                    int(self.max_iter),
                    rounding=float(np.finfo(dtype).eps) / 2,
                    watch=watch,
                )
            except WorkersLostError as error:
                self._keep(objective, last, classes, dtype)
                raise WorkersLostError(
                    f"{error}; the coefficients of the last iterate are kept, and with "
                    "warm_start=True the next fit begins there"
                ) from error
        theta = minimum_norm(objective, solution.theta)
        self._say(objective, solution)
        self._keep(objective, theta, classes, dtype)
        self.n_iter_ = np.array([solution.iterations], np.int32)
        self.loss_curve_ = solution.curve
        return self

    def _keep(self, objective: Objective, theta: Floats, classes: Any, dtype: Any) -> None:
        self.classes_ = classes
        coef, intercept = objective.plain(theta - theta.mean(axis=0))
        if len(classes) == 2:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        self.coef_ = np.ascontiguousarray(coef, dtype)
        self.intercept_ = intercept.astype(dtype)

    def _start(self, objective: Objective, classes: Any) -> Floats:
        k, d = objective.classes, objective.features
        last = getattr(self, "coef_", None) if self.warm_start else None
        if last is None or last.shape[1] != d or not np.array_equal(self.classes_, classes):
            return np.zeros((k, d + bool(self.fit_intercept)))
        return self._theta(objective)

    def _theta(self, objective: Objective) -> Floats:
        """The fitted coefficients, with a row for each class, of centred features."""
        coef, intercept = self.coef_.astype(float), self.intercept_.astype(float)
        if objective.classes == 2:
            coef, intercept = np.vstack([-coef, coef]) / 2, np.hstack([-intercept, intercept]) / 2
        return objective.centred(coef, intercept)

    def _say(self, objective: Objective, solution: Solution) -> None:
        """Warn where there is no optimum, or where it was not reached."""
        ended = solution.converged or solution.rounded
        if solution.separated or (
            math.isinf(self.C) and ended and recedes(objective, solution.theta)
        ):
            how = "completely" if solution.separated else "partly"
            warnings.warn(
                f"The classes are {how} separated by the features: without a penalty the "
                "likelihood grows as coefficients grow, and there is no optimum. Those of the "
                "last iterate are kept; choose a finite C.",
                ConvergenceWarning,
                stacklevel=4,
            )
        elif not solution.converged:
            advice = "increase max_iter or tol"
            if solution.rounded:
                advice = "rounding hides the rest: centre X, or pass it as float64"
            warnings.warn(
                f"Stopped after {solution.iterations} iterations with a gradient of "
                f"{solution.decrement:.1e} in the metric of the fit, above the tol of {self.tol}; "
                f"{advice}.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def summary(
        self, X: Any, y: Any, sample_weight: Any = None, *, base: Any = None, level: float = 0.95
    ) -> Summary:
        """Standard errors, p-values and confidence intervals of a fit without penalty.

        By the exact Hessian of the likelihood, on the rows of the fit. A weight counts as that
        many rows.

        Parameters
        ----------
        X, y, sample_weight
            What the model was fitted to.
        base : label, optional
            The class that the others are compared with; the first of ``classes_``.
        level : float
            Of the confidence intervals, between 0 and 1.

        Returns
        -------
        logitlab.regression.inference.Summary
            To print, or as a data frame by its ``to_frame()``.

        Raises
        ------
        ValueError
            The fit had a penalty: its coefficients are biased by design, and the likelihood says
            nothing of their errors. Separated classes, features that depend on each other, other
            rows than those of the fit; `base` is no class; `level` out of range.

        Examples
        --------
        >>> import math
        >>> from sklearn.datasets import load_iris
        >>> import logitlab
        >>> X, y = load_iris(return_X_y=True, as_frame=True)
        >>> X, y = X[50:].iloc[:, :2], y[50:]
        >>> model = logitlab.SoftmaxRegression(C=math.inf).fit(X, y)
        >>> print(model.summary(X, y))
        Softmax regression: 100 rows, base class 1
        log-likelihood -55.1629, with intercepts alone -69.3147, pseudo R² 0.2042
        <BLANKLINE>
        class 2
                                coef    std err          z          p   95% from         to
        sepal length (cm)      1.902     0.5169      3.680   0.000233     0.8892      2.916
        sepal width (cm)      0.4047     0.8628      0.469      0.639     -1.286      2.096
        intercept             -13.05      3.097     -4.212   2.53e-05     -19.12     -6.975
        """
        check_is_fitted(self)
        if not math.isinf(self.C):
            raise ValueError(
                f"the fit had a penalty (C={self.C}), which makes standard errors meaningless; "
                "fit with C=math.inf"
            )
        level = _checks.real(level, "level", "between 0 and 1", lambda x: 0 < x < 1)
        base = self.classes_[0] if base is None else base
        if base not in self.classes_:
            raise ValueError(f"base is {base!r}; accepted: one of {self.classes_.tolist()}")
        engine, classes, dtype = self._hold(X, y, sample_weight, reset=False)
        if not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"y has the classes {classes.tolist()}; the fit had {self.classes_.tolist()}"
            )
        objective = self._objective(engine, len(classes), dtype)
        names = [*self._names(), "intercept"] if self.fit_intercept else self._names()
        return infer(objective, self._theta(objective), classes, names, base, level)

    def _logits(self, X: Any) -> Floats:
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        z: Floats = X @ self.coef_.T + self.intercept_
        return z

    def decision_function(self, X: Any) -> Floats:
        """The logits; for two classes the log-odds of the second, of shape (N,).

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

    def _two_or_more(self, X: Any) -> Floats:
        z = self._logits(X)
        return np.hstack([np.zeros_like(z), z]) if len(self.classes_) == 2 else z

    def predict(self, X: Any) -> Any:
        """The likeliest label of each row, shape (N,).

        Parameters
        ----------
        X : array, sparse matrix or data frame, shape (N, D)
            Features.

        Returns
        -------
        numpy.ndarray, shape (N,)
        """
        best = self._two_or_more(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> Floats:
        """The probability of each class, in the order of ``classes_``.

        Parameters
        ----------
        X : array, sparse matrix or data frame, shape (N, D)
            Features.

        Returns
        -------
        numpy.ndarray, shape (N, K)
        """
        p: Floats = softmax(self._two_or_more(X))
        return p

    def predict_log_proba(self, X: Any) -> Floats:
        """The logarithms of :meth:`predict_proba`, exact where those round to 0 or 1.

        Parameters
        ----------
        X : array, sparse matrix or data frame, shape (N, D)
            Features.

        Returns
        -------
        numpy.ndarray, shape (N, K)
        """
        p: Floats = log_softmax(self._two_or_more(X))
        return p
