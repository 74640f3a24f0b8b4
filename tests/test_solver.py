"""The solver of the fits: inverse Hessians, the line search, when it stops and why."""

import math

import numpy as np
import pytest

from logitlab.regression.solver import MAX_HESSIAN_SIZE, _QuasiNewton, inverse_root, minimize


class Quadratic:
    """100 plus weighted squares of distances from 3, with an approximate inverse Hessian."""

    def __init__(self, curvature, separated_below=0.0, cost=math.inf):
        self.curvature, self.separated_below, self.cost = curvature, separated_below, cost
        self.evaluations = self.hessians = 0
        self.approximated_at = ()

    def value_and_gradient(self, theta):
        self.evaluations += 1
        pull = self.curvature * (theta - 3)
        return 100 + 0.5 * np.vdot(pull, theta - 3), pull

    def initial_inverse_hessian(self):
        return lambda gradient: gradient / self.curvature.mean()

    def inverse_hessian(self, theta):
        assert theta.shape == self.curvature.shape
        self.hessians += 1
        return lambda gradient: gradient / self.curvature

    def approximate_inverse_hessian(self, theta):
        self.approximated_at += (self.evaluations,)
        return self.initial_inverse_hessian()

    def hessian_cost(self, size):
        assert size == self.curvature.size
        return self.cost

    def cancellation(self, theta):
        return 0.0

    def is_separated(self, value):
        return value < self.separated_below


def solve(quadratic, tol=1e-6, max_iter=1000, **options):
    start = np.zeros_like(quadratic.curvature)
    return minimize(quadratic, start, tol, max_iter, rounding=2.0**-53, **options)


def test_solver_stops_at_the_tolerance():
    """At the first iterate whose decrement is at most tol sqrt(F)."""
    decrements = []
    quadratic = Quadratic(np.logspace(0, 3, 40).reshape(4, 10))
    solution = solve(quadratic, 1e-3, callback=lambda i, value, d, theta: decrements.append(d))
    assert solution.converged
    assert not solution.separated
    assert solution.decrement == decrements[-1] <= 1e-3 * math.sqrt(solution.loss_curve[-1])
    assert min(decrements[:-1]) > 1e-2
    assert len(solution.loss_curve) == len(decrements) == solution.iterations + 1
    assert (np.diff(solution.loss_curve) <= 0).all()
    assert solution.loss_curve[-1] - 100 <= 1e-3
    exact = solve(quadratic, 1e-10)
    np.testing.assert_allclose(exact.theta, 3, rtol=1e-6)


@pytest.mark.parametrize("max_iter", [0, 1, 3])
def test_solver_stops_at_max_iter(max_iter):
    solution = solve(Quadratic(np.logspace(0, 3, 40).reshape(4, 10)), 1e-9, max_iter)
    assert solution.iterations == max_iter
    assert not solution.converged


def test_solver_stops_where_there_is_no_minimum():
    solution = solve(Quadratic(np.ones((2, 2)), separated_below=1e9), 1e-9)
    assert solution.separated
    assert solution.iterations == 0
    assert not solution.converged


def test_solver_replaces_the_inverse_hessian():
    """Where it is small enough, once the evaluations have cost as much; then one step suffices."""
    small = Quadratic(np.logspace(0, 3, 40).reshape(4, 10), cost=5)
    assert solve(small).converged
    assert small.hessians == 1
    assert small.evaluations == 5 + 1
    large = Quadratic(np.logspace(0, 3, MAX_HESSIAN_SIZE + 1)[None], cost=5)
    solve(large)
    assert large.hessians == 0
    assert large.approximated_at[:2] == (16, 32)


class Scripted:
    """The values and gradients of successive evaluations, the last ones repeated; the inverse
    Hessian is the identity."""

    def __init__(self, values, gradients, cancelled=0.0):
        self.values, self.gradients, self.cancelled = values, gradients, cancelled
        self.points = []

    def value_and_gradient(self, theta):
        self.points.append(theta.ravel().tolist())
        i = len(self.points) - 1
        gradient = self.gradients[min(i, len(self.gradients) - 1)]
        return self.values[min(i, len(self.values) - 1)], np.array([[gradient]], float)

    def initial_inverse_hessian(self):
        return np.copy

    def hessian_cost(self, size):
        return math.inf

    def cancellation(self, theta):
        return self.cancelled * theta.size

    def is_separated(self, value):
        return False


def run(objective, tol=1e-12, max_iter=50):
    return minimize(objective, np.zeros((1, 1)), tol, max_iter, rounding=2.0**-53)


@pytest.mark.parametrize(
    ("excess", "cancelled", "limited", "converged"),
    [
        (0.98, 0.0, True, True),
        (1.02, 0.0, False, False),
        (1.02, 12.0, True, False),
        (3.95, 12.0, True, False),
        (4.05, 12.0, False, False),
    ],
)
def test_solver_stops_at_the_rounding_error(excess, cancelled, limited, converged):
    """After 10 steps without a smaller value or gradient, where the expected gain is below 8 units
    of rounding of the value and of the terms that cancel; converged if the value alone has them."""
    gradient = math.sqrt(2 * excess * 8 * 2.0**-53 * 4)
    solution = run(Scripted([4.0], [gradient], cancelled))
    assert solution.limited_by_rounding == limited
    assert solution.converged == converged
    assert solution.iterations == (10 if limited else 50)
    assert solution.decrement == pytest.approx(gradient, rel=1e-15)


@pytest.mark.parametrize(
    ("values", "gradients", "iterations"),
    [
        ([1.0] * 5 + [1 - 2.0**-53], [2e-8], 15),
        # The inverse Hessian of the fall to r times the gradient is 1 / (1 - r).
        ([1.0], [2e-8] * 5 + [0.38 * 2e-8], 15),
        ([1.0], [2e-8] * 5 + [0.40 * 2e-8], 10),
        ([1.0], [2e-8] * 5 + [0.38 * 2e-8] + [2e-8], 15),
    ],
)
def test_progress_defers_the_stop_at_the_rounding_error(values, gradients, iterations):
    """A value below all before, or a gradient below half of the least before."""
    solution = run(Scripted(values, gradients))
    assert solution.iterations == iterations
    assert solution.limited_by_rounding
    assert solution.converged


@pytest.mark.parametrize(("factor", "step"), [(1.9995, 1), (1.9999, 0.5), (7.99, 0.25), (9, 0.125)])
def test_line_search_halves_the_step(factor, step):
    """Until the value falls by 0.0001 times the slope."""

    class Square(Scripted):
        def value_and_gradient(self, theta):
            self.points.append(float(theta[0, 0]))
            return 0.5 * float(theta[0, 0]) ** 2, theta.copy()

        def initial_inverse_hessian(self):
            return lambda gradient: factor * gradient

    square = Square([], [])
    solution = minimize(square, np.ones((1, 1)), 1e-9, 1, rounding=2.0**-53)
    assert solution.theta == 1 - step * factor
    assert len(square.points) == 2 - math.log2(step)


@pytest.mark.parametrize(
    ("value", "gradient", "accepted"),
    [
        (1 + 2.0**-50, 0.89e-7, True),
        (1 + 2.0**-50, -0.89e-7, True),
        (1 + 2.0**-50, 0.91e-7, False),
        (1 + 2.0**-50, -0.91e-7, False),
        (1 + 2.0**-49, 0.0, False),
    ],
)
def test_line_search_within_the_rounding_error(value, gradient, accepted):
    """A larger value is accepted where the slope falls to 0.9 times its size."""
    objective = Scripted([1.0, value], [1e-7, gradient, 0.0])
    run(objective, max_iter=1)
    assert (len(objective.points) == 2) == accepted


@pytest.mark.parametrize(("excess", "limited"), [(0.98, True), (1.02, False)])
def test_solver_stops_where_no_step_lowers_the_value(excess, limited):
    """After 40 halvings; limited by rounding if the expected gain is below it."""
    gradient = math.sqrt(2 * excess * 8 * 2.0**-53)
    objective = Scripted([1.0, 2.0], [gradient])
    solution = run(objective)
    assert objective.points == [[0.0], *([-gradient * 0.5**i] for i in range(40))]
    assert solution.theta == 0
    assert solution.iterations == 0
    assert solution.loss_curve == [1.0]
    assert solution.limited_by_rounding == solution.converged == limited
    assert solution.decrement == pytest.approx(gradient, rel=1e-15)
    assert solution.separated is False
    assert not run(Scripted([1.0, 2.0], [gradient], 3.0)).converged or limited


def test_failed_line_search_starts_anew_from_the_first_inverse_hessian():
    objective = Scripted([1.0, 0.5, 2.0], [1.0, 0.5])
    solution = run(objective)
    # The first step is -1; the change of the gradient doubles the next one to -1.
    assert objective.points[:2] == [[0.0], [-1.0]]
    assert objective.points[2:42] == [[-1 - 0.5**i] for i in range(40)]
    assert objective.points[42:] == [[-1 - 0.5 * 0.5**i] for i in range(40)]
    assert solution.iterations == 1
    assert solution.theta == -1
    assert solution.loss_curve == [1.0, 0.5]
    assert not solution.converged


def test_solver_converges_where_the_decrement_equals_the_bound():
    """tol times the root of the value."""
    assert run(Scripted([4.0], [1.0]), tol=0.5).converged
    assert run(Scripted([4.0], [1.0]), tol=0.5).iterations == 0
    assert not run(Scripted([4.0], [1.0]), tol=0.499, max_iter=0).converged


def test_callback_and_decrement():
    """Each iterate, its value, and the larger norm of the gradient by the two inverse Hessians."""
    quadratic = Quadratic(np.logspace(0, 3, 40).reshape(4, 10))
    calls = []
    solution = solve(quadratic, callback=lambda *call: calls.append(call))
    iterations, values, decrements, thetas = zip(*calls, strict=True)
    assert iterations == tuple(range(solution.iterations + 1))
    assert list(values) == solution.loss_curve
    for value, decrement, theta in zip(values, decrements, thetas, strict=True):
        expected, gradient = quadratic.value_and_gradient(theta)
        assert value == expected
        least = np.vdot(gradient, quadratic.initial_inverse_hessian()(gradient))
        assert decrement >= math.sqrt(least) * (1 - 1e-12)
    np.testing.assert_array_equal(thetas[-1], solution.theta)


@pytest.mark.parametrize("size", [40, MAX_HESSIAN_SIZE])
def test_inverse_hessian_is_replaced_again_and_again(size):
    """Whenever the evaluations since the last time have cost as much."""

    class Approximate(Quadratic):
        replaced_at = ()

        def initial_inverse_hessian(self):
            return lambda gradient: gradient / self.curvature.max()

        def inverse_hessian(self, theta):
            self.replaced_at += (self.evaluations,)
            return self.initial_inverse_hessian()

    approximate = Approximate(np.logspace(0, 3, size)[None], cost=3)
    solve(approximate, 1e-8)
    assert approximate.replaced_at[:3] == (3, 6, 9)


def test_quasi_newton_is_the_formula_of_bfgs():
    """Of the pairs with a positive product, on the first inverse Hessian times a scale."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((6, 6))
    first = root @ root.T + np.eye(6)
    quasi_newton = _QuasiNewton(lambda gradient: (first @ gradient.ravel()).reshape(2, 3))
    gradient = rng.standard_normal((2, 3))
    np.testing.assert_allclose(
        quasi_newton.direction(gradient).ravel(), -first @ gradient.ravel(), rtol=1e-12
    )
    pairs = rng.standard_normal((8, 2, 6))
    pairs[3:, 1] *= np.sign((pairs[3:, 0] * pairs[3:, 1]).sum(axis=1))[:, None]
    pairs[0, 1] *= -np.sign(pairs[0, 0] @ pairs[0, 1])
    pairs = pairs[[0, 3, 4, 5, 6, 7]]
    for step, change in pairs:
        quasi_newton.update(
            step.reshape(2, 3), change.reshape(2, 3), (first @ change).reshape(2, 3)
        )
    step, change = pairs[-1]
    inverse = first * (step @ change) / (change @ first @ change)
    for step, change in pairs[1:]:
        project = np.eye(6) - np.outer(step, change) / (step @ change)
        inverse = project @ inverse @ project.T + np.outer(step, step) / (step @ change)
    np.testing.assert_allclose(
        quasi_newton.direction(gradient).ravel(), -inverse @ gradient.ravel(), rtol=1e-9
    )


def test_memory_of_the_quasi_newton_method_is_bounded():
    """It keeps the last 20 pairs."""
    quasi_newton = _QuasiNewton(np.copy)
    for i in range(25):
        quasi_newton.update(np.full((1, 1), i + 1.0), np.ones((1, 1)), np.ones((1, 1)))
    assert [float(step[0, 0]) for step, _, _ in quasi_newton.pairs] == list(range(6, 26))


def test_inverse_root_at_any_scale():
    """R' R is the inverse, whatever the units of the parameters."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((6, 6))
    matrix = root @ root.T + np.eye(6)
    unit = 10.0 ** np.array([-140, 140, 0, 3, -60, 80])
    result = inverse_root(matrix * unit * unit[:, None])
    inverse = (result * unit).T @ (result * unit)
    np.testing.assert_allclose(inverse, np.linalg.inv(matrix), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("gap", [0.0, 3e-16])
def test_inverse_root_of_a_singular_matrix(gap):
    """R' R is the pseudo-inverse at unit diagonal; parameters without curvature have none."""
    off = 1 - gap
    matrix = np.array([[4.0, 6 * off, 0, 0], [6 * off, 9, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0.25]])
    root = inverse_root(matrix)
    expected = [[1 / 16, 1 / 24, 0, 0], [1 / 24, 1 / 36, 0, 0], [0, 0, 0, 0], [0, 0, 0, 4]]
    np.testing.assert_allclose(root.T @ root, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("gap", [1.0, 1e-12, 3e-16])
def test_inverse_root_of_almost_dependent_parameters(gap):
    """The root of Cholesky, a triangle, where the last pivot is above the rounding error; the
    pseudo-inverse where it is not."""
    matrix = np.array([[1.0, 1 - gap], [1 - gap, 1.0]])
    root = inverse_root(matrix)
    if gap == 3e-16:
        np.testing.assert_allclose(root.T @ root, np.full((2, 2), 0.25), rtol=1e-12)
    else:
        assert root[0, 1] == 0
        assert (root.T @ root)[0, 0] == pytest.approx(1 / (gap * (2 - gap)), rel=1e-3)
    np.testing.assert_array_equal(inverse_root(np.zeros((2, 2))), np.zeros((0, 2)))


@pytest.mark.parametrize(("gap", "rank"), [(5e-14, 1), (2e-12, 50)])
def test_rank_in_inverse_root_is_relative_to_the_largest_eigenvalue(gap, rank):
    """50 units of rounding times it, here 5e-13; the others are equal to the gap."""
    matrix = np.full((50, 50), 1 - gap)
    np.fill_diagonal(matrix, 1.0)
    assert inverse_root(matrix).shape == (rank, 50)


def test_inverse_root_by_eigenvalues_keeps_small_ones():
    """Next to a parameter without curvature, which has no root of Cholesky."""
    matrix = np.diag([1.0, 1.0, 0.0])
    matrix[0, 1] = matrix[1, 0] = 1 - 1e-12
    root = inverse_root(matrix)
    assert root.shape == (2, 3)
    assert (root.T @ root)[0, 0] == pytest.approx(0.5e12, rel=1e-3)


def test_best_iterate_is_kept_at_the_rounding_error():
    """Where steps within the rounding error lead away, that of the least gradient is returned."""
    gradients = [1e-7, 1e-8, 2e-8, 4e-8]
    objective = Scripted([1.0], gradients, 100.0)
    solution = run(objective, tol=1e-12)
    assert solution.limited_by_rounding
    assert solution.decrement == pytest.approx(1e-8, rel=0.1)
    assert solution.theta == objective.points[1]
    assert solution.iterations == 11
