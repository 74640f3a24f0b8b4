"""The function under context, as a function of NumPy arrays."""

import importlib
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from logitlab._exact.formats import FORMATS, Values
from logitlab.laws import array_types
from logitlab.laws.cases import Case, explicit

_TEMPERATURES = ("temperature", "T")
INTEGERS = ("int8", "uint8", "int32", "int64")


class Result(NamedTuple):
    """What the function gave: values and the name of their type; or the error it raised."""

    values: Values
    dtype: str
    error: str = ""

    def coarser(self, dtype: str) -> str:
        """The type to judge by: the result's, or that of the logits where it has fewer digits."""
        given = dtype if dtype in FORMATS else "float64"
        if self.dtype not in FORMATS:
            return given
        return min(given, self.dtype, key=lambda name: FORMATS[name].digits)


def quietly(call: Callable[[], Any]) -> Any:
    """Warnings of the function are no verdict."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return call()


def _parameters(function: Any) -> list[str] | None:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


def public_name(function: Any, otherwise: str = "function") -> tuple[str, str]:
    """How the function is called in a line of Python, and the module to import for it.

    A method, or an instance that can be called, has no name of its own: `otherwise` stands for it.
    """
    short = otherwise if inspect.ismethod(function) else getattr(function, "__name__", otherwise)
    module = getattr(function, "__module__", None) or ""
    top = module.partition(".")[0]
    for place in (top, f"{top}.special", f"{top}.nn", "torch", "torch.nn.functional", module):
        if short.isidentifier() and getattr(sys.modules.get(place), short, None) is function:
            return f"{place}.{short}", place
    return (short if short.isidentifier() else otherwise), ""


class Subject:
    """A softmax (or log_softmax) of any kind of array.

    Called with a case, it gives values and the type they came in. `log` says that the function
    gives logarithms, `dtypes` which floating types it takes.
    """

    def __init__(
        self, function: Any, *, axis: int = -1, kind: str | None = None, name: str | None = None
    ) -> None:
        only = None
        self.name, self._import = "softmax", ""
        if hasattr(function, "get_inputs"):
            function, only = array_types.session(function)
            kind, self._text = kind or "numpy", "session.run(None, {session.get_inputs()[0].name: "
            self._text += "%s})[0]"
        elif isinstance(function, Sequence) and not isinstance(function, str):
            self.name = " ".join(function)
            self._text = f"logitlab.laws.program({list(function)!r})(%s)"
            self._import = "logitlab.laws"
            function, kind = array_types.program(function), "numpy"
        elif callable(function):
            self._spoken, self._import = public_name(function)
            self.name = self._spoken
            if not inspect.isroutine(function):
                self.name = type(function).__name__
            elif inspect.ismethod(function):
                self.name = function.__qualname__
            self._text = ""
        else:
            raise TypeError(
                f"function is a {type(function).__name__}; accepted: a callable, an onnxruntime "
                "session, or the command of a program as a list of strings"
            )
        self._function = function
        if name is not None:
            self.name, self._import = name, name.rpartition(".")[0]
            self._spoken = name
            if self._import and self._import not in sys.modules:
                self._import = ""
        self.axis = axis
        parameters = _parameters(function)
        self.temperature = next((t for t in _TEMPERATURES if t in (parameters or ())), None)
        styles = [s for s in ("axis", "dim") if parameters is None or s in parameters]
        self._bind(kind, [*styles[:1], ""] if parameters else [*reversed(styles), ""], only)
        self.dtypes = self._supported([only] if only else list(FORMATS))
        self.log = self._is_log()

    def _bind(self, kind: str | None, styles: list[str], only: str | None) -> None:
        """Find the array kind the function takes, and how it is told the axis."""
        tried = []
        probe = explicit([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0]], only or "float32")
        for name in [kind] if kind else array_types.loaded():
            self.kind = array_types.kind(name)
            for style in styles:
                self._axis_argument = {style: self.axis} if style else {}
                result = self(probe)
                if not result.error:
                    self._follow_result(kind, probe)
                    return
            tried.append(f"{name}: {result.error}")
        raise TypeError(
            f"function gives no probabilities for a {' or '.join(array_types.loaded())} array "
            f"of shape {self.arrange(probe.z).shape}: {'; '.join(tried)}"
        )

    def _follow_result(self, given: str | None, probe: Case) -> None:
        """A function that takes NumPy arrays and gives another library's works on those."""
        if given is None and self.kind.name == "numpy":
            result = self.apply(self.make(self.arrange(probe.z), probe.dtype))
            home = type(result).__module__.partition(".")[0].removesuffix("lib")
            if home != "numpy" and home in array_types.loaded():
                self.kind = array_types.kind(home)

    def _supported(self, wanted: list[str]) -> tuple[str, ...]:
        if not array_types.has_bfloat16() and self.kind.name != "torch":
            wanted = [dtype for dtype in wanted if dtype != "bfloat16"]
        return tuple(d for d in wanted if not self(explicit([[0.0, 1.0], [2.0, 0.0]], d)).error)

    def _is_log(self) -> bool:
        dtype = "float32" if "float32" in self.dtypes else self.dtypes[0]
        values = self(explicit([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0]], dtype)).values
        with np.errstate(all="ignore"):
            total = np.exp(values).sum(axis=-1)
        return bool((values <= 0).all() and (np.abs(total - 1) < 0.1).all())

    def arrange(self, z: Any) -> Any:
        """(N, K) with its class axis where the function looks for it."""
        dimensions = max(2, self.axis + 1 if self.axis >= 0 else -self.axis)
        wide = z.reshape((1,) * (dimensions - 2) + z.shape)
        return np.moveaxis(wide, -1, self.axis)

    def make(self, z: Any, dtype: str) -> Any:
        """An array of the function's kind, of values as float64."""
        return self.kind.make(self.kind.numpy(z, dtype), dtype)

    def apply(self, array: Any, **options: float) -> Any:
        """The function's own result on an array of its own kind."""
        if "temperature" in options and self.temperature:
            options = {self.temperature: options["temperature"]}
        return quietly(lambda: self._function(array, **self._axis_argument, **options))

    def back(self, result: Any, shape: tuple[int, ...]) -> Result:
        """The function's result as (N, K) values."""
        values, dtype = array_types.to_values(result)
        if values.shape != shape:
            raise ValueError(f"the result has shape {values.shape} where z has {shape}")
        rows = np.moveaxis(values, self.axis, -1)
        return Result(rows.reshape(-1, rows.shape[-1]) if rows.size else rows, dtype)

    def run(self, array: Any, shape: tuple[int, ...], **options: float) -> Result:
        """The result on an array of the function's kind, errors included."""
        try:
            return self.back(self.apply(array, **options), shape)
        except Exception as error:  # whatever a stranger's function raises is a finding
            text = str(error).strip().splitlines() or [""]
            return Result(np.zeros((0, 0)), "", f"{type(error).__name__}: {text[0][:120]}")

    def __call__(self, case: Case) -> Result:
        z = self.arrange(case.z)
        try:
            array = self.make(np.array(z, order="C"), case.dtype)
        except Exception as error:
            return Result(np.zeros((0, 0)), "", f"{type(error).__name__}: {error}")
        return self.run(array, z.shape, **case.options)

    def line(self, *calls: Case | tuple[Case, str], form: str = "{}", module: str = "") -> str:
        """A line of Python that repeats the calls; a text changes the NumPy array of its case.

        `form` is what stands around them, with a module to import for it.
        """
        pairs = [call if isinstance(call, tuple) else (call, "%s") for call in calls]
        sources = [self._call(self._array(*pair), pair[0]) for pair in pairs]
        return self._with_imports(form.format(", ".join(sources)), module)

    def _with_imports(self, text: str, module: str) -> str:
        wanted = ["numpy as np", self.kind.imports, self._import, module]
        if "ml_dtypes" in text:
            wanted.append("ml_dtypes")
        return f"import {', '.join(dict.fromkeys(name for name in wanted if name))}; {text}"

    def line_of(self, function: Any, otherwise: str, case: Case, *rest: str) -> str:
        """A line that calls another function with the first row, once for each text of the rest."""
        name, module = public_name(function, otherwise)
        row = self.kind.text(f"({self.kind.source(case.source, case.dtype)})[0]", case.dtype)
        calls = ", ".join(f"{name}({row}{more})" for more in rest)
        return self._with_imports(calls, module)

    def derivative_line(self, case: Case, jacobian: str, module: str) -> str:
        """A line that differentiates the call by a library's text, with {} for function and row."""
        array = self._array(case, "%s")
        return self._with_imports(
            jacobian.format(f"lambda z: {self._call('z', case)}", array), module
        )

    def _array(self, case: Case, change: str) -> str:
        source = case.source
        if self.arrange(np.zeros((2, 3))).shape != (2, 3):
            source = f"np.moveaxis({source}, -1, {self.axis})"
        elif len(case.z) == 1 and self.axis == -1 and change == "%s" and self._same(case):
            # A row by itself, where that makes no difference.
            inner = source.removeprefix("np.array([[").removesuffix("]])")
            listed = len(inner) + 14 == len(source)
            source = f"np.array([{inner}])" if listed else f"{source}[0]"
            source = re.sub(r"np.zeros\(\(1, (\d+)\)\)\[0\]", r"np.zeros(\1)", source)
            source = source.replace("[None, :][0]", "")
        return self.kind.text(change % self.kind.source(source, case.dtype), case.dtype)

    def _call(self, array: str, case: Case) -> str:
        arguments = {**self._axis_argument, **case.options}
        if "temperature" in arguments and self.temperature:
            arguments[self.temperature] = arguments.pop("temperature")
        named = "".join(f", {name}={value!r}" for name, value in arguments.items())
        named = named.replace("=inf", "=np.inf").replace("=-inf", "=-np.inf")
        return self._text % array if self._text else f"{self._spoken}({array}{named})"

    def _same(self, case: Case) -> bool:
        """Whether a row by itself, without a batch axis, gives the same bits."""
        if self._text:
            return False
        try:
            array = self.make(np.array(case.z[0]), case.dtype)
            values, _ = array_types.to_values(self.apply(array, **case.options))
        except Exception:
            return False
        return np.array_equal(values[None], self(case).values, equal_nan=True)


def importable(path: str) -> Any:
    """The function that MODULE:FUNCTION names."""
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError(f"{path!r} is not of the form MODULE:FUNCTION")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found
