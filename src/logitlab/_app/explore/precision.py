"""Errors of the naive softmax and of logitlab's in four types, as a function of the scale."""

from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from logitlab._app.explore.state import State
from logitlab._exact.formats import FORMATS
from logitlab._rows import Floats
from logitlab.plot.stability import MAX_ULP, SCALES, format_ulp, max_ulp_errors

_SCALES = SCALES[1:-1]  # as many columns as fit on a narrow page
_MAX_CLASSES = 256  # more classes take too long while a slider moves


def _available_dtypes() -> tuple[str, ...]:
    """The types that can be computed with; bfloat16 needs ml_dtypes, which a browser lacks."""
    return tuple(name for name in FORMATS if name != "bfloat16" or find_spec("ml_dtypes"))


@lru_cache(maxsize=64)
def _error_table(row: bytes, shift: float) -> list[dict[str, Any]]:
    z = np.frombuffer(row)
    return [
        {
            "type": name,
            "formula": formula,
            "errors": [format_ulp(error) for error in worst],
            "wrong": worst > MAX_ULP,
        }
        for (name, formula), worst in max_ulp_errors(z, _SCALES, shift, _available_dtypes()).items()
    ]


def precision(state: State, z: Floats) -> dict[str, Any]:
    """The largest error of softmax(c z + shift) for each type, formula and scale c, in ULP."""
    if len(z) > _MAX_CLASSES:
        raise ValueError(f"The errors are shown for up to {_MAX_CLASSES} classes.")
    if np.isnan(z).any() or np.isposinf(z).any() or np.isneginf(z).all():
        raise ValueError("The errors are shown for finite and -inf logits only.")
    return {"scales": _SCALES, "rows": _error_table(z.tobytes(), state.shift)}
