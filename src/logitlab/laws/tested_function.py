"""A softmax of any array library as a function of NumPy arrays, and the code that calls it."""

import inspect
import itertools
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from logitlab._exact.formats import FORMATS, Floats
from logitlab.laws import array_libraries
from logitlab.laws.cases import Case, explicit_case

_TEMPERATURE_PARAMETERS = ("temperature", "T")
_PROBED_FIRST = ("float32", "float64", "float16", "bfloat16")


class Result(NamedTuple):
    """The values of a function and the name of their dtype, or the error it raised."""

    values: Floats
    dtype: str
    error: str = ""

    def coarser_dtype(self, dtype: str) -> str:
        """The dtype whose ULP is the unit of error: the coarser of the result's and the logits'."""
        z_dtype = dtype if dtype in FORMATS else "float64"
        if self.dtype not in FORMATS:
            return z_dtype
        return min(z_dtype, self.dtype, key=lambda name: FORMATS[name].nmant)


def error_text(error: Exception) -> str:
    """Class and first line of an error."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:120]}"


def call_quietly(call: Callable[[], Any]) -> Any:
    """The result of a call whose warnings are ignored."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return call()


def _parameters(function: Any) -> list[str] | None:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


def public_name(function: Any, default: str = "function") -> tuple[str, str]:
    """The name of a function in Python code, and the module to import for it.

    A method or a callable instance has no name of its own and gets the default.
    """
    short = default if inspect.ismethod(function) else getattr(function, "__name__", default)
    module = getattr(function, "__module__", None) or ""
    top = module.partition(".")[0]
    for path in (top, f"{top}.special", f"{top}.nn", "torch", "torch.nn.functional", module):
        if short.isidentifier() and getattr(sys.modules.get(path), short, None) is function:
            return f"{path}.{short}", path
    return (short if short.isidentifier() else default), ""


def _row_source(source: str) -> str:
    """The source of the only row of an array, from the source of the array."""
    entries = source.removeprefix("np.array([[").removesuffix("]])")
    if len(entries) + 14 == len(source):
        return f"np.array([{entries}])"
    row = re.sub(r"np.zeros\(\(1, (\d+)\)\)\[0\]", r"np.zeros(\1)", f"{source}[0]")
    return row.replace("[None, :][0]", "")


class TestedFunction:
    """A softmax or log_softmax of any array library, called with cases.

    Parameters
    ----------
    function : callable, onnxruntime session, or list of str
        As in :func:`logitlab.check_softmax`.
    axis : int
        The class axis.
    array_library : str, optional
        The library of the arrays to call it with.
    name : str, optional
        The name of the function in the code of counterexamples.
    dtypes : sequence of str, optional
        The floating dtypes to call it with; by default all.

    Attributes
    ----------
    library : ArrayLibrary
    log : bool
        Whether the function returns log-probabilities.
    dtypes : tuple of str
        The floating dtypes that it takes.
    temperature : str or None
        The name of its temperature parameter.
    """

    def __init__(
        self,
        function: Any,
        *,
        axis: int = -1,
        array_library: str | None = None,
        name: str | None = None,
        dtypes: Sequence[str] | None = None,
    ) -> None:
        # A kernel may take one dtype only, and stop the process when called with another.
        tried = list(dtypes) if dtypes else sorted(FORMATS, key=_PROBED_FIRST.index)
        self.name, self._call_name, self._module, self._call_source = "softmax", "", "", ""
        if hasattr(function, "get_inputs"):
            function, only_dtype = array_libraries.session_function(function)
            tried = [only_dtype]
            array_library = array_library or "numpy"
            self._call_source = "session.run(None, {session.get_inputs()[0].name: %s})[0]"
        elif isinstance(function, Sequence) and not isinstance(function, str):
            self.name = " ".join(function)
            self._call_source = f"logitlab.laws.program({list(function)!r})(%s)"
            self._module = "logitlab.laws"
            function, array_library = array_libraries.program(function), "numpy"
        elif callable(function):
            self._call_name, self._module = public_name(function)
            self.name = self._call_name
            if not inspect.isroutine(function):
                self.name = type(function).__name__
            elif inspect.ismethod(function):
                self.name = function.__qualname__
        else:
            raise TypeError(
                "function must be a callable, an onnxruntime session or the command of a program "
                f"as a list of strings, got {type(function).__name__}"
            )
        self._function = function
        if name is not None:
            self.name = self._call_name = name
            module = name.rpartition(".")[0]
            self._module = module if module in sys.modules else ""
        self.axis = axis
        parameters = _parameters(function)
        self.temperature = next(
            (t for t in _TEMPERATURE_PARAMETERS if t in (parameters or ())), None
        )
        keywords = [s for s in ("axis", "dim") if parameters is None or s in parameters]
        # A signature says which keyword exists; without one, torch's dim is tried before axis.
        keywords = [*keywords[:1], ""] if parameters else [*reversed(keywords), ""]
        self._find_library(array_library, keywords, tried)
        self.dtypes = self._supported_dtypes([dtype for dtype in FORMATS if dtype in tried])
        self.log = self._returns_log()

    def _find_library(self, library: str | None, keywords: list[str], dtypes: list[str]) -> None:
        """Find the array library that the function takes, and its keyword for the axis."""
        cases = [explicit_case([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0]], dtype) for dtype in dtypes]
        names = [library] if library else array_libraries.imported_libraries()
        errors: dict[str, str] = {}  # the first of each library
        for case, name in itertools.product(cases, names):
            self.library = array_libraries.array_library(name)
            for keyword in keywords:
                self._axis_argument = {keyword: self.axis} if keyword else {}
                result = self(case)
                if not result.error:
                    if library is None and name == "numpy":
                        self._adopt_result_library(case)
                    return
            errors.setdefault(name, result.error)
        texts = [f"{name}: {error}" for name, error in errors.items()]
        raise TypeError(
            f"function must return probabilities for a {' or '.join(names)} array of shape "
            f"{self.to_axis(cases[0].z).shape}, got {'; '.join(texts)}"
        )

    def _adopt_result_library(self, case: Case) -> None:
        """Use the library of the result, where a function of NumPy arrays returns another's."""
        result = self.apply(self.make_array(self.to_axis(case.z), case.dtype))
        name = type(result).__module__.partition(".")[0].removesuffix("lib")
        if name != "numpy" and name in array_libraries.imported_libraries():
            self.library = array_libraries.array_library(name)

    def _supported_dtypes(self, dtypes: list[str]) -> tuple[str, ...]:
        if not array_libraries.has_ml_dtypes() and self.library.name != "torch":
            dtypes = [dtype for dtype in dtypes if dtype != "bfloat16"]
        rows = [[0.0, 1.0], [2.0, 0.0]]
        return tuple(dtype for dtype in dtypes if not self(explicit_case(rows, dtype)).error)

    def _returns_log(self) -> bool:
        dtype = "float32" if "float32" in self.dtypes else self.dtypes[0]
        values = self(explicit_case([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0]], dtype)).values
        with np.errstate(all="ignore"):
            total = np.exp(values).sum(axis=-1)
        return bool((values <= 0).all() and (np.abs(total - 1) < 0.1).all())

    def to_axis(self, z: Any) -> Any:
        """(N, K) with the class axis moved to the axis of the function."""
        ndim = max(2, self.axis + 1 if self.axis >= 0 else -self.axis)
        wide = z.reshape((1,) * (ndim - 2) + z.shape)
        return np.moveaxis(wide, -1, self.axis)

    def make_array(self, z: Floats, dtype: str) -> Any:
        """An array of the library of the function, from values as float64."""
        return self.library.from_numpy(self.library.numpy_array(z, dtype), dtype)

    def apply(self, array: Any, **options: float) -> Any:
        """The result of the function on an array of its library, as it returns it."""
        arguments = self._arguments(options)
        return call_quietly(lambda: self._function(array, **arguments))

    def _arguments(self, options: dict[str, float]) -> dict[str, Any]:
        """The keyword arguments of a call, the axis included."""
        arguments = {**self._axis_argument, **options}
        if "temperature" in arguments and self.temperature:
            arguments[self.temperature] = arguments.pop("temperature")
        return arguments

    def to_rows(self, array: Any, shape: tuple[int, ...]) -> Result:
        """An array of the library as a result of (N, K) values."""
        values, dtype = array_libraries.to_float64(array)
        if values.shape != shape:
            raise ValueError(f"the result must have the shape {shape} of z, got {values.shape}")
        rows = np.moveaxis(values, self.axis, -1)
        return Result(rows.reshape(-1, rows.shape[-1]) if rows.size else rows, dtype)

    def run(self, array: Any, shape: tuple[int, ...], **options: float) -> Result:
        """The result on an array of the library, or the error of the call."""
        try:
            return self.to_rows(self.apply(array, **options), shape)
        except Exception as error:  # the function may raise any class
            return Result(np.zeros((0, 0)), "", error_text(error))

    def __call__(self, case: Case) -> Result:
        z = self.to_axis(case.z)
        try:
            array = self.make_array(np.array(z, order="C"), case.dtype)
        except Exception as error:  # a dtype that the library does not have
            return Result(np.zeros((0, 0)), "", error_text(error))
        return self.run(array, z.shape, **case.options)

    def code(self, *calls: Case | tuple[Case, str], form: str = "{}", module: str = "") -> str:
        """A line of Python that repeats calls.

        A case may come with a text around its NumPy array, with %s for the array. `form` is the
        text around the calls, `module` one to import for it.
        """
        pairs = [call if isinstance(call, tuple) else (call, "%s") for call in calls]
        sources = [self._call_code(self._array_source(*pair), pair[0]) for pair in pairs]
        return self._with_imports(form.format(", ".join(sources)), module)

    def code_on_row(self, function: Any, default: str, case: Case, *arguments: str) -> str:
        """A line that calls another function with the first row, once for each text of arguments.

        `default` is the name of the function where it has none.
        """
        name, module = public_name(function, default)
        source = f"({self.library.numpy_source(case.source, case.dtype)})[0]"
        row = self.library.from_numpy_source(source, case.dtype)
        calls = ", ".join(f"{name}({row}{text})" for text in arguments)
        return self._with_imports(calls, module)

    def derivative_code(self, case: Case, form: str, module: str) -> str:
        """A line that differentiates the call; `form` has {} for the function and the array."""
        array = self._array_source(case, "%s")
        return self._with_imports(
            form.format(f"lambda z: {self._call_code('z', case)}", array), module
        )

    def _with_imports(self, text: str, module: str) -> str:
        modules = ["numpy as np", self.library.imports, self._module, module]
        if "ml_dtypes" in text:
            modules.append("ml_dtypes")
        return f"import {', '.join(dict.fromkeys(name for name in modules if name))}; {text}"

    def _array_source(self, case: Case, form: str) -> str:
        source = case.source
        if self.to_axis(np.zeros((2, 3))).shape != (2, 3):
            source = f"np.moveaxis({source}, -1, {self.axis})"
        elif len(case.z) == 1 and self.axis == -1 and form == "%s" and self._ignores_batch(case):
            source = _row_source(source)
        source = form % self.library.numpy_source(source, case.dtype)
        return self.library.from_numpy_source(source, case.dtype)

    def _call_code(self, array: str, case: Case) -> str:
        if self._call_source:
            return self._call_source % array
        keywords = "".join(f", {k}={v!r}" for k, v in self._arguments(case.options).items())
        keywords = keywords.replace("=inf", "=np.inf").replace("=-inf", "=-np.inf")
        return f"{self._call_name}({array}{keywords})"

    def _ignores_batch(self, case: Case) -> bool:
        """Whether a single row gives the same bits without a batch axis."""
        if self._call_source:
            return False
        try:
            array = self.make_array(np.array(case.z[0]), case.dtype)
            values, _ = array_libraries.to_float64(self.apply(array, **case.options))
        except Exception:  # the function may raise any class
            return False
        return np.array_equal(values[None], self(case).values, equal_nan=True)
