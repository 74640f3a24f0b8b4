"""Rows that are sharded over the ranks of a process group, against all rows in one process."""

import numpy as np
import pytest

import logitlab
import process_groups

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
dist = pytest.importorskip("torch.distributed")

K = 5


def all_rows(n=3000, dtype=np.float64):
    rng = np.random.default_rng(0)
    z = (rng.standard_normal((n, K)) * 3).astype(dtype)
    y = (z + 2 * rng.gumbel(size=z.shape)).argmax(axis=1)
    weight = rng.random(n)
    weight[::7] = 0
    return z, y, weight


def parts(n, ranks):
    """The rows of each rank: of different numbers, and the last rank of three has none."""
    ends = {1: [n], 2: [n // 3, n], 3: [n // 3, n, n]}[ranks]
    return [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def own(n):
    return parts(n, dist.get_world_size())[dist.get_rank()]


SCORES = {
    "accuracy": logitlab.accuracy,
    "top_k_accuracy": lambda *a, **k: logitlab.top_k_accuracy(*a, 2, **k),
    "brier_score": logitlab.brier_score,
    "calibration_error": logitlab.calibration_error,
    "quantile": lambda *a, **k: logitlab.calibration_error(*a, strategy="quantile", **k),
    "classwise": lambda *a, **k: logitlab.calibration_error(*a, classwise=True, **k),
    "curve": lambda *a, **k: logitlab.reliability_curve(*a, **k).accuracy,
    "isotonic curve": lambda *a, **k: logitlab.reliability_curve(*a, strategy="isotonic", **k).low,
    "test": lambda *a, **k: logitlab.calibration_test(*a, n_resamples=50, **k),
    "interval": logitlab.calibration_error_interval,
    "bootstrap": lambda *a, **k: list(logitlab.bootstrap(*a, n_resamples=50, **k).values()),
    "two models": lambda z, *a, **k: list(
        logitlab.bootstrap(z, *a, other=z, n_resamples=50, **k).values()
    ),
    "cross_entropy": lambda *a, **k: float(logitlab.cross_entropy(*a, **k)),
    "temperature": lambda *a, **k: logitlab.TemperatureScaling().fit(*a, **k).temperature_,
    "vector": lambda *a, **k: logitlab.VectorScaling().fit(*a, **k).scale_,
    "matrix": lambda *a, **k: logitlab.MatrixScaling().fit(*a, **k).weight_,
    "structured": lambda *a, **k: logitlab.StructuredVectorScaling().fit(*a, **k).scale_,
    "isotonic": lambda *a, **k: logitlab.IsotonicCalibration().fit(*a, **k).log_odds_,
    "score": lambda *a, **k: logitlab.TemperatureScaling().fit(*a, **k).score(*a, **k),
}
OPTIONS = {"plain": {}, "weights": {"sample_weight": True}, "ignored": {"ignore_index": 2}}


def results(name, option, z, y, weight):
    settings = dict(OPTIONS[option])
    if "sample_weight" in settings:
        settings["sample_weight"] = weight
    return np.asarray(SCORES[name](z, y, **settings), float)


def scores_of_shards(n):
    from logitlab.parallel import RowShard

    z, y, weight = (a[own(n)] for a in all_rows(n))
    shard = RowShard(z)
    return {
        (name, option): results(name, option, shard, y, weight)
        for name in SCORES
        for option in OPTIONS
    }


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_scores_and_fits(ranks):
    """On every rank those of all rows, with weights and ignored labels, whatever rows it has."""
    n = 3000
    z, y, weight = all_rows(n)
    for found in process_groups.run(scores_of_shards, ranks, n, timeout=120):
        for (name, option), value in found.items():
            expected = results(name, option, z, y, weight)
            np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12, err_msg=name)


def gradients(n):
    """The losses, and the gradients of the rows of this rank."""
    from logitlab.parallel import RowShard

    z, y, weight = (torch.tensor(a)[own(n)] for a in all_rows(n))
    z.requires_grad_()
    found = []
    for settings in loss_settings(weight):
        z.grad = None
        loss = logitlab.cross_entropy(RowShard(z), y, **settings)
        loss.sum().backward()
        found.append((loss.detach().numpy(), z.grad.numpy()))
    return found


def loss_settings(weight):
    return [
        {},
        {"sample_weight": weight, "label_smoothing": 0.1},
        {"ignore_index": 2, "temperature": 0.7},
        {"weight": torch.tensor([1.0, 2, 0.5, 1, 3]).double()},
        {"reduction": "sum"},
        {"reduction": "none"},
    ]


def test_losses_and_their_gradients():
    """The mean is over the rows of all ranks, and the gradient is that of this mean."""
    n = 500
    z, y, weight = map(torch.tensor, all_rows(n))
    z.requires_grad_()
    ranks = process_groups.run(gradients, 2, n)
    for i, settings in enumerate(loss_settings(weight)):
        z.grad = None
        loss = logitlab.cross_entropy(z, y, **settings)
        loss.sum().backward()
        for rank, part in zip(ranks, parts(n, 2), strict=True):
            value, gradient = rank[i]
            expected = loss[part] if loss.ndim else loss
            np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-13)
            np.testing.assert_allclose(gradient, z.grad[part].numpy(), rtol=1e-12, atol=1e-16)


def extreme_losses():
    """Losses whose sums overflow, of a rank without weights, and under a support."""
    import warnings

    from logitlab.parallel import RowShard

    warnings.simplefilter("error")
    z, y, weight = extreme_rows()
    part = slice(0, 60_000) if dist.get_rank() == 0 else slice(60_000, None)
    z, y, weight = z[part], y[part], weight[part]
    found = [float(logitlab.cross_entropy(RowShard(z.half()), y))]
    z.requires_grad_()
    for settings in ({"sample_weight": weight}, {"sample_weight": weight * 1e308}):
        z.grad = None
        loss = logitlab.cross_entropy(RowShard(z), y, **settings)
        loss.backward()
        found += [loss.item(), z.grad.abs().sum().item()]
    kept = logitlab.sample_with_support(z.detach(), rng=0, top_k=2)[1]
    found.append(logitlab.cross_entropy(RowShard(z), y, support=kept, reduction="sum").item())
    return found


def extreme_rows():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(120_000, 3, generator=generator)
    y = torch.randint(0, 3, (120_000,), generator=generator)
    weight = torch.rand(120_000, generator=generator, dtype=torch.float64)
    weight[60_000:] = 0
    return z, y, weight


def test_extreme_losses():
    z, y, weight = extreme_rows()
    plain = float(logitlab.cross_entropy(z.half(), y))
    weighted = logitlab.cross_entropy(z, y, sample_weight=weight).item()
    gradient = logitlab.cross_entropy_and_grad(z, y, sample_weight=weight)[1].abs().sum().item()
    for rank, found in enumerate(process_groups.run(extreme_losses, 2)):
        assert found[0] == pytest.approx(plain, rel=2e-3)
        for value, slope in (found[1:3], found[3:5]):
            assert value == pytest.approx(weighted, rel=1e-6)
            assert slope == pytest.approx(0 if rank else gradient, rel=1e-5)
        assert found[5] == np.inf


def errors_of_ranks():
    from logitlab.parallel import RowShard

    rank = dist.get_rank()
    z, y, _ = all_rows(40)
    z, y = z[20 * rank : 20 * rank + 20], y[20 * rank : 20 * rank + 20]
    wrong_label, no_distribution = y.copy(), z.copy()
    wrong_label[3] = 9 if rank else y[3]
    no_distribution[5] = np.nan if rank else z[5]
    calls = [
        lambda: logitlab.accuracy(RowShard(z), wrong_label),
        lambda: logitlab.accuracy(RowShard(no_distribution), y),
        lambda: logitlab.TemperatureScaling().fit(RowShard(no_distribution), y),
        lambda: logitlab.cross_entropy(RowShard(z), wrong_label),
        lambda: logitlab.accuracy(RowShard(z[:, : 5 - rank]), np.zeros(20, int)),
        lambda: logitlab.calibration_error(RowShard(z), y, n_bins=10 + rank),
        lambda: logitlab.brier_score(RowShard(z), y, sample_weight=np.ones(20) if rank else None),
        lambda: logitlab.accuracy(RowShard(z), y, ignore_index=range(5)),
        lambda: logitlab.cross_entropy(RowShard(z), y, label_smoothing=2.0 if rank else 0.0),
        lambda: logitlab.cross_entropy(RowShard(z), y, label_smoothing=0.1 * rank),
        lambda: logitlab.cross_entropy(RowShard(z), y, sample_weight=np.ones(20) if rank else None),
        lambda: logitlab.cross_entropy(RowShard(z), y, temperature=1.0 + rank),
        lambda: logitlab.cross_entropy(RowShard(z), y, weight=np.arange(1.0, 6) + rank),
        lambda: logitlab.bootstrap(RowShard(z), y, other=z),
        lambda: logitlab.softmax(RowShard(z)),
    ]
    messages = []
    for call in calls:
        try:
            messages.append(f"no error: {call()}")
        except (TypeError, ValueError) as error:
            messages.append(str(error))
    return messages


def test_errors_are_those_of_all_ranks():
    """They name the rank, or the number of the row among all rows."""
    first, second = process_groups.run(errors_of_ranks, 2)
    assert first == second
    beginnings = [
        "rank 1: y must be from 0 to 4, as z has 5 classes, got 9 in row 3",
        "row 25 of z has no distribution",
        "row 25 of z holds NaN, or only -inf",
        "rank 1: y must be from 0 to 4",
        "z must be the same on all ranks, got 5 classes of float64 without sample_weight on rank 0 "
        "and 4 classes",
        "the call must be the same on all ranks",
        "z must be the same on all ranks, got 5 classes of float64 without sample_weight on rank 0 "
        "and 5 classes of float64 with sample_weight on rank 1",
        "y must have a row that is not ignored",
        "rank 1: label_smoothing must be in [0, 1], got 2.0",
        "the call must be the same on all ranks, got 5 classes of float64, reduction mean",
        "the call must be the same on all ranks, got 5 classes of float64, reduction mean",
        "the call must be the same on all ranks, got 5 classes of float64, reduction mean",
        "the call must be the same on all ranks, got 5 classes of float64, reduction mean",
        "other must be a RowShard where z is one, and only there",
        "a RowShard is for scores, the fits of calibrators and cross_entropy; pass its z",
    ]
    for message, beginning in zip(first, beginnings, strict=True):
        assert message.startswith(beginning)
