"""Truncation and sampling of rows whose classes are sharded."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logitlab import _arrays, _checks
from logitlab._backends import native_sampling
from logitlab._backends.reference_sampling import (
    Stage,
    Words,
    philox,
    stages_of_rows,
    truncates,
    uniforms,
)
from logitlab.parallel import _candidates as candidates
from logitlab.parallel._chunk_samples import sample_chunks
from logitlab.parallel._group import agreed, digest, shards_of
from logitlab.parallel._rows import Rows, check_request, describe, own_classes, shard_rows
from logitlab.parallel._sums import CHUNK
from logitlab.sampling import settings as rules
from logitlab.sampling.draws import Key, check_row_keys, generator_key
from logitlab.sampling.sampler import Sampler, sampler_of

_FIRST = ("top_k", "top_p", "min_p")
_LARGEST = 1e300  # of logits and temperatures, beyond which rows are gathered
_ALL_CLASSES = 1 << 31  # of top-k, which removes only entries of -inf


class Request(NamedTuple):
    """The checked arguments of a call."""

    rows: Rows
    stages: list[Stage]
    key: Key
    row_keys: Words


class Part(NamedTuple):
    """Some rows of a request, as entries that hold all that the truncation keeps."""

    numbers: NDArray[np.int64]  # of the rows
    z: NDArray[Any]  # (R, W)
    t: NDArray[np.float64]  # (R, 1)
    stages: list[Stage]
    classes: NDArray[np.int64] | None  # (R, W); None where W is all classes
    own: slice  # of W: those of this rank
    local: Tensor | None  # (R, length of own): the columns in the shard


def check_call(
    function: str,
    settings: dict[str, Any],
    z: Any,
    axis: Any,
    where: Any,
    rng: Any,
    row_keys: Any,
    group: Any,
    n: Any = None,
) -> Request:
    def check() -> Any:
        sampler = sampler_of(function, **settings)
        if n is not None:
            _checks.integer(n, "n", 1)
        request = check_request(z, axis, sampler.temperature, where)
        batch = tuple(s for a, s in enumerate(request.z.shape) if a not in request.axes)
        stages = _check_stages(sampler, request, batch)
        keys = check_row_keys(row_keys, batch)
        key = generator_key(rng)
        own = own_classes(request) | {"key": f"{key[0]} {key[1]}"}
        common = describe(function, request, row_keys=keys, n=n) | {
            name: digest(value)
            for name, value in sampler._settings.items()
            if name != "temperature"
        }
        common["rng"] = "None" if rng is None else own["key"]
        return (request, stages, keys), common, own

    (request, stages, keys), ranks = agreed(group, check)
    # Without a seed, all ranks use the random key of the first.
    first, second = map(int, ranks[0]["key"].split())
    rows = shard_rows(request, shards_of(group, ranks))
    return Request(rows, stages, (first, second), keys)


def _check_stages(
    sampler: Sampler, request: _arrays.Request, batch: tuple[int, ...]
) -> list[Stage]:
    for name, neutral in (("xtc_probability", 0), ("dynatemp_range", 0)):
        if np.any(getattr(sampler, name) != neutral):
            raise ValueError(f"{name} must be {neutral} for sharded logits")
    stages = rules.stages_of(sampler._settings, batch, None)
    names = [stage.name for stage in stages]
    t = request.temperature
    negative = t < 0 if isinstance(t, float) else bool((t < 0).any())
    if negative and "temperature" in names and names.index("temperature") > 0:
        raise ValueError("temperature must be >= 0 for sharded logits if a stage comes before it")
    count = int(np.prod(batch))
    first = np.full(count, "", object)
    for stage in stages:
        if stage.name != "temperature":
            first[(first == "") & _is_in_use(stage, count)] = stage.name
    wrong = [row for row, name in enumerate(first) if name and name not in _FIRST]
    if wrong:
        raise ValueError(
            "the first stage must be top_k, top_p or min_p for sharded logits, "
            f"got {first[wrong[0]]} in row {wrong[0]}"
        )
    return stages


def _is_in_use(stage: Stage, rows: int) -> NDArray[np.bool_]:
    """The rows in which a stage may remove an entry."""
    neutral = rules.SETTINGS[stage.name].neutral
    value = np.broadcast_to(stage.values[0], rows)
    limit = float(1 << 32) if neutral is None else neutral
    return np.asarray(value < limit if neutral is None else value != limit)


def parts(request: Request, *, samples: bool) -> list[Part]:
    """The rows that are truncated, in parts of which all ranks have the same entries.

    With `samples`, also those that are not sampled by chunks; a row without a distribution is then
    an error.
    """
    rows, stages, *_ = request
    z, t, shards = rows.z.detach(), rows.t, rows.shards
    count = len(z)
    if not count or not (samples or truncates(stages)):
        return []
    if shards.classes <= CHUNK:
        return [_whole(request, torch.arange(count, device=z.device))]
    m = candidates.largest_entries(z, shards)
    undefined = m.isnan() | (m == -torch.inf)
    if samples and bool(undefined.any()):
        raise no_distribution(int(undefined.int().argmax()), rows.batch)
    m = m.double()
    # Differences of larger entries may overflow.
    is_limit = (m.abs() > _LARGEST) | (t > _LARGEST)
    left = ~undefined & ~is_limit
    whole = is_limit if samples else is_limit & _in_some_stage(stages, count, z.device)
    found = []
    names = [stage.name for stage in stages]
    for i, stage in enumerate(stages):
        if stage.name == "temperature":
            continue
        used = torch.from_numpy(_is_in_use(stage, count)).to(z.device) & left
        left &= ~used
        is_scaled = names.index("temperature") < i
        found += _first_stage(request, stage, used, t if is_scaled else torch.ones_like(t), m)
    if samples:
        found += _first_stage(request, None, left & (t == 0), t, m)
    if bool(whole.any()):
        found.append(_whole(request, torch.nonzero(whole)[:, 0]))
    return found


def _in_some_stage(stages: list[Stage], rows: int, device: torch.device) -> Tensor:
    used = np.zeros(rows, bool)
    for stage in stages:
        if stage.name != "temperature":
            used |= _is_in_use(stage, rows)
    return torch.from_numpy(used).to(device)


def _first_stage(
    request: Request, stage: Stage | None, used: Tensor, t: Tensor, m: Tensor
) -> list[Part]:
    """The parts of the rows that a stage is the first to truncate, at the temperatures t; of no
    stage, those at T = 0. m is the largest entry of each row."""
    found = []
    greedy = used & (t == 0)
    if bool(greedy.any()):
        found.append(_of_top_k(request, torch.nonzero(greedy)[:, 0], 1))
    numbers = torch.nonzero(used & ~greedy)[:, 0]
    if stage is None or not len(numbers):
        return found
    value = candidates.rows_of_setting(stage.values[0], numbers)
    if stage.name == "top_k":
        part = _of_top_k(request, numbers, value.long())
    elif stage.name == "min_p":
        z = request.rows.z.detach()[numbers]
        mask = candidates.min_p_mask(z, value, t[numbers], m[numbers])
        part = _of_mask(request, numbers, mask)
    else:
        part = _of_top_p(request, numbers, value, t[numbers], m[numbers])
    return [*found, part]


def no_distribution(number: int, batch: tuple[int, ...]) -> ValueError:
    label = _checks.row_label(tuple(map(int, np.unravel_index(number, batch)))) if batch else "z"
    return ValueError(f"{label} has no distribution: it contains NaN, or no category is left")


def _host(x: Tensor) -> NDArray[Any]:
    return _arrays.on_host(x.detach(), "z")


def _part(request: Request, numbers: Tensor, z: Tensor, stages: list[Stage], **rest: Any) -> Part:
    host = _host(numbers)
    t = _host(request.rows.t[numbers, None])
    return Part(host, _host(z), t, stages_of_rows(stages, host), **rest)


def _whole(request: Request, numbers: Tensor) -> Part:
    shards = request.rows.shards
    z = shards.gather_classes(request.rows.z.detach()[numbers])
    own = slice(shards.start, shards.start + shards.size)
    return _part(request, numbers, z, request.stages, classes=None, own=own, local=None)


def _of_found(
    request: Request, numbers: Tensor, found: candidates.Candidates, stages: list[Stage]
) -> Part:
    # A first stage removes the padding alone, so that the rest is as of the whole row.
    compacting = [Stage("top_k", (float(_ALL_CLASSES),)), *stages]
    classes = _host(found.classes)
    rest = {"classes": classes, "own": found.own, "local": found.local}
    return _part(request, numbers, found.z, compacting, **rest)


def _of_mask(request: Request, numbers: Tensor, mask: Tensor) -> Part:
    z = request.rows.z.detach()[numbers]
    found = candidates.gather_entries(z, mask, request.rows.shards)
    return _of_found(request, numbers, found, request.stages)


def _of_top_k(request: Request, numbers: Tensor, k: Any) -> Part:
    z = request.rows.z.detach()[numbers]
    k = torch.as_tensor(k, device=z.device).expand(len(z))
    return _of_mask(request, numbers, candidates.top_k_mask(z, k, request.rows.shards))


def _of_top_p(request: Request, numbers: Tensor, p: Tensor, t: Tensor, m: Tensor) -> Part:
    z = request.rows.z.detach()[numbers]
    found, kept = candidates.top_p_candidates(z, p, t, m, request.rows.shards)
    others = [stage for stage in request.stages if stage.name != "top_p"]
    part = _of_found(request, numbers, found, others)
    return part._replace(z=np.where(kept, part.z, np.asarray(-np.inf, part.z.dtype)))


def kept_mask(request: Request, found: list[Part]) -> Tensor:
    """The entries of this rank, (R, K of this rank), that the truncation keeps."""
    z = request.rows.z
    kept = torch.ones(z.shape, dtype=torch.bool, device=z.device)
    for part in found:
        mask = native_sampling.keep(part.z, 1, part.t, None, part.stages)[0]
        own = torch.from_numpy(np.ascontiguousarray(mask[:, part.own])).to(z.device)
        if part.local is not None:
            row, place = torch.nonzero(own, as_tuple=True)
            columns = part.local[row, place]
            own = torch.zeros(len(own), z.shape[1], dtype=torch.bool, device=z.device)
            own[row, columns] = True
        kept[torch.from_numpy(part.numbers).to(z.device)] = own
    return kept


def sample_rows(request: Request, n: int, found: list[Part]) -> NDArray[np.int64]:
    """The classes of n samples of each row, (R, n)."""
    rows, _, key, row_keys = request
    result = np.full((len(rows.z), n), -1, np.int64)
    left = np.ones(len(rows.z), bool)
    for part in found:
        result[part.numbers] = _sample_part(part, n, key, row_keys)
        left[part.numbers] = False
    if left.any():
        numbers = torch.from_numpy(np.flatnonzero(left)).to(rows.z.device)
        words = philox(key, row_keys[left][:, None], np.arange(n, dtype=np.uint64))
        z, t = rows.z.detach()[numbers], rows.t[numbers]
        result[left] = sample_chunks(z, t, uniforms(words), rows.shards)
        # Those out of the range of the kernels.
        outside = numbers[torch.from_numpy((result[left] < 0).any(-1)).to(numbers.device)]
        if len(outside):
            part = _whole(request, outside)
            result[part.numbers] = _sample_part(part, n, key, row_keys)
    if (missing := (result < 0).any(-1)).any():
        raise no_distribution(int(missing.argmax()), rows.batch)
    return result


def _sample_part(part: Part, n: int, key: Key, row_keys: Words) -> NDArray[np.int64]:
    keys = np.ascontiguousarray(row_keys[part.numbers])
    z = np.ascontiguousarray(part.z)
    at = native_sampling.sample(z, 1, part.t, None, part.stages, n, True, key, keys)
    if part.classes is None:
        return at
    return np.where(at < 0, -1, np.take_along_axis(part.classes, np.maximum(at, 0), 1))
