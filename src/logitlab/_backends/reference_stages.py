"""The stages of truncation in NumPy: the formulas that the kernels are compared with.

Each takes w = z, or -z at T < 0, of shape (R, K) with -inf at excluded entries, their weights
exp((w - m)/T), and its parameter, of shape (1, 1) or (R, 1). It returns the entries that it keeps;
the rows without a distribution are left to the caller.
"""

import numpy as np
from numpy.typing import NDArray

from logitlab._backends.reference import _Weights

Mask = NDArray[np.bool_]
Column = NDArray[np.float64]


def _total(v: _Weights) -> Column:
    return np.asarray(np.sum(v.e, axis=1, keepdims=True))


def _mean_log_weight(v: _Weights) -> Column:
    """The mean of (w - m)/T under the softmax."""
    log_weight = np.where(v.e > 0, v.t, 0.0)
    return np.asarray(np.sum(v.e * log_weight, axis=1, keepdims=True) / _total(v))


def _entropy(v: _Weights) -> Column:
    """-sum p log p = log sum exp((w - m)/T) - the mean of (w - m)/T."""
    return np.asarray(np.log(_total(v)) - _mean_log_weight(v))


def _most_probable(v: _Weights) -> Mask:
    """The largest entries; at T = inf all, whose probabilities are equal."""
    return np.asarray(v.at_max | (v.weighted & (v.scale == np.inf)))


def top_k(w: Column, v: _Weights, k: Column) -> Mask:
    """The k largest entries and the ties of the k-th."""
    position = np.minimum(k, w.shape[1]).astype(np.int64) - 1
    descending = -np.sort(-w, axis=1)
    kth = np.take_along_axis(descending, np.broadcast_to(position, (len(w), 1)), 1)
    return np.asarray((w >= kth) & (w > -np.inf))


def top_p(w: Column, v: _Weights, p: Column) -> Mask:
    """The smallest set of largest entries, equal ones by lower index, of probability >= p."""
    order = np.argsort(-w, axis=1, kind="stable")
    mass = np.cumsum(np.take_along_axis(v.e, order, 1), axis=1)
    mass_before = np.concatenate([np.zeros_like(mass[:, :1]), mass[:, :-1]], axis=1)
    kept = np.empty(w.shape, bool)
    np.put_along_axis(kept, order, mass_before < p * mass[:, -1:], 1)
    return np.asarray(kept | (p == 1))


def min_p(w: Column, v: _Weights, p: Column) -> Mask:
    """p_i >= min_p * max p. At min_p = 1 the largest, also where all weights are rounded to 1."""
    return np.asarray((v.e >= p) & ((p < 1) | _most_probable(v)))


def typical_p(w: Column, v: _Weights, p: Column) -> Mask:
    """The smallest set of entries closest to the entropy, and their ties, of probability >= p.

    -log p_i - H = E[w]/T - w_i/T, where E is the mean under the softmax.
    """
    distance = np.where(v.weighted, np.abs(v.t - _mean_log_weight(v)), np.inf)
    order = np.argsort(distance, axis=1, kind="stable")
    mass = np.cumsum(np.take_along_axis(v.e, order, 1), axis=1)
    last = np.sum(mass < p * mass[:, -1:], axis=1, keepdims=True)
    farthest = np.take_along_axis(np.take_along_axis(distance, order, 1), last, 1)
    return np.asarray((distance <= farthest) & v.weighted | (p == 1))


def epsilon(w: Column, v: _Weights, p: Column) -> Mask:
    """p_i >= epsilon, and the largest."""
    return np.asarray((v.e >= p * _total(v)) | _most_probable(v))


def eta(w: Column, v: _Weights, p: Column) -> Mask:
    """p_i >= min(eta, sqrt(eta) exp(-H)), and the largest."""
    bound = np.minimum(p, np.sqrt(p) * np.exp(-_entropy(v)))
    return np.asarray((v.e >= bound * _total(v)) | _most_probable(v))


def top_n_sigma(w: Column, v: _Weights, n: Column) -> Mask:
    """w_i >= m - n sigma, with the population standard deviation of the entries left."""
    # Halved, as differences of large entries overflow; divided by the range, as squares do.
    below = np.where(v.weighted & ~v.undefined, v.m / 2 - w / 2, 0.0)
    spread = np.max(below, axis=1, keepdims=True)
    r = below / np.where(spread == 0, 1.0, spread)
    size = np.sum(v.weighted, axis=1, keepdims=True)
    mean = np.sum(r, axis=1, keepdims=True) / size
    variance = np.sum(np.where(v.weighted, (r - mean) ** 2, 0.0), axis=1, keepdims=True) / size
    near = (r <= np.where(n == np.inf, np.inf, n * np.sqrt(variance))) | v.at_max
    return np.asarray(v.weighted & (near | (v.scale == np.inf)) | (n == np.inf))


def top_a(w: Column, v: _Weights, a: Column) -> Mask:
    """p_i >= a (max p)^2."""
    return np.asarray((v.e >= a / _total(v)) | _most_probable(v))


def xtc(w: Column, v: _Weights, threshold: Column) -> Mask:
    """All but the entries of probability >= threshold that are above the least of them."""
    above = (v.e >= threshold * _total(v)) & v.weighted
    least = np.min(np.where(above, w, np.inf), axis=1, keepdims=True)
    return np.asarray(((w <= least) | (v.scale == np.inf)) & (w > -np.inf))


def dynamic_temperature(v: _Weights, t: Column, width: Column, exponent: Column) -> Column:
    """T between max(0, t - width) and t + width, by the entropy at T = 1 relative to log n."""
    size = np.sum(v.included, axis=1, keepdims=True)
    share = np.clip(_entropy(v) / np.log(size), 0.0, 1.0)
    low = np.maximum(0.0, t - width)
    dynamic = low + (t + width - low) * share**exponent
    fixed = (width == 0) | (size <= 1) | v.undefined | (t == np.inf)
    return np.asarray(np.where(fixed, t, dynamic))


KEEP = {
    "top_k": top_k,
    "top_p": top_p,
    "min_p": min_p,
    "typical_p": typical_p,
    "epsilon": epsilon,
    "eta": eta,
    "top_n_sigma": top_n_sigma,
    "top_a": top_a,
    "xtc": xtc,
}
