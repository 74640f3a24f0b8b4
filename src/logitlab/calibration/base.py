"""What all calibrators share: scikit-learn's conventions, and checks of labelled rows."""

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from logitlab import _arrays
from logitlab._rows import Floats, Integers, as_rows


class RowError(ValueError):
    """A row that a calibrator cannot take, by its number among those it was given."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(f"row {row} of z {why}")
        self.row, self.why = row, why


@contextlib.contextmanager
def numbered(rows: Sequence[int] | Integers | None) -> Iterator[None]:
    """A :class:`RowError` of some rows under their numbers among all; None: these are all."""
    try:
        yield
    except RowError as error:
        if rows is None:
            raise
        raise RowError(int(rows[error.row]), error.why) from None


class _NotFittedError(ValueError, AttributeError):
    """As scikit-learn's."""


class Calibrator:
    """Parameters by name, as scikit-learn's ``clone``, pipelines and searches want them."""

    def _names(self) -> list[str]:
        return list(inspect.signature(type(self)).parameters)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters of the constructor by name."""
        return {name: getattr(self, name) for name in self._names()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the constructor by name; another name is a ``ValueError``."""
        for name, value in params.items():
            if name not in self._names():
                raise ValueError(f"{name} is no parameter; accepted: {', '.join(self._names())}")
            setattr(self, name, value)
        return self

    def _check_fitted(self, found: str) -> None:
        """Refuse what has no such attribute yet, with scikit-learn's own error if there is one."""
        if hasattr(self, found):
            return
        try:
            from sklearn.exceptions import NotFittedError
        except ModuleNotFoundError:
            NotFittedError = _NotFittedError
        raise NotFittedError(f"this {type(self).__name__} is not fitted yet; call fit first")

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items())
        return f"{type(self).__name__}({given})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            transformer_tags=TransformerTags(),
            classifier_tags=ClassifierTags(),
        )


def check_weights(sample_weight: Any, rows: int) -> Floats | None:
    """Weights of the rows as float64, or None where none are given."""
    if sample_weight is None:
        return None
    flat = _arrays.on_host(_arrays.as_array(sample_weight, "sample_weight")).reshape(-1)
    weights: Floats = _arrays.row_weights(flat, (rows,), flat)
    if not weights.any():
        raise ValueError("sample_weight must be finite and >= 0, and not zero in every row")
    return weights


def labelled(
    z: Any, y: Any, sample_weight: Any
) -> tuple[NDArray[Any], Integers, Floats | None, Integers | None]:
    """Checked rows, labels and weights, less rows of weight 0; their numbers where some are."""
    logits, labels = as_rows(z, y)
    weights = check_weights(sample_weight, len(labels))
    if weights is not None and not weights.all():
        some = np.flatnonzero(weights)
        return logits[some], labels[some], weights[some], some
    return logits, labels, weights, None
