"""`check_sampler`: the laws of samplers and of speculative verification."""

from collections.abc import Callable, Sequence
from typing import Any

from logitlab import _checks
from logitlab.laws.report import LawReport


def check_sampler(
    function: Callable[..., Any],
    *,
    laws: Sequence[str] | None = None,
    seed: int = 0,
    strict: bool = False,
    array_library: str | None = None,
    name: str | None = None,
) -> LawReport:
    r"""Conformance of a sampler, or of a speculative verifier, to the laws of sampling.

    Frequencies are tested against exact probabilities after exact truncation. The probability that
    a correct function fails any law is at most 1e-6: each of the tests has an equal part of it
    (Bonferroni), and its p-value is a bound for multinomial counts [1]_ that holds for every number
    of samples. The report says how many tests there are.

    Parameters
    ----------
    function : callable
        A sampler ``function(logits, n, seed=0, temperature=1.0, top_k=3, top_p=0.9, min_p=0.1)``:
        float32 logits of shape (N, K) give n tokens for each row, of shape (N, n). Every parameter
        but the logits may be missing: the laws about it are not applicable. A function with
        ``**keywords`` is taken to have all settings. Without ``n``
        (also ``num_samples``, ``n_samples``, ``size``) it returns one token for each row. In place
        of ``seed`` it may have ``rng`` or ``random_state``, which get a
        :class:`numpy.random.Generator`, or ``generator``, which gets a ``torch.Generator``.

        A function with a parameter whose name starts with ``draft`` is a verifier
        ``function(target_logits, draft_logits, draft_tokens, seed=0)``: logits of shape
        (N, S + 1, K) and (N, S, K) and int64 tokens of shape (N, S) give how many draft tokens are
        accepted and the token after them, both of shape (N,).
    laws : sequence of str, optional
        The names of the laws to check; by default all.
    seed : int
        The first seed; the calls use it and those after it.
    strict : bool
        Whether a convention that differs is a failure.
    array_library : str, optional
        The library of the arrays to call the function with: numpy, torch, jax, tensorflow, cupy,
        or torch:DEVICE. By default NumPy, or the first imported library that the function takes.
    name : str, optional
        The name of the function in the code of the counterexamples.

    Returns
    -------
    LawReport
        True where no law of mathematics fails, so ``assert check_sampler(function)`` is a test.

    Raises
    ------
    TypeError
        `function` is not callable, has no signature, or does not return tokens for small logits;
        `seed` is not an int; `laws` is not a list.
    ValueError
        An unknown law or array library.

    References
    ----------
    .. [1] R. Agrawal, Finite-sample concentration of the multinomial in relative entropy, IEEE
       Trans. Inf. Theory 66, 2020.

    Examples
    --------
    >>> import numpy as np
    >>> import logitlab
    >>> def greedy(logits, n, seed=0, temperature=1.0):
    ...     return np.repeat(logits.argmax(axis=-1)[:, None], n, axis=1)
    >>> report = logitlab.check_sampler(greedy, laws=["support", "frequencies", "top_p"])
    >>> report.failures
    ['frequencies']
    >>> report["top_p"].note
    'the function has no parameter for top_p'
    >>> bool(logitlab.check_sampler(logitlab.sample, laws=["support", "frequencies", "top_p"]))
    True
    """
    from logitlab.laws import sampler_evaluation, sampler_laws, verifier_laws
    from logitlab.laws.tested_sampler import TestedSampler, TestedVerifier, is_verifier

    seed = _checks.integer(seed, "seed", 0)
    verifies = is_verifier(function)
    known = verifier_laws.LAWS if verifies else sampler_laws.LAWS
    _checks.names(laws, "laws", [law.name for law in known])
    kind = TestedVerifier if verifies else TestedSampler
    tested = kind(function, array_library, name)
    selected = [law for law in known if laws is None or law.name in laws]
    results, n_tests = sampler_evaluation.evaluate(tested, selected, seed)
    return LawReport(
        function=tested.name,
        array_library=tested.library.name,
        computes="speculative verification" if verifies else "sampling",
        dtypes=(),
        results=tuple(results),
        strict=strict,
        note=f"probability of a false alarm at most {sampler_evaluation.FALSE_ALARMS:g} in all "
        f"{n_tests} tests together",
    )
