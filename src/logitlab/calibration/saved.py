"""Calibrators from files."""

import os
from typing import Any

from logitlab import _saved
from logitlab.calibration.affine import MatrixScaling, VectorScaling
from logitlab.calibration.base import Calibrator
from logitlab.calibration.binary import BetaCalibration, PlattScaling
from logitlab.calibration.isotonic import IsotonicCalibration
from logitlab.calibration.structured import StructuredMatrixScaling, StructuredVectorScaling
from logitlab.calibration.temperature import TemperatureScaling

_KINDS: dict[str, type[Calibrator]] = {
    kind.__name__: kind
    for kind in (
        TemperatureScaling,
        VectorScaling,
        MatrixScaling,
        IsotonicCalibration,
        BetaCalibration,
        PlattScaling,
        StructuredVectorScaling,
        StructuredMatrixScaling,
    )
}
_MAX_CLASSES = 10**7  # a damaged file must not exhaust the memory


def load_calibrator(path: str | os.PathLike[str]) -> Calibrator:
    """The fitted calibrator of a file that :meth:`Calibrator.save` or ``logitlab calibrate`` wrote.

    Reading a file runs no code, whatever it holds. Needs the package ``safetensors``.

    Parameters
    ----------
    path : str or os.PathLike
        The file.

    Returns
    -------
    Calibrator
        Fitted: its results are those of the calibrator that was saved, to the bit.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        The file is not that of a calibrator, or its contents are damaged.

    Examples
    --------
    >>> import tempfile
    >>> import logitlab
    >>> z, y = [[2.0, 0.0], [1.0, 0.0], [3.0, 0.0]], [0, 1, 0]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logitlab.TemperatureScaling().fit(z, y).save(f"{folder}/calibrator.safetensors")
    ...     calibrator = logitlab.load_calibrator(f"{folder}/calibrator.safetensors")
    >>> calibrator.predict_proba([[2.0, 0.0]]).round(3)
    array([[0.812, 0.188]])
    """
    return read_calibrator(path)[0]


def read_calibrator(path: str | os.PathLike[str]) -> tuple[Calibrator, dict[str, Any]]:
    """The calibrator of a file, and the other metadata, which are not checked."""
    kind, arrays, metadata = _saved.read(path)
    try:
        calibrator = _unfitted(kind, metadata.pop("parameters", None))
        k = metadata.pop("classes")
        if type(k) is not int or not 1 <= k <= _MAX_CLASSES:
            raise ValueError(f"the number of classes must be 1 to {_MAX_CLASSES}, got {k!r}")
        calibrator._set_saved(arrays, k)
    except (AttributeError, KeyError, RecursionError, TypeError):
        raise ValueError(f"{path}: the metadata are incomplete") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return calibrator, metadata


def _unfitted(kind: Any, parameters: Any) -> Calibrator:
    """The calibrator with these parameters, of which "base" may be another calibrator."""
    if kind not in _KINDS:
        raise ValueError(f"the kind must be one of {', '.join(_KINDS)}, got {kind!r}")
    base = parameters.get("base")
    if base is not None:
        parameters = {**parameters, "base": _unfitted(base["kind"], base["parameters"])}
    return _KINDS[kind](**parameters)
