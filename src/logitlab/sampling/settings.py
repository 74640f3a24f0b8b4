"""The settings of a sampler: their rules, the stages that they belong to, the engines' orders."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import is_array_api_obj
from numpy.typing import NDArray

from logitlab import _arrays, _checks
from logitlab._backends.reference_sampling import STAGES, Stage

ORDERS = {
    "transformers": ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon", "eta"),
    "vllm": ("temperature", "min_p", "top_k", "top_p"),
    "llama.cpp": ("top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "xtc", "temperature"),
    "sglang": ("temperature", "top_p", "top_k", "min_p"),
}
_LARGEST = 1 << 32  # of integers: more classes than a truncated row has


class Setting(NamedTuple):
    """A setting, and the stage that it belongs to."""

    stage: str
    neutral: float | None  # keeps every class; None: any number of classes
    rule: str
    valid: Callable[[Any], Any]
    is_integer: bool = False


def _share(stage: str, neutral: float, rule: str = "in [0, 1]") -> Setting:
    if rule == "in [0, 1]":
        return Setting(stage, neutral, rule, lambda x: (x >= 0) & (x <= 1))
    return Setting(stage, neutral, rule, lambda x: (x > 0) & (x <= 1))


def _nonnegative(stage: str, neutral: float) -> Setting:
    return Setting(stage, neutral, "finite and >= 0", lambda x: (x >= 0) & (x < np.inf))


SETTINGS = {
    "top_k": Setting("top_k", None, ">= 1", lambda x: x >= 1, is_integer=True),
    "top_p": _share("top_p", 1.0, "in (0, 1]"),
    "min_p": _share("min_p", 0.0),
    "typical_p": _share("typical_p", 1.0, "in (0, 1]"),
    "epsilon": _share("epsilon", 0.0),
    "eta": _share("eta", 0.0),
    "top_n_sigma": Setting("top_n_sigma", np.inf, ">= 0", lambda x: x >= 0),
    "top_a": _share("top_a", 0.0),
    "xtc_probability": _share("xtc", 0.0),
    "xtc_threshold": _share("xtc", 0.1),
    "dynatemp_range": _nonnegative("temperature", 0.0),
    "dynatemp_exponent": _nonnegative("temperature", 1.0),
}
_TEMPERATURE = Setting("temperature", 1.0, "a number, 0 and ±inf included", lambda t: t == t)


def _array(name: str, x: Any, is_integer: bool) -> NDArray[Any]:
    """A setting with one value for each row, on the host."""
    x = _arrays.as_array(x, name)
    dtype = _arrays.dtype_name(x.dtype)
    if dtype == "object" and is_integer and all(type(n) is int for n in x.flat):
        limited: NDArray[Any] = np.clip(x, -_LARGEST, _LARGEST).astype(np.int64)
        return limited
    kinds: tuple[str, ...] = ("int", "uint", "float", "bfloat")
    wanted = "a real number or an array of real numbers"
    if is_integer:
        kinds, wanted = kinds[:2], "an int or an array of ints"
    if not dtype.startswith(kinds) and 0 not in x.shape:
        raise TypeError(f"{name} must be {wanted}, got {dtype}")
    values = _arrays.on_host(x, name)
    return values if is_integer else values.astype(np.float64) + 0.0  # no -0.0


def check_setting(name: str, x: Any, setting: Setting) -> Any:
    """A checked setting: a number, or a read-only array with one for each row."""
    if x is None:
        return setting.neutral
    has_rows = isinstance(x, list | tuple) or getattr(x, "ndim", 0) > 0
    if setting.is_integer and not has_rows:
        number = _checks.integer(x, name)
        if not setting.valid(number):
            raise ValueError(f"{name} must be {setting.rule}, got {number}")
        return number
    if not has_rows and (isinstance(x, np.generic) or not hasattr(x, "ndim")):
        return _checks.real(x, name, setting.rule, setting.valid) + 0.0
    values = _array(name, x, setting.is_integer)
    if not (valid := np.asarray(setting.valid(values))).all():
        index = tuple(map(int, np.unravel_index(int(np.argmin(valid)), valid.shape)))
        row = f" in {_checks.row_label(index)}" if index else ""
        raise ValueError(f"{name} must be {setting.rule}, got {values[index]}{row}")
    if setting.is_integer:
        values = np.minimum(values, _LARGEST).astype(np.int64)
    if values.ndim == 0:
        return values.item()
    values.flags.writeable = False
    return values


def check_temperature(t: Any) -> Any:
    """As a setting; a tensor stays one, and its values are checked beside the logits."""
    if t is None:
        raise TypeError("temperature must be a real number or array, got None")
    if is_array_api_obj(t) and not isinstance(t, np.ndarray | np.generic):
        dtype = _arrays.dtype_name(t.dtype)
        if not dtype.startswith(("float", "bfloat", "int", "uint")):
            raise TypeError(f"temperature must be a real number or array, got {dtype}")
        return t
    return check_setting("temperature", t, _TEMPERATURE)


def check_order(order: Any) -> Any:
    """The name of an engine, or a tuple of distinct stages."""
    if isinstance(order, str) and order in ORDERS:
        return order
    if isinstance(order, tuple | list):
        names = [str(x) for x in order]
        if set(names) <= set(STAGES) and len(set(names)) == len(names):
            return tuple(names)
    engines = ", ".join(map(repr, ORDERS))
    raise ValueError(
        f"order must be {engines} or a list of distinct stages of {STAGES}, got {order!r}"
    )


def ordered_stages(order: Any) -> tuple[str, ...]:
    """All stages in their order: those that an engine lacks follow its own."""
    if not isinstance(order, str):
        return tuple(order)
    own = ORDERS[order]
    return (*own, *(stage for stage in STAGES if stage not in own))


def is_neutral(settings: Mapping[str, Any], stage: str) -> bool:
    """Whether a stage keeps every class of every row. The temperature: whether it is 1."""
    if stage == "temperature":
        t = settings["temperature"]
        return isinstance(t, float) and t == 1 and bool(np.all(settings["dynatemp_range"] == 0))
    name = "xtc_probability" if stage == "xtc" else stage
    neutral = SETTINGS[name].neutral
    value = settings[name]
    return value is None if neutral is None else bool(np.all(value == neutral))


def check_names(settings: Mapping[str, Any]) -> None:
    """Refuse a list of stages that lacks one in use."""
    stages = ordered_stages(settings["order"])
    for stage in STAGES:
        if stage not in stages and not is_neutral(settings, stage):
            raise ValueError(f"order must name every stage in use; {stage!r} is missing: {stages}")


def rows_of(name: str, value: Any, batch: tuple[int, ...]) -> Any:
    """A setting as a float, or as a float64 array with one for each row in the batch."""
    if not isinstance(value, np.ndarray):
        return float(min(value, _LARGEST)) if isinstance(value, int) else value
    try:
        return np.broadcast_to(value, batch).astype(np.float64).reshape(-1)
    except ValueError:
        raise ValueError(
            f"{name} must be a number or broadcast to the batch shape {batch} of z, "
            f"got shape {value.shape}"
        ) from None


def stages_of(
    settings: Mapping[str, Any], batch: tuple[int, ...], has_xtc: NDArray[np.bool_] | None
) -> list[Stage]:
    """The stages in use, in their order. `has_xtc`: the rows to which XTC is applied."""

    found = []
    for stage in ordered_stages(settings["order"]):
        names = [name for name, setting in SETTINGS.items() if setting.stage == stage]
        values = {
            name: rows_of(name, settings[name], batch)
            for name in names
            if settings[name] is not None
        }
        if stage == "temperature":
            dynamic = bool(np.any(values["dynatemp_range"] != 0))
            found.append(Stage(stage, tuple(values.values()) if dynamic else ()))
        elif not is_neutral(settings, stage):
            if stage == "xtc":
                applied = values["xtc_probability"] == 1 if has_xtc is None else has_xtc
                # A threshold that no probability reaches, where the stage is not applied.
                threshold = np.where(applied, values["xtc_threshold"], np.inf)
                values = {"xtc_threshold": threshold if threshold.ndim else float(threshold)}
            found.append(Stage(stage, tuple(values.values())))
    return found
