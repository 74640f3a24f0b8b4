"""The settings of a sampler as one object, and sampling under them."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from logitlab import _arrays, _checks, _dispatch, _tracing
from logitlab._backends import native_sampling
from logitlab._backends.reference_sampling import Stage, Words, truncates
from logitlab.probabilities import log_softmax
from logitlab.sampling import settings as rules
from logitlab.sampling.calls import (
    Call,
    Draws,
    check_call,
    check_dynamic_temperature,
    check_samples,
    for_decisions,
    to_library_of,
    with_probability,
)
from logitlab.sampling.draws import (
    Key,
    check_rng,
    check_row_keys,
    generator_key,
    without_replacement,
    xtc_decisions,
)
from logitlab.sampling.log_probs import log_prob_of_classes
from logitlab.sampling.requests import settings_of_request
from logitlab.support import Support


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Sampler:
    """The settings of a sampler: temperature, the stages of truncation and their order.

    Each setting is one number or an array with one for each row. A stage at its neutral value (the
    default) keeps every class. The stages apply one after another: each uses the distribution,
    renormalized, of the classes that the stages before it kept.

    Parameters
    ----------
    temperature : float or array
        T: a scalar, or one value for each row.
    top_k : int or array of int, optional
        Keep the k most probable classes and all that are tied with the k-th, k >= 1.
    top_p : float or array
        Keep the smallest set of most probable classes whose total probability is at least p, in
        (0, 1].
    min_p : float or array
        Keep the classes whose probability is at least `min_p` times the largest, in [0, 1].
    typical_p : float or array
        Locally typical sampling: keep the smallest set of classes whose -log p is closest to the
        entropy and whose total probability is at least `typical_p`, in (0, 1], and their ties.
    epsilon : float or array
        Keep the classes of probability at least `epsilon`, in [0, 1], and the most probable.
    eta : float or array
        Keep the classes of probability at least min(eta, sqrt(eta) exp(-entropy)), eta in [0, 1],
        and the most probable.
    top_n_sigma : float or array
        Keep the logits that are at most n standard deviations below the largest, n >= 0.
    top_a : float or array
        Keep the classes of probability at least a times the square of the largest, a in [0, 1].
    xtc_probability, xtc_threshold : float or array
        With this probability, remove all classes of probability at least `xtc_threshold` but the
        least probable of them. Both in [0, 1].
    dynatemp_range, dynatemp_exponent : float or array
        Dynamic temperature: T is from max(0, temperature - range) to temperature + range, where the
        normalized entropy to the power of the exponent is from 0 to 1. A range of 0 turns it off.
    order : {"transformers", "vllm", "llama.cpp", "sglang"} or list of str
        The order of the stages. Those that an engine does not have follow its own. A list holds
        the names of the stages in use: "temperature", "top_k", "top_p", "min_p", "typical_p",
        "epsilon", "eta", "top_n_sigma", "top_a" and "xtc".

    Raises
    ------
    TypeError
        A setting is not a number or an array of numbers.
    ValueError
        A setting is outside of its range; the order is unknown or lacks a stage in use.

    See Also
    --------
    truncate, sample, sample_with_log_prob : the functions, which take the same settings.

    Examples
    --------
    >>> import logitlab
    >>> sampler = logitlab.Sampler(temperature=0.8, top_k=50, min_p=0.05, order="vllm")
    >>> sampler
    Sampler(temperature=0.8, top_k=50, min_p=0.05, order='vllm')
    >>> sampler.truncate([1.0, 4.0, 2.0, 2.0])
    array([-inf,   4.,   2.,   2.])
    >>> sampler.sample([1.0, 4.0, 2.0, 2.0], 8, rng=0)
    array([1, 1, 1, 1, 1, 1, 1, 3])
    >>> logitlab.Sampler.from_json(sampler.to_json()) == sampler
    True
    """

    temperature: Any = 1.0
    top_k: Any = None
    top_p: Any = 1.0
    min_p: Any = 0.0
    typical_p: Any = 1.0
    epsilon: Any = 0.0
    eta: Any = 0.0
    top_n_sigma: Any = math.inf
    top_a: Any = 0.0
    xtc_probability: Any = 0.0
    xtc_threshold: Any = 0.1
    dynatemp_range: Any = 0.0
    dynatemp_exponent: Any = 1.0
    order: Any = "transformers"

    def __post_init__(self) -> None:
        for name, setting in rules.SETTINGS.items():
            object.__setattr__(self, name, rules.check_setting(name, getattr(self, name), setting))
        object.__setattr__(self, "order", rules.check_order(self.order))
        object.__setattr__(self, "temperature", rules.check_temperature(self.temperature))
        rules.check_names(self._settings)

    @property
    def _settings(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _changed(self) -> dict[str, Any]:
        """The settings that differ from the defaults, as numbers and lists."""
        changed = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if hasattr(value, "shape"):
                host = _arrays.on_host(value, field.name)
                value = (host + 0.0 if field.name == "temperature" else host).tolist()
            if value != field.default:
                changed[field.name] = value
        return changed

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self._changed().items())
        return f"Sampler({settings})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sampler) and self._changed() == other._changed()

    def __hash__(self) -> int:
        return hash(self.to_json())

    def to_json(self) -> str:
        """The settings that differ from the defaults.

        Returns
        -------
        str
            A JSON object, for :meth:`from_json`; infinity is "inf".
        """

        def encoded(x: Any) -> Any:
            if isinstance(x, list | tuple):
                return [encoded(entry) for entry in x]
            return str(x) if isinstance(x, float) and math.isinf(x) else x

        return json.dumps({name: encoded(value) for name, value in self._changed().items()})

    @classmethod
    def from_json(cls, text: str) -> "Sampler":
        """The sampler of a JSON object, as :meth:`to_json` writes it.

        Raises
        ------
        ValueError
            The text is not a JSON object, or has an unknown setting; as :class:`Sampler`.
        """

        def decoded(x: Any) -> Any:
            if isinstance(x, list):
                return [decoded(entry) for entry in x]
            return float(x) if x in ("inf", "-inf") else x

        settings = json.loads(text)
        if not isinstance(settings, dict):
            raise ValueError(f"text must be a JSON object, got {text!r}")
        if unknown := [name for name in settings if name not in _NAMES]:
            raise ValueError(f"text must have settings of {', '.join(_NAMES)}, got {unknown[0]!r}")
        return cls(**{name: decoded(value) for name, value in settings.items()})

    @classmethod
    def from_request(cls, request: Mapping[str, Any], engine: str = "openai") -> "Sampler":
        """The sampler of a request in the JSON format of an inference engine.

        Parameters
        ----------
        request : dict
            The body of a request, such as `{"temperature": 0.7, "top_k": -1}`. Values that turn
            a stage off in the engine do so here. Settings that are missing have the engine's
            defaults, but `do_sample` is True. Those that do not concern sampling (`model`,
            `max_tokens`, `stop`, ...) are ignored.
        engine : {"openai", "vllm", "sglang", "transformers", "llama.cpp"}
            The engine whose conventions and order of stages the request has.

        Raises
        ------
        ValueError
            A setting is unknown, or one that a Sampler does not have, such as those of
            :func:`penalize`, is not at its neutral value; the temperature is negative, but for
            llama.cpp, where it selects the largest of the logits that are left, as 0 does, unless
            `dynatemp_range` is larger than its magnitude; as :class:`Sampler`.

        Examples
        --------
        >>> import logitlab
        >>> request = {"model": "m", "temperature": 0.7, "top_p": 0.9, "top_k": -1}
        >>> logitlab.Sampler.from_request(request, engine="vllm")
        Sampler(temperature=0.7, top_p=0.9, order='vllm')
        """
        return cls(**settings_of_request(request, engine))

    @_dispatch.breaks_graph
    def truncate(
        self, z: Any, axis: int = -1, *, where: Any = None, rng: Any = None, row_keys: Any = None
    ) -> Any:
        """Logits with the removed classes set to -inf.

        Parameters
        ----------
        z, axis, where, rng, row_keys
            As in :func:`logitlab.truncate`.

        Returns
        -------
        array, shape of z
            Of the array type and dtype of z.
        """
        if (sharded := _dispatch.sharded("truncate", z, axis)) is not None:
            return sharded(z, axis=axis, where=where, **self._settings)
        return self._truncate(z, axis, where, rng, row_keys)[0]

    def _truncate(
        self, z: Any, axis: int = -1, where: Any = None, rng: Any = None, row_keys: Any = None
    ) -> tuple[Any, Any]:
        """Logits with the removed classes set to -inf, and the temperature."""
        call = check_call(z, axis, self.temperature, where)
        draws = None
        if self._is_random:
            draws = self._draws(call, 1, True, rng, row_keys)
        else:
            check_rng(rng)
            if row_keys is not None:
                check_row_keys(row_keys, call.batch)
        has_xtc = None if draws is None or draws.has_xtc is None else draws.has_xtc[:, 0]
        request = call.request
        xp = array_namespace(request.z)
        kept, temperature = self._keep(call, self._stages(call, has_xtc))
        device = getattr(request.z, "device", None)
        excluded = xp.asarray(-xp.inf, dtype=request.z.dtype, device=device)
        return request.restore(xp.where(kept, request.z, excluded)), temperature

    def _scores(self, z: Any, *, rng: Any = None, row_keys: Any = None) -> Any:
        """Logits over T, with the removed classes set to -inf: the softmax is the distribution.

        In rows where T is 0, infinite or negative they are log-probabilities.
        """
        truncated, temperature = self._truncate(z, rng=rng, row_keys=row_keys)
        xp = array_namespace(truncated)
        host = np.array(_arrays.on_host(temperature, "temperature"), np.float64)  # writable
        t = xp.astype(to_library_of(truncated, host[..., None]), truncated.dtype)
        divides = (t > 0) & xp.isfinite(t)
        scaled = truncated / xp.where(divides, t, xp.ones_like(t))
        if xp.all(divides):
            return scaled
        return xp.where(divides, scaled, log_softmax(truncated, temperature=temperature))

    def _keep(self, call: Call, stages: list[Stage]) -> tuple[Any, Any]:
        """The mask of the kept classes, and the temperature: of each row if it is dynamic."""
        mask, rows = native_sampling.keep(*call.arguments, stages)
        z = call.request.z
        t = self.temperature if rows is None else to_library_of(z, rows.reshape(call.batch))
        return to_library_of(z, mask), t

    @_dispatch.breaks_graph
    def sample(
        self,
        z: Any,
        n: int | None = None,
        axis: int = -1,
        *,
        where: Any = None,
        replacement: bool = True,
        rng: Any = None,
        row_keys: Any = None,
    ) -> Any:
        """Samples of each row.

        Parameters
        ----------
        z, n, axis, where, replacement, rng, row_keys
            As in :func:`logitlab.sample`.

        Returns
        -------
        array of int64, shape of z without the class axis, with n as a new last axis
            Indices along the class axis.
        """
        if _tracing.is_traced_by_jax(z, self.temperature, where, rng, row_keys):
            return self._sample_traced(z, n, axis, where, replacement, rng, row_keys)
        plain = replacement is True and where is None and row_keys is None
        if plain and (stages := self._plain_stages) is not None:
            arguments = z, axis, self.temperature, stages, generator_key, rng, n
            found = native_sampling.plain_sample(*arguments)
            if found is not None:
                return found
        if (sharded := _dispatch.sharded("sample", z, axis)) is not None:
            options = {"where": where, "replacement": replacement, "row_keys": row_keys}
            return sharded(z, n, axis=axis, rng=rng, **options, **self._settings)
        call = check_call(z, axis, self.temperature, where)
        indices, _ = self._sample_indices(call, n, replacement, rng, row_keys)
        return _arrays.scalar(to_library_of(call.request.z, indices))

    @_dispatch.breaks_graph
    def sample_with_log_prob(
        self,
        z: Any,
        n: int | None = None,
        axis: int = -1,
        *,
        where: Any = None,
        replacement: bool = True,
        rng: Any = None,
        row_keys: Any = None,
    ) -> tuple[Any, Any]:
        """Samples of each row and their log-probabilities.

        Parameters
        ----------
        z, n, axis, where, replacement, rng, row_keys
            As in :func:`logitlab.sample`.

        Returns
        -------
        indices, log_prob : array
            As of :func:`logitlab.sample_with_log_prob`.
        """
        if (sharded := _dispatch.sharded("sample_with_log_prob", z, axis)) is not None:
            options = {"where": where, "replacement": replacement, "row_keys": row_keys}
            result: tuple[Any, Any] = sharded(z, n, axis=axis, rng=rng, **options, **self._settings)
            return result
        call = check_call(z, axis, self.temperature, where)
        indices, draws = self._sample_indices(call, n, replacement, rng, row_keys)
        request = call.request
        xp = array_namespace(request.z)
        classes = indices.reshape(*call.batch, draws.n)

        def log_prob_of(has_xtc: Any) -> Any:
            kept, temperature = where, self.temperature
            stages = self._stages(call, has_xtc)
            if truncates(stages):
                mask, temperature = self._keep(call, stages)
                kept = request.restore(mask)
            z = request.restore(request.z)
            return log_prob_of_classes(z, axis, temperature, kept, classes)

        log_prob = for_decisions(draws.has_xtc, log_prob_of, xp, request.z)
        log_prob = xp.reshape(log_prob, indices.shape)
        return _arrays.scalar(to_library_of(request.z, indices)), _arrays.scalar(log_prob)

    @_dispatch.breaks_graph
    def sample_with_support(
        self,
        z: Any,
        n: int | None = None,
        axis: int = -1,
        *,
        where: Any = None,
        replacement: bool = True,
        rng: Any = None,
        row_keys: Any = None,
    ) -> tuple[Any, Support]:
        """Samples of each row and the classes that they are from.

        Parameters
        ----------
        z, n, axis, where, replacement, rng, row_keys
            As in :func:`logitlab.sample`.

        Returns
        -------
        tokens : array of int64
        support : Support
            As of :func:`logitlab.sample_with_support`.
        """
        if self._has_dynamic_temperature:
            raise ValueError("dynatemp_range must be 0 for a support, which holds no temperature")
        call = check_call(z, axis, self.temperature, where)
        indices, draws = self._sample_indices(call, n, replacement, rng, row_keys)
        has_xtc = draws.has_xtc
        if has_xtc is not None and has_xtc.shape[1] > 1:
            raise ValueError(
                "n must be None or 1 for a support with xtc_probability between 0 and 1, "
                f"got {draws.n}"
            )
        stages = self._stages(call, None if has_xtc is None else has_xtc[:, 0])
        kept, _ = native_sampling.keep(*call.arguments, stages)
        mask = to_library_of(call.request.z, with_probability(kept, call))
        tokens = _arrays.scalar(to_library_of(call.request.z, indices))
        return tokens, Support.from_mask(mask, call.arguments[1])

    @cached_property
    def _is_random(self) -> bool:
        """Whether XTC is applied to some rows and not to others."""
        return bool(np.any((self.xtc_probability > 0) & (self.xtc_probability < 1)))

    def _draws(self, call: Call, count: int, replacement: bool, rng: Any, row_keys: Any) -> Draws:
        keys = check_row_keys(row_keys, call.batch)
        if count * len(keys) >= 2**60:
            raise MemoryError(f"{len(keys)} x {count} samples do not fit in memory")
        return self._draws_of_key(call, count, replacement, generator_key(rng), keys)

    def _draws_of_key(
        self, call: Call, count: int, replacement: bool, key: Key, keys: Words
    ) -> Draws:
        has_xtc = None
        if self._is_random:
            probability = rules.rows_of("xtc_probability", self.xtc_probability, call.batch)
            # Without replacement, the samples of a row have one truncation.
            has_xtc = xtc_decisions(probability, key, keys, count if replacement else 1)
        return Draws(key if replacement else without_replacement(key), keys, count, has_xtc)

    @cached_property
    def _has_dynamic_temperature(self) -> bool:
        return bool(np.any(self.dynatemp_range != 0))

    @cached_property
    def _stages_of_any_row(self) -> list[Stage] | None:
        """The stages, unless they depend on the row."""
        if any(isinstance(value, np.ndarray) for value in self._settings.values()):
            return None
        return rules.stages_of(self._settings, (), None)

    @cached_property
    def _plain_stages(self) -> native_sampling.KernelStages | None:
        """The stages of every row, unless they depend on the row or on random decisions."""
        if self._is_random or self._has_dynamic_temperature or self._stages_of_any_row is None:
            return None
        return native_sampling.kernel_stages(self._stages_of_any_row)

    def _stages(self, call: Call, has_xtc: Any) -> list[Stage]:
        if self._has_dynamic_temperature:
            check_dynamic_temperature(call, self.dynatemp_range)
        if has_xtc is None and (stages := self._stages_of_any_row) is not None:
            return stages
        return rules.stages_of(self._settings, call.batch, has_xtc)

    def _sample_indices(
        self, call: Call, n: Any, replacement: Any, rng: Any, row_keys: Any
    ) -> tuple[NDArray[np.int64], Draws]:
        """Sampled indices of shape batch + (n,), or of the batch shape if n is None."""
        count = 1 if n is None else _checks.integer(n, "n", 1)
        replacement = _checks.boolean(replacement, "replacement")
        draws = self._draws(call, count, replacement, rng, row_keys)
        indices = self._indices_of_draws(call, replacement, draws)
        check_samples(indices, call, replacement)
        return indices.reshape(call.batch if n is None else (*call.batch, count)), draws

    def _indices_of_draws(self, call: Call, replacement: bool, draws: Draws) -> NDArray[np.int64]:
        """Sampled indices of shape (rows, n), -1 where there is no category to sample."""

        def sample(has_xtc: Any) -> Any:
            stages = self._stages(call, has_xtc)
            return native_sampling.sample(
                *call.arguments, stages, draws.n, replacement, draws.key, draws.row_keys
            )

        indices: NDArray[np.int64] = for_decisions(draws.has_xtc, sample, np, call.arguments[0])
        return indices

    def _sample_traced(
        self, z: Any, n: Any, axis: Any, where: Any, replacement: Any, rng: Any, row_keys: Any
    ) -> Any:
        from logitlab.sampling import traced

        count = 1 if n is None else _checks.integer(n, "n", 1)
        replacement = _checks.boolean(replacement, "replacement")
        call = traced.check_call(z, axis, self.temperature, where, rng, row_keys)
        if self._has_dynamic_temperature:
            traced.check_dynamic_temperature(call, self.dynatemp_range)
        stages = rules.stages_of(self._settings, call.batch, None)

        def on_host(call: Call, key: Key, row_keys: Words) -> NDArray[np.int64]:
            draws = self._draws_of_key(call, count, replacement, key, row_keys)
            return self._indices_of_draws(call, replacement, draws)

        has_formula = replacement and not truncates(stages)
        return call.restore(traced.sample(call, count, on_host, has_formula), n)


_NAMES = dict.fromkeys(field.name for field in fields(Sampler))
_HASHABLE = frozenset({int, float, str, type(None)})


def check_sampler(sampler: Any) -> Sampler:
    if not isinstance(sampler, Sampler):
        raise TypeError(f"sampler must be a logitlab.Sampler, got {type(sampler).__name__}")
    return sampler


def check_one_row(sampler: Sampler) -> Sampler:
    """Refuse settings that have no distribution of one row."""
    for name, value in sampler._settings.items():
        if getattr(value, "ndim", 0):
            raise ValueError(f"{name} must be one number, got shape {tuple(value.shape)}")
    sampler.truncate(np.zeros(2))  # the temperature with dynatemp_range
    return sampler


def sampler_of(function: str, /, **settings: Any) -> Sampler:
    """The sampler of the settings of a function; that of numbers is made once."""
    if not settings.keys() <= _NAMES.keys():
        unknown = next(name for name in settings if name not in _NAMES)
        raise TypeError(
            f"{function}() got an unexpected keyword argument {unknown!r}; "
            f"the settings are {', '.join(_NAMES)}"
        )
    if _HASHABLE.issuperset(map(type, settings.values())):
        return _sampler_of_numbers(**settings)
    return Sampler(**settings)


@lru_cache(maxsize=64, typed=True)
def _sampler_of_numbers(**settings: Any) -> Sampler:
    return Sampler(**settings)
