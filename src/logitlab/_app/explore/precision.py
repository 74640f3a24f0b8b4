"""The plain formula beside logitlab's in four types, as the scale grows."""

from functools import lru_cache
from typing import Any

import numpy as np

from logitlab._app.explore.state import State
from logitlab._rows import Floats
from logitlab.plot.stability import MAX_ULP, SCALES, format_ulp, max_ulp_errors

_SCALES = SCALES[1:-1]  # what a narrow page has room for
_MOST = 256  # classes: more take longer than a slider may


@lru_cache(maxsize=64)
def _table(row: bytes, shift: float) -> list[dict[str, Any]]:
    z = np.frombuffer(row)
    return [
        {
            "type": name,
            "formula": formula,
            "errors": [format_ulp(error) for error in worst],
            "wrong": worst > MAX_ULP,
        }
        for (name, formula), worst in max_ulp_errors(z, _SCALES, shift).items()
    ]


def precision(state: State, z: Floats) -> dict[str, Any]:
    """The worst error of softmax(c z + shift) for each type, formula and scale c, in ULP."""
    if len(z) > _MOST:
        raise ValueError(f"Shown for up to {_MOST} classes.")
    if np.isnan(z).any() or np.isposinf(z).any() or np.isneginf(z).all():
        raise ValueError("Shown for finite logits, and -inf.")
    return {"scales": _SCALES, "rows": _table(z.tobytes(), state.shift)}
