"""TemperatureScaling and its peers: time, temperature and log-loss of a fit."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize

import logitlab
from bench import calibrator_selection
from bench.peers import THREADS
from bench.tables import machine, versions, write_page

SHAPES = [(5000, 10), (10000, 100), (50000, 1000)]
_REPEATS = 3


def problem(shape: tuple[int, int]) -> tuple[Any, Any]:
    """Return float32 logits whose true temperature is 1.7, and labels."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal(shape, dtype=np.float32) * np.float32(3)
    y = np.concatenate(
        [
            (part / 1.7 + rng.gumbel(size=part.shape)).argmax(axis=1)
            for part in np.array_split(z, max(1, z.size >> 22))
        ]
    )
    return z, y


def fit_logitlab(z: Any, y: Any) -> float:
    return logitlab.TemperatureScaling().fit(z, y).temperature_


def fit_torch(z: Any, y: Any) -> float:
    """Fit as commonly written: 50 iterations, strong Wolfe, starting at 1.5."""
    import torch

    logits, labels = torch.from_numpy(z), torch.from_numpy(y)
    temperature = torch.nn.Parameter(torch.ones(1) * 1.5)
    loss = torch.nn.CrossEntropyLoss()
    optimiser = torch.optim.LBFGS([temperature], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimiser.zero_grad()
        value = loss(logits / temperature, labels)
        value.backward()
        return value

    optimiser.step(closure)
    return float(temperature.item())


def fit_scikit_learn(z: Any, y: Any) -> float:
    """Fit the calibrator of CalibratedClassifierCV(method="temperature"), without its folds."""
    from sklearn.calibration import _TemperatureScaling

    return 1 / float(_TemperatureScaling().fit(z, y).beta_)


PEERS: dict[str, Callable[[Any, Any], float]] = {
    "logitlab": fit_logitlab,
    "torch LBFGS": fit_torch,
    "scikit-learn": fit_scikit_learn,
}


def _mean_loss(z: Any, y: Any, t: float) -> float:
    return float(logitlab.cross_entropy(z.astype(np.float64), y, temperature=t))


def optimum(z: Any, y: Any) -> float:
    """Return the float64 minimum over T, by Brent's method on the slope of the mean log-loss."""
    wide, rows = z.astype(np.float64), np.arange(len(y))

    def slope(log_t: float) -> float:
        p = logitlab.softmax(wide, temperature=np.exp(log_t))
        return float(np.mean(np.einsum("nk,nk->n", p, wide) - wide[rows, y]))

    return float(np.exp(scipy.optimize.brentq(slope, -2, 3, xtol=1e-12)))


def _fit_in_turn(z: Any, y: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Return the temperature and the median time of each peer, which are run in turn."""
    temperatures: dict[str, float] = {}
    times: dict[str, list[float]] = {name: [] for name in PEERS}
    for _ in range(_REPEATS):
        for name, fit in PEERS.items():
            time.sleep(0.05)  # thread pools that spin after work slow what runs next
            start = time.perf_counter()
            temperatures[name] = fit(z, y)
            times[name].append(time.perf_counter() - start)
    return temperatures, {name: statistics.median(each) for name, each in times.items()}


def measure(quick: bool) -> list[dict[str, Any]]:
    """Return for each shape the seconds, temperatures and excess log-losses."""
    rows = []
    for shape in SHAPES[:2] if quick else SHAPES:
        z, y = problem(shape)
        temperatures, times = _fit_in_turn(z, y)
        best = optimum(z, y)
        least = _mean_loss(z, y, best)
        excess = {name: _mean_loss(z, y, t) - least for name, t in temperatures.items()}
        rows.append(
            {
                "shape": shape,
                "times": times,
                "temperatures": temperatures,
                "optimum": best,
                "excess": excess,
            }
        )
        print(rows[-1], flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| float32 logits | " + " | ".join(PEERS) + " |",
        "|---" * (len(PEERS) + 1) + "|",
    ]
    for row in rows:
        cells = ["×".join(map(str, row["shape"]))]
        for name in PEERS:
            ratio = row["times"][name] / row["times"]["logitlab"]
            error = abs(row["temperatures"][name] / row["optimum"] - 1)
            multiple = "" if name == "logitlab" else f"{ratio:.1f}×, "
            cells.append(
                f"{1e3 * row['times'][name]:.3g} ms ({multiple}error of T {error:.1g}, "
                f"of the log-loss {row['excess'][name]:.1g})"
            )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(quick: bool, write: bool) -> None:
    rows = measure(quick)
    note = (
        f"Time of one fit, median of {_REPEATS} on {machine()}, {THREADS} threads; "
        f"{versions(('numpy', 'torch', 'scikit-learn'))}. In brackets: the multiple of logitlab's "
        "time, the relative error of T from the float64 optimum, and the excess of the mean "
        "log-loss over its minimum. torch: LBFGS with 50 iterations and strong Wolfe line search "
        "from T = 1.5; scikit-learn: the calibrator of "
        'CalibratedClassifierCV(method="temperature").'
    )
    selections = calibrator_selection.measure(quick)
    packages = versions(("probmetrics", "netcal", "scikit-learn", "torch"))
    text = f"""## Temperature scaling

{table(rows)}

{note}

## Selection of a calibrator

`logitlab.select_calibrator` and the calibrators of other libraries, fitted on a random half of the
rows and evaluated on the other; {packages}. Difference of the log-loss: paired, with a 95 %
interval; below 0, logitlab is better. Fit: processor time, all in turn in one process on
{machine()}; the median of 3 fits, above 0.5 s one fit. scikit-learn: `CalibratedClassifierCV` of
a `FrozenEstimator`. A probability of 0 counts as 2⁻⁵². The logistic and beta calibration of netcal
take a minute and more with 100 classes and are left out there.

{calibrator_selection.counts(selections)}

{calibrator_selection.table(selections)}"""
    print(text)
    if write:
        write_page("calibration", text)
