"""Sampling in llama-cpp-python: logits processors with the settings of a Sampler."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitlab import Sampler
from logitlab.sampling.draws import generator_key
from logitlab.sampling.sampler import check_one_row, check_sampler

__all__ = ["SampledTokenProcessor", "SamplerProcessor"]


class SamplerProcessor:
    """A logits processor that applies the temperature and the truncation of a Sampler.

    llama-cpp-python applies logits processors first and its own penalties, grammar, truncation and
    temperature afterwards. Turn its truncation and its temperature off with ``temperature=1.0,
    top_k=0, top_p=1.0, min_p=0.0``. Then it samples from the distribution of the sampler, with the
    random numbers of llama.cpp and its `seed`. With ``temperature=0.0`` it takes the most probable
    token that the sampler keeps.

    Parameters
    ----------
    sampler : Sampler
        The settings, each one number.
    rng : None, int, numpy.random.Generator or torch.Generator
        For the decisions of XTC.

    Raises
    ------
    TypeError
        `sampler` is not a Sampler; `rng` is of another type.
    ValueError
        A setting is an array.

    See Also
    --------
    SampledTokenProcessor : samples with the random numbers of logitlab.

    Notes
    -----
    The scores of the kept tokens are z / T, those of the others -inf. If T is 0, infinite or
    negative they are log-probabilities. A grammar is applied to the tokens that are kept, and
    ``frequency_penalty`` and ``presence_penalty`` are subtracted from z / T, not from z.

    Examples
    --------
    >>> import numpy as np
    >>> from logitlab import Sampler
    >>> from logitlab.llama_cpp import SamplerProcessor
    >>> processor = SamplerProcessor(Sampler(temperature=0.5, top_k=2))
    >>> processor(np.array([7]), np.array([1.0, 4.0, 2.0], np.float32))
    array([-inf,   8.,   4.], dtype=float32)
    """

    def __init__(self, sampler: Sampler, *, rng: Any = None) -> None:
        self.sampler = check_one_row(check_sampler(sampler))
        self._rng = np.random.default_rng(generator_key(rng))

    def __call__(
        self, input_ids: NDArray[np.intc], scores: NDArray[np.single]
    ) -> NDArray[np.single]:
        """The scores, of shape (K,), under the temperature and the truncation."""
        processed: NDArray[np.single] = self.sampler._scores(scores, rng=self._rng)
        return processed


class SampledTokenProcessor(SamplerProcessor):
    """A logits processor that leaves one token, sampled by a Sampler.

    The score of the sampled token is 0, that of the others -inf: llama.cpp takes that token
    whatever its `seed`, its penalties, truncation and temperature. ``temperature=0.0`` skips most
    of them. The same `rng`, logits and sampler give the same tokens. Pass it last, after other
    logits processors, and without a grammar, which llama.cpp applies to the sampled token alone.

    Parameters
    ----------
    sampler : Sampler
        The settings, each one number.
    rng : None, int, numpy.random.Generator or torch.Generator
        The source of random numbers. It advances with every token: for the same completion make
        a new processor with the same int.

    Raises
    ------
    TypeError
        `sampler` is not a Sampler; `rng` is of another type.
    ValueError
        A setting is an array; in a call, the scores have no distribution: they contain NaN, or
        all are -inf.

    See Also
    --------
    SamplerProcessor : the distribution of a Sampler with the random numbers of llama.cpp.

    Notes
    -----
    llama-cpp-python calls processors from compiled code, prints their exceptions and continues
    with unchanged scores.

    Examples
    --------
    >>> import numpy as np
    >>> from logitlab import Sampler
    >>> from logitlab.llama_cpp import SampledTokenProcessor
    >>> processor = SampledTokenProcessor(Sampler(temperature=0.5, top_k=2), rng=0)
    >>> processor(np.array([7]), np.array([1.0, 4.0, 2.0], np.float32))
    array([-inf,   0., -inf], dtype=float32)
    """

    def __call__(
        self, input_ids: NDArray[np.intc], scores: NDArray[np.single]
    ) -> NDArray[np.single]:
        """Scores of shape (K,): 0 for the sampled token, -inf for the others."""
        token = self.sampler.sample(scores, rng=int(self._rng.integers(2**63)))
        left = np.full(len(scores), -np.inf, np.single)
        left[token] = 0.0
        return left
