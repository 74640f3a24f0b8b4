"""The problems and the solvers of `python -m bench regression`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-8)

Fit = Callable[[Any, Any, float, float], tuple[Any, Any]]  # X, y, C, tol -> coef, intercept


def digits() -> tuple[Any, Any]:
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def scaled_digits() -> tuple[Any, Any]:
    X, y = digits()
    return X / 16, y


def normal(n: int, d: int, k: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    z = X @ rng.standard_normal((d, k)) * 2 / np.sqrt(d)
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    return X, np.unique(y, return_inverse=True)[1]  # of many classes some have no row


def raw_pixels() -> tuple[Any, Any]:
    """Return mixtures of 40 random images, 0 to 255; many pixels are almost constant."""
    rng = np.random.default_rng(0)
    base = rng.random((40, 784)) ** 4 * 255
    X = np.clip((rng.random((20000, 40)) ** 6) @ base, 0, 255)
    z = (X - X.mean(0)) @ (rng.standard_normal((784, 10)) * 0.01)
    return X, (z + rng.gumbel(size=z.shape) * z.std() * 0.5).argmax(axis=1)


def words() -> tuple[Any, Any]:
    """Return log(1 + counts): 40 words a row, column j with a frequency of 1/j."""
    rng = np.random.default_rng(0)
    n, d, k = 20000, 5000, 10
    frequency = 1 / np.arange(1, d + 1)
    sampled = rng.choice(d, size=n * 40, p=frequency / frequency.sum())
    X = sp.csr_matrix((np.ones(n * 40), (np.repeat(np.arange(n), 40), sampled)), shape=(n, d))
    X.sum_duplicates()
    X.data = np.log1p(X.data)
    z = X @ rng.standard_normal((d, k)) / 3
    return X, (z + rng.gumbel(size=z.shape)).argmax(axis=1)


@dataclass(frozen=True)
class Case:
    name: str
    data: Callable[[], tuple[Any, Any]]
    C: float = 1.0
    tolerances: tuple[float, ...] = TOLERANCES  # of the peers


CASES = (
    Case("digits, raw: 1797×64, 10 classes", digits),
    Case("digits/16", scaled_digits),
    Case("normal 50000×20, 5 classes", lambda: normal(50000, 20, 5)),
    Case("normal 20000×50, 20 classes", lambda: normal(20000, 50, 20)),
    Case("sparse 20000×5000, 10 classes", words),
    Case("raw pixels 20000×784, 10 classes", raw_pixels, tolerances=(1e-6,)),
    Case("normal 50000×20, 5 classes, no penalty", lambda: normal(50000, 20, 5), np.inf),
    Case("normal 50000×20, 2 classes", lambda: normal(50000, 20, 2)),
    Case("normal 50000×20, 2 classes, no penalty", lambda: normal(50000, 20, 2), np.inf),
    Case("normal 5000×200, 2 classes", lambda: normal(5000, 200, 2)),
    Case("normal 5000×200, 2 classes, no penalty", lambda: normal(5000, 200, 2), np.inf),
    Case("normal 1000000×10, 2 classes", lambda: normal(1000000, 10, 2)),
    Case("normal 3000×5, 820 classes", lambda: normal(3000, 5, 1000)),
    Case("normal 20000×20, 1000 classes", lambda: normal(20000, 20, 1000)),
)


def logitlab(X: Any, y: Any, C: float, tol: float) -> tuple[Any, Any]:
    from logitlab import SoftmaxRegression

    model = SoftmaxRegression(C=C, tol=tol).fit(X, y)
    return model.coef_, model.intercept_


def scikit_learn(solver: str) -> Fit:
    def fit(X: Any, y: Any, C: float, tol: float) -> tuple[Any, Any]:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=C, solver=solver, tol=tol, max_iter=1000).fit(X, y)
        return model.coef_, model.intercept_

    return fit


def torch_lbfgs(X: Any, y: Any, C: float, tol: float) -> tuple[Any, Any]:
    import torch
    from torch.nn import functional

    x, t = torch.from_numpy(X), torch.from_numpy(np.asarray(y, np.int64))
    n, k = len(y), int(y.max()) + 1
    rows = 1 if k == 2 else k
    W = torch.zeros((rows, x.shape[1]), dtype=x.dtype, requires_grad=True)
    b = torch.zeros(rows, dtype=x.dtype, requires_grad=True)
    target = t.to(x.dtype)[:, None]
    optimiser = torch.optim.LBFGS(
        [W, b],
        max_iter=1000,
        max_eval=2000,
        history_size=20,
        tolerance_grad=tol,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Any:
        optimiser.zero_grad()
        penalty = 0.5 / C * (W * W).sum() / n
        z = x @ W.T + b
        if k == 2:
            loss = functional.binary_cross_entropy_with_logits(z, target)
        else:
            loss = functional.cross_entropy(z, t)
        loss = loss + penalty
        loss.backward()
        return loss

    optimiser.step(closure)
    return W.detach().numpy(), b.detach().numpy()


def statsmodels(X: Any, y: Any, C: float, tol: float) -> tuple[Any, Any]:
    import statsmodels.api as sm

    model = sm.MNLogit(y, sm.add_constant(X))
    result = model.fit(method="newton", tol=tol, maxiter=1000, disp=0, skip_hessian=True)
    parameters = np.hstack([np.zeros((X.shape[1] + 1, 1)), result.params])
    return parameters[1:].T, parameters[0]


PEERS: dict[str, Fit] = {
    "logitlab": logitlab,
    **{
        f"sklearn {solver}": scikit_learn(solver)
        for solver in ("lbfgs", "newton-cg", "newton-cholesky", "sag", "saga")
    },
    "torch LBFGS": torch_lbfgs,
    "statsmodels": statsmodels,
}


def supports(peer: str, case: Case, X: Any) -> bool:
    """Return whether a solver supports a case and needs minutes at most."""
    if peer == "statsmodels":
        return bool(np.isinf(case.C))  # it has no ridge penalty
    many_classes = case.name.endswith(("820 classes", "1000 classes"))
    if peer == "sklearn newton-cholesky" and (X.shape[1] > 2000 or many_classes):
        return False  # a Hessian of 50000 by 50000, or of 4920 by 4920 in every step
    slow = case.data is raw_pixels or case.name.endswith("1000 classes")
    if peer in ("sklearn sag", "sklearn saga") and slow:
        return False  # takes minutes, and no signal stops it
    return peer != "torch LBFGS" or not sp.issparse(X)


def objective(case: Case, X: Any, y: Any, solution: tuple[Any, Any]) -> float:
    """Return the mean loss plus penalty in float64."""
    coef, intercept = solution
    z = np.asarray(X @ coef.T + intercept, np.float64)
    if z.shape[1] == 1:  # the log-odds of two classes
        z = np.hstack([np.zeros_like(z), z])
    z -= z.max(axis=1, keepdims=True)
    loss = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y]
    return float(loss.mean() + 0.5 / case.C / len(y) * np.sum(np.square(coef, dtype=np.float64)))
