"""One row of logits at several temperatures: its distributions, and draws from each of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from logitlab import _arrays, _registry
from logitlab.probabilities import softmax
from logitlab.sampling import sample
from logitlab.scores import entropy

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TemperatureSweep:
    """What :func:`temperature_sweep` finds: a row for each of M temperatures."""

    temperatures: Floats  # (M,)
    n: int  # draws at each
    probabilities: Floats  # (M, K)
    counts: NDArray[np.int64]  # (M, K): how often each class was drawn
    frequencies: Floats  # (M, K): counts over n
    standard_error: Floats  # (M, K): expected of the frequencies, sqrt(p (1 - p)/n)
    entropy: Floats  # (M,): of the probabilities, in nats

    def plot(self, *, names: Sequence[str] | None = None, ax: Any = None) -> Any:
        """Bars of the probabilities and dots of the frequencies, in per cent: see
        :func:`logitlab.plot.temperature_sweep`."""
        return _registry.module("plot").temperature_sweep(self, names=names, ax=ax)


def temperature_sweep(
    z: ArrayLike, temperatures: ArrayLike, *, n: int = 1000, rng: Any = None
) -> TemperatureSweep:
    r"""What temperature does to a distribution, and to draws from it.

    Parameters
    ----------
    z : array, shape (K,)
        One row of logits, of any kind that :func:`logitlab.softmax` takes.
    temperatures : array, shape (M,)
        T, each of any kind that :func:`logitlab.softmax` takes: 0, infinite and negative ones too.
    n : int
        Draws at each temperature.
    rng : int, numpy.random.Generator or None
        As in :func:`logitlab.sample`.

    Returns
    -------
    TemperatureSweep
        `temperatures`, `probabilities`, `counts`, `frequencies`, `standard_error`
        (:math:`\sqrt{p(1-p)/n}`, what the frequencies are expected to be off by) and `entropy`
        (nats), with a row for each temperature; `.plot()` draws them.

    Raises
    ------
    TypeError, ValueError
        `z` is not one row, `temperatures` not a list of numbers; as :func:`logitlab.sample`.

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
    row = _arrays.on_host(_arrays.as_floating(z, "z"))
    t = _arrays.list_of_reals(temperatures, "temperatures")
    if row.ndim != 1 or not row.size:
        raise ValueError(f"z has shape {row.shape}; accepted: one row of at least one logit, (K,)")
    rows = np.broadcast_to(row.astype(np.float64), (len(t), len(row)))
    drawn = sample(rows, n, temperature=t, rng=rng)
    places = drawn + len(row) * np.arange(len(t))[:, None]
    counts = np.bincount(places.ravel(), minlength=rows.size).reshape(rows.shape)
    p = softmax(rows, temperature=t)
    error = np.sqrt(p * (1 - p) / n)
    return TemperatureSweep(t, n, p, counts, counts / n, error, entropy(rows, temperature=t))
