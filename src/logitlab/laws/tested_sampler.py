"""A sampler of any array library as a function of NumPy arrays, and the code that calls it."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab._exact.formats import Floats
from logitlab.laws import array_libraries
from logitlab.laws.cases import Case, explicit_case
from logitlab.laws.tested_function import call_quietly, error_text, public_name

Integers = NDArray[np.int64]

# The names of the parameters of samplers, by what they are.
PARAMETERS = {
    "n": ("n", "num_samples", "n_samples", "size"),
    "seed": ("seed", "rng", "generator", "random_state"),
    "temperature": ("temperature", "T"),
    "top_k": ("top_k",),
    "top_p": ("top_p",),
    "min_p": ("min_p",),
}
_SETTINGS = ("temperature", "top_k", "top_p", "min_p")
_MAX_ENTRIES = 1 << 22  # of a batch of repeated rows


def parameter_names(function: Any) -> list[str]:
    """The names of the parameters of a callable; one with `**keywords` takes every truncation."""
    if not callable(function):
        raise TypeError(f"function must be a callable, got {type(function).__name__}")
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise TypeError(f"function must have a signature, got {function!r}") from error
    has_keywords = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return [*parameters, *(_SETTINGS if has_keywords else ())]


def to_integers(x: Any) -> Integers:
    """An array of integers of any library; floating integers count."""
    values, _ = array_libraries.to_float64(x)
    integers: Integers = values.astype(np.int64)
    if not (integers == values).all():
        raise ValueError(f"the result must be integers, got {values.ravel()[:3].tolist()}")
    return integers


class TestedCallable:
    """A random function of arrays of one library, with the source of its calls.

    Parameters
    ----------
    function : callable
    array_library : str, optional
        The library of its arrays; by default detected.
    name : str, optional
        Its name in code.
    """

    def __init__(self, function: Any, array_library: str | None, name: str | None) -> None:
        self.parameters = parameter_names(function)
        self._function: Callable[..., Any] = function
        self._name, self._module = public_name(function)
        if name is not None:
            self._name, self._module = name, name.rpartition(".")[0]
        self.name = self._name
        self.names = {
            key: next((name for name in names if name in self.parameters), "")
            for key, names in PARAMETERS.items()
        }
        errors = []
        for library in [array_library] if array_library else array_libraries.imported_libraries():
            self.library = array_libraries.array_library(library)
            if not (error := self.error()):
                return
            errors.append(f"{library}: {error}")
        raise TypeError(f"function must return {self.returns}, got {'; '.join(errors)}")

    returns = ""  # what the function must return

    def error(self) -> str:
        """The error of a small call; empty where there is none."""
        raise NotImplementedError

    def array(self, z: Floats) -> Any:
        """Logits as a float32 array of the library of the function."""
        return self.library.from_numpy(self.library.numpy_array(z, "float32"), "float32")

    def source(self, case: Case, form: str = "%s") -> str:
        """The source of that array; `form` is applied to its values."""
        return self.library.from_numpy_source(
            form % self.library.numpy_source(case.source, "float32"), "float32"
        )

    def seed_argument(self, seed: int) -> dict[str, Any]:
        """The seed as the argument that the function takes, if any."""
        name = self.names["seed"]
        if name == "generator" and self.library.name == "torch":
            import torch

            return {name: torch.Generator().manual_seed(seed)}
        if name in ("", "seed"):
            return {name: seed} if name else {}
        return {name: np.random.default_rng(seed)}

    def call_code(
        self, arguments: Sequence[str], seed: int, options: dict[str, Any], setup: str = ""
    ) -> str:
        """The source of a call, with the modules to import before it and what `setup` assigns."""
        texts = [*arguments]
        if name := self.names["seed"]:
            is_torch = name == "generator" and self.library.name == "torch"
            generator = (
                f"{'torch.Generator().manual_seed' if is_torch else 'np.random.default_rng'}"
            )
            texts.append(f"{name}={seed if name == 'seed' else f'{generator}({seed})'}")
        texts += [f"{name}={value!r}" for name, value in options.items()]
        modules = ["numpy as np", self.library.imports, self._module]
        modules += ["logitlab"] * ("logitlab.sample(" in "".join(arguments))
        imports = ", ".join(dict.fromkeys(name for name in modules if name))
        return f"import {imports}; {setup}{self._name}({', '.join(texts)})"


class TestedSampler(TestedCallable):
    """A sampler called with batches of logits: (N, K) and n give tokens of shape (N, n).

    A function without a parameter for the number of samples is called with repeated rows.
    """

    returns = "one token for each row, or n, for float32 logits of shape (2, 3)"

    def error(self) -> str:
        try:
            self(explicit_case([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0]], "float32"), 4, 0)
        except Exception as error:  # the function may raise any class
            return error_text(error)
        return ""

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {self.names[key]: value for key, value in options.items()}

    def __call__(self, case: Case, n: int, seed: int, **options: Any) -> Integers:
        """n tokens for each row, of shape (N, n)."""
        rows, k = case.z.shape
        arguments = self._options(options)
        if self.names["n"]:
            arguments[self.names["n"]] = n
            return self._call(case.z, seed, arguments, (rows, n))
        block = max(1, _MAX_ENTRIES // (rows * k))
        parts = []
        for i, start in enumerate(range(0, n, block)):
            m = min(block, n - start)
            tokens = self._call(np.repeat(case.z, m, axis=0), seed + i, arguments, (rows * m,))
            parts.append(tokens.reshape(rows, m))
        return np.concatenate(parts, axis=1)

    def _call(self, z: Floats, seed: int, arguments: Any, shape: tuple[int, ...]) -> Integers:
        array, arguments = self.array(z), self.seed_argument(seed) | arguments
        tokens = to_integers(call_quietly(lambda: self._function(array, **arguments)))
        if tokens.shape not in (shape, (*shape, 1)):
            raise ValueError(f"the result must have the shape {shape}, got {tokens.shape}")
        return tokens.reshape(shape)

    def code(self, case: Case, n: int, seed: int, **options: Any) -> str:
        """The source of a call that samples n tokens for each row."""
        named = self._options(options)
        if self.names["n"]:
            return self.call_code([self.source(case)], seed, {self.names["n"]: n} | named)
        return self.call_code([self.source(case, f"np.repeat(%s, {n}, axis=0)")], seed, named)


class TestedVerifier(TestedCallable):
    """A verifier of drafts: logits (N, S+1, K) and (N, S, K) and tokens (N, S) give how many draft
    tokens are accepted, (N,), and the token after them, (N,)."""

    returns = "(accepted, next_token), both of shape (N,)"

    def error(self) -> str:
        z = np.zeros((2, 3, 4))
        try:
            self(z, z[:, :2], np.zeros((2, 2), np.int64), 0)
        except Exception as error:  # the function may raise any class
            return error_text(error)
        return ""

    def __call__(
        self, target: Floats, draft: Floats, tokens: Integers, seed: int
    ) -> tuple[Integers, Integers]:
        """(accepted, next_token), each of shape (N,)."""
        arrays = [self.array(target), self.array(draft), self.library.from_numpy(tokens, "int64")]
        arguments = self.seed_argument(seed)
        result = call_quietly(lambda: self._function(*arrays, **arguments))
        accepted, next_token = (to_integers(x) for x in tuple(result)[:2])
        for x in (accepted, next_token):
            if x.shape != tokens.shape[:1]:
                raise ValueError(f"the results must have the shape (N,), got {x.shape}")
        return accepted, next_token


def is_verifier(function: Any) -> bool:
    """Whether a function has a parameter for the tokens or the logits of a draft."""
    return any(name.startswith("draft") for name in parameter_names(function))
