"""Values that JSON can hold."""

import math
from typing import Any

import numpy as np


def json_values(x: Any, *, infinity_as_text: bool = False) -> Any:
    """`x` with arrays as lists and NumPy scalars as numbers; JSON has neither NaN nor infinity.

    NaN becomes None; an infinity becomes None too, or ``"inf"`` and ``"-inf"``.
    """
    if isinstance(x, dict):
        return {key: json_values(v, infinity_as_text=infinity_as_text) for key, v in x.items()}
    if isinstance(x, np.ndarray | np.generic):
        return json_values(x.tolist(), infinity_as_text=infinity_as_text)
    if isinstance(x, list | tuple):
        return [json_values(value, infinity_as_text=infinity_as_text) for value in x]
    if isinstance(x, float) and not math.isfinite(x):
        if infinity_as_text and not math.isnan(x):
            return "inf" if x > 0 else "-inf"
        return None
    return x
