"""The laws: what each one says, whose it is, and why it matters."""

from logitlab.laws import derivatives, invariance, pointwise, rows, sampling, special_values
from logitlab.laws.cases import similar
from logitlab.laws.context import Context
from logitlab.laws.law import Law

_BRIDLE = "J. S. Bridle, Neurocomputing, Springer 1990, pp. 227-236"
_KOLMOGOROV = "A. N. Kolmogorov, Grundbegriffe der Wahrscheinlichkeitsrechnung, 1933"
_HIGHAM = (
    "P. Blanchard, D. J. Higham, N. J. Higham, Accurately computing the log-sum-exp and softmax "
    "functions, IMA J. Numer. Anal. 41, 2021"
)
_GAO = (
    "B. Gao, L. Pavel, On the properties of the softmax function with application in game theory "
    "and reinforcement learning, arXiv:1704.00805"
)
_IEEE = "IEEE 754-2019"
_LIMIT = "the limit of the formula"


def _logs_only(context: Context) -> str:
    return "" if context.subject.log else "the function gives probabilities"


def _probabilities_only(context: Context) -> str:
    return "the function gives logarithms" if context.subject.log else ""


def _no_temperature(context: Context) -> str:
    return "" if context.subject.temperature else "the function takes no temperature"


AXIOMS = (
    Law(
        "bounds",
        "0 ≤ p ≤ 1 for every entry (log p ≤ 0)",
        _KOLMOGOROV,
        "Outside of [0, 1] a number is no probability.",
        rows.ordinary,
        pointwise.bounds,
        near=similar,
        never=True,
    ),
    Law(
        "sum",
        "|Σp - 1| ≤ n Σ ulp(p) in the output type; n ≤ ½ is what rounding correct entries "
        "explains; beyond it, more than 1e-3 is broken",
        _KOLMOGOROV,
        "Masses that do not add up to one bias every expectation.",
        rows.ordinary,
        pointwise.total,
        near=similar,
        absolute=True,
    ),
    Law(
        "additivity",
        "|Σ_A p - P(A)| ≤ n Σ_A ulp(p) for disjoint events A, P(A) exact",
        _KOLMOGOROV,
        "The probability of an event is the sum over its classes, small ones included.",
        rows.ordinary,
        pointwise.additivity,
        near=similar,
        absent=_probabilities_only,
    ),
    Law(
        "lipschitz",
        "‖σ(a) - σ(b)‖₂ ≤ ½‖a - b‖₂ + 2n‖ulp(σ(a))‖₂ (logarithms: ‖·‖∞ and 2)",
        _GAO,
        "A small change of the logits is a small change of the result.",
        rows.neighbours,
        pointwise.lipschitz,
        near=rows.near_neighbours,
    ),
)

ORDER = (
    Law(
        "order",
        "z_i > z_j implies p_i ≥ p_j",
        _GAO,
        "Whoever ranks by probability ranks by logit.",
        rows.ordinary,
        pointwise.order,
        near=similar,
        never=True,
    ),
    Law(
        "ties",
        "z_i = z_j implies p_i = p_j, bit for bit",
        "symmetry of the formula",
        "A tie must not be broken by where an entry stands.",
        rows.tied_rows,
        pointwise.ties,
        near=rows.near_ties,
        never=True,
    ),
    Law(
        "resolution",
        "if p_i = p_j although z_i ≠ z_j, the exact ones differ by at most 2n ulp",
        "strict monotonicity of the formula, rounded",
        "A difference that the type can show is shown.",
        rows.close_pairs,
        pointwise.resolution,
        near=rows.near_pairs,
    ),
)

MOVES = (
    Law(
        "translation",
        "f(fl(z + c)) is within n ulp of the exact softmax of fl(z + c), c from 1e-3 to 1e30",
        _HIGHAM,
        "Logits are defined up to a constant.",
        rows.translated,
        pointwise.values,
        near=rows.near_moved("+"),
    ),
    Law(
        "scaling",
        "f(fl(s z)) is within n ulp of the exact softmax of fl(s z), s from 2^-10 to 1e30",
        _GAO,
        "The scale of the logits is their sharpness: the result must change with it.",
        rows.scaled,
        pointwise.values,
        near=rows.near_moved("*"),
    ),
    Law(
        "temperature",
        "f(z, T) is within n ulp of the exact softmax of z / T, T from 1e-30 to 1e30",
        "G. Hinton, O. Vinyals, J. Dean, arXiv:1503.02531",
        "Small and large temperatures approach the maximum and the uniform distribution.",
        rows.at_temperatures(rows.TEMPERATURES),
        pointwise.values,
        near=similar,
        absent=_no_temperature,
    ),
    Law(
        "temperature limits",
        "T = 0 shares among the maxima, T = inf among all entries",
        _LIMIT,
        "Greedy decoding is T = 0, and no special case of the caller's.",
        rows.at_temperatures((0.0, float("inf"))),
        pointwise.values,
        near=similar,
        convention=True,
        absent=_no_temperature,
    ),
)

ACCURACY = (
    Law(
        "accuracy",
        "|p - exact| ≤ n ulp for p ≥ 1e-6 (logarithms: for every entry but the largest)",
        _HIGHAM,
        "The formula can be had to the last digits.",
        rows.ordinary,
        pointwise.accuracy,
        near=similar,
    ),
    Law(
        "tail",
        "|p - exact| ≤ n ulp for p < 1e-6, down to the least normal number",
        _HIGHAM,
        "Rare classes carry the log-loss.",
        rows.ordinary,
        pointwise.tail,
        near=similar,
        absent=_probabilities_only,
    ),
    Law(
        "maximum",
        "|log p - exact| ≤ n ulp at the largest entry",
        "log p = -log1p(rest)",
        "The loss of a confident model lives there.",
        rows.maxima,
        pointwise.maximum,
        near=similar,
        absent=_logs_only,
    ),
    Law(
        "overflow",
        "finite logits of any magnitude give the exact answer within n ulp",
        _HIGHAM,
        "e^89 is no float32, and softmax has no business with it.",
        rows.overflowing,
        pointwise.values,
        near=similar,
    ),
    Law(
        "underflow",
        "results around and below the least normal number are within n ulp",
        _IEEE + ", gradual underflow",
        "A zero that is none is an impossible event, and its logarithm -inf.",
        rows.underflowing,
        pointwise.values,
        near=similar,
    ),
)

SPECIAL = (
    Law(
        "-inf",
        "an entry of -inf gets 0 (logarithm: -inf), the others are as without it",
        _LIMIT,
        "-inf is how a class is excluded.",
        special_values.rows(special_values.MINUS_INFINITY),
        special_values.minus_infinity,
        near=special_values.shorter([-special_values.inf]),
    ),
    Law(
        "NaN",
        "a row with NaN is NaN in every entry",
        _IEEE + ", propagation",
        "A fault must not look like an answer.",
        special_values.rows(special_values.NAN),
        special_values.not_a_number,
        near=special_values.shorter([special_values.nan]),
    ),
    Law(
        "one class",
        "K = 1 and finite: exactly 1 (logarithm: 0)",
        _BRIDLE,
        "What is alone is certain.",
        rows.one_class,
        pointwise.against_exact,
        near=similar,
        never=True,
    ),
    Law(
        "+inf",
        "m entries of +inf get 1/m each, the others 0",
        _LIMIT,
        "NaN loses the one entry that is certain.",
        special_values.rows(special_values.PLUS_INFINITY),
        special_values.plus_infinity,
        near=special_values.shorter([special_values.inf]),
        convention=True,
    ),
    Law(
        "nothing left",
        "a row of -inf alone is NaN",
        "0 / 0: there is no distribution",
        "Zeros or shares would pass for an answer.",
        special_values.rows(special_values.NOTHING),
        special_values.nothing_left,
        near=special_values.shorter([-special_values.inf]),
        convention=True,
    ),
    Law(
        "empty",
        "K = 0 gives an empty array of the same shape",
        "array API standard, elementwise shapes",
        "A batch that happens to be empty is no error.",
        special_values.empty_rows,
        special_values.no_classes,
        convention=True,
    ),
    Law(
        "integers",
        "integers give the exact answer for their values, or are refused",
        "conversion before arithmetic",
        "z - max wraps around in int8.",
        special_values.integer_rows,
        special_values.integers,
        near=special_values.fewer_integers,
        convention=True,
        dtypes=tuple(special_values.RANGES),
    ),
    Law(
        "type",
        "the result has the type of the logits",
        "array API standard, type promotion",
        "A silent float64 doubles the memory, a silent float32 halves the digits.",
        special_values.a_row,
        special_values.result_type,
        convention=True,
    ),
)

INVARIANCE = (
    Law(
        "permutation",
        "f of the permuted row is the permuted f of the row within n ulp",
        "symmetry of the formula",
        "Classes have no order.",
        invariance.batches,
        invariance.permutation,
        near=invariance.smaller,
        line=invariance.permutation_line,
    ),
    Law(
        "batch",
        "a row gives the same bits alone and in a batch",
        "a row's result is a function of the row",
        "An answer must not depend on who else asks.",
        invariance.batches,
        invariance.batch,
        near=invariance.smaller,
        convention=True,
        never=True,
        line=invariance.batch_line,
    ),
    Law(
        "position",
        "a row gives the same bits in every place of a batch",
        "a row's result is a function of the row",
        "The same, for the place.",
        invariance.repeats,
        invariance.position,
        near=invariance.fewer_repeats,
        convention=True,
        never=True,
    ),
    Law(
        "layout",
        "the same bits for Fortran order, strides and offsets",
        "array API standard: an array is its values",
        "How memory is laid out is nobody's probability.",
        invariance.layouts,
        invariance.layout,
        near=invariance.near_layouts,
        convention=True,
        never=True,
        absent=invariance.no_layouts,
        line=invariance.layout_line,
    ),
    Law(
        "threads",
        "the same bits on one thread and on four",
        "a row's result is a function of the row",
        "A result must not depend on the machine's load.",
        invariance.large_batches,
        invariance.threads,
        near=invariance.smaller,
        convention=True,
        never=True,
        absent=invariance.no_threads,
        line=invariance.threads_line,
    ),
    Law(
        "determinism",
        "the same call gives the same result, within n ulp",
        "a function has one value",
        "What cannot be repeated cannot be tested.",
        invariance.batches,
        invariance.determinism,
        near=invariance.smaller,
        line=invariance.determinism_line,
    ),
    Law(
        "input",
        "the logits are the same after the call",
        "a function has no effects",
        "The caller still needs them.",
        invariance.batches,
        invariance.untouched,
        near=invariance.smaller,
        absent=invariance.immutable,
        line=invariance.untouched_line,
    ),
)

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        *AXIOMS,
        *ORDER,
        *MOVES,
        *ACCURACY,
        *SPECIAL,
        *INVARIANCE,
        *derivatives.LAWS,
        *sampling.LAWS,
    )
}
