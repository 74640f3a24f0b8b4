"""The public functions of truncation and sampling."""

from typing import Any

from logitlab import _dispatch, _tracing
from logitlab._backends import native_sampling
from logitlab.sampling.draws import generator_key
from logitlab.sampling.sampler import sampler_of
from logitlab.support import Support


@_dispatch.breaks_graph
def truncate(
    z: Any,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    rng: Any = None,
    row_keys: Any = None,
    **settings: Any,
) -> Any:
    r"""Logits with the classes that top-k, top-p and other stages remove set to -inf.

    The stages apply one after another: each uses the distribution, renormalized, of the classes
    that the stages before it kept.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, in any array type that :func:`logitlab.softmax` accepts.
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one value for each row. It affects what the stages after it keep; at T < 0
        the smallest logits are the most probable. The result contains entries of z, not of z/T.
    where : array of bool, optional
        Broadcasts to z. Classes where it is False are excluded: they are -inf in the result.
    rng, row_keys
        Random numbers of XTC, as in :func:`sample`: with the same ones, the classes that are kept
        are those that a single sample of each row comes from.
    **settings
        The stages and their order: `top_k`, `top_p`, `min_p`, `typical_p`, `epsilon`, `eta`,
        `top_n_sigma`, `top_a`, `xtc_probability`, `xtc_threshold`, `dynatemp_range`,
        `dynatemp_exponent` and `order`, as in :class:`Sampler`.

    Returns
    -------
    array, shape of z
        Of the array type and dtype of z. In a row without a distribution (NaN, or no class left)
        only the classes excluded by `where` are -inf.

    Raises
    ------
    TypeError
        A setting is not a number or an array of numbers; as :func:`logitlab.softmax`.
    ValueError
        A setting is outside of its range, `order` is unknown; as :func:`logitlab.softmax`.

    References
    ----------
    A. Fan, M. Lewis and Y. Dauphin, "Hierarchical neural story generation", ACL 2018 (top-k).
    A. Holtzman, J. Buys, L. Du, M. Forbes and Y. Choi, "The curious case of neural text
    degeneration", ICLR 2020 (top-p). M. Nguyen et al., "Turning up the heat: min-p sampling for
    creative and coherent LLM outputs", ICLR 2025.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.truncate([1.0, 4.0, 2.0, 2.0], top_k=2)
    array([-inf,   4.,   2.,   2.])
    >>> logitlab.truncate([1.0, 4.0, 2.0, 2.0], top_p=0.8)
    array([-inf,   4.,   2., -inf])
    """
    sampler = sampler_of("truncate", temperature=temperature, **settings)
    return sampler.truncate(z, axis, where=where, rng=rng, row_keys=row_keys)


@_dispatch.breaks_graph
def sample(
    z: Any,
    n: int | None = None,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    replacement: bool = True,
    rng: Any = None,
    row_keys: Any = None,
    **settings: Any,
) -> Any:
    r"""Samples from the categorical distribution softmax(z / T) of each row.

    Inverse-CDF sampling with one 64-bit uniform random number a sample. Sample j of a row depends
    only on the row, its key, the seed and j: not on the batch, the threads or the machine. A
    category of probability 0 is never sampled. The number of categories is not limited.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, in any array type that :func:`logitlab.softmax` accepts.
    n : int, optional
        Number of samples of each row. If None, one sample of each row, without an axis for it.
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one value for each row. T = 0 samples uniformly from the tied maxima.
    where : array of bool, optional
        Broadcasts to z. Classes where it is False are never sampled.
    replacement : bool
        Whether to sample with replacement. Without, the n categories of a row are distinct and in
        the order of successive draws.
    rng : int, numpy.random.Generator, torch.Generator or None
        An int is a seed: every call returns the same samples. A Generator advances, so that the
        next call returns other samples. None uses a random seed. Where JAX traces the call, an int
        or a traced integer.
    row_keys : array of int, shape of z without the class axis, optional
        The key of each row for its random numbers; by default its flat index in the batch. The
        parts of a split batch give the samples of the whole batch if every row keeps its key.
    **settings
        Truncation before sampling, as in :class:`Sampler`.

    Returns
    -------
    array of int64, shape of z without the class axis, with n as a new last axis
        Indices along the class axis, in the array type and on the device of z.

    Raises
    ------
    TypeError
        As :func:`truncate`; `rng` is of another type.
    ValueError
        A row contains NaN or has no category left (the error names the first); `n` is larger than
        the number of categories left, without replacement; as :func:`truncate`.

    Notes
    -----
    The random number generator is Philox4x32-10 (J. K. Salmon et al., "Parallel random numbers: as
    easy as 1, 2, 3", SC11, 2011). Sampling without replacement takes the n largest values of z/T
    plus Gumbel noise (W. Kool, H. van Hoof and M. Welling, "Stochastic beams and where to find
    them", ICML 2019).

    Where JAX traces the call (jit, vmap, grad, scan), z, T, `where`, `rng` and `row_keys` may be
    traced arrays, and the settings of the truncation are fixed. A row without a distribution cannot
    be refused there: its samples are -1, and so are those without a category left, without
    replacement. On the CPU the samples are those of the same call outside of jit. Other platforms
    call the host for a truncation and for samples without replacement, and compute all others
    themselves, as :func:`logitlab.jax.sample`. Under vmap every entry is a call, whose rows are
    numbered from 0.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.sample([2.0, 1.0, 3.0, 5.0, 4.0], 10, rng=0)
    array([3, 3, 3, 3, 3, 3, 3, 4, 3, 3])
    >>> logitlab.sample([[1.0, 2.0], [5.0, 0.0]], temperature=0)
    array([1, 0])
    >>> logitlab.sample([2.0, 1.0, 3.0, 5.0, 4.0], 3, replacement=False, rng=0)
    array([3, 4, 2])
    """
    has_options = settings or replacement is not True or where is not None or row_keys is not None
    # A call of which nothing else can fail, so that one key is drawn.
    has_options = has_options or _tracing.is_traced_by_jax(rng)
    if not has_options:
        found = native_sampling.plain_sample(z, axis, temperature, [], generator_key, rng, n)
        if found is not None:
            return found
    sampler = sampler_of("sample", temperature=temperature, **settings)
    keywords = {"where": where, "replacement": replacement, "rng": rng, "row_keys": row_keys}
    return sampler.sample(z, n, axis, **keywords)


@_dispatch.breaks_graph
def sample_with_log_prob(
    z: Any,
    n: int | None = None,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    replacement: bool = True,
    rng: Any = None,
    row_keys: Any = None,
    **settings: Any,
) -> tuple[Any, Any]:
    r"""Samples as of :func:`sample`, and the log-probabilities of the sampled categories.

    Parameters
    ----------
    z, n, axis, temperature, where, replacement, rng, row_keys, **settings
        As in :func:`sample`.

    Returns
    -------
    indices : array of int64
        As of :func:`sample`.
    log_prob : array, same shape
        Natural logarithms, in the dtype of z, of the probabilities after truncation and
        temperature. Without replacement too they are those of a single draw. For torch tensors
        they are differentiable.

    Raises
    ------
    TypeError, ValueError
        As :func:`sample`.

    Examples
    --------
    >>> import logitlab
    >>> index, log_prob = logitlab.sample_with_log_prob([1.0, 4.0, 4.0, 2.0], top_k=2, rng=0)
    >>> print(index, log_prob.round(4))
    2 -0.6931
    """
    sampler = sampler_of("sample_with_log_prob", temperature=temperature, **settings)
    keywords = {"where": where, "replacement": replacement, "rng": rng, "row_keys": row_keys}
    return sampler.sample_with_log_prob(z, n, axis, **keywords)


@_dispatch.breaks_graph
def sample_with_support(
    z: Any,
    n: int | None = None,
    axis: int = -1,
    *,
    temperature: Any = 1.0,
    where: Any = None,
    replacement: bool = True,
    rng: Any = None,
    row_keys: Any = None,
    **settings: Any,
) -> tuple[Any, Support]:
    r"""Samples as of :func:`sample`, and the classes that they were sampled from.

    The trainer of a policy evaluates its log-probabilities over the classes that the truncation of
    the sampler kept, whatever its own logits are: see :func:`log_prob`.

    Parameters
    ----------
    z, n, axis, temperature, where, replacement, rng, row_keys, **settings
        As in :func:`sample`.

    Returns
    -------
    tokens : array of int64
        As of :func:`sample`.
    support : Support
        The classes of each row that remain after truncation, but those that have no probability at
        any precision: a logit of -inf; at T < 0 of +inf; at T >= 0 a finite one beside +inf; at
        T = 0 all but the tied maxima. Of tensors for a tensor, else of NumPy arrays.

    Raises
    ------
    TypeError
        As :func:`sample`.
    ValueError
        As :func:`sample`; a dynamic temperature, which a support does not hold; several samples of
        a row with an XTC probability between 0 and 1, as each would have its own support.

    Examples
    --------
    >>> import logitlab
    >>> tokens, support = logitlab.sample_with_support([[1.0, 4.0, 4.0, 2.0]], top_k=2, rng=0)
    >>> tokens, support.indices
    (array([2]), array([1, 2], dtype=int32))
    """
    sampler = sampler_of("sample_with_support", temperature=temperature, **settings)
    keywords = {"where": where, "replacement": replacement, "rng": rng, "row_keys": row_keys}
    return sampler.sample_with_support(z, n, axis, **keywords)
