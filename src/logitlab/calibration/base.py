"""What all calibrators share: scikit-learn's conventions, and checks of labelled rows."""

import inspect
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from logitlab.scores import Floats, Integers, as_rows


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
    weights = np.asarray(sample_weight, np.float64).reshape(-1)
    if weights.shape != (rows,):
        raise ValueError(
            f"sample_weight has {weights.size} values; accepted: one for each of {rows} rows"
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ValueError("sample_weight: accepted are finite values of 0 and up, not all 0")
    return weights


def labelled(z: Any, y: Any, sample_weight: Any) -> tuple[NDArray[Any], Integers, Floats | None]:
    """Checked rows, labels and weights; rows of weight 0 are left out."""
    logits, labels = as_rows(z, y)
    weights = check_weights(sample_weight, len(labels))
    if weights is not None and not weights.all():
        some = weights > 0
        return logits[some], labels[some], weights[some]
    return logits, labels, weights
