"""Temperature scaling: one number, at the global minimum of the log-loss."""

import math
import sys
from typing import Any, Self

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from logitlab import _arrays
from logitlab._backends.temperature_loss import moments
from logitlab._rows import Floats, Integers, blocks
from logitlab.calibration.base import Calibrator, RowError, labelled, numbered
from logitlab.probabilities import softmax

_STEP = 1e-5  # of log T, at which to stop: what is left is of the size of its square
_PASSES = 300
_PATIENCE = 6  # passes that want a larger T, after which T = inf is thought of
_FLAT = 1e-12  # of the mean spread of the logits: a slope at T = inf that is none
_FEW = 1 << 20  # entries that a first guess is made on
_RANGE = math.log(math.ulp(0)), math.log(sys.float_info.max)  # of log T
_PART = 1 << 26  # entries that a pass hands over at a time


class TemperatureSearch:
    r"""The search for the temperature with the least mean log-loss, one pass over the rows a step.

    In :math:`\beta = 1/T` the loss of a row, :math:`\log \sum_i e^{\beta z_i} - \beta z_y`, is
    convex: its slope is :math:`E_p[z] - z_y`, its curvature :math:`\mathrm{Var}_p[z]`. Newton
    steps in log T stay inside a bracket that shrinks. Feed all rows by ``add``, then
    ``advance``, until that says that ``temperature`` is found.
    """

    def __init__(self, start: float | None = None) -> None:
        self.temperature = start
        self._low, self._high = -math.inf, math.inf  # of log T
        self._reach, self._passes, self._uphill = 2.0, 0, 0
        self._limit = False  # this pass looks at the limits T = 0 and T = inf
        self._label_first = True
        self._clear()

    def _clear(self) -> None:
        self._slope = self._curvature = 0.0
        self._flat = True

    def _guess(self, z: NDArray[Any]) -> float:
        """A temperature at which these logits are neither flat nor certain."""
        with np.errstate(over="ignore", invalid="ignore"):
            part = z[: max(1, _FEW // z.shape[1])].astype(np.float64)
            finite = np.isfinite(part)
            largest = float(np.abs(np.where(finite, part, 0)).max(initial=0))
            if largest == 0:
                return 1.0
            exponent = math.frexp(largest)[1]
            part = np.where(finite, np.ldexp(part, -exponent), 0)
            count = np.maximum(finite.sum(axis=-1, keepdims=True), 1)
            away = np.where(finite, part - part.sum(axis=-1, keepdims=True) / count, 0)
            sd = float(np.ldexp(np.sqrt(np.mean(away**2)), exponent))
        return float(np.clip(1.0, sd / 100, 10 * sd)) if 0 < sd < math.inf else largest

    def _refuse(self, z: NDArray[Any], y: Integers, found: Floats) -> None:
        """Rows that no temperature can explain are an error."""
        true = np.take_along_axis(z, y[:, None], axis=-1)[:, 0]
        top = z.max(axis=-1)
        for bad, why in (
            (np.isnan(found[:, 0]), "holds NaN, or -inf alone: it has no distribution"),
            (true == -np.inf, "gives its label the logit -inf: the log-loss is always infinite"),
            (
                (top == np.inf) & (true < np.inf),
                "has +inf beside its label: the log-loss is always infinite",
            ),
        ):
            if bad.any():
                raise RowError(int(bad.argmax()), why)

    def add(self, z: NDArray[Any], y: Integers, weight: Floats | None = None) -> None:
        """Rows of this pass: z of shape (n, K), labels in range, weights above 0.

        One that no temperature can explain is a :class:`RowError`.
        """
        if not len(y):
            return
        if self.temperature is None:
            self.temperature = self._guess(z)
        if self._limit:
            self._add_limit(z, y, weight)
        else:
            found = moments(z, y, self.temperature)
            if not np.isfinite(found[:, (0, 3)]).all():
                self._refuse(z, y, found)
            w = np.ones(len(y)) if weight is None else weight
            self._slope += float(w @ found[:, 1])
            self._curvature += float(w @ found[:, 2])
            self._label_first = self._label_first and not found[:, 3].any()

    def _add_limit(self, z: NDArray[Any], y: Integers, weight: Floats | None) -> None:
        """The slope at beta = 0, in units of T, and whether the loss depends on T at all."""
        assert self.temperature is not None
        w = np.ones(len(y)) if weight is None else weight
        for rows in blocks(*z.shape):
            part = z[rows].astype(np.float64)
            top = part.max(axis=-1, keepdims=True)
            left = np.isfinite(part) & np.isfinite(top)
            with np.errstate(invalid="ignore", over="ignore"):
                below = np.where(left, 2 * ((part / 2 - top / 2) / self.temperature), 0.0)
            mean = below.sum(axis=-1) / np.maximum(left.sum(axis=-1), 1)
            true = np.take_along_axis(below, y[rows][:, None], axis=-1)[:, 0]
            self._slope += float(w[rows] @ (mean - true))
            self._curvature -= float(w[rows] @ mean)
            self._flat = self._flat and not below.any()

    def advance(self) -> bool:
        """End a pass over all rows: whether the temperature is found.

        0, inf and 1 are the limits that :class:`TemperatureScaling` documents.
        """
        assert self.temperature is not None, "no rows"
        slope, curvature, flat = self._slope, self._curvature, self._flat
        self._clear()
        if not self._limit:
            self._passes += 1
            self._uphill = 0 if slope < 0 else self._uphill + 1
            if not self._label_first and (self._high < math.inf or self._uphill != _PATIENCE):
                return self._newton(slope, curvature)
            self._limit = True
            return False
        self._limit = False
        if flat:
            self.temperature = 1.0
        elif self._label_first:
            self.temperature = 0.0
        elif slope >= -_FLAT * curvature:
            self.temperature = math.inf
        else:
            return False
        return True

    def _newton(self, slope: float, curvature: float) -> bool:
        assert self.temperature is not None
        at = math.log(self.temperature)
        self._low, self._high = (self._low, at) if slope < 0 else (at, self._high)
        step = slope / curvature if curvature > 0 else math.copysign(math.inf, slope)
        done = abs(step) < _STEP or self._passes == _PASSES
        if abs(step) > self._reach:
            step = math.copysign(self._reach, step)
            self._reach *= 2
        moved = at + step
        if not (self._low < moved < self._high or done):
            moved = (self._low + self._high) / 2
        # At the ends of the range of float64 the nearest temperature is the answer.
        moved = min(max(moved, _RANGE[0]), _RANGE[1])
        before, self.temperature = self.temperature, math.exp(moved)
        return done or self.temperature == before


def fit_temperature(z: NDArray[Any], y: Integers, weight: Floats | None = None) -> float:
    """The temperature of checked rows in memory; that of a few rows is where it starts."""
    few = max(_FEW // z.shape[1], 1)
    start = None
    if len(y) > 4 * few:
        some = slice(None, None, len(y) // few)
        with numbered(range(len(y))[some]):
            start = fit_temperature(z[some], y[some], None if weight is None else weight[some])
    search = TemperatureSearch(start if start and start < math.inf else None)
    while True:
        for rows in blocks(len(y), z.shape[1], _PART):
            with numbered(range(len(y))[rows]):
                search.add(z[rows], y[rows], None if weight is None else weight[rows])
        if search.advance():
            assert search.temperature is not None
            return search.temperature


class TemperatureScaling(Calibrator):
    r"""Calibration by one number: the temperature T that minimises the mean log-loss.

    Dividing all logits by T keeps the order of the classes in every row, so the accuracy stays,
    while confidence falls (T > 1) or rises (T < 1). The log-loss is convex in 1/T, hence the fit
    is the global minimum; it reads the logits where they lie, a few times over.

    Where no positive finite T has the least log-loss, the fit gives the limit:

    - 0 where the label ranks first in every row (the log-loss falls for as long as T does):
      all probability on the largest logit;
    - inf where equal shares for all classes have a smaller log-loss than any positive T, as where
      labels are numbered unlike the columns: equal shares;
    - 1 where the log-loss is the same at every T (constant logits, one class).

    Attributes
    ----------
    temperature_ : float
        The fitted T, in the unit of the logits.
    classes_ : array of int, shape (K,)
        0 to K - 1.

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
    >>> round(scaling.temperature_, 4)  # right 3 times of 4: e^(4/T) = 3
    3.641
    >>> scaling.predict_proba(z[:1]).round(4)
    array([[0.75, 0.25]])
    """

    temperature_: float
    classes_: Integers

    def fit(self, z: Any, y: Any, sample_weight: Any = None) -> Self:
        """Find the temperature on labelled rows.

        Parameters
        ----------
        z : array, shape (..., K)
            Logits. -inf excludes a class; a row with +inf is the same at every temperature.
        y : array of int, shape (...)
            Labels, 0 to K - 1.
        sample_weight : array, shape (...), optional
            Weights of the rows, 0 and up.

        Returns
        -------
        TemperatureScaling
            Itself.

        Raises
        ------
        TypeError
            `y` does not hold integers; `z` is of a type that :func:`logitlab.softmax` does not
            take.
        ValueError
            Labels of another shape or out of range; a row without a distribution, or whose label
            has probability 0; weights that are negative, not finite or all 0.
        """
        logits, labels, weights, numbers = labelled(z, y, sample_weight)
        with numbered(numbers):
            self.temperature_ = fit_temperature(logits, labels, weights)
        self.classes_ = np.arange(logits.shape[1])
        return self

    def transform(self, z: Any) -> Any:
        """Calibrated logits, z / T; at T = 0 and inf the limits: 0, and -inf for a probability 0.

        Parameters
        ----------
        z : array, shape (..., K)
            Logits, of any kind that :func:`logitlab.softmax` takes.

        Returns
        -------
        array, shape of z
            Of z's kind.
        """
        self._check_fitted("temperature_")
        z = _arrays.as_floating(z, "z")
        if 0 < self.temperature_ < math.inf:
            with np.errstate(over="ignore", under="ignore"):
                return z / self.temperature_
        xp = array_namespace(z)
        p = softmax(z, temperature=self.temperature_)
        return xp.where(p > 0, xp.zeros_like(z), xp.where(p == 0, -xp.inf, p))

    def predict_proba(self, z: Any) -> Any:
        """Calibrated probabilities, softmax(z / T) as if in exact arithmetic.

        Parameters
        ----------
        z : array, shape (..., K)
            Logits, of any kind that :func:`logitlab.softmax` takes.

        Returns
        -------
        array, shape of z
            Of z's kind.
        """
        self._check_fitted("temperature_")
        return softmax(z, temperature=self.temperature_)
