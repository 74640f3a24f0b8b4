"""Bayes decisions under a matrix of costs, with a reject option."""

import math
from typing import Any

import numpy as np

from logitlab import _arrays, _checks
from logitlab.decisions.rows import as_wide, check_distributions, with_classes
from logitlab.probabilities import log_softmax, softmax

_ROUNDING = 16  # costs that differ by so many units of roundoff of their magnitude are equal


def _check_costs(costs: Any, z: Any, k: int, xp: Any) -> Any:
    """Return the cost matrix, in the widest real type of z's library and on z's device."""
    costs = _arrays.as_floating(costs, "costs")
    if isinstance(costs, np.ndarray):
        costs = costs.astype(_arrays.dtype_name(_arrays.widest_float(xp, z)))
    costs = as_wide(_arrays.like(costs, z, xp, "costs"), xp)
    if costs.ndim != 2 or costs.shape[1] != k or not costs.shape[0]:
        raise ValueError(
            f"costs must have shape (A, {k}), a row for each decision and a column for each class "
            f"of z, got shape {tuple(costs.shape)}"
        )
    invalid = xp.isnan(costs) | (costs == -xp.inf)
    if _arrays.any_of(invalid, xp):
        decision, true_class = divmod(_arrays.first_true(invalid, xp), k)
        raise ValueError(
            f"costs must be real numbers or +inf, got {float(costs[decision, true_class])} for "
            f"decision {decision} and class {true_class}"
        )
    return costs


def _expected(z: Any, costs: Any, axis: int, temperature: Any, xp: Any) -> tuple[Any, Any]:
    """Expected costs of checked arguments, decisions last, and the expected size of the costs.

    The size is the expectation of the absolute value of the finite costs, which bounds rounding.
    """
    wide = as_wide(z, xp)
    p = _arrays.move_axis(softmax(wide, axis, temperature=temperature), axis, -1, xp)
    infinite = costs == xp.inf
    finite = xp.where(infinite, xp.zeros_like(costs), costs)
    cost = xp.matmul(p, finite.T)
    size = xp.matmul(p, xp.abs(finite).T)
    if _arrays.any_of(infinite, xp):
        # By logarithms, because a probability above 0 may round to 0.
        log_p = log_softmax(wide, axis, temperature=temperature)
        possible = xp.astype(_arrays.move_axis(log_p, axis, -1, xp) > -xp.inf, p.dtype)
        excluded = xp.matmul(possible, xp.astype(infinite, p.dtype).T) > 0
        cost = xp.where(excluded, xp.full_like(cost, xp.inf), cost)
    return cost, size


def expected_cost(z: Any, costs: Any, axis: int = -1, *, temperature: Any = 1.0) -> Any:
    r"""Expected cost of each decision, for each row of logits.

    :math:`r_a = \sum_k C_{ak} p_k` with p = softmax(z / T): C[a, k] is the cost of decision a where
    the true class is k. The probabilities must be calibrated.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, in any array type that :func:`logitlab.softmax` accepts.
    costs : array, shape (A, K)
        Costs, in any unit: a row for each decision, a column for each true class. The number of
        decisions A may differ from K. Costs may be negative (gains) and +inf. An infinite cost
        counts where the class has a probability above 0, however small; a class of logit -inf has
        none.
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one value for each row.

    Returns
    -------
    array, shape of z with A in place of K
        In the unit of the costs and in the dtype of z. NaN where :func:`logitlab.softmax` is NaN.

    Raises
    ------
    TypeError
        As :func:`logitlab.softmax`; `costs` is not a real array, or belongs to another library.
    ValueError
        As :func:`logitlab.softmax`; `costs` does not have K columns, or holds NaN or -inf.

    References
    ----------
    C. Elkan, "The foundations of cost-sensitive learning", IJCAI 2001.

    Examples
    --------
    Approve a loan or refuse it; the classes are "repaid" and "default":

    >>> import logitlab
    >>> costs = [[-10, 100], [0, 0]]
    >>> logitlab.expected_cost([[4.0, 0.0], [2.0, 0.0]], costs).round(2)
    array([[-8.02,  0.  ],
           [ 3.11,  0.  ]])
    """
    z, axis, xp = with_classes(z, axis)
    costs = _check_costs(costs, z, z.shape[axis], xp)
    cost = _arrays.move_axis(_expected(z, costs, axis, temperature, xp)[0], -1, axis, xp)
    with np.errstate(over="ignore"):
        return xp.astype(cost, _arrays.native_type(z.dtype), copy=False)


def _most_probable(z: Any, axis: int, temperature: Any, xp: Any) -> tuple[Any, Any]:
    """The first of the most probable classes of each row, and whether the row has none.

    By the logits, which tell classes apart whose probabilities round to the same number.
    """
    t = _arrays.request(z, axis, temperature, None).temperature
    if not (isinstance(t, float) and 0 <= t < math.inf):
        zero = xp.zeros_like(z)
        signed = xp.where(xp.isinf(zero + t), zero, xp.where(zero + t < 0, -z, z))
        log_p = log_softmax(z, axis, temperature=temperature)
        z = xp.where(log_p > -xp.inf, signed, log_p)
    largest = xp.max(z, axis=axis)
    return xp.argmax(z, axis=axis), xp.isnan(largest) | (largest == -xp.inf)


def decide(
    z: Any,
    costs: Any = None,
    axis: int = -1,
    *,
    reject_cost: float | None = None,
    temperature: Any = 1.0,
) -> Any:
    r"""Bayes decision: the decision with the least expected cost, or -1 for a rejected row.

    The decision is :math:`\arg\min_a \sum_k C_{ak} p_k` with p = softmax(z / T). With a reject
    option, a row is rejected if its least expected cost is larger than the cost of rejection.
    Without costs, an error costs 1: the decision is the most probable class, rejected if its
    probability is below 1 - `reject_cost` (Chow's rule). The probabilities must be calibrated.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, in any array type that :func:`logitlab.softmax` accepts.
    costs : array, shape (A, K), optional
        Cost of each decision for each true class, as in :func:`expected_cost`; +inf forbids a
        decision while the class has a probability above 0. By default 0 for the true class and 1
        for each other one.
    axis : int
        The class axis.
    reject_cost : float, optional
        Cost of rejecting a row, in the unit of the costs; +inf rejects none, as the default does.
    temperature : float or array
        T: a scalar, or one value for each row.

    Returns
    -------
    array of int, shape of z without the class axis
        Rows of `costs` (0 to A - 1), or -1; of z's kind. Of equal expected costs, the first
        decision is taken, and a decision rather than a rejection. Costs that differ by no more
        than rounding are equal. If all decisions cost +inf, they are equal.

    Raises
    ------
    TypeError, ValueError
        As :func:`expected_cost`; a row of z holds NaN or only -inf; `reject_cost` is NaN or -inf.

    References
    ----------
    C. K. Chow, "On optimum recognition error and reject tradeoff", IEEE Transactions on
    Information Theory 16 (1970) 41-46. C. Elkan, "The foundations of cost-sensitive learning",
    IJCAI 2001.

    Examples
    --------
    >>> import logitlab
    >>> z = [[4.0, 0.0], [2.0, 0.0], [0.0, 3.0]]
    >>> logitlab.decide(z, [[0, 10], [1, 0]])
    array([0, 1, 1])
    >>> logitlab.decide(z, reject_cost=0.05)  # probabilities 0.98, 0.88, 0.95
    array([ 0, -1,  1])
    """
    z, axis, xp = with_classes(z, axis)
    if reject_cost is not None:
        reject_cost = _checks.real(reject_cost, "reject_cost", "> -inf", lambda x: x > -math.inf)
    if costs is None:
        decision, undefined = _most_probable(z, axis, temperature, xp)
        if reject_cost is None:
            accepted = ~undefined
        else:
            p = softmax(as_wide(z, xp), axis, temperature=temperature)
            rounding = _ROUNDING * xp.finfo(p.dtype).eps
            accepted = 1 - xp.max(p, axis=axis) <= reject_cost + rounding
    else:
        costs = _check_costs(costs, z, z.shape[axis], xp)
        cost, size = _expected(z, costs, axis, temperature, xp)
        rounding = _ROUNDING * xp.finfo(cost.dtype).eps * size
        least = xp.min(cost, axis=-1, keepdims=True)
        best = cost <= least + rounding
        decision = xp.argmax(xp.astype(best, xp.int8), axis=-1)
        undefined = xp.isnan(least[..., 0])
        accepted = xp.any(best, axis=-1)
        if reject_cost is not None:
            accepted = accepted & xp.any(best & (cost <= reject_cost + rounding), axis=-1)
    check_distributions(undefined, xp)
    return _arrays.scalar(xp.where(accepted, decision, xp.full_like(decision, -1)))
