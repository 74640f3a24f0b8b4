"""Sampling in vLLM: a logits processor with the settings of a Sampler for each request."""

import importlib
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from logitlab import Sampler
from logitlab.sampling.sampler import check_one_row

__all__ = ["SamplerProcessor"]

_ALL_CLASSES = 2**32  # of a row, for top_k


def _interface(module: str) -> Any:
    """The base class of logits processors in vLLM, or an empty one where vLLM does not have it."""
    try:
        return importlib.import_module(module).LogitsProcessor
    except ImportError:
        return type("LogitsProcessor", (), {})


_ModelRunnerV1 = _interface("vllm.v1.sample.logits_processor")
_ModelRunnerV2 = _interface("vllm.v1.worker.gpu.sample.logits_processor")


class _Request(NamedTuple):
    sampler: Sampler
    seed: int  # of the decisions of XTC
    output: Sequence[int]  # its tokens so far, in model runner V1


class SamplerProcessor(_ModelRunnerV1, _ModelRunnerV2):  # type: ignore[misc, valid-type]
    """A logits processor of vLLM that applies the settings of a Sampler to single requests.

    vLLM loads it with ``logits_processors=["logitlab.vllm:SamplerProcessor"]``. A request has the
    settings of its Sampler in ``SamplingParams.extra_args["logitlab"]``: a dictionary, or the JSON
    text of :meth:`logitlab.Sampler.to_json`. The logits of other requests remain unchanged.

    vLLM applies it before its own temperature, `min_p`, `top_k` and `top_p`. Turn these off in a
    request with ``temperature=1.0, min_p=0.0, top_k=0, top_p=1.0``; then vLLM samples from the
    distribution of the sampler, with its own random numbers and the `seed` of the request. A greedy
    request (``temperature=0.0``) gets the most probable token that the sampler keeps.

    Parameters
    ----------
    vllm_config, *state
        Passed by vLLM.

    See Also
    --------
    logitlab.Sampler : the settings.

    Notes
    -----
    It implements the interfaces of both model runners: V1 as documented for vLLM 0.29, V2 as for
    0.32. Model runner V1 applies penalties after it, to z / T; model runner V2 before it.
    Model runner V1 refuses it together with speculative decoding.

    The scores of the kept tokens are z / T, those of the others -inf. If T is 0, infinite or
    negative they are log-probabilities. The rows of requests with settings are computed on the
    CPU. The decisions of XTC depend on the `seed` of the request and on the position of the token.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from logitlab.vllm import SamplerProcessor
    >>> params = SimpleNamespace(seed=1, extra_args={"logitlab": {"typical_p": 1.5}})
    >>> SamplerProcessor.validate_params(params)
    Traceback (most recent call last):
        ...
    ValueError: extra_args["logitlab"]: typical_p must be in (0, 1], got 1.5
    """

    def __init__(self, vllm_config: Any = None, *state: Any) -> None:
        self._requests: dict[int, _Request] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Refuse a request with invalid settings.

        Parameters
        ----------
        sampling_params : vllm.SamplingParams
            Of the request.

        Raises
        ------
        ValueError
            The settings are not a JSON object; a setting is unknown, outside of its range or not
            one number.
        """
        _sampler_of(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """Whether greedy requests need no processor. Called by model runner V1.

        Returns
        -------
        bool
            False, as XTC and typical-p may remove the most probable token.
        """
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the changes of the batch. Called by model runner V1.

        Parameters
        ----------
        batch_update : vllm.v1.sample.logits_processor.BatchUpdate or None
            The removed, added and moved requests.
        """
        if batch_update is None:
            return
        for index in batch_update.removed:
            self._requests.pop(index, None)
        for index, sampling_params, _, output in batch_update.added:
            self._add(index, sampling_params, output)
        for source, target, direction in batch_update.moved:
            moved, replaced = self._requests.pop(source, None), self._requests.pop(target, None)
            if moved is not None:
                self._requests[target] = moved
            if direction.name == "SWAP" and replaced is not None:
                self._requests[source] = replaced

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Store the settings of a request. Called by model runner V2.

        Parameters
        ----------
        req_idx : int
            The slot of the request.
        sampling_params : vllm.SamplingParams
            Of the request.

        Returns
        -------
        bool
            Whether the request has settings.
        """
        return self._add(req_idx, sampling_params, ())

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """The logits, changed in place in the rows of the requests with settings.

        Parameters
        ----------
        logits : torch.Tensor, shape (N, K)
            One row for each request in the batch; in model runner V2, one for each draft token
            as well.
        ctx : LogitsContext, optional
            The requests of the rows, in model runner V2.

        Returns
        -------
        torch.Tensor, shape (N, K)
            `logits`.
        """
        if ctx is None:
            requests = self._requests
            positions = {row: len(request.output) for row, request in requests.items()}
        elif any(slot in self._requests for slot in ctx.idx_mapping_np.tolist()):
            slots = ctx.expanded_idx_mapping.tolist()
            requests = {
                row: self._requests[slot]
                for row, slot in enumerate(slots)
                if slot in self._requests
            }
            positions = dict(enumerate(ctx.pos.tolist()))
        else:
            return logits
        by_order = defaultdict(list)
        for row, request in requests.items():
            by_order[request.sampler.order].append(row)
        for rows in by_order.values():
            sampler = _joined([requests[row].sampler for row in rows])
            row_keys = None
            if sampler._is_random:
                row_keys = [_row_key(requests[row].seed, positions[row]) for row in rows]
            index = torch.tensor(rows, device=logits.device)
            logits[index] = sampler._scores(logits[index], rng=0, row_keys=row_keys)
        return logits

    def _add(self, index: int, sampling_params: Any, output: Sequence[int]) -> bool:
        self._requests.pop(index, None)
        sampler = _sampler_of(sampling_params)
        if sampler is None:
            return False
        seed = sampling_params.seed
        if seed is None:
            # vLLM seeds this generator alike in all processes of tensor parallelism, which must
            # make the same decisions.
            seed = int(torch.randint(2**62, ()))
        self._requests[index] = _Request(sampler, seed, output)
        return True


def _sampler_of(sampling_params: Any) -> Sampler | None:
    """The sampler of a request, None if it has no settings."""
    settings = (sampling_params.extra_args or {}).get("logitlab")
    if settings is None:
        return None
    try:
        text = settings if isinstance(settings, str) else json.dumps(settings)
        return check_one_row(Sampler.from_json(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f'extra_args["logitlab"]: {error}') from None


def _joined(samplers: list[Sampler]) -> Sampler:
    """One sampler for rows with these settings, which have the same order."""
    settings = {}
    for name, value in samplers[0]._settings.items():
        values = [getattr(sampler, name) for sampler in samplers]
        if name == "top_k":
            values = [_ALL_CLASSES if x is None else min(x, _ALL_CLASSES) for x in values]
        settings[name] = value if len({*values}) == 1 else np.array(values)
    return Sampler(**settings)


def _row_key(seed: int, position: int) -> int:
    words = np.random.SeedSequence([seed % 2**64, position])
    return int(words.generate_state(1, np.uint64)[0])
