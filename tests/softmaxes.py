"""A sound softmax in plain NumPy, and unsound ones: each with one defect."""

import numpy as np

_RNG = np.random.default_rng(0)


def weights(z, temperature=1.0):
    """e^((z - max)/T) in extended precision, the limits included."""
    x = np.ascontiguousarray(z).astype(np.float64).astype(np.longdouble)
    if x.shape[-1] == 0:
        return x
    top = x.max(axis=-1, keepdims=True)
    with np.errstate(all="ignore"):
        far = (x - top) / np.longdouble(temperature)
        e = np.where(x == top, 1, np.where(x == -np.inf, 0, np.exp(far)))
        return np.where(np.isnan(top) | (top == -np.inf), np.nan, e)


def rounded(p, z):
    kind = z.dtype if z.dtype.kind not in "iub" else np.dtype(np.float64)
    with np.errstate(all="ignore"):
        return p.astype(np.float64).astype(kind)


def sound(z, temperature=1.0):
    e = weights(z, temperature)
    return rounded(e / e.sum(axis=-1, keepdims=True), z)


def sound_log(z):
    x = z.astype(np.float64).astype(np.longdouble)
    e = weights(z)
    if x.shape[-1] == 0:
        return rounded(x, z)
    top = x.max(axis=-1, keepdims=True)
    first = np.arange(x.shape[-1]) == x.argmax(axis=-1)[..., None]
    with np.errstate(all="ignore"):
        far = np.where(x == top, 0, x - top)
        log_sum = np.log1p(np.where(first, 0, e).sum(axis=-1, keepdims=True))
        return rounded(np.where(np.isnan(e), np.nan, far - log_sum), z)


def sound_jacobian(z):
    s = sound(z.astype(np.float64))
    return np.diag(s) - np.outer(s, s)


def sound_sampler(z, n, rng):
    e = weights(z.astype(np.float64)).astype(np.float64)
    steps = np.cumsum(e)
    u = np.random.default_rng(rng).random(n) * steps[-1]
    return np.searchsorted(steps, u, side="right")


# Each of the following has the name of its defect; DEFECTS says which law must name it.


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


def lane_dropped(z):
    e = weights(z)
    k = e.shape[-1]
    total = e[..., : k - 1 if k > 16 and k % 16 else k].sum(axis=-1, keepdims=True)
    return rounded(e / total, z)


def last_of_a_remainder_forgotten(z):
    p = sound(z)
    if p.shape[-1] > 16 and p.shape[-1] % 16:
        p[..., -1] = 0
    return p


def negative_zero_point(z):
    return sound(z) - z.dtype.type(1e-9)


def above_one(z):
    return sound(z) * z.dtype.type(1 + 1e-6)


def jump(z):
    return np.where(z[..., :1] > 0, sound(z, 0.9), sound(z))


def not_monotone(z):
    e = weights(z)
    e = np.where(e < 0.01, e * 1.5, e)
    return rounded(e / e.sum(axis=-1, keepdims=True), z)


def first_wins_ties(z):
    p = sound(z)
    first = np.arange(p.shape[-1]) == z.argmax(axis=-1)[..., None]
    return np.where(first, np.nextafter(p, z.dtype.type(1)), p)


def last_lane_in_float16(z):
    p = sound(z)
    last = p.shape[-1] // 8 * 8
    p[..., last:] = p[..., last:].astype(np.float16)
    return p


def logits_on_a_grid(z):
    return sound(np.round(z * 256) / 256)


def logits_clipped(z):
    return sound(np.clip(z, -90, 90))


def scale_normalised(z):
    size = np.abs(z).max(axis=-1, keepdims=True)
    return sound(z / np.where((size > 0) & np.isfinite(size), size, 1))


def temperature_after(z, temperature=1.0):
    p = sound(z) / temperature
    return rounded(p / p.sum(axis=-1, keepdims=True), z)


def temperature_ignored_when_small(z, temperature=1.0):
    return sound(z, temperature if temperature > 1e-4 else 1.0)


def temperature_zero_is_uniform(z, temperature=1.0):
    return sound(z, temperature) if temperature else np.full_like(z, 1 / z.shape[-1])


def temperature_patched(z, temperature=1.0):
    return sound(z, temperature + 1e-3)


def exp_in_float16(z):
    e = weights(z).astype(np.float16).astype(np.float32)
    return (e / e.sum(axis=-1, keepdims=True)).astype(z.dtype)


def tail_cut(z):
    p = sound(z)
    return np.where(p < 1e-8, 0, p).astype(z.dtype)


def subnormals_flushed(z):
    p = sound(z)
    return np.where(p < np.finfo(z.dtype).tiny, 0, p).astype(z.dtype)


def excluded_is_minus_20(z):
    return sound(np.where(z == -np.inf, -20, z).astype(z.dtype))


def nan_hidden(z):
    return sound(np.where(np.isnan(z), -np.inf, z).astype(z.dtype))


def not_quite_certain(z):
    p = sound(z)
    return p * z.dtype.type(1 - 2**-24) if p.shape[-1] == 1 else p


def infinity_minus_infinity(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def nothing_is_zeros(z):
    return np.nan_to_num(sound(z)) if (z == -np.inf).all() else sound(z)


def nothing_is_shared(z):
    return np.full_like(z, 1 / z.shape[-1]) if (z == -np.inf).all() else sound(z)


def empty_refused(z):
    z.max(axis=-1)
    return sound(z)


def wraps_around(z):
    return sound((z - z.max(axis=-1, keepdims=True)).astype(np.float64))


def widened(z):
    return sound(z.astype(np.float64))


def first_class_favoured(z):
    e = weights(z)
    e[..., :1] *= 1.0001
    return rounded(e / e.sum(axis=-1, keepdims=True), z)


def shift_of_the_batch(z):
    e = np.exp(z - z.max())
    return e / e.sum(axis=-1, keepdims=True)


def odd_rows_otherwise(z):
    p = sound(z)
    if p.ndim == 2:
        p[1::2] = np.nextafter(p[1::2], z.dtype.type(0))
    return p


def strides_matter(z):
    p = sound(z)
    return p if z.flags.c_contiguous else np.nextafter(p, z.dtype.type(0))


def race(z):
    p = sound(z)
    p[..., :1] *= z.dtype.type(1 + 0.01 * _RNG.random())
    return p


def in_place(z):
    z -= z.max(axis=-1, keepdims=True)
    return sound(z)


def log_of_softmax(z):
    return np.log(sound(z))


def diagonal_only(z):
    return np.diag(np.diag(sound_jacobian(z)))


def not_symmetric(z):
    s = sound(z.astype(np.float64))
    return np.diag(s) - np.outer(s, np.full_like(s, 1 / s.size))


def sign_turned(z):
    return -sound_jacobian(z)


def twice(z):
    return 2 * sound_jacobian(z)


def nan_when_saturated(z):
    s = sound(z.astype(np.float32)).astype(np.float32)
    log_s = np.log(s)
    return np.diag(s) - np.outer(s * log_s / log_s, s)


def draws_the_excluded(z, n, rng):
    return np.random.default_rng(rng).integers(0, z.size, n)


def draws_uniformly(z, n, rng):
    possible = np.flatnonzero(z > -np.inf)
    return possible[np.random.default_rng(rng).integers(0, possible.size, n)]


def draws_from_float16_sums(z, n, rng):
    steps = np.cumsum(sound(z.astype(np.float64)).astype(np.float16))
    u = np.random.default_rng(rng).random(n)
    return np.minimum(np.searchsorted(steps, u, side="right"), z.size - 1)


def draws_anew(z, n, rng):
    return sound_sampler(z, n, None)


DEFECTS = {
    no_shift: "overflow",
    sum_in_half_precision: "sum",
    wrong_axis: "sum",
    guarded_denominator: "sum",
    lane_dropped: "sum",
    last_of_a_remainder_forgotten: "additivity",
    negative_zero_point: "bounds",
    above_one: "bounds",
    jump: "lipschitz",
    not_monotone: "order",
    first_wins_ties: "ties",
    last_lane_in_float16: "ties",
    logits_on_a_grid: "resolution",
    logits_clipped: "translation",
    scale_normalised: "scaling",
    temperature_after: "temperature",
    temperature_ignored_when_small: "temperature",
    temperature_patched: "temperature",
    temperature_zero_is_uniform: "temperature limits",
    exp_in_float16: "accuracy",
    tail_cut: "tail",
    subnormals_flushed: "underflow",
    excluded_is_minus_20: "-inf",
    nan_hidden: "NaN",
    not_quite_certain: "one class",
    infinity_minus_infinity: "+inf",
    nothing_is_zeros: "nothing left",
    nothing_is_shared: "nothing left",
    empty_refused: "empty",
    wraps_around: "integers",
    widened: "type",
    first_class_favoured: "permutation",
    shift_of_the_batch: "batch",
    odd_rows_otherwise: "position",
    strides_matter: "layout",
    race: "determinism",
    in_place: "input",
    log_of_softmax: "maximum",
}
BAD_JACOBIANS = {
    diagonal_only: "jacobian rows",
    not_symmetric: "jacobian symmetry",
    sign_turned: "jacobian semidefinite",
    twice: "jacobian",
    nan_when_saturated: "gradient",
}
BAD_SAMPLERS = {
    draws_the_excluded: "support",
    draws_uniformly: "chi-square",
    draws_from_float16_sums: "rare draws",
    draws_anew: "reproducibility",
}
