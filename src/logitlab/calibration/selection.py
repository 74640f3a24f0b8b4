"""Selection of a calibrator by the cross-fitted log-loss."""

import contextlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from logitlab._rows import Floats, Integers, labelled_rows
from logitlab.calibration.affine import MatrixScaling, VectorScaling
from logitlab.calibration.base import Calibrator, original_row_numbers
from logitlab.calibration.cross_fit import out_of_fold_logits, random_folds
from logitlab.calibration.isotonic import IsotonicCalibration
from logitlab.calibration.structured import StructuredMatrixScaling, StructuredVectorScaling
from logitlab.calibration.temperature import TemperatureScaling, refuse_infinite_loss
from logitlab.losses import cross_entropy

MAX_CLASSES = {"vector": 2000, "matrix": 200}
_AFFINE: dict[str, type[Calibrator]] = {
    "structured_vector": StructuredVectorScaling,
    "vector": VectorScaling,
    "structured_matrix": StructuredMatrixScaling,
    "matrix": MatrixScaling,
}


class Selection(NamedTuple):
    """Result of :func:`select_calibrator`."""

    name: str  #: of the selected calibrator, a key of `log_loss`
    calibrator: Calibrator  #: fitted on all rows; uncalibrated is the temperature 1
    log_loss: dict[str, float]  #: mean cross-fitted log-loss of each candidate, in nats


def make_calibrator(name: str) -> Calibrator:
    """Return the unfitted calibrator of a name in a :class:`Selection`."""
    if name == "temperature":
        return TemperatureScaling()
    if name == "isotonic":
        return IsotonicCalibration()
    base = _AFFINE[name.removesuffix("_isotonic")]()
    return IsotonicCalibration(base) if name.endswith("_isotonic") else base


def affine_calibrators(classes: int) -> list[str]:
    """Return the names of the affine calibrators for a number of classes."""
    if classes == 2:
        return ["structured_vector"]
    return [name for name in _AFFINE if classes <= MAX_CLASSES[name.split("_")[-1]]]


def select_calibrator(
    z: Any, y: Any, sample_weight: Any = None, *, cv: int = 2, rng: Any = 0
) -> Selection:
    r"""Select and fit the simplest calibrator whose log-loss is near the best.

    The candidates are, from the simplest, the uncalibrated logits and

    - "temperature": :class:`TemperatureScaling`,
    - "structured_vector" and "vector": :class:`StructuredVectorScaling` and
      :class:`VectorScaling`, up to 2000 classes,
    - "structured_matrix" and "matrix": :class:`StructuredMatrixScaling` and
      :class:`MatrixScaling`, up to 200 classes.

    The first one whose mean cross-fitted log-loss exceeds the least by at most one standard error
    of their paired difference is selected. At last, by the same rule, it is compared with
    :class:`IsotonicCalibration` after it: "isotonic" after temperature scaling, otherwise for
    example "matrix_isotonic".

    Vector and matrix scaling are fitted only where their structured form has the least log-loss
    so far. Of two classes only "temperature" and "structured_vector" are fitted: every affine map
    of two log-probabilities has the probabilities of a structured vector.

    Parameters
    ----------
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.
    sample_weight : array, shape (...), optional
        Weights of the rows, >= 0. Only their ratios matter.
    cv : int
        Number of random folds, from 2 to the number of rows.
    rng : None, int or numpy.random.Generator
        Seed of the folds.

    Returns
    -------
    Selection
        The `name`, the fitted `calibrator`, and the cross-fitted `log_loss` of each candidate.
        Candidates that the rows cannot fit are absent, such as matrices of infinite logits, and
        temperature scaling whose minimum is at 0 or infinity.

    Raises
    ------
    TypeError, ValueError
        As the ``fit`` of a calibrator for labels and weights; `cv` out of range; fewer than 2 rows;
        a row without a distribution, or with probability 0 for its label.

    References
    ----------
    L. Breiman, J. Friedman, R. Olshen and C. Stone, "Classification and regression trees",
    Wadsworth 1984, section 3.4.3: the rule of one standard error.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(0, 3, (2000, 3))
    >>> y = (z / 2 + rng.gumbel(size=z.shape)).argmax(axis=1)  # overconfident: T = 2
    >>> selection = logitlab.select_calibrator(z, y)
    >>> selection.name, round(selection.calibrator.temperature_, 2)
    ('temperature', 1.98)
    """
    rows, labels, weight, numbers = labelled_rows(z, y, sample_weight)
    if len(labels) < 2:
        raise ValueError(f"z must have 2 or more rows to select a calibrator, got {len(labels)}")
    folds = random_folds(len(labels), cv, rng)
    w = np.full(len(labels), 1 / len(labels)) if weight is None else weight / weight.sum()
    logits: dict[str, NDArray[Any]] = {"uncalibrated": rows}
    losses = {"uncalibrated": _losses(rows, labels)}
    with original_row_numbers(numbers):
        refuse_infinite_loss(rows, labels, losses["uncalibrated"])

    def cross_fit(name: str, calibrator: Calibrator, z: NDArray[Any]) -> None:
        with contextlib.suppress(ValueError):  # cannot be fitted to these rows
            found = out_of_fold_logits(calibrator, z, labels, weight, folds)
            losses[name] = _losses(found, labels)
            logits[name] = found
        # Each takes as much memory as the rows.
        for other in logits.keys() - {"uncalibrated", _simplest(losses, w), _best(losses, w)}:
            del logits[other]

    temperature = TemperatureScaling()
    with contextlib.suppress(ValueError):
        temperature.fit(rows, labels, weight)
        if 0 < temperature.temperature_ < np.inf:
            cross_fit("temperature", temperature, rows)
    for name in affine_calibrators(rows.shape[1]):
        if f"structured_{name}" not in _AFFINE or f"structured_{name}" == _best(losses, w):
            cross_fit(name, make_calibrator(name), rows)
    base = _simplest(losses, w)
    isotonic = f"{base}_isotonic" if base in _AFFINE else "isotonic"
    if base not in logits:
        cross_fit(base, make_calibrator(base), rows)
    cross_fit(isotonic, IsotonicCalibration(), logits[base])
    name = _simplest({n: losses[n] for n in (base, isotonic) if n in losses}, w)
    calibrator: Calibrator = temperature
    if name == "uncalibrated":
        calibrator._set_saved({"temperature_": np.array(1.0)}, rows.shape[1])
    elif name != "temperature":
        with original_row_numbers(numbers):
            calibrator = make_calibrator(name).fit(rows, labels, weight)
    return Selection(name, calibrator, {n: float(w @ x) for n, x in losses.items()})


def _losses(z: NDArray[Any], y: Integers) -> Floats:
    losses: Floats = cross_entropy(z.astype(np.float64, copy=False), y, reduction="none")
    return losses


def _best(losses: dict[str, Floats], weight: Floats) -> str:
    """Return the first name with the least mean loss."""
    return min(losses, key=lambda name: float(weight @ losses[name]))


def _simplest(losses: dict[str, Floats], weight: Floats) -> str:
    """Return the first name whose mean loss is at most a standard error above the least one.

    The names are ordered from the simplest; the weights add up to 1. The standard error is that of
    the paired difference of the two losses.
    """
    best = _best(losses, weight)
    for name in losses:
        with np.errstate(invalid="ignore", over="ignore"):  # infinite and huge losses
            difference = losses[name] - losses[best]
            mean = float(weight @ difference)
            error = float(np.sqrt(weight**2 @ (difference - mean) ** 2))
        if mean <= error:
            return name
    return best
