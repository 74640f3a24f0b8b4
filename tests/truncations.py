"""Stages of truncation: as the backends take them, and their definitions in exact arithmetic."""

import math

import exact
from exact import mp
from logitlab._backends.reference_sampling import STAGES, Stage

inf = math.inf


def stages(order=STAGES, **values):
    """The stages that have a value, in their order, and the temperature."""
    found = []
    for name in order:
        if name == "temperature":
            found.append(Stage(name, ()))
        elif values.get(name) is not None:
            value = values[name]
            found.append(Stage(name, (value if hasattr(value, "shape") else float(value),)))
    return found


def entropy(p):
    return -mp.fsum(x * mp.log(x) for x in p if x)


def shortest_prefix(ranked, p, share):
    """The first entries of a probability of at least `share`, and how near to it a sum is."""
    kept, mass, margin = [], 0, inf
    for i in ranked:
        if mass >= share:
            break
        kept.append(i)
        mass += p[i]
        margin = min(margin, abs(float(mass) - share))
    return kept, margin


def apply_stage(stage, value, w, p, t):
    """The entries of w, {index: signed logit}, that a stage keeps, and the distance from a tie."""
    ranked = sorted(w, key=lambda i: (-w[i], i))
    largest = max(p)
    if stage == "top_k":
        return [i for i in ranked if w[i] >= w[ranked[:value][-1]]], inf
    if stage == "top_p":
        return (ranked, inf) if value == 1 else shortest_prefix(ranked, p, value)
    if stage == "typical_p":
        if value == 1:
            return ranked, inf
        possible = [i for i in ranked if p[i]]
        distance = {i: abs(-mp.log(p[i]) - entropy(p)) for i in possible}
        prefix, margin = shortest_prefix(sorted(possible, key=distance.get), p, value)
        farthest = max(distance[i] for i in prefix)
        near = [abs(float(distance[i] - farthest)) for i in possible if w[i] != w[prefix[-1]]]
        if t in (inf, -inf):
            near = []
        kept = [i for i in possible if distance[i] <= farthest or w[i] == w[prefix[-1]]]
        return kept, min(margin, *near, inf)
    if stage == "top_n_sigma":
        if t in (inf, -inf) or value == inf:
            return ranked, inf
        left = {i: mp.mpf(w[i]) for i in ranked if p[i]}
        mean = mp.fsum(left.values()) / len(left)
        sigma = mp.sqrt(mp.fsum((x - mean) ** 2 for x in left.values()) / len(left))
        bound = max(left.values()) - value * sigma
        margin = min((abs(float(x - bound)) for x in left.values() if sigma), default=inf)
        return [i for i in left if left[i] >= bound], margin
    if stage == "xtc":
        margin = min(abs(float(p[i] - value)) for i in ranked)
        above = [i for i in ranked if p[i] >= value]
        # Probabilities that differ by less than the digits of mpmath are ordered by the logits.
        x = w if 0 < abs(t) < inf else p
        least = min((x[i] for i in above), default=inf)
        return [i for i in ranked if x[i] <= least], margin
    bounds = {
        "min_p": lambda: value * largest,
        "epsilon": lambda: value,
        "eta": lambda: min(mp.mpf(value), mp.sqrt(value) * mp.exp(-entropy(p))),
        "top_a": lambda: value * largest**2,
    }
    bound = bounds[stage]()
    margin = min(abs(float((p[i] - bound) / largest)) for i in ranked if p[i] or value)
    top = [i for i in ranked if w[i] == w[ranked[0]] or (t in (inf, -inf))]
    return [i for i in ranked if p[i] >= bound or i in top], margin


def dynamic_temperature(p, size, t, width, exponent):
    if not width or size <= 1 or t == inf:
        return t
    share = entropy(p) / mp.log(size)
    low = max(0, t - width)
    return float(low + (t + width - low) * share**exponent)


def truncate_exactly(row, temperature, order, width=0.0, exponent=1.0, **values):
    """The indices that the stages keep, in exact arithmetic.

    Also the smallest distance of a probability or a distance from its threshold.
    """
    kept, t, margin = list(range(len(row))), 1.0, inf
    for stage in order:
        p = exact.softmax([row[i] if i in kept else -inf for i in range(len(row))], t)
        sign = -1 if t < 0 else 1
        w = {i: sign * row[i] for i in kept if row[i] != -inf}
        if stage == "temperature":
            t = dynamic_temperature(p, len(w), temperature, width, exponent)
        elif values.get(stage) is not None:
            kept, distance = apply_stage(stage, values[stage], w, p, t)
            margin = min(margin, distance)
    return set(kept), margin
