"""Temperature scaling: the temperature at the global minimum of the mean log-loss."""

import math
import sys
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays
from logitlab._backends.temperature_loss import moments
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


class TemperatureSearch:
    r"""Find the temperature with the least mean log-loss, one pass over the rows at each step.

    In :math:`\beta = 1/T` the loss of a row, :math:`\log \sum_i e^{\beta z_i} - \beta z_y`, is
    convex: its slope is :math:`E_p[z] - z_y`, its curvature :math:`\mathrm{Var}_p[z]`. Newton
    steps in log T stay inside a bracket that shrinks. Pass all rows to ``add``, then call
    ``advance``; repeat until ``advance`` returns True. The result is ``temperature``.
    """

    def __init__(self, start: float | None = None) -> None:
        self.temperature = start
        self._low, self._high = -math.inf, math.inf  # bracket of log T
        self._max_step = 2.0
        self._passes = 0
        self._at_limit = False  # this pass examines the limits T = 0 and T = inf
        self._label_largest = True  # in every row so far
        self._reset_sums()

    def _reset_sums(self) -> None:
        self._slope = self._curvature = 0.0
        self._constant = True

    def _first_guess(self, z: NDArray[Any]) -> float:
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

    def add(self, z: NDArray[Any], y: Integers, weight: Floats | None = None) -> None:
        """Add rows to this pass: z of shape (n, K), labels in range, weights above 0.

        A row whose loss is infinite at every temperature raises :class:`RowError`.
        """
        if not len(y):
            return
        if self.temperature is None:
            self.temperature = self._first_guess(z)
        w = np.ones(len(y)) if weight is None else weight
        if self._at_limit:
            self._add_at_limit(z, y, w)
            return
        loss, slope, curvature, label_margin = moments(z, y, self.temperature).T
        if not (np.isfinite(loss).all() and np.isfinite(label_margin).all()):
            refuse_infinite_loss(z, y, loss)
        self._slope += float(w @ slope)
        self._curvature += float(w @ curvature)
        self._label_largest = self._label_largest and not label_margin.any()

    def _add_at_limit(self, z: NDArray[Any], y: Integers, w: Floats) -> None:
        """Add the slope at beta = 0, in units of T, and whether the loss depends on T at all."""
        assert self.temperature is not None
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
            self._slope += float(w[rows] @ (mean - label_gap))
            self._curvature -= float(w[rows] @ mean)
            self._constant = self._constant and not gap.any()

    def advance(self) -> bool:
        """End a pass over all rows; return whether ``temperature`` is the result.

        The results 0, inf and 1 are the limits that :class:`TemperatureScaling` documents.
        """
        if self.temperature is None:
            raise ValueError("add must be called with at least one row before advance")
        slope, curvature, constant = self._slope, self._curvature, self._constant
        self._reset_sums()
        if not self._at_limit:
            self._passes += 1
            bounded = slope < 0 or self._high < math.inf
            if not self._label_largest and (bounded or self._passes != _PATIENCE):
                return self._newton_step(slope, curvature)
            self._at_limit = True
            return False
        self._at_limit = False
        if constant:
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


def fit_temperature(z: NDArray[Any], y: Integers, weight: Floats | None = None) -> float:
    """Return the temperature of checked rows in memory.

    The search starts at the temperature of a subset of the rows.
    """
    subset_rows = max(_SUBSET // z.shape[1], 1)
    start = None
    if len(y) > 4 * subset_rows:
        subset = slice(None, None, len(y) // subset_rows)
        with original_row_numbers(range(len(y))[subset]):
            start = fit_temperature(
                z[subset], y[subset], None if weight is None else weight[subset]
            )
    search = TemperatureSearch(start if start and start < math.inf else None)
    while True:
        for rows in blocks(len(y), z.shape[1], _CHUNK):
            with original_row_numbers(range(len(y))[rows]):
                search.add(z[rows], y[rows], None if weight is None else weight[rows])
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

    def _fit(self, z: NDArray[Any], y: Integers, weight: Floats | None) -> None:
        self.temperature_ = fit_temperature(z, y, weight)

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
