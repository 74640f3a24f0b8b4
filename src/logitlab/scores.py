"""How sharp, how right and how honest probabilities are: scores of logits against labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from numpy.typing import NDArray

from logitlab import arrays
from logitlab.probabilities import log_softmax, softmax

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Binning = Literal["width", "mass"]

_BLOCK = 1 << 18  # elements worked on at a time: 2 MiB as float64
_RESAMPLES = 1000


def blocks(rows: int, classes: int) -> Iterator[slice]:
    """Slices of rows that cover all, each of a size that stays in a cache."""
    step = max(1, _BLOCK // max(1, classes))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _on_host(x: Any) -> NDArray[Any]:
    if is_torch_array(x):
        x = x.detach().cpu()
        x = x.float() if arrays.dtype_name(x.dtype) == "bfloat16" else x
    return np.asarray(x)


def check_labels(y: Any, shape: tuple[int, ...], classes: int) -> Integers:
    """Labels as a flat int64 array, one for each row, each in [0, classes)."""
    labels = _on_host(arrays.as_array(y, "y"))
    if labels.dtype.kind not in "iu":
        raise TypeError(f"y has type {labels.dtype.name}; accepted: integers")
    if labels.shape != shape:
        raise ValueError(f"y has shape {labels.shape}; accepted: the shape {shape} of z's rows")
    labels = labels.reshape(-1)
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(
            f"y is {labels[row]} in row {row}; accepted: 0 to {classes - 1}, as z has "
            f"{classes} classes"
        )
    return labels.astype(np.int64)


def as_rows(z: Any, y: Any) -> tuple[NDArray[Any], Integers]:
    """Logits as a NumPy array of rows by classes (a view where it can be), and checked labels."""
    z = _on_host(arrays.as_floating(z, "z"))
    if z.ndim == 0 or z.size == 0:
        raise ValueError(f"z has shape {z.shape}; accepted: at least one row of one class")
    labels = check_labels(y, z.shape[:-1], z.shape[-1])
    return z.reshape(-1, z.shape[-1]), labels


def _probabilities(z: NDArray[Any], rows: slice) -> Floats:
    p: Floats = softmax(z[rows].astype(np.float64))
    none = np.isnan(p[:, 0])
    if none.any():
        row = rows.start + int(none.argmax())
        raise ValueError(f"row {row} of z has no distribution: it holds NaN, or -inf alone")
    return p


def entropy(z: Any, axis: int = -1, *, temperature: Any = 1.0, where: Any = None) -> Any:
    r"""Shannon entropy of the distribution of each row, in nats.

    :math:`H = -\sum_i p_i \log p_i` with p the softmax of z at the given temperature and
    0 log 0 = 0. Its exponential is the perplexity, the effective number of classes.

    Parameters
    ----------
    z : array, shape (..., K, ...)
        Logits, of any kind that :func:`logitlab.softmax` takes.
    axis : int
        The class axis.
    temperature : float or array
        T: a scalar, or one for each row.
    where : array of bool, optional
        Broadcasts to z. Entries where it is False are excluded.

    Returns
    -------
    array, shape of z without the class axis
        Between 0 and log K, in z's type. NaN where :func:`logitlab.softmax` is NaN.

    Raises
    ------
    TypeError, ValueError
        As :func:`logitlab.softmax`.

    References
    ----------
    C. E. Shannon, "A mathematical theory of communication", Bell System Technical Journal 27
    (1948) 379-423.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.entropy([[0.0, 0.0], [50.0, 0.0]]).round(4)
    array([0.6931, 0.    ])
    """
    z = arrays.as_floating(z, "z")
    arrays.one_axis(axis, z.ndim)
    xp = array_namespace(z)
    wide = arrays.at_least_float32(z, xp)
    p = softmax(wide, axis, temperature=temperature, where=where)
    log_p = log_softmax(wide, axis, temperature=temperature, where=where)
    nats = xp.abs(xp.sum(p * xp.where(p == 0, xp.zeros_like(p), log_p), axis=axis))
    return xp.astype(nats, z.dtype, copy=False)


def _confidences(z: NDArray[Any]) -> tuple[Floats, Integers]:
    """The largest probability of each row, and its class (of equal ones the first)."""
    confidence = np.empty(len(z))
    predicted = np.empty(len(z), np.int64)
    for rows in blocks(*z.shape):
        confidence[rows] = _probabilities(z, rows).max(axis=-1)
        predicted[rows] = z[rows].argmax(axis=-1)
    return confidence, predicted


def accuracy(z: Any, y: Any) -> float:
    """Share of the rows whose label has the largest logit.

    Parameters
    ----------
    z : array, shape (..., K)
        Logits. Of equal largest ones, the first is the prediction.
    y : array of int, shape (...)
        Labels, 0 to K - 1.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    TypeError
        `y` does not hold integers; `z` is of a type that :func:`logitlab.softmax` does not take.
    ValueError
        A label out of range (the first such row is named); `y` of another shape than z's rows;
        no rows; a row of z with NaN or with nothing but -inf.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.accuracy([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]], [0, 1, 1])
    0.6666666666666666
    """
    z, y = as_rows(z, y)
    return float(np.mean(_confidences(z)[1] == y))


def brier_score(z: Any, y: Any) -> float:
    r"""Mean squared distance of the probabilities from what came true.

    :math:`\frac1N \sum_n \sum_k (p_{nk} - [k = y_n])^2`: the sum over classes, the mean over rows.
    0 is perfect, 2 is certain and wrong in every row.

    Parameters
    ----------
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.

    Returns
    -------
    float
        Between 0 and 2.

    Raises
    ------
    TypeError, ValueError
        As :func:`accuracy`.

    References
    ----------
    G. W. Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather
    Review 78 (1950) 1-3.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.brier_score([[0.0, 0.0]], [1])
    0.5
    """
    z, y = as_rows(z, y)
    total = 0.0
    for rows in blocks(*z.shape):
        p = _probabilities(z, rows)
        p[np.arange(len(p)), y[rows]] -= 1
        total += float(np.sum(p * p))
    return total / len(y)


@dataclass(frozen=True)
class ReliabilityCurve:
    """Confidence and accuracy of the rows in each bin of confidence; NaN in a bin without rows.

    Attributes
    ----------
    edges : array, shape (B + 1,)
        Bin b holds confidences in [edges[b], edges[b + 1]); the last one also its upper edge.
    counts : array of int, shape (B,)
        Rows in the bin.
    confidence, accuracy : array, shape (B,)
        Mean top probability, and share of right predictions.
    low, high : array, shape (B,)
        Central 95 % of the accuracy under resampling of the rows (bootstrap with fixed seed).
    """

    edges: Floats
    counts: Integers
    confidence: Floats
    accuracy: Floats
    low: Floats
    high: Floats

    def error(self, norm: Literal[1, 2, "max"] = 1) -> float:
        """The gaps between confidence and accuracy, weighted by rows, in one number."""
        filled = self.counts > 0
        gaps = np.abs(self.confidence - self.accuracy)[filled]
        weights = self.counts[filled] / self.counts.sum()
        if norm == "max":
            return float(gaps.max())
        return float((weights @ gaps**norm) ** (1 / norm))

    def plot(self, ax: Any = None) -> Any:
        """The reliability diagram: :func:`logitlab.plot.reliability_diagram`."""
        from logitlab.plot import reliability_diagram

        return reliability_diagram(self, ax=ax)


def equal_width(n_bins: int) -> Floats:
    """Edges of equally wide bins on [0, 1]."""
    if not isinstance(n_bins, int | np.integer) or n_bins < 1:
        raise ValueError(f"n_bins is {n_bins!r}; accepted: an integer of 1 and up")
    return np.linspace(0, 1, n_bins + 1)


def bin_sums(edges: Floats, p: Floats, happened: NDArray[np.bool_]) -> Floats:
    """Rows, their summed probability, and the events that happened: shape (3, B), additive."""
    size = len(edges) - 1
    bins = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, size - 1)
    weights = (None, p, happened)
    return np.stack([np.bincount(bins, w, minlength=size).astype(float) for w in weights])


def curve_of(edges: Floats, sums: Floats) -> ReliabilityCurve:
    """The curve of what :func:`bin_sums` summed up."""
    rows, stated, right = sums
    total = round(rows.sum())
    # Drawing all rows anew is one multinomial draw over the cells (bin, right or wrong).
    cells = np.concatenate([right, rows - right]) / total
    drawn = np.random.default_rng(0).multinomial(total, cells, size=_RESAMPLES)
    again_right, again_wrong = np.split(drawn, 2, axis=1)
    low, high = np.full((2, len(rows)), np.nan)
    filled = rows > 0
    with np.errstate(invalid="ignore"):
        again = again_right / (again_right + again_wrong)
        low[filled], high[filled] = np.nanquantile(again[:, filled], [0.025, 0.975], axis=0)
        return ReliabilityCurve(
            edges, rows.astype(np.int64), stated / rows, right / rows, low, high
        )


def _reliability(
    p: Floats, happened: NDArray[np.bool_], n_bins: int, binning: Binning
) -> ReliabilityCurve:
    edges = equal_width(n_bins)
    if binning == "mass":
        edges = np.unique(np.quantile(p, edges))
        edges = edges if len(edges) > 1 else np.repeat(edges, 2)
    elif binning != "width":
        raise ValueError(f"binning is {binning!r}; accepted: 'width', 'mass'")
    return curve_of(edges, bin_sums(edges, p, happened))


def reliability_curve(
    z: Any, y: Any, *, n_bins: int = 15, binning: Binning = "width"
) -> ReliabilityCurve:
    """Accuracy against confidence: of the rows that say 80 %, are 80 % right?

    Parameters
    ----------
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.
    n_bins : int
        Number of bins; with ``binning="mass"`` at most so many, as equal confidences stay together.
    binning : {"width", "mass"}
        Bins of equal width on [0, 1], or of equal numbers of rows.

    Returns
    -------
    ReliabilityCurve
        Counts, confidence, accuracy with a bootstrap band; ``.plot()`` draws it.

    Raises
    ------
    TypeError, ValueError
        As :func:`accuracy`; another `binning`; `n_bins` below 1.

    References
    ----------
    M. H. DeGroot and S. E. Fienberg, "The comparison and evaluation of forecasters", The
    Statistician 32 (1983) 12-22.

    Examples
    --------
    >>> import logitlab
    >>> z = [[0.0, 0.0], [3.0, 0.0], [4.0, 0.0]]
    >>> curve = logitlab.reliability_curve(z, [0, 0, 1], n_bins=2)
    >>> curve.counts, curve.accuracy.round(4)
    (array([0, 3]), array([   nan, 0.6667]))
    """
    z, y = as_rows(z, y)
    confidence, predicted = _confidences(z)
    return _reliability(confidence, predicted == y, n_bins, binning)


def calibration_error(
    z: Any,
    y: Any,
    *,
    n_bins: int = 15,
    binning: Binning = "width",
    norm: Literal[1, 2, "max"] = 1,
    classwise: bool = False,
) -> float:
    r"""Expected calibration error: how far the stated confidence is from the accuracy.

    :math:`\left(\sum_b \frac{n_b}{N} |\mathrm{acc}_b - \mathrm{conf}_b|^q\right)^{1/q}` over bins
    of the top probability, for q = `norm`.

    Parameters
    ----------
    z : array, shape (..., K)
        Logits.
    y : array of int, shape (...)
        Labels, 0 to K - 1.
    n_bins : int
        Number of bins.
    binning : {"width", "mass"}
        Bins of equal width on [0, 1] (a confidence of exactly 1 is in the last one), or of equal
        numbers of rows.
    norm : {1, 2, "max"}
        The mean gap, the root mean square gap, or the largest gap.
    classwise : bool
        Judge the probability of every class against whether that class came true, each class by
        itself, and give the mean over classes.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        As :func:`accuracy`; another `binning` or `norm`; `n_bins` below 1.

    References
    ----------
    M. P. Naeini, G. F. Cooper and M. Hauskrecht, "Obtaining well calibrated probabilities using
    Bayesian binning", AAAI 2015. Class-wise: M. Kull et al., "Beyond temperature scaling",
    NeurIPS 2019.

    Examples
    --------
    >>> import logitlab
    >>> logitlab.calibration_error([[0.0, 0.0], [0.0, 0.0]], [0, 1])
    0.0
    """
    if norm not in (1, 2, "max"):
        raise ValueError(f"norm is {norm!r}; accepted: 1, 2, 'max'")
    z, y = as_rows(z, y)
    if not classwise:
        confidence, predicted = _confidences(z)
        return _reliability(confidence, predicted == y, n_bins, binning).error(norm)
    p = np.concatenate([_probabilities(z, rows) for rows in blocks(*z.shape)])
    curves = (_reliability(p[:, k], y == k, n_bins, binning) for k in range(z.shape[1]))
    return float(np.mean([curve.error(norm) for curve in curves]))
