"""Checks the laws of samplers and verifiers at one family-wise level."""

from collections.abc import Iterator, Sequence
from typing import Any

from logitlab.laws.law import Counterexample, Finding, LawResult, SamplerLaw, certain
from logitlab.laws.tested_function import error_text

FALSE_ALARMS = 1e-6  # the probability that a correct function fails any of the tests


def _findings(function: Any, law: SamplerLaw, seed: int) -> Iterator[Finding]:
    try:
        yield from law.tests(function, seed)
    except Exception as error:  # the function may raise any class
        yield certain(False, f"{function.name}: {law.name}", error_text(error), "a result")


def _bound(p_value: float) -> str:
    return f"at most {p_value:.1e}" if p_value > 1e-300 else "below 1e-300"


def evaluate(function: Any, laws: Sequence[SamplerLaw], seed: int) -> tuple[list[LawResult], int]:
    """The results of the laws, and the number of statistical tests that share the level.

    Each test has the level `FALSE_ALARMS` divided by their number (Bonferroni).
    """
    missing = {law.name: [x for x in law.requires if not function.names[x]] for law in laws}
    findings = {
        law.name: [] if missing[law.name] else list(_findings(function, law, seed)) for law in laws
    }
    n_tests = sum(f.statistical for found in findings.values() for f in found)
    level = FALSE_ALARMS / max(n_tests, 1)
    results = []
    for law in laws:
        if missing[law.name]:
            note = f"the function has no parameter for {' and '.join(missing[law.name])}"
            results.append(LawResult(law, "not applicable", note=note))
            continue
        found = findings[law.name]
        worst = min(found, key=lambda finding: finding.p_value)
        note = next((f.note for f in found if f.note), "")
        if worst.p_value > level:
            results.append(LawResult(law, "passes", note=note))
            continue
        text = f"; probability {_bound(worst.p_value)}" if worst.statistical else ""
        example = Counterexample(worst.code, worst.result + text, worst.expected, "float32")
        failing = "differs" if law.convention else "fails"
        results.append(LawResult(law, failing, None, example))
    return results, n_tests
