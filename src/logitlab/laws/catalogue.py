"""The catalogue of laws: statement, source and reason of each."""

from logitlab.laws import derivatives, invariance, pointwise, rows, sampling, special_values
from logitlab.laws.cases import simpler_cases
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


def _probabilities(context: Context) -> str:
    return "" if context.function.log else "the function returns probabilities"


def _log_probabilities(context: Context) -> str:
    return "the function returns log-probabilities" if context.function.log else ""


def _no_temperature(context: Context) -> str:
    return "" if context.function.temperature else "the function has no temperature parameter"


AXIOMS = (
    Law(
        "bounds",
        "0 ≤ p ≤ 1 for every entry (log p ≤ 0)",
        _KOLMOGOROV,
        "A number outside [0, 1] is not a probability.",
        rows.ordinary,
        pointwise.bounds,
        simpler=simpler_cases,
        zero_tolerance=True,
    ),
    Law(
        "sum",
        "|Σp - 1| ≤ n Σ ulp(p); rounding the exact entries explains n ≤ ½; beyond that, an error "
        "above 1e-3 fails",
        _KOLMOGOROV,
        "Probabilities that do not sum to 1 bias every expectation.",
        rows.ordinary,
        pointwise.total,
        simpler=simpler_cases,
        limits_relative=True,
    ),
    Law(
        "additivity",
        "|Σ_A p - P(A)| ≤ n Σ_A ulp(p) for disjoint events A, P(A) exact",
        _KOLMOGOROV,
        "The probability of an event is the sum over its classes, small ones included.",
        rows.ordinary,
        pointwise.additivity,
        simpler=simpler_cases,
        not_applicable=_log_probabilities,
    ),
    Law(
        "lipschitz",
        "‖σ(a) - σ(b)‖₂ ≤ ½‖a - b‖₂ + 2n‖ulp(σ(a))‖₂ (log p: ‖·‖∞ and 2)",
        _GAO,
        "A small change of the logits changes the result by little.",
        rows.neighbours,
        pointwise.lipschitz,
        simpler=rows.simpler_neighbours,
    ),
)

ORDER = (
    Law(
        "order",
        "z_i > z_j implies p_i ≥ p_j",
        _GAO,
        "A ranking by probability is a ranking by logit.",
        rows.ordinary,
        pointwise.order,
        simpler=simpler_cases,
        zero_tolerance=True,
    ),
    Law(
        "ties",
        "z_i = z_j implies p_i = p_j, bit for bit",
        "symmetry of the formula",
        "The position of an entry must not break a tie.",
        rows.tied,
        pointwise.ties,
        simpler=rows.simpler_tied,
        zero_tolerance=True,
    ),
    Law(
        "resolution",
        "z_i ≠ z_j and p_i = p_j implies that the exact values differ by at most 2n ulp",
        "strict monotonicity of the formula, rounded",
        "A difference that the dtype can represent is not lost.",
        rows.close_pairs,
        pointwise.resolution,
        simpler=rows.single_rows,
    ),
)

TRANSFORMATIONS = (
    Law(
        "translation",
        "f(fl(z + c)) is within n ulp of the exact softmax of fl(z + c), c from 1e-3 to 1e30",
        _HIGHAM,
        "Logits are defined up to a constant.",
        rows.translated,
        pointwise.values,
        simpler=rows.simpler_translated,
    ),
    Law(
        "scaling",
        "f(fl(s z)) is within n ulp of the exact softmax of fl(s z), s from 2^-10 to 1e30",
        _GAO,
        "The scale of the logits sets how concentrated the probabilities are.",
        rows.scaled,
        pointwise.values,
        simpler=rows.simpler_scaled,
    ),
    Law(
        "temperature",
        "f(z, T) is within n ulp of the exact softmax of z / T, T from 1e-30 to 1e30",
        "G. Hinton, O. Vinyals, J. Dean, arXiv:1503.02531",
        "Small and large temperatures approach the argmax and the uniform distribution.",
        rows.at_temperatures(rows.TEMPERATURES),
        pointwise.values,
        simpler=simpler_cases,
        not_applicable=_no_temperature,
    ),
    Law(
        "temperature limits",
        "T = 0 gives equal probabilities to the maxima, T = inf to all entries",
        _LIMIT,
        "Greedy decoding is T = 0, without a special case in the caller.",
        rows.at_temperatures((0.0, float("inf"))),
        pointwise.values,
        simpler=simpler_cases,
        convention=True,
        not_applicable=_no_temperature,
    ),
)

ACCURACY = (
    Law(
        "accuracy",
        "|p - exact| ≤ n ulp for p ≥ 1e-6 (log p: for every entry but the largest)",
        _HIGHAM,
        "The formula can be computed to the last digits.",
        rows.ordinary,
        pointwise.accuracy,
        simpler=simpler_cases,
    ),
    Law(
        "tail",
        "|p - exact| ≤ n ulp for p < 1e-6, down to the smallest normal number",
        _HIGHAM,
        "Rare classes dominate the log-loss.",
        rows.ordinary,
        pointwise.tail,
        simpler=simpler_cases,
        not_applicable=_log_probabilities,
    ),
    Law(
        "maximum",
        "|log p - exact| ≤ n ulp at the largest entry",
        "log p = -log1p(rest)",
        "It is the loss of a confident correct prediction.",
        rows.dominant_class,
        pointwise.maximum,
        simpler=simpler_cases,
        not_applicable=_probabilities,
    ),
    Law(
        "overflow",
        "finite logits of any magnitude give the exact result within n ulp",
        _HIGHAM,
        "e^89 overflows float32, but softmax does not need it.",
        rows.overflowing,
        pointwise.values,
        simpler=simpler_cases,
    ),
    Law(
        "underflow",
        "results near and below the smallest normal number are within n ulp",
        _IEEE + ", gradual underflow",
        "A probability rounded to 0 has the logarithm -inf.",
        rows.underflowing,
        pointwise.values,
        simpler=simpler_cases,
    ),
)

SPECIAL = (
    Law(
        "-inf",
        "an entry of -inf gets 0 (log p: -inf), the others are as in the row without it",
        _LIMIT,
        "-inf excludes a class.",
        special_values.special_rows(special_values.MINUS_INFINITY),
        special_values.minus_infinity,
        simpler=special_values.shorter(-special_values.inf),
    ),
    Law(
        "NaN",
        "a row with a NaN gives NaN in every entry",
        _IEEE + ", propagation",
        "An invalid input must not give a valid result.",
        special_values.special_rows(special_values.NAN),
        special_values.not_a_number,
        simpler=special_values.shorter(special_values.nan),
    ),
    Law(
        "one class",
        "a single finite logit gives exactly 1 (log p: 0)",
        _BRIDLE,
        "The only class is certain.",
        rows.one_class,
        pointwise.all_entries,
        simpler=rows.single_rows,
        zero_tolerance=True,
    ),
    Law(
        "+inf",
        "m entries of +inf get 1/m each, the others 0",
        _LIMIT,
        "NaN would lose the class that is certain.",
        special_values.special_rows(special_values.PLUS_INFINITY),
        special_values.plus_infinity,
        simpler=special_values.shorter(special_values.inf),
        convention=True,
    ),
    Law(
        "all -inf",
        "a row of -inf only gives NaN",
        "0 / 0: there is no distribution",
        "Zeros or equal probabilities would look like a valid result.",
        special_values.special_rows(special_values.ALL_EXCLUDED),
        special_values.all_excluded,
        simpler=special_values.shorter(-special_values.inf),
        convention=True,
    ),
    Law(
        "empty",
        "K = 0 gives an empty array of the same shape",
        "array API standard, elementwise shapes",
        "An empty batch is not an error.",
        special_values.empty_rows,
        special_values.no_classes,
        convention=True,
    ),
    Law(
        "integers",
        "integer logits give the exact result for their values, or an error",
        "conversion before arithmetic",
        "z - max wraps around in int8.",
        special_values.integer_rows,
        special_values.integers,
        simpler=special_values.shorter_integers,
        convention=True,
        dtypes=tuple(special_values.INTEGER_ROWS),
    ),
    Law(
        "dtype",
        "the result has the dtype of the logits",
        "array API standard, type promotion",
        "A silent float64 doubles the memory; a silent float32 loses half of the digits.",
        special_values.single_row,
        special_values.result_dtype,
        convention=True,
    ),
)

INVARIANCE = (
    Law(
        "permutation",
        "the result of the permuted row is the permuted result within n ulp",
        "symmetry of the formula",
        "The order of the classes has no meaning.",
        invariance.batches,
        invariance.permutation,
        simpler=invariance.smaller_batches,
        code=invariance.permutation_code,
    ),
    Law(
        "batch",
        "a row gives the same bits alone and in a batch; beyond rounding, it fails",
        "a row's result is a function of the row",
        "A result must not depend on the other rows of the batch.",
        invariance.batches,
        invariance.batch,
        simpler=invariance.smaller_batches,
        convention=True,
        allows_rounding=True,
        zero_tolerance=True,
        code=invariance.batch_code,
    ),
    Law(
        "position",
        "a row gives the same bits at every position in a batch; beyond rounding, it fails",
        "a row's result is a function of the row",
        "A result must not depend on the position of the row.",
        invariance.repeated_rows,
        invariance.position,
        simpler=invariance.smaller_repeated_rows,
        convention=True,
        allows_rounding=True,
        zero_tolerance=True,
    ),
    Law(
        "layout",
        "the same bits for Fortran order, strides and offsets; beyond rounding, it fails",
        "array API standard: an array is its values",
        "The memory layout has no meaning.",
        invariance.layouts,
        invariance.layout,
        simpler=invariance.smaller_layouts,
        convention=True,
        allows_rounding=True,
        zero_tolerance=True,
        not_applicable=invariance.no_layouts,
        code=invariance.layout_code,
    ),
    Law(
        "threads",
        "the same bits on one thread and on four; beyond rounding, it fails",
        "a row's result is a function of the row",
        "A result must not depend on the machine.",
        invariance.large_batches,
        invariance.threads,
        simpler=invariance.smaller_batches,
        convention=True,
        allows_rounding=True,
        zero_tolerance=True,
        not_applicable=invariance.no_threads,
        code=invariance.threads_code,
    ),
    Law(
        "determinism",
        "the same call gives the same result, within n ulp",
        "a function has one value",
        "A test must be repeatable.",
        invariance.batches,
        invariance.determinism,
        simpler=invariance.smaller_batches,
        code=invariance.determinism_code,
    ),
    Law(
        "input unchanged",
        "the logits are the same after the call",
        "a function has no side effects",
        "The caller still needs them.",
        invariance.batches,
        invariance.unchanged_input,
        simpler=invariance.smaller_batches,
        not_applicable=invariance.immutable,
        code=invariance.unchanged_input_code,
    ),
)

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        *AXIOMS,
        *ORDER,
        *TRANSFORMATIONS,
        *ACCURACY,
        *SPECIAL,
        *INVARIANCE,
        *derivatives.LAWS,
        *sampling.LAWS,
    )
}
