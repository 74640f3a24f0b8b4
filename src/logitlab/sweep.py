"""Distributions of one row of logits at several temperatures, and samples from each of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from logitlab import _arrays, _checks, _registry
from logitlab._arrays import bincount
from logitlab._rows import Floats, Integers, as_row
from logitlab.divergences import entropy
from logitlab.probabilities import softmax
from logitlab.sampling import sample

MAX_SAMPLES = 10**8  # the frequencies of so many have standard errors below 0.00005


@dataclass(frozen=True)
class TemperatureSweep:
    """Result of :func:`temperature_sweep` for M temperatures and K classes.

    Attributes
    ----------
    temperatures : array, shape (M,)
        The temperatures.
    n : int
        Number of samples at each temperature.
    probabilities : array, shape (M, K)
        softmax(z / T).
    counts : array of int, shape (M, K)
        Number of samples of each class.
    frequencies : array, shape (M, K)
        Relative frequencies: counts / n.
    standard_error : array, shape (M, K)
        Standard errors of the frequencies, sqrt(p (1 - p) / n).
    entropy : array, shape (M,)
        Shannon entropies of the probabilities, in nats.
    """

    temperatures: Floats
    n: int
    probabilities: Floats
    counts: Integers
    frequencies: Floats
    standard_error: Floats
    entropy: Floats

    def plot(self, *, names: Sequence[str] | None = None, ax: Any = None) -> Any:
        """Draw the sweep with :func:`logitlab.plot.temperature_sweep`."""
        return _registry.module("plot").temperature_sweep(self, names=names, ax=ax)


def temperature_sweep(
    z: ArrayLike, temperatures: ArrayLike, *, n: int = 1000, rng: Any = None
) -> TemperatureSweep:
    r"""Probabilities, samples and entropy of one row of logits at several temperatures.

    Parameters
    ----------
    z : array, shape (K,)
        One row of logits, in any array type that :func:`logitlab.softmax` accepts.
    temperatures : array, shape (M,)
        Temperatures: any real numbers, 0, infinite and negative ones included.
    n : int
        Number of samples at each temperature; at most 10^8 in total.
    rng : int, numpy.random.Generator or None
        As in :func:`logitlab.sample`.

    Returns
    -------
    TemperatureSweep
        ``temperatures``, ``n``, ``probabilities``, ``counts``, ``frequencies``,
        ``standard_error`` of the frequencies (:math:`\sqrt{p(1-p)/n}`) and ``entropy`` (nats), with
        a row for each temperature; ``.plot()`` draws them.

    Raises
    ------
    TypeError, ValueError
        `z` is not one row; `temperatures` is not a list of numbers; `n` is below 1 or too large;
        as :func:`logitlab.sample`.

    Examples
    --------
    >>> import logitlab
    >>> sweep = logitlab.temperature_sweep([2, 1, 3, 5, 4], [0.1, 1, 10], n=1000, rng=0)
    >>> sweep.probabilities.round(4)
    array([[0.    , 0.    , 0.    , 1.    , 0.    ],
           [0.0317, 0.0117, 0.0861, 0.6364, 0.2341],
           [0.1792, 0.1621, 0.198 , 0.2419, 0.2188]])
    >>> sweep.entropy.round(3)
    array([0. , 1. , 1.6])
    """
    row, t = as_row(z), _arrays.list_of_reals(temperatures, "temperatures")
    n = _checks.integer(n, "n", 1)
    if n * len(t) > MAX_SAMPLES:
        raise ValueError(f"n must be <= {MAX_SAMPLES // len(t)} for {len(t)} temperatures, got {n}")
    rows = np.broadcast_to(row, (len(t), len(row)))
    samples = sample(rows, n, temperature=t, rng=rng)
    cells = samples + len(row) * np.arange(len(t))[:, None]
    counts = bincount(cells.ravel(), minlength=rows.size).reshape(rows.shape)
    p = softmax(rows, temperature=t)
    standard_error = np.sqrt(p * (1 - p) / n)
    return TemperatureSweep(
        t, n, p, counts, counts / n, standard_error, entropy(rows, temperature=t)
    )
