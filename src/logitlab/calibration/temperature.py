"""Temperature scaling: the temperature at the global minimum of the mean log-loss."""

import math
import sys
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays
from logitlab._backends.temperature_loss import moments
from logitlab._distributed import Block, Rows, add, join, rows_in_memory
from logitlab._rows import Floats, Integers, blocks
from logitlab.calibration.base import Calibrator, RowError, original_row_numbers
from logitlab.probabilities import softmax

_LOG_TOLERANCE = 1e-5  # the step of log T at which to stop; the error is of the order of its square
_MAX_PASSES = 300
_PATIENCE = 6  # passes that all ask for a larger T, after which the limit is examined
_FLAT = 1e-12  # a slope at T = inf that counts as 0, relative to the mean spread of the logits
_LEAST_GAP = -1e280  # of a logit below the largest, over T: sums of such gaps stay in range
_SUBSET = 1 << 20  # entries of the subset of rows that gives the first guess
_LOG_RANGE = math.log(math.ulp(0)), math.log(sys.float_info.max)  # range of log T
_CHUNK = 1 << 26  # entries passed to the search at a time


def refuse_infinite_loss(z: NDArray[Any], y: Integers, losses: Floats) -> None:
    """Raise for the first row whose loss is infinite or undefined at every temperature."""
    label_logit = np.take_along_axis(z, y[:, None], axis=-1)[:, 0]
    largest = z.max(axis=-1)
    for bad, reason in (
        (np.isnan(losses), "holds NaN, or only -inf: it has no distribution"),
        (label_logit == -np.inf, "has the logit -inf for its label: its log-loss is infinite"),
        (
            (largest == np.inf) & (label_logit < np.inf),
            "has +inf for a class that is not its label: its log-loss is infinite",
        ),
    ):
        if bad.any():
            raise RowError(int(bad.argmax()), reason)


def first_guess(z: NDArray[Any]) -> float:
    """Return a temperature at which the softmax is neither flat nor one-hot.

    It is 1, clipped to between 1 % and 10 times the standard deviation of the logits.
    """
    with np.errstate(all="ignore"):
        part = z[: max(1, _SUBSET // z.shape[1])].astype(np.float64)
        finite = np.isfinite(part)
        largest = float(np.abs(np.where(finite, part, 0)).max(initial=0))
        if largest == 0:
            return 1.0
        # Scaled by a power of two, so that squares do not overflow.
        exponent = math.frexp(largest)[1]
        part = np.where(finite, np.ldexp(part, -exponent), 0)
        count = np.maximum(finite.sum(axis=-1, keepdims=True), 1)
        centred = np.where(finite, part - part.sum(axis=-1, keepdims=True) / count, 0)
        sd = float(np.ldexp(np.sqrt(np.mean(centred**2)), exponent))
    return float(np.clip(1.0, sd / 100, 10 * sd)) if 0 < sd < math.inf else largest


class PassSums(NamedTuple):
    """Sums over rows, in one pass of a :class:`TemperatureSearch`."""

    slope: float
    curvature: float
    others_largest: int  # rows in which the label does not have the largest logit
    varying: int  # at the limits: rows whose loss depends on T


_NO_ROWS = PassSums(0.0, 0.0, 0, 0)


class Pass(NamedTuple):
    """What a pass of a :class:`TemperatureSearch` computes: the sums at this temperature."""

    temperature: float
    at_limit: bool  # it examines the limits T = 0 and T = inf

    def sums(self, z: NDArray[Any], y: Integers, weight: Floats | None) -> PassSums:
        """The sums over rows: z of shape (n, K), labels in range, weights above 0.

        A row whose loss is infinite at every temperature raises :class:`RowError`.
        """
        w = np.ones(len(y)) if weight is None else weight
        if self.at_limit:
            return self._sums_at_limit(z, y, w)
        slope = curvature = 0.0
        others_largest = 0
        for rows in blocks(len(y), z.shape[1], _CHUNK):
            part, labels = z[rows], y[rows]
            loss, slopes, curvatures, label_margin = moments(part, labels, self.temperature).T
            if not (np.isfinite(loss).all() and np.isfinite(label_margin).all()):
                with original_row_numbers(range(len(y))[rows]):
                    refuse_infinite_loss(part, labels, loss)
            slope += float(w[rows] @ slopes)
            curvature += float(w[rows] @ curvatures)
            others_largest += int(np.count_nonzero(label_margin))
        return PassSums(slope, curvature, others_largest, 0)

    def _sums_at_limit(self, z: NDArray[Any], y: Integers, w: Floats) -> PassSums:
        """The slope at beta = 0, in units of T, and whether the loss depends on T at all."""
        slope = curvature = 0.0
        varying = 0
        for rows in blocks(*z.shape):
            part = z[rows].astype(np.float64)
            largest = part.max(axis=-1, keepdims=True)
            counted = np.isfinite(part) & np.isfinite(largest)
            with np.errstate(invalid="ignore", over="ignore"):
                # Halves, because the difference of huge logits may overflow.
                gap = np.where(counted, 2 * ((part / 2 - largest / 2) / self.temperature), 0.0)
            gap = np.maximum(gap, _LEAST_GAP)
            mean = gap.sum(axis=-1) / np.maximum(counted.sum(axis=-1), 1)
            label_gap = np.take_along_axis(gap, y[rows][:, None], axis=-1)[:, 0]
            slope += float(w[rows] @ (mean - label_gap))
            curvature -= float(w[rows] @ mean)
            varying += int(np.count_nonzero(gap.any(axis=-1)))
        return PassSums(slope, curvature, 0, varying)


class TemperatureSearch:
    r"""Find the temperature with the least mean log-loss, one pass over the rows at each step.

    In :math:`\beta = 1/T` the loss of a row, :math:`\log \sum_i e^{\beta z_i} - \beta z_y`, is
    convex: its slope is :math:`E_p[z] - z_y`, its curvature :math:`\mathrm{Var}_p[z]`. Newton
    steps in log T stay inside a bracket that shrinks. Pass all rows to ``add``, or to ``add_sums``
    the sums over them, which other processes can compute by ``next_pass``; then call ``advance``.
    Repeat until ``advance`` returns True. The result is ``temperature``.
    """

    def __init__(self, start: float | None = None) -> None:
        self.temperature = start
        self._low, self._high = -math.inf, math.inf  # bracket of log T
        self._max_step = 2.0
        self._passes = 0
        self._at_limit = False
        self._label_largest = True  # in every row so far
        self._sums = _NO_ROWS

    @property
    def next_pass(self) -> Pass:
        """What the next pass over the rows computes."""
        assert self.temperature is not None
        return Pass(self.temperature, self._at_limit)

    def add(self, z: NDArray[Any], y: Integers, weight: Floats | None = None) -> None:
        """Add rows to this pass, as :meth:`Pass.sums` takes them."""
        if not len(y):
            return
        if self.temperature is None:
            self.temperature = first_guess(z)
        self.add_sums(self.next_pass.sums(z, y, weight))

    def add_sums(self, sums: PassSums) -> None:
        """Add sums over rows that ``next_pass`` computed."""
        self._sums = PassSums(*add(self._sums, sums))

    def advance(self) -> bool:
        """End a pass over all rows; return whether ``temperature`` is the result.

        The results 0, inf and 1 are the limits that :class:`TemperatureScaling` documents.
        """
        if self.temperature is None:
            raise ValueError("add must be called with at least one row before advance")
        slope, curvature, others_largest, varying = self._sums
        self._sums = _NO_ROWS
        if not self._at_limit:
            self._passes += 1
            self._label_largest = self._label_largest and not others_largest
            bounded = slope < 0 or self._high < math.inf
            if not self._label_largest and (bounded or self._passes != _PATIENCE):
                return self._newton_step(slope, curvature)
            self._at_limit = True
            return False
        self._at_limit = False
        if not varying:
            self.temperature = 1.0
        elif self._label_largest:
            self.temperature = 0.0
        elif slope >= -_FLAT * curvature:
            self.temperature = math.inf
        else:
            return False
        return True

    def _newton_step(self, slope: float, curvature: float) -> bool:
        """Move log T by a Newton step inside the bracket; return whether it was the last."""
        assert self.temperature is not None
        log_t = math.log(self.temperature)
        self._low, self._high = (self._low, log_t) if slope < 0 else (log_t, self._high)
        step = slope / curvature if curvature > 0 else math.copysign(math.inf, slope)
        last = abs(step) < _LOG_TOLERANCE or self._passes == _MAX_PASSES
        if abs(step) > self._max_step:
            step = math.copysign(self._max_step, step)
            self._max_step *= 2
        new_log_t = log_t + step
        if not (self._low < new_log_t < self._high or last):
            new_log_t = (self._low + self._high) / 2
        # At the ends of the range of float64 the nearest temperature is the result.
        new_log_t = min(max(new_log_t, _LOG_RANGE[0]), _LOG_RANGE[1])
        previous, self.temperature = self.temperature, math.exp(new_log_t)
        return last or self.temperature == previous


def _every(block: Block, step: int) -> tuple[Any, ...]:
    """One of every `step` rows of all blocks."""
    chosen = slice(-block.first % step, None, step)
    numbers = block.numbers
    return (
        block.z[chosen],
        block.y[chosen],
        None if block.weight is None else block.weight[chosen],
        np.arange(len(block.y))[chosen] if numbers is None else numbers[chosen],
    )


def _pass_sums(block: Block, search: Pass) -> PassSums:
    with original_row_numbers(block.numbers):
        return search.sums(block.z, block.y, block.weight)


def fit_temperature(rows: Rows) -> float:
    """Return the temperature with the least mean log-loss.

    The search starts at the temperature of a subset of the rows.
    """
    subset_rows = max(_SUBSET // rows.classes, 1)
    step = max(rows.count // subset_rows, 1)
    z, y, weight, numbers = rows.reduce(_every, step, merge=join)
    start = first_guess(z)
    if rows.count > 4 * subset_rows:
        with original_row_numbers(numbers):
            of_subset = fit_temperature(rows_in_memory(z, y, weight))
        start = of_subset if 0 < of_subset < math.inf else start
    search = TemperatureSearch(start)
    while True:
        search.add_sums(rows.reduce(_pass_sums, search.next_pass))
        if search.advance():
            assert search.temperature is not None
            return search.temperature


class TemperatureScaling(Calibrator):
    r"""Calibration by one parameter: the temperature T that minimizes the mean log-loss.

    Dividing all logits by T keeps the order of the classes in every row, and so the accuracy,
    while the confidence falls (T > 1) or rises (T < 1). The log-loss is convex in 1/T, so the fit
    is the global minimum. It reads the logits in place, a few times.

    Where no positive finite T has the least log-loss, the result is the limit:

    - 0 where the label has the largest logit in every row (the log-loss falls as T falls):
      probability 1 for the largest logit;
    - inf where equal probabilities for all classes have a smaller log-loss than any positive T,
      for example where the labels and the columns are numbered differently: equal probabilities;
    - 1 where the log-loss is the same at every T (constant logits, one class).

    In a fit, -inf excludes a class, and a row whose label has the logit +inf has the same loss at
    every temperature.

    Attributes
    ----------
    temperature_ : float
        The fitted T, in the unit of the logits.
    classes_ : array of int, shape (K,)
        0 to K - 1.
    n_features_in_ : int
        K.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural networks",
    ICML 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> z = np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    >>> scaling = logitlab.TemperatureScaling().fit(z, [0, 0, 1, 1])
    >>> round(scaling.temperature_, 4)  # 3 of 4 predictions are correct: e^(4/T) = 3
    3.641
    >>> scaling.predict_proba(z[:1]).round(4)
    array([[0.75, 0.25]])
    """

    temperature_: float
    _fitted: ClassVar = {"temperature_": ()}

    def _check_saved(self, name: str, array: NDArray[Any]) -> None:
        if not array >= 0:
            raise ValueError(f"{name} must be >= 0, got {array}")

    def _fit(self, rows: Rows) -> None:
        self.temperature_ = fit_temperature(rows)

    def _transform(self, z: Any, xp: Any) -> Any:
        if 0 < self.temperature_ < math.inf:
            with np.errstate(over="ignore", under="ignore"):
                return z / self.temperature_
        # The limits T = 0 and T = inf: 0, or -inf for a probability of 0; NaN stays.
        p = softmax(z, temperature=self.temperature_)
        return xp.where(p > 0, xp.zeros_like(z), xp.where(p == 0, -xp.inf, p))

    def predict_proba(self, z: Any, *, axis: int = -1) -> Any:
        """Return the calibrated probabilities, softmax(z / T) as if in exact arithmetic.

        Parameters
        ----------
        z, axis
            As in :meth:`transform`.

        Returns
        -------
        array, shape of z
            Of z's kind and type, computed on z's device.
        """
        z, xp = self._check_logits(z, axis)
        return _arrays.move_axis(softmax(z, temperature=self.temperature_), -1, axis, xp)
