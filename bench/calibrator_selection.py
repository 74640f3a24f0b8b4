"""select_calibrator and the calibrators of other libraries: log-loss, ECE and time of a fit."""

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import logitlab
from bench.tables import ROOT

Predict = Callable[[Any], Any]  # probabilities -> calibrated probabilities
_REPEATS = 3
_ONCE = 0.5  # seconds from which on a fit is timed once
_LEAST = 2.0**-52  # probability that an exact 0 is replaced with, as in sklearn.metrics.log_loss


def _sampled(rng: Any, true_logits: Any) -> Any:
    return (true_logits + rng.gumbel(size=true_logits.shape)).argmax(axis=1)


def _synthetic() -> Iterator[tuple[str, Any, Any]]:
    """Yield the name, the logits and labels of each family."""
    rng = np.random.default_rng(0)
    t = rng.normal(-1, 2, 10_000)
    z = np.stack([np.zeros(len(t)), 4 * np.tanh(t / 2.5) + 0.7], axis=1)
    yield (
        "2 classes, log-odds through a sigmoid",
        z,
        (rng.random(len(t)) < 1 / (1 + np.exp(-t))).astype(int),
    )
    t = rng.normal(0, 2, (10_000, 10))
    yield "10 classes, temperature 1.8", 1.8 * t, _sampled(rng, t)
    t = rng.normal(0, 2, (10_000, 10))
    z = t * np.linspace(0.6, 2, 10) + np.linspace(-1.5, 1.5, 10)
    yield "10 classes, a scale and a bias for each", z, _sampled(rng, t)
    t = rng.normal(0, 2, (2000, 100))
    yield "100 classes, temperature 1.5, 1000 rows", 1.5 * t, _sampled(rng, t)
    t = 1.5 * rng.standard_t(3, (10_000, 10))
    noise = rng.normal(0, 2.5, t.shape) * (rng.random((len(t), 1)) < 0.3)
    yield "10 classes, heavy tails, noise in 30 % of the rows", 1.5 * (t + noise), _sampled(rng, t)


def problems(quick: bool) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name, the logits and the labels of each problem."""
    for k in (10, 100):
        path = ROOT.parent / "shared" / "data" / f"wideresnet-16-4-cifar-{k}.npz"
        if path.is_file() and not quick:
            with np.load(path) as file:
                p, y = file["predictions"].astype(np.float64), file["ground_truth"].ravel()
            yield f"CIFAR-{k}, wide residual network", np.asarray(logitlab.logits(p)), y.astype(int)
    yield from _synthetic()


def _probmetrics(method: str) -> Callable[[Any, Any], Predict]:
    def fit(p: Any, y: Any) -> Predict:
        from probmetrics.calibrators import get_calibrator

        return get_calibrator(method).fit(p, y).predict_proba

    return fit


def _netcal(name: str) -> Callable[[Any, Any], Predict]:
    def fit(p: Any, y: Any) -> Predict:
        from netcal import binning, scaling

        method = getattr(scaling, name, None) or getattr(binning, name)
        two = p.shape[1] == 2
        calibrator = method().fit(p[:, 1] if two else p, y)

        def predict(q: Any) -> Any:
            if not two:
                return calibrator.transform(q)
            p1 = np.ravel(calibrator.transform(q[:, 1]))
            return np.stack([1 - p1, p1], axis=1)

        return predict

    return fit


def _scikit_learn(method: str) -> Callable[[Any, Any], Predict]:
    def fit(p: Any, y: Any) -> Predict:
        from sklearn.base import BaseEstimator, ClassifierMixin
        from sklearn.calibration import CalibratedClassifierCV
        from sklearn.frozen import FrozenEstimator

        class Logits(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
            def fit(self, x: Any, y: Any) -> Any:
                self.classes_ = np.arange(x.shape[1])
                return self

            def predict(self, x: Any) -> Any:
                return x.argmax(axis=1)

            def decision_function(self, x: Any) -> Any:
                return x[:, 1] - x[:, 0] if x.shape[1] == 2 else x

        z = np.log(p)
        model = CalibratedClassifierCV(FrozenEstimator(Logits().fit(z, y)), method=method).fit(z, y)
        return lambda q: model.predict_proba(np.log(q))

    return fit


_NETCAL = ["TemperatureScaling", "IsotonicRegression", "HistogramBinning"]
_SLOW = ["LogisticCalibration", "BetaCalibration"]  # a minute and more with 100 classes
_TWO_CLASSES = ["beta", "quadratic-scaling"]


def peers(classes: int) -> dict[str, Callable[[Any, Any], Predict]]:
    """Return the fits of probabilities and labels, which return a function of probabilities."""
    methods = ["svs", "sms", "ts-mix", *(["logistic", *_TWO_CLASSES] if classes == 2 else [])]
    names = _NETCAL + (_SLOW if classes <= 10 else [])
    return (
        {f"probmetrics {name}": _probmetrics(name) for name in methods}
        | {f"netcal {name}": _netcal(name) for name in names}
        | {
            f"scikit-learn {name}": _scikit_learn(name)
            for name in ("sigmoid", "isotonic", "temperature")
        }
    )


def _few_rows(p: Any, y: Any) -> tuple[Any, Any]:
    """Return three classes, or two, of few rows."""
    k = min(p.shape[1], 3)
    rows = np.flatnonzero(y < k)[:100]
    q = np.maximum(p[rows, :k], 1e-3)
    return q / q.sum(axis=1, keepdims=True), y[rows]


def measure(quick: bool) -> list[dict[str, Any]]:
    """Return the processor time, log-loss, ECE and difference from logitlab of each calibrator."""
    results = []
    for problem, z, y in problems(quick):
        order = np.random.default_rng(0).permutation(len(y))
        first, second = np.array_split(order, 2)
        p, q = (np.asarray(logitlab.softmax(z[rows])) for rows in (first, second))
        selected = ""

        def fit_logitlab(p: Any, y: Any) -> Predict:
            nonlocal selected
            selection = logitlab.select_calibrator(np.log(p), y)
            selected = selection.name
            return lambda probabilities: selection.calibrator.predict_proba(np.log(probabilities))

        times: dict[str, list[float]] = {}
        losses, errors = {}, {}
        fits = {"logitlab": fit_logitlab, **peers(z.shape[1])}
        for fit in fits.values():  # imports and compilation
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit(*_few_rows(p, y[first]))
        for repeat in range(_REPEATS):
            for name, fit in fits.items():
                if repeat and times[name][0] > _ONCE:
                    continue
                start = time.process_time()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    predict = fit(p, y[first])
                    times.setdefault(name, []).append(time.process_time() - start)
                    if repeat:
                        continue
                    calibrated = np.maximum(np.asarray(predict(q), np.float64), _LEAST)
                log_p = np.log(calibrated / calibrated.sum(axis=1, keepdims=True))
                losses[name] = -log_p[np.arange(len(second)), y[second]]
                errors[name] = logitlab.calibration_error(log_p, y[second])
        for name, loss in losses.items():
            difference = losses["logitlab"] - loss
            results.append(
                {
                    "problem": problem,
                    "name": f"logitlab ({selected})" if name == "logitlab" else name,
                    "seconds": statistics.median(times[name]),
                    "log_loss": float(loss.mean()),
                    "ece": errors[name],
                    "difference": float(difference.mean()),
                    "half_width": 1.96 * float(difference.std()) / len(loss) ** 0.5,
                }
            )
            print(results[-1], flush=True)
    return results


def table(results: list[dict[str, Any]]) -> str:
    """Return a table for each problem, ordered by log-loss."""
    lines = []
    for problem in dict.fromkeys(row["problem"] for row in results):
        rows = [row for row in results if row["problem"] == problem]
        ours = rows[0]
        lines += [
            f"### {problem}",
            "",
            "| | log-loss | ECE | logitlab's log-loss minus this one | fit |",
            "|---|---|---|---|---|",
        ]
        for row in sorted(rows, key=lambda row: float(row["log_loss"])):
            difference, multiple = "", ""
            if row is not ours:
                difference = f"{row['difference']:+.5f} ± {row['half_width']:.5f}"
                multiple = f" ({row['seconds'] / ours['seconds']:.2g}×)"
            lines.append(
                f"| {row['name']} | {row['log_loss']:.4f} | {row['ece']:.4f} | {difference} | "
                f"{1e3 * row['seconds']:.3g} ms{multiple} |"
            )
        lines.append("")
    return "\n".join(lines)


def counts(results: list[dict[str, Any]]) -> str:
    """Return in how many comparisons the log-loss is higher, lower, and the fit faster."""
    others = [row for row in results if not row["name"].startswith("logitlab")]
    ours = {row["problem"]: row["seconds"] for row in results if row not in others}
    worse = sum(row["difference"] > row["half_width"] for row in others)
    better = sum(row["difference"] < -row["half_width"] for row in others)
    near = [row for row in others if row["difference"] >= -row["half_width"]]
    faster = sum(row["seconds"] > ours[row["problem"]] for row in near)
    return (
        f"Of {len(others)} comparisons, the log-loss of `select_calibrator` is significantly lower "
        f"in {better} and significantly higher in {worse}. {len(near)} fits have a log-loss that "
        f"is not significantly higher; {len(near) - faster} of them take less time, as "
        "`select_calibrator` fits several calibrators, each on two folds."
    )
