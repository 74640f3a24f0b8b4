"""Newton's method with working sets for softmax regression with an L1 penalty."""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from logitlab._rows import Integers
from logitlab.regression.elastic_net import ElasticNet, Point
from logitlab.regression.quadratic import QuadraticModel, minimize_quadratic
from logitlab.regression.solver import MAX_HESSIAN_SIZE, Callback, Floats
from logitlab.regression.structured import QuasiNewton, structured_descent

_MIN_WORKING_SET = 100  # parameters that may be added to those that are not 0
_ROUNDING = np.finfo(float).eps / 2
_NEAR = 10  # evaluations that a start from another fit saves
_OVERHEAD = 4  # of a step with an exact Hessian, in evaluations
_EXACT_STEPS = 2  # of Newton's method that reach the optimum, once they start
_ARMIJO = 1e-4
_MAX_HALVINGS = 40
_MAX_STALLS = 5  # iterations without a smaller gap, at the rounding error


class PenalizedSolution(NamedTuple):
    """The result of :func:`minimize_elastic_net`."""

    theta: Floats
    iterations: int
    dual_gap: float
    converged: bool
    limited_by_rounding: bool
    loss_curve: list[float]


def minimize_elastic_net(
    problem: ElasticNet,
    theta: Floats,
    tol: float,
    max_iter: int,
    *,
    callback: Callback = lambda iteration, value, gap, theta: None,
) -> PenalizedSolution:
    """Minimize the objective F from theta until the duality gap is at most tol times F.

    Each step minimizes the penalty plus the quadratic model of the loss at the current parameters,
    by those of a working set: the ones that are not 0, and those whose gradient is too large for 0.
    F decreases along the step by a line search. The gap is F less the largest dual value so far.
    """
    best = point = problem.evaluate(theta)
    loss_curve = [point.value]
    bound, best_gap, stalled, iteration = -np.inf, np.inf, 0, 0
    steps = _Steps(problem, point)
    while True:
        least, largest = problem.estimated_gap(point)
        callback(iteration, point.value, largest, problem.to_classes(point.theta))
        stalled = 0 if largest < 0.5 * best_gap else stalled + 1
        if largest < best_gap:
            best_gap, best = largest, point
        noise = 8 * _ROUNDING * (point.value + problem.loss.cancellation(point.theta))
        limited = stalled >= _MAX_STALLS and bool(steps.expected_decrease <= noise)
        ended = limited or iteration >= max_iter
        if ended or least <= 2 * tol * point.value:
            # The bound holds for all parameters.
            bound = max(bound, problem.dual_value(best if ended else point))
            if ended or point.value - bound <= tol * point.value:
                break
        trial = steps.next_point(point, noise)
        if trial is None:
            limited = bool(steps.expected_decrease <= noise)
            bound = max(bound, problem.dual_value(best))
            break
        point = trial
        loss_curve.append(point.value)
        iteration += 1
    result = min((point, best), key=lambda p: p.value)
    gap = max(float(result.value - bound), 0.0)
    converged = gap <= tol * result.value
    return PenalizedSolution(result.theta, iteration, gap, converged, limited, loss_curve)


class _Steps:
    """Steps with a model of the loss from the last steps, and later of Newton's method.

    The exact Hessian of a working set is used as soon as the steps before it cost as much as a few
    with that Hessian, if it is small enough to factor.
    """

    def __init__(self, problem: ElasticNet, start: Point) -> None:
        self.problem = problem
        self.expected_decrease = np.inf
        variance = problem.loss.variances()
        self._inverse_scale = np.divide(
            1.0, np.sqrt(variance), out=np.zeros(len(variance)), where=variance > 0
        )
        self._quasi_newton = QuasiNewton(problem.loss.covariance, problem.spread(start.theta))
        self._entries = problem.engine.entries()
        is_near = bool(start.theta[:, : problem.features].any())
        self._evaluations = _NEAR if is_near else 0
        # A model without the covariances of many features does not tell which of them matter.
        cheap = self._hessian_cost(3 * _MIN_WORKING_SET) <= 3 * _OVERHEAD
        self._exact = problem.loss.covariance.ndim == 1 and cheap

    def next_point(self, point: Point, noise: float) -> Point | None:
        """Return a point with a smaller objective, or None where no line search finds one."""
        problem = self.problem
        gradient = problem.gradient_of_rows(point.by_class).copy()
        gradient[:, : problem.features] += problem.l2 * point.theta[:, : problem.features]
        while True:
            columns = self._working_set(point.theta, gradient)
            size = sum(len(part) for part in columns)
            cost = self._hessian_cost(size)
            self._exact = size <= MAX_HESSIAN_SIZE and (
                self._exact or self._evaluations >= _EXACT_STEPS * cost
            )
            if self._exact:
                target = self._newton_target(point, gradient, columns)
            else:
                target = self._quasi_newton_target(point)
            trial = self._line_search(point, gradient, target, noise)
            if trial is not None:
                return trial
            if self._exact:
                return None
            if not self._quasi_newton.reset():
                if size > MAX_HESSIAN_SIZE:
                    return None
                self._exact = True

    def _hessian_cost(self, size: int) -> float:
        """Return the cost of a step with an exact Hessian, in evaluations of the objective.

        The factors were measured: products of rows with themselves, and factors of the Hessian, are
        faster than the products of a gradient.
        """
        rows, evaluation = self.problem.loss.rows, 4 * self._entries + 20 * self.problem.loss.rows
        hessian = rows * size * (7 + 0.14 * size) + 0.4 * size**3
        return _OVERHEAD + hessian / (evaluation * self.problem.rows)

    def _line_search(
        self, point: Point, gradient: Floats, target: Floats, noise: float
    ) -> Point | None:
        problem = self.problem
        direction = target - point.theta
        before = problem.l1 * float(problem.sizes(point.theta[:, : problem.features]).sum())
        after = problem.l1 * float(problem.sizes(target[:, : problem.features]).sum())
        slope = float(np.vdot(gradient, direction)) + after - before
        self.expected_decrease = -slope
        step = 1.0
        for _ in range(_MAX_HALVINGS):
            theta = target if step == 1 else point.theta + step * direction
            trial = problem.evaluate(problem.identified(theta))
            self._evaluations += 1
            if trial.value <= point.value + _ARMIJO * step * slope or (
                -slope <= noise and trial.value <= point.value + noise
            ):
                change = problem.gradient_of_rows(trial.by_class - point.by_class)
                self._quasi_newton.update(trial.theta - point.theta, change, step)
                return trial
            step /= 2
        return None

    def _quasi_newton_target(self, point: Point) -> Floats:
        """Return the minimizer of the model of the last steps."""
        problem = self.problem
        result = point.theta.copy()
        options = problem.l1, problem.l2, problem.grouped
        model = self._quasi_newton.model(result.shape, *options)
        gradient = np.ascontiguousarray(problem.gradient_of_rows(point.by_class))
        structured_descent(model, result, gradient)
        return self._centred(result)

    def _centred(self, theta: Floats) -> Floats:
        """Return parameters whose intercepts add up to 0, as equal shifts change nothing."""
        if self.problem.has_intercept and self.problem.rows > 1:
            theta[:, -1] -= theta[:, -1].mean()
        return theta

    def _newton_target(self, point: Point, gradient: Floats, columns: list[Integers]) -> Floats:
        """Return the minimizer of the model on the working set."""
        problem = self.problem
        hessian = problem.hessian(point.theta, columns)
        row = np.repeat(np.arange(problem.rows), [len(part) for part in columns])
        column = np.concatenate(columns)
        # The groups first: by features, of which the intercept is the last one.
        order = (
            np.lexsort((row, column))
            if problem.grouped
            else np.argsort(column == problem.features, kind="stable")
        )
        row, column = row[order], column[order]
        penalized = int(np.count_nonzero(column < problem.features))
        hessian = hessian[np.ix_(order, order)]
        diagonal = np.arange(penalized)
        hessian[diagonal, diagonal] += problem.l2
        group_size = problem.rows if problem.grouped else 1
        model = QuadraticModel(hessian, penalized // group_size, group_size, problem.l1)
        result = point.theta.copy()
        result[row, column] = minimize_quadratic(
            model, point.theta[row, column], gradient[row, column], _ROUNDING**2 * point.value
        )
        return self._centred(result)

    def _working_set(self, theta: Floats, gradient: Floats) -> list[Integers]:
        """Return the columns of the working set in each row, in their order."""
        problem = self.problem
        d = problem.features
        nonzero = problem.sizes(theta[:, :d]) > 0
        # The decrease of the model from 0 by each parameter alone grows with this number.
        excess = (problem.sizes(gradient[:, :d]) - problem.l1) * self._inverse_scale
        candidates = np.flatnonzero(~nonzero & (excess > 0))
        kept, of_group = int(np.count_nonzero(nonzero)), problem.rows if problem.grouped else 1
        count = max(_MIN_WORKING_SET, kept)
        room = (MAX_HESSIAN_SIZE - problem.rows) // of_group - kept
        if room > 0:
            count = min(count, room)
        if len(candidates) > count:
            order = np.argpartition(-excess.ravel()[candidates], count)
            candidates = candidates[order[:count]]
        chosen = nonzero.copy()
        chosen.ravel()[candidates] = True
        if problem.grouped:
            chosen = np.broadcast_to(chosen, (problem.rows, d))
        return [np.flatnonzero(np.append(part, problem.has_intercept)) for part in chosen]


def warn_of_gap(solution: PenalizedSolution, tol: float) -> None:
    """Warn where the duality gap is larger than asked for."""
    if solution.converged:
        return
    advice = "increase max_iter or tol"
    if solution.limited_by_rounding:
        advice = "rounding prevents further progress: centre X or increase tol"
    warnings.warn(
        f"The fit did not converge after {solution.iterations} iterations: the duality gap is "
        f"{solution.dual_gap / solution.loss_curve[-1]:.1e} of the objective, above tol={tol}; "
        f"{advice}.",
        ConvergenceWarning,
        stacklevel=6,
    )
