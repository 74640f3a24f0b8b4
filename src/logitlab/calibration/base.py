"""The base class of all calibrators: scikit-learn's conventions, and checks of labelled rows."""

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays, _saved
from logitlab._distributed import Block, Rows, RowShard, open_rows
from logitlab._estimators import Estimator, check_dense
from logitlab._rows import Floats, Integers
from logitlab.probabilities import softmax
from logitlab.scores import weighted_mean, weighted_sums


class RowError(ValueError):
    """A row of z that a calibrator refuses; `row` counts the rows it was given."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row} of z {reason}")
        self.row, self.reason = row, reason

    def __reduce__(self) -> tuple[type[Self], tuple[int, str]]:
        return type(self), (self.row, self.reason)


@contextlib.contextmanager
def original_row_numbers(rows: Sequence[int] | Integers | None) -> Iterator[None]:
    """Renumber a :class:`RowError`: row i of a selection is `rows[i]` of the whole array.

    With None the selection is the whole array.
    """
    try:
        yield
    except RowError as error:
        if rows is None:
            raise
        raise RowError(int(rows[error.row]), error.reason) from None


class Calibrator(Estimator, ABC):
    """A map from logits to calibrated logits, fitted on labelled rows.

    It is a scikit-learn transformer (:meth:`transform` returns logits) and a classifier
    (:meth:`predict_proba`, :meth:`predict`) without importing scikit-learn. The class axis is an
    argument of the methods, as in the scores: it belongs to the array, not to the fit.
    """

    # The fitted attributes with their shapes: K is the number of classes, other lengths are free.
    _fitted: ClassVar[dict[str, tuple[str, ...]]]
    _tolerance = 1e-9  # of the probabilities, at which an iterative fit ends

    @abstractmethod
    def _fit(self, rows: Rows) -> None:
        """Set the fitted parameters."""

    @abstractmethod
    def _transform(self, z: Any, xp: Any) -> Any:
        """Return the calibrated logits of a floating array with the fitted number of classes."""

    def fit(
        self,
        z: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        axis: int = -1,
        ignore_index: int | Sequence[int] | None = None,
    ) -> Self:
        """Fit the parameters to labelled rows by the criterion of the class.

        Parameters
        ----------
        z : array, shape (..., K, ...)
            Logits, of any kind that :func:`logitlab.softmax` takes; the fit reads them in the
            memory of the CPU. -inf excludes a class. Dask arrays are read chunk by chunk for
            temperature, vector and matrix scaling; a :class:`logitlab.parallel.RowShard` stands
            for the rows of all ranks.
        y : array of int, shape of z without the class axis
            Labels, 0 to K - 1.
        sample_weight : array, shape of y, optional
            Weights of the rows, >= 0. Only their ratios matter. A row of weight 0 is left out.
        axis : int
            The class axis.
        ignore_index : int or sequence of int, optional
            Rows with this label, or with one of these, are left out.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            `y` does not hold integers; `z` is of a type that :func:`logitlab.softmax` does not
            take.
        ValueError
            Labels of another shape or out of range; a row without a distribution, with an entry
            that this calibrator does not support, or with probability 0 for its label; weights
            that are negative, not finite or all 0; a parameter out of its range.
        """
        return self._fit_rows(open_rows(check_dense(z), y, sample_weight, axis, ignore_index))

    def _fit_rows(self, rows: Rows) -> Self:
        """As :meth:`fit`, of checked rows."""
        self._fit(rows)
        self.n_features_in_ = rows.classes
        self.classes_ = np.arange(rows.classes)
        return self

    def transform(self, z: Any, *, axis: int = -1) -> Any:
        """Return the calibrated logits.

        Parameters
        ----------
        z : array, shape (..., K, ...)
            Logits, of any kind that :func:`logitlab.softmax` takes.
        axis : int
            The class axis.

        Returns
        -------
        array, shape of z
            Of z's kind and type, computed on z's device.

        Raises
        ------
        ValueError
            Another number of classes than in ``fit``; a row with an entry that this calibrator
            does not support.
        """
        z, xp = self._check_logits(z, axis)
        return _arrays.move_axis(self._transform(z, xp), -1, axis, xp)

    def fit_transform(
        self,
        z: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        axis: int = -1,
        ignore_index: int | Sequence[int] | None = None,
    ) -> Any:
        """Return the calibrated logits of the rows of the fit: ``fit(z, y).transform(z)``.

        Parameters
        ----------
        z, y, sample_weight, axis, ignore_index
            As in :meth:`fit`.

        Returns
        -------
        array, shape of z
            Of z's kind and type.
        """
        fitted = self.fit(z, y, sample_weight, axis=axis, ignore_index=ignore_index)
        return fitted.transform(z, axis=axis)

    def predict_proba(self, z: Any, *, axis: int = -1) -> Any:
        """Return the calibrated probabilities, the softmax of the calibrated logits.

        Parameters
        ----------
        z, axis
            As in :meth:`transform`.

        Returns
        -------
        array, shape of z
            Of z's kind and type, computed on z's device.
        """
        return softmax(self.transform(z, axis=axis), axis)

    def predict(self, z: Any, *, axis: int = -1) -> Any:
        """Return the class with the largest calibrated logit; of equal ones, the first.

        Parameters
        ----------
        z, axis
            As in :meth:`transform`.

        Returns
        -------
        array of int, shape of z without the class axis
            Classes, 0 to K - 1; of z's kind, computed on z's device.

        Raises
        ------
        ValueError
            As :meth:`transform`; a row with NaN, or with -inf only.
        """
        z, xp = self._check_logits(z, axis)
        calibrated = self._transform(z, xp)
        largest = xp.max(calibrated, axis=-1)
        undefined = xp.isnan(largest) | (largest == -xp.inf)
        if _arrays.any_of(undefined, xp):
            raise RowError(
                _arrays.first_true(undefined, xp),
                "has no predicted class: it holds NaN, or only -inf",
            )
        return xp.argmax(calibrated, axis=-1)

    def score(
        self,
        z: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        axis: int = -1,
        ignore_index: int | Sequence[int] | None = None,
    ) -> float:
        """Return the accuracy, which is scikit-learn's default score of a classifier.

        The accuracy does not measure calibration: select parameters with
        ``scoring="neg_log_loss"``.

        Parameters
        ----------
        z, y, sample_weight, axis, ignore_index
            As in :meth:`fit`.

        Returns
        -------
        float
            Weighted share of the rows whose predicted class is the label.
        """
        self._check_logits(z.z if isinstance(z, RowShard) else z, axis)
        rows = open_rows(check_dense(z), y, sample_weight, axis, ignore_index)
        return weighted_mean(rows.reduce(_correct_sums, self))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted parameters to a file, for :func:`logitlab.load_calibrator`.

        The file is a safetensors file with JSON metadata; reading it runs no code. An existing
        file is replaced. Needs the package ``safetensors``.

        Parameters
        ----------
        path : str or os.PathLike
            By convention with the suffix ``.safetensors``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            The calibrator is not fitted.
        OSError
            The file cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> import logitlab
        >>> z, y = [[2.0, 0.0], [1.0, 0.0], [3.0, 0.0]], [0, 1, 0]
        >>> scaling = logitlab.TemperatureScaling().fit(z, y)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scaling.save(f"{folder}/calibrator.safetensors")
        ...     loaded = logitlab.load_calibrator(f"{folder}/calibrator.safetensors")
        >>> loaded.temperature_ == scaling.temperature_
        True
        """
        _saved.write(path, self._to_bytes({}))

    def _to_bytes(self, metadata: dict[str, Any]) -> bytes:
        """Return the contents of the file of :meth:`save`, with more metadata."""
        self._check_fitted()
        arrays, parameters = self._state()
        more = {"classes": self.n_features_in_, "parameters": parameters, **metadata}
        return _saved.to_bytes(type(self).__name__, arrays, more)

    def _state(self) -> tuple[_saved.Arrays, dict[str, Any]]:
        """Return the fitted attributes, and the parameters as JSON values."""
        return {name: np.asarray(getattr(self, name)) for name in self._fitted}, self.get_params()

    def _set_saved(self, arrays: _saved.Arrays, k: int) -> None:
        """Set the fitted attributes; a ValueError says what is wrong with them."""
        if set(arrays) != set(self._fitted):
            raise ValueError(f"the arrays must be {sorted(self._fitted)}, got {sorted(arrays)}")
        lengths = {"K": k}
        for name, dimensions in self._fitted.items():
            array = arrays[name]
            for dimension, length in zip(dimensions, array.shape, strict=False):
                lengths.setdefault(dimension, length)
            shape = tuple(lengths.get(dimension, 1) for dimension in dimensions)
            if array.dtype != np.float64 or array.shape != shape:
                raise ValueError(
                    f"{name} must be float64 of shape {shape}, got {array.dtype} of shape "
                    f"{array.shape}"
                )
            self._check_saved(name, array)
            setattr(self, name, array if shape else float(array))
        self.n_features_in_, self.classes_ = k, np.arange(k)

    def _check_saved(self, name: str, array: NDArray[Any]) -> None:
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite")

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            input_tags=InputTags(three_d_array=True),
            transformer_tags=TransformerTags(preserves_dtype=["float64", "float32", "float16"]),
            classifier_tags=ClassifierTags(),
        )


def _correct_sums(block: Block, calibrator: Calibrator) -> tuple[float, float]:
    with original_row_numbers(block.numbers):
        predicted = calibrator.predict(block.z)
    return weighted_sums(predicted == block.y, block.weight)


class InMemoryCalibrator(Calibrator, ABC):
    """A calibrator whose fit needs all rows in this process."""

    def _fit(self, rows: Rows) -> None:
        z, y, weight, numbers, _ = rows.gather()
        with original_row_numbers(numbers):
            self._fit_in_memory(z, y, weight)

    @abstractmethod
    def _fit_in_memory(self, z: NDArray[Any], y: Integers, weight: Floats | None) -> None:
        """Set the fitted parameters, from checked rows."""


def as_type_of(x: Floats, z: Any, xp: Any) -> Any:
    """Return fitted parameters as an array of z's kind and type."""
    return xp.astype(_arrays.like(x, z, xp, "x"), z.dtype)


def refuse_rows(refused: Any, reason: str, xp: Any) -> None:
    """Raise a :class:`RowError` for the first row with an entry that is refused."""
    rows = xp.any(refused, axis=-1)
    if _arrays.any_of(rows, xp):
        raise RowError(_arrays.first_true(rows, xp), reason)


def check_below_infinity(z: Any, xp: Any) -> None:
    """Raise a :class:`RowError` for the first row with +inf."""
    refuse_rows(z == xp.inf, "holds +inf; logits must be finite or -inf", xp)
