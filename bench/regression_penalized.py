"""Softmax regression with an L1 penalty and its peers: time to an objective within 1e-6."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from bench import tables
from bench.regression_cases import normal, scaled_digits, words
from bench.timing import medians
from logitlab import get_num_threads

CLOSE = 1e-6  # relative to the best known objective
SLOW = 2.0  # seconds from which on a fit is timed only once
LONG = 20.0  # seconds from which on no stricter tolerance is tried
REPEATS = 5
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10, 1e-12)


def wide() -> tuple[Any, Any]:
    """Return 300 rows of 5000 correlated features, of which 30 matter."""
    rng = np.random.default_rng(0)
    n, d, k = 300, 5000, 4
    X = rng.standard_normal((n, 20)) @ rng.standard_normal((20, d))
    X += 2 * rng.standard_normal((n, d))
    z = X[:, :30] @ rng.standard_normal((30, k))
    return X, (z / z.std() * 3 + rng.gumbel(size=z.shape)).argmax(axis=1)


def wide_binary() -> tuple[Any, Any]:
    X, y = wide()
    return X, (y > 1).astype(int)


@dataclass(frozen=True)
class Case:
    name: str
    data: Callable[[], tuple[Any, Any]]
    C: float
    l1_ratio: float = 1.0
    grouped: bool = False


CASES = (
    Case("digits/16, C = 1", scaled_digits, 1.0),
    Case("digits/16, C = 1, elastic net", scaled_digits, 1.0, 0.5),
    Case("digits/16, C = 1, grouped", scaled_digits, 1.0, grouped=True),
    Case("normal 50000×20, 5 classes, C = 0.01", lambda: normal(50000, 20, 5), 0.01),
    Case("normal 20000×50, 20 classes, C = 0.02", lambda: normal(20000, 50, 20), 0.02),
    Case("sparse 20000×5000, 10 classes, C = 0.05", words, 0.05),
    Case("normal 5000×200, 2 classes, C = 0.03", lambda: normal(5000, 200, 2), 0.03),
    Case("wide 300×5000, 4 classes, C = 0.05", wide, 0.05),
    Case("wide 300×5000, 4 classes, C = 0.05, grouped", wide, 0.05, grouped=True),
    Case("wide 300×5000, 2 classes, C = 0.05", wide_binary, 0.05),
)


def logitlab(case: Case, X: Any, y: Any, tol: float) -> tuple[Any, Any]:
    from logitlab import SoftmaxRegression

    options: dict[str, Any] = {"l1_ratio": case.l1_ratio, "grouped": case.grouped}
    model = SoftmaxRegression(C=case.C, tol=tol, **options).fit(X, y)
    return model.coef_, model.intercept_


def saga(case: Case, X: Any, y: Any, tol: float) -> tuple[Any, Any]:
    from sklearn.linear_model import LogisticRegression

    options: dict[str, Any] = {"l1_ratio": case.l1_ratio, "solver": "saga", "max_iter": 3000}
    model = LogisticRegression(C=case.C, tol=tol, **options).fit(X, y)
    return model.coef_, model.intercept_


def skglm(case: Case, X: Any, y: Any, tol: float) -> tuple[Any, Any]:
    from skglm.estimators import SparseLogisticRegression

    model = SparseLogisticRegression(alpha=1 / (case.C * len(y)), tol=tol, max_iter=200)
    model.fit(X, y)
    return model.coef_, np.atleast_1d(model.intercept_)


def adelie(case: Case, X: Any, y: Any, tol: float) -> tuple[Any, Any]:
    import adelie as ad

    k = len(np.unique(y))
    multi = k > 2
    glm = ad.glm.multinomial(np.eye(k)[y]) if multi else ad.glm.binomial(y.astype(float))
    state = ad.grpnet(
        np.asfortranarray(X),
        glm,
        alpha=case.l1_ratio,
        lmda_path=[1 / (case.C * len(y) * (k if multi else 1))],
        penalty=np.ones(X.shape[1]),
        tol=tol,
        irls_tol=tol,
        early_exit=False,
        progress_bar=False,
    )
    coef = state.betas.toarray().reshape(X.shape[1], -1).T
    return coef, state.intercepts.reshape(-1)


def glum(case: Case, X: Any, y: Any, tol: float) -> tuple[Any, Any]:
    from glum import GeneralizedLinearRegressor

    model = GeneralizedLinearRegressor(
        alpha=1 / (case.C * len(y)),
        l1_ratio=case.l1_ratio,
        family="binomial",
        gradient_tol=tol,
        max_iter=1000,
    ).fit(X, y)
    return model.coef_[None], np.atleast_1d(model.intercept_)


Fit = Callable[[Case, Any, Any, float], tuple[Any, Any]]

PEERS: dict[str, Fit] = {
    "logitlab": logitlab,
    "sklearn saga": saga,
    "skglm": skglm,
    "adelie": adelie,
    "glum": glum,
}


def supports(peer: str, case: Case, X: Any, classes: int) -> bool:
    """Return whether a peer has the model of a case."""
    if peer == "sklearn saga":
        return not case.grouped
    if peer == "adelie":
        return not sp.issparse(X) and (case.grouped or classes == 2)
    if peer == "glum" and X.shape[1] > 1000:
        return False  # a Hessian of all features in every step
    return peer == "logitlab" or (classes == 2 and not case.grouped)


def objective(case: Case, X: Any, y: Any, solution: tuple[Any, Any]) -> float:
    """Return the mean loss plus penalty in float64."""
    coef, intercept = solution
    z = np.asarray(X @ coef.T + intercept, np.float64)
    if z.shape[1] == 1:  # the log-odds of two classes
        z = np.hstack([np.zeros_like(z), z])
    z -= z.max(axis=1, keepdims=True)
    loss = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y]
    sizes = np.linalg.norm(coef, axis=0) if case.grouped else abs(coef)
    penalty = case.l1_ratio * sizes.sum() + (1 - case.l1_ratio) / 2 * np.sum(coef**2)
    return float(loss.mean() + penalty / case.C / len(y))


def _timed(fit: Fit, case: Case, X: Any, y: Any, tol: float) -> tuple[float, Any]:
    start = time.perf_counter()
    solution = fit(case, X, y, tol)
    return time.perf_counter() - start, solution


def measure(case: Case) -> dict[str, Any]:
    """Return for each peer the time at the loosest sufficient tolerance, and its zeros."""
    X, y = case.data()
    exact = logitlab(case, X, y, 1e-8)
    best, classes = objective(case, X, y, exact), len(np.unique(y))
    print(case.name, flush=True)
    results: dict[str, dict[str, Any]] = {}
    for name, fit in PEERS.items():
        if not supports(name, case, X, classes):
            continue
        fit(case, X, y, TOLERANCES[0])  # skglm and others compile in their first fit
        for tol in TOLERANCES:
            seconds, solution = _timed(fit, case, X, y, tol)
            gap = objective(case, X, y, solution) / best - 1
            results[name] = {"tol": tol, "seconds": seconds, "gap": gap, "solution": solution}
            print(f"  {name:24} tol {tol:g}: {seconds:.3f} s, gap {gap:.1e}", flush=True)
            if gap <= CLOSE or seconds > LONG:
                break
    quick = [n for n, r in results.items() if r["gap"] <= CLOSE and r["seconds"] < SLOW]

    def seconds_of(name: str) -> float:
        return _timed(PEERS[name], case, X, y, results[name]["tol"])[0]

    for name, median in medians(quick, seconds_of, REPEATS).items():
        results[name]["seconds"] = median
    for result in results.values():
        coef = result.pop("solution")[0]
        result["different"] = int(np.count_nonzero((coef != 0) != (exact[0] != 0)))
    return {"case": case.name, "nonzero": int(np.count_nonzero(exact[0])), "peers": results}


def run() -> list[dict[str, Any]]:
    return [measure(case) for case in CASES]


def _cell(result: dict[str, Any], ours: float) -> str:
    seconds, zeros = result["seconds"], result["different"]
    differing = f", zeros differ: {zeros}" if zeros else ""
    if result["gap"] > CLOSE:
        return f"not in {seconds:.3g}, gap {result['gap']:.0e}"
    return f"{seconds:.3g} ({seconds / ours:.1f}×{differing})"


def page(rows: list[dict[str, Any]]) -> str:
    """Return the table and its note."""
    names = list(PEERS)
    lines = ["| | not 0 | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        ours = row["peers"]["logitlab"]["seconds"]
        cells = [row["case"], str(row["nonzero"])]
        for name in names:
            result = row["peers"].get(name)
            cells.append("" if result is None else _cell(result, ours))
        lines.append("| " + " | ".join(cells) + " |")
    ratios = [
        row["peers"]["sklearn saga"]["seconds"] / row["peers"]["logitlab"]["seconds"]
        for row in rows
        if "sklearn saga" in row["peers"]
    ]
    mean = float(np.exp(np.mean(np.log(ratios))))
    libraries = tables.versions(("numpy", "scikit-learn", "skglm", "adelie", "glum"))
    return "\n".join(lines) + (
        "\n\nL1 penalties: seconds to an objective within 1e-6 (relative) of the best known, at "
        f"the loosest of the tolerances {', '.join(f'{t:g}' for t in TOLERANCES)} that reaches it, "
        'and how many zeros of that fit differ from those of the optimum. "not 0" counts the '
        "coefficients of the optimum. skglm and glum have two classes only, adelie (the algorithm "
        "of glmnet) grouped penalties and two classes. "
        f"{tables.machine()}, {get_num_threads()} threads; {libraries}. Geometric mean of the "
        f"multiples of saga: {mean:.1f}; where it does not reach the objective, it counts with the "
        "time it took."
    )
