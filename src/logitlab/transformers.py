"""Sampling in ``generate`` of transformers: a logits processor and a decoding method."""

import copy
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from logitlab import Sampler, _arrays
from logitlab.sampling.draws import generator_key
from logitlab.sampling.sampler import check_sampler

__all__ = ["SamplerProcessor", "generate_tokens"]


class SamplerProcessor(LogitsProcessor):  # type: ignore[misc]
    """A logits processor that applies the temperature and the truncation of a Sampler.

    ``generate`` has settings of its own, which it applies as well: turn them off with
    ``do_sample=True, temperature=1.0, top_k=0, top_p=1.0``. Then it samples from the distribution
    of the sampler, with the random numbers of torch. Settings with one value for each prompt hold
    for all of its sequences (``num_return_sequences``) and beams.

    Parameters
    ----------
    sampler : Sampler
        The settings.
    rng : None, int, numpy.random.Generator or torch.Generator
        For the decisions of XTC.

    Raises
    ------
    TypeError
        `sampler` is not a Sampler; `rng` is of another type.

    See Also
    --------
    generate_tokens : samples with the random numbers of logitlab.

    Notes
    -----
    The scores of the kept classes are z / T, those of the others -inf, as from the processors of
    transformers. In rows where T is 0, infinite or negative they are log-probabilities.

    Examples
    --------
    >>> import torch
    >>> from logitlab import Sampler
    >>> from logitlab.transformers import SamplerProcessor
    >>> processor = SamplerProcessor(Sampler(temperature=0.5, top_k=2))
    >>> processor(torch.tensor([[7]]), torch.tensor([[1.0, 4.0, 2.0]]))
    tensor([[-inf, 8., 4.]])
    """

    def __init__(self, sampler: Sampler, *, rng: Any = None) -> None:
        self.sampler = check_sampler(sampler)
        self._rng = np.random.default_rng(generator_key(rng))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores, of shape (N, K), under the temperature and the truncation."""
        sampler = _for_rows(self.sampler, len(scores))
        return sampler._scores(scores, rng=self._rng)


def generate_tokens(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    *,
    sampler: Sampler,
    rng: Any = None,
    row_keys: Any = None,
    **model_kwargs: Any,
) -> Any:
    """The result of ``model.generate``, with tokens sampled by a Sampler.

    It is the argument `custom_generate` of ``generate``, which takes `sampler`, `rng` and
    `row_keys` as well and passes the rest. The sample of a sequence depends on its logits, `rng`,
    its key and the number of tokens generated before, not on the other sequences. Of the settings
    of ``generate``, temperature and truncation have no effect; penalties, bans, stopping criteria
    and outputs have theirs.

    Parameters
    ----------
    model, input_ids, logits_processor, stopping_criteria, generation_config
        Passed by ``generate``.
    sampler : Sampler
        The settings. One value for each prompt holds for all of its sequences
        (``num_return_sequences``).
    rng : None, int, numpy.random.Generator or torch.Generator
        The source of random numbers. The same int gives the same tokens.
    row_keys : array of int, optional
        Distinct keys of the sequences, one for each; by default their indices in the batch.
    **model_kwargs
        Passed by ``generate``.

    Returns
    -------
    torch.Tensor or transformers.utils.ModelOutput
        As from ``generate`` with ``do_sample=True``. With ``output_scores=True`` the softmax of the
        scores is the distribution that a token is sampled from.

    Raises
    ------
    TypeError
        `sampler` is not a Sampler; `rng` or `row_keys` is of another type.
    ValueError
        Beams; `row_keys` or settings whose shape does not fit the batch; a row without
        distribution.

    See Also
    --------
    SamplerProcessor : the distribution of a Sampler with the random numbers of torch.
    logitlab.sample : the function, with the same `rng` and `row_keys`.

    Notes
    -----
    ``generate`` passes no `streamer` to a `custom_generate` function. Kernels whose logits of a
    sequence change with the size of the batch can change a token where a random number is within
    their rounding of a cumulative probability.

    Examples
    --------
    >>> import torch
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> from logitlab import Sampler
    >>> from logitlab.transformers import generate_tokens
    >>> size = dict(n_layer=1, n_embd=8, n_head=1, vocab_size=20)
    >>> model = GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0)).eval()
    >>> prompts = torch.tensor([[1, 2, 3], [4, 5, 6]])
    >>> tokens = model.generate(
    ...     prompts,
    ...     custom_generate=generate_tokens,
    ...     sampler=Sampler(temperature=0.8, top_p=0.9),
    ...     rng=0,
    ...     min_new_tokens=5,
    ...     max_new_tokens=5,
    ... )
    >>> tokens.shape
    torch.Size([2, 8])
    """
    if (generation_config.num_beams or 1) > 1:
        raise ValueError(f"num_beams must be 1, got {generation_config.num_beams}")
    sampler = _for_rows(check_sampler(sampler), len(input_ids))
    keeps_scores = generation_config.return_dict_in_generate and generation_config.output_scores
    step = _SampledTokens(sampler, rng, row_keys, keeps_scores)
    # The processors of temperature and truncation in transformers are its classes of this name.
    others = [p for p in logits_processor if not type(p).__name__.endswith("LogitsWarper")]
    generation_config = copy.copy(generation_config)
    generation_config.do_sample = False
    output = model._sample(
        input_ids,
        logits_processor=LogitsProcessorList([*others, step]),
        stopping_criteria=stopping_criteria,
        generation_config=generation_config,
        **model_kwargs,
    )
    if keeps_scores:
        # On an accelerator transformers computes one step more than it returns.
        output.scores = tuple(step.scores[: len(output.scores)])
    return output


class _SampledTokens(LogitsProcessor):  # type: ignore[misc]
    """Scores of 0 for a sampled token and of -inf for the others: greedy decoding takes it."""

    def __init__(self, sampler: Sampler, rng: Any, row_keys: Any, keeps_scores: bool) -> None:
        self._sampler = sampler
        self._rng = np.random.default_rng(generator_key(rng))
        self._row_keys = row_keys
        self._keeps_scores = keeps_scores
        self.scores: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        seed = int(self._rng.integers(2**63))
        tokens = self._sampler.sample(scores, rng=seed, row_keys=self._row_keys)
        if self._keeps_scores:
            self.scores.append(self._sampler._scores(scores, rng=seed, row_keys=self._row_keys))
        return torch.full_like(scores, -math.inf).scatter(-1, tokens[:, None], 0.0)


def _for_rows(sampler: Sampler, rows: int) -> Sampler:
    """The sampler with settings of prompts repeated for their sequences, which are adjacent."""
    repeated: dict[str, NDArray[Any]] = {}
    for field in fields(sampler):
        value = getattr(sampler, field.name)
        if getattr(value, "ndim", 0) == 1 and len(value) and rows % len(value) == 0:
            repeated[field.name] = np.repeat(_arrays.on_host(value, field.name), rows // len(value))
    return replace(sampler, **repeated) if repeated else sampler
