"""A correct softmax in plain NumPy, and functions with one defect each."""

import numpy as np

_RNG = np.random.default_rng(0)


def weights(z, temperature=1.0):
    """e^((z - max)/T) in extended precision, including the limits of T and z."""
    x = np.ascontiguousarray(z).astype(np.float64).astype(np.longdouble)
    if x.shape[-1] == 0:
        return x
    top = x.max(axis=-1, keepdims=True)
    with np.errstate(all="ignore"):
        shifted = (x - top) / np.longdouble(temperature)
        e = np.where(x == top, 1, np.where(x == -np.inf, 0, np.exp(shifted)))
        return np.where(np.isnan(top) | (top == -np.inf), np.nan, e)


def rounded(p, z):
    dtype = z.dtype if z.dtype.kind not in "iub" else np.dtype(np.float64)
    with np.errstate(all="ignore"):
        return p.astype(np.float64).astype(dtype)


def correct_softmax(z, temperature=1.0):
    e = weights(z, temperature)
    return rounded(e / e.sum(axis=-1, keepdims=True), z)


def correct_log_softmax(z):
    x = z.astype(np.float64).astype(np.longdouble)
    e = weights(z)
    if x.shape[-1] == 0:
        return rounded(x, z)
    top = x.max(axis=-1, keepdims=True)
    first = np.arange(x.shape[-1]) == x.argmax(axis=-1)[..., None]
    with np.errstate(all="ignore"):
        shifted = np.where(x == top, 0, x - top)
        log_sum = np.log1p(np.where(first, 0, e).sum(axis=-1, keepdims=True))
        return rounded(np.where(np.isnan(e), np.nan, shifted - log_sum), z)


def correct_jacobian(z):
    s = correct_softmax(z.astype(np.float64))
    return np.diag(s) - np.outer(s, s)


def correct_sampler(z, n, rng):
    e = weights(z.astype(np.float64)).astype(np.float64)
    steps = np.cumsum(e)
    u = np.random.default_rng(rng).random(n) * steps[-1]
    return np.searchsorted(steps, u, side="right")


# Each of the following functions is named after its defect; DEFECTS has the law that it fails.


def no_shift(z):
    e = np.exp(z)
    return e / e.sum(axis=-1, keepdims=True)


def sum_in_half_precision(z):
    e = weights(z).astype(np.float32)
    return (e / e.sum(axis=-1, keepdims=True, dtype=np.float16)).astype(z.dtype)


def wrong_axis(z):
    return rounded(weights(z) / weights(z).sum(axis=0, keepdims=True), z)


def guarded_denominator(z):
    e = weights(z)
    return rounded(e / (e.sum(axis=-1, keepdims=True) + 1e-2), z)


def last_class_not_summed(z):
    e = weights(z)
    k = e.shape[-1]
    total = e[..., : k - 1 if k > 16 and k % 16 else k].sum(axis=-1, keepdims=True)
    return rounded(e / total, z)


def last_class_is_zero(z):
    p = correct_softmax(z)
    if p.shape[-1] > 16 and p.shape[-1] % 16:
        p[..., -1] = 0
    return p


def slightly_negative(z):
    return correct_softmax(z) - z.dtype.type(1e-9)


def above_one(z):
    return correct_softmax(z) * z.dtype.type(1 + 1e-6)


def discontinuous(z):
    return np.where(z[..., :1] > 0, correct_softmax(z, 0.9), correct_softmax(z))


def not_monotone(z):
    e = weights(z)
    e = np.where(e < 0.01, e * 1.5, e)
    return rounded(e / e.sum(axis=-1, keepdims=True), z)


def first_wins_ties(z):
    p = correct_softmax(z)
    first = np.arange(p.shape[-1]) == z.argmax(axis=-1)[..., None]
    return np.where(first, np.nextafter(p, z.dtype.type(1)), p)


def last_lane_in_float16(z):
    p = correct_softmax(z)
    last = p.shape[-1] // 8 * 8
    p[..., last:] = p[..., last:].astype(np.float16)
    return p


def rounded_logits(z):
    return correct_softmax(np.round(z * 256) / 256)


def clipped_logits(z):
    return correct_softmax(np.clip(z, -90, 90))


def normalized_scale(z):
    size = np.abs(z).max(axis=-1, keepdims=True)
    return correct_softmax(z / np.where((size > 0) & np.isfinite(size), size, 1))


def temperature_after_softmax(z, temperature=1.0):
    p = correct_softmax(z) / temperature
    return rounded(p / p.sum(axis=-1, keepdims=True), z)


def temperature_ignored_when_small(z, temperature=1.0):
    return correct_softmax(z, temperature if temperature > 1e-4 else 1.0)


def temperature_zero_is_uniform(z, temperature=1.0):
    return correct_softmax(z, temperature) if temperature else np.full_like(z, 1 / z.shape[-1])


def temperature_plus_epsilon(z, temperature=1.0):
    return correct_softmax(z, temperature + 1e-3)


def exp_in_float16(z):
    e = weights(z).astype(np.float16).astype(np.float32)
    return (e / e.sum(axis=-1, keepdims=True)).astype(z.dtype)


def tail_is_zero(z):
    p = correct_softmax(z)
    return np.where(p < 1e-8, 0, p).astype(z.dtype)


def subnormals_are_zero(z):
    p = correct_softmax(z)
    return np.where(p < np.finfo(z.dtype).tiny, 0, p).astype(z.dtype)


def excluded_is_minus_20(z):
    return correct_softmax(np.where(z == -np.inf, -20, z).astype(z.dtype))


def nan_excluded(z):
    return correct_softmax(np.where(np.isnan(z), -np.inf, z).astype(z.dtype))


def single_class_below_one(z):
    p = correct_softmax(z)
    return p * z.dtype.type(1 - 2**-24) if p.shape[-1] == 1 else p


def infinity_minus_infinity(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def all_excluded_is_zeros(z):
    return np.nan_to_num(correct_softmax(z)) if (z == -np.inf).all() else correct_softmax(z)


def all_excluded_is_uniform(z):
    return np.full_like(z, 1 / z.shape[-1]) if (z == -np.inf).all() else correct_softmax(z)


def empty_raises(z):
    z.max(axis=-1)
    return correct_softmax(z)


def integer_overflow(z):
    return correct_softmax((z - z.max(axis=-1, keepdims=True)).astype(np.float64))


def result_in_float64(z):
    return correct_softmax(z.astype(np.float64))


def first_class_favoured(z):
    e = weights(z)
    e[..., :1] *= 1.0001
    return rounded(e / e.sum(axis=-1, keepdims=True), z)


def batch_maximum_subtracted(z):
    e = np.exp(z - z.max())
    return e / e.sum(axis=-1, keepdims=True)


def odd_rows_differ(z):
    p = correct_softmax(z)
    if p.ndim == 2:
        p[1::2] = np.nextafter(p[1::2], z.dtype.type(0))
    return p


def depends_on_strides(z):
    p = correct_softmax(z)
    return p if z.flags.c_contiguous else np.nextafter(p, z.dtype.type(0))


def random_first_class(z):
    p = correct_softmax(z)
    p[..., :1] *= z.dtype.type(1 + 0.01 * _RNG.random())
    return p


def modifies_input(z):
    z -= z.max(axis=-1, keepdims=True)
    return correct_softmax(z)


def log_of_softmax(z):
    return np.log(correct_softmax(z))


def diagonal_only(z):
    return np.diag(np.diag(correct_jacobian(z)))


def not_symmetric(z):
    s = correct_softmax(z.astype(np.float64))
    return np.diag(s) - np.outer(s, np.full_like(s, 1 / s.size))


def negated(z):
    return -correct_jacobian(z)


def doubled(z):
    return 2 * correct_jacobian(z)


def nan_if_saturated(z):
    s = correct_softmax(z.astype(np.float32)).astype(np.float32)
    log_s = np.log(s)
    return np.diag(s) - np.outer(s * log_s / log_s, s)


def samples_excluded_classes(z, n, rng):
    return np.random.default_rng(rng).integers(0, z.size, n)


def uniform_sampler(z, n, rng):
    possible = np.flatnonzero(z > -np.inf)
    return possible[np.random.default_rng(rng).integers(0, possible.size, n)]


def float16_cumulative_sum(z, n, rng):
    steps = np.cumsum(correct_softmax(z.astype(np.float64)).astype(np.float16))
    u = np.random.default_rng(rng).random(n)
    return np.minimum(np.searchsorted(steps, u, side="right"), z.size - 1)


def ignores_seed(z, n, rng):
    return correct_sampler(z, n, None)


DEFECTS = {
    no_shift: "overflow",
    sum_in_half_precision: "sum",
    wrong_axis: "sum",
    guarded_denominator: "sum",
    last_class_not_summed: "sum",
    last_class_is_zero: "additivity",
    slightly_negative: "bounds",
    above_one: "bounds",
    discontinuous: "lipschitz",
    not_monotone: "order",
    first_wins_ties: "ties",
    last_lane_in_float16: "ties",
    rounded_logits: "resolution",
    clipped_logits: "translation",
    normalized_scale: "scaling",
    temperature_after_softmax: "temperature",
    temperature_ignored_when_small: "temperature",
    temperature_plus_epsilon: "temperature",
    temperature_zero_is_uniform: "temperature limits",
    exp_in_float16: "accuracy",
    tail_is_zero: "tail",
    subnormals_are_zero: "underflow",
    excluded_is_minus_20: "-inf",
    nan_excluded: "NaN",
    single_class_below_one: "one class",
    infinity_minus_infinity: "+inf",
    all_excluded_is_zeros: "all -inf",
    all_excluded_is_uniform: "all -inf",
    empty_raises: "empty",
    integer_overflow: "integers",
    result_in_float64: "dtype",
    first_class_favoured: "permutation",
    batch_maximum_subtracted: "batch",
    odd_rows_differ: "position",
    depends_on_strides: "layout",
    random_first_class: "determinism",
    modifies_input: "input unchanged",
    log_of_softmax: "maximum",
}
BAD_JACOBIANS = {
    diagonal_only: "jacobian rows",
    not_symmetric: "jacobian symmetry",
    negated: "jacobian semidefinite",
    doubled: "jacobian",
    nan_if_saturated: "gradient",
}
BAD_SAMPLERS = {
    samples_excluded_classes: "support",
    uniform_sampler: "chi-square",
    float16_cumulative_sum: "rare classes",
    ignores_seed: "reproducibility",
}
