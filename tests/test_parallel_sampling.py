"""Samples of logits whose classes are sharded, and what ranks must agree on."""

import itertools
import multiprocessing
import os

import numpy as np
import pytest

import logitlab
import process_groups
from test_parallel import DTYPES, equal, own_classes

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
dist = pytest.importorskip("torch.distributed")

ROWS = 7
SETTINGS = (
    {},
    {"temperature": 0.7},
    {"temperature": -1.0},
    {"temperature": 0.0},
    {"temperature": float("inf")},
    {"temperature": np.linspace(0, 2, ROWS)},
    {"top_k": 1},
    {"top_k": 50},
    {"top_p": 0.9},
    {"top_p": 0.3, "temperature": 2.0},
    {"top_p": 0.999, "temperature": 3.0},
    {"top_p": 0.5, "temperature": float("inf")},
    {"min_p": 0.05},
    {"top_k": 50, "top_p": 0.9, "min_p": 0.02},
    {"top_k": 100, "typical_p": 0.9},
    {"top_p": 0.95, "top_k": 40, "order": "sglang"},
    {"min_p": 0.01, "top_p": 0.9, "order": "vllm"},
    {"top_p": 0.9, "temperature": 0.5, "order": "llama.cpp"},
    {
        "top_k": np.array([1, 2, 3, 10**9, 10**9, 50, 5000]),
        "top_p": np.array([1, 1, 1, 0.9, 1, 0.5, 0.9]),
    },
)


def rows(k, dtype, spread):
    generator = torch.Generator().manual_seed(k)
    z = (torch.randn(ROWS, k, generator=generator) * spread).to(dtype)
    z[1, 7] = -torch.inf
    z[3, : k // 2] = -torch.inf
    z[4, 9] = torch.inf
    z[5] = z[5].round()  # ties
    return z


def compare_samples():
    from logitlab import parallel

    failures = []
    for k, dtype, spread in ((20_000, DTYPES[0], 1), (9000, DTYPES[2], 4), (300, DTYPES[1], 2)):
        z = rows(k, dtype, spread)
        own = own_classes(k, seed=k)
        for settings in SETTINGS:
            wanted = logitlab.sample(z, 3, rng=3, **settings)
            found = parallel.sample(z[:, own], 3, rng=3, **settings)
            kept = parallel.truncate(z[:, own], **settings)
            tokens, log_p = parallel.sample_with_log_prob(z[:, own], rng=5, **settings)
            others = logitlab.sample_with_log_prob(z, rng=5, **settings)
            t = settings.get("temperature", 1.0)
            results = (
                torch.equal(found, wanted),
                equal(kept, logitlab.truncate(z, **settings)[:, own]),
                torch.equal(tokens, others[0]),
                bool(torch.isclose(log_p, others[1], rtol=2**-7, atol=0).all()),
                equal(parallel.log_prob(kept, tokens, temperature=t), log_p),
            )
            if not all(results):
                failures.append((k, dtype, settings, results))
    return failures


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_samples_are_those_of_one_process_for_any_shards(ranks):
    for failures in process_groups.run(compare_samples, ranks, timeout=240):
        assert not failures


def compare_row_keys():
    from logitlab import parallel

    z = rows(9000, torch.float32, 2)
    own = own_classes(9000, seed=1)
    keys = np.arange(ROWS) * 5
    assert torch.equal(
        parallel.sample(z[:, own], rng=1, row_keys=keys), logitlab.sample(z, rng=1, row_keys=keys)
    )
    generator, same = np.random.default_rng(2), np.random.default_rng(2)
    for _ in range(2):
        found = parallel.sample(z[:, own], rng=generator, top_k=9)
        assert torch.equal(found, logitlab.sample(z, rng=same, top_k=9))
    found = parallel.sample(z[None, :, own], 2)
    assert found.shape == (1, ROWS, 2)
    return found.tolist()


def test_row_keys_generators_and_a_random_seed_of_rank_0():
    first, second = process_groups.run(compare_row_keys, 2)
    assert first == second


def message(function, *args, **kwargs):
    with pytest.raises((TypeError, ValueError)) as error:
        function(*args, **kwargs)
    return str(error.value)


def provoke_errors():
    from logitlab import parallel

    rank = dist.get_rank()
    z = torch.zeros(3, 5)
    nan = torch.zeros(3, 3000)
    nan[1, 7] = torch.nan if rank == 1 else 0.0
    generator = np.random.default_rng(rank)
    return {
        "shape": message(parallel.softmax, z[: 2 + rank]),
        "dtype": message(parallel.softmax, z.double() if rank else z),
        "temperature": message(parallel.softmax, z, temperature=1.0 + rank),
        "function": message(parallel.softmax if rank else parallel.log_softmax, z),
        "labels": message(parallel.cross_entropy, z, torch.tensor([1, 2, rank])),
        "range": message(parallel.cross_entropy, z, torch.tensor([1, 2, 10])),
        "own": message(parallel.softmax, z.long() + 1j if rank else z),
        "top_k": message(parallel.sample, z, rng=0, top_k=1 + rank),
        "one rank": message(parallel.sample, z, rng=0, top_k=0 if rank else 3),
        "n": message(parallel.sample, z, 0 if rank else 2, rng=0),
        "seed": message(parallel.sample, z, rng=generator),
        "nan": message(parallel.sample, nan, rng=0),
        "token": message(parallel.log_prob, z, torch.tensor([0, 10, 0])),
        "stage": message(parallel.sample, z, rng=0, eta=0.1),
        "xtc": message(parallel.sample, z, rng=0, xtc_probability=0.5),
        "setting": message(parallel.sample, z, rng=0, top_q=0.5),
        "tensor": message(parallel.softmax, [[1.0]]),
        "weight": message(parallel.linear_cross_entropy, z, torch.zeros(4, 6), [0, 0, 0]),
    }


def test_every_rank_raises_an_error_that_names_the_rank():
    errors = process_groups.run(provoke_errors, 2)
    for rank, found in enumerate(errors):
        assert found["shape"] == (
            "z must be the same on all ranks, got float32 (2, K) on rank 0 and float32 (3, K) on "
            "rank 1"
        )
        assert "float64 (3, K) on rank 1" in found["dtype"]
        assert found["temperature"] == (
            "temperature must be the same on all ranks, got 1.0 on rank 0 and 2.0 on rank 1"
        )
        assert "got log_softmax on rank 0 and softmax on rank 1" in found["function"]
        assert found["labels"].startswith("y must be the same on all ranks, got int64 (3,)")
        assert found["range"] == "y must be from 0 to 9, as z has 10 classes, got 10 in row 2"
        assert found["own"].startswith("rank 1: " if rank == 0 else "z must")
        assert "top_k must be the same on all ranks, got 1 on rank 0" in found["top_k"]
        own = "" if rank else "rank 1: "
        assert found["one rank"] == f"{own}top_k must be >= 1, got 0"
        assert found["n"] == f"{own}n must be >= 1, got 0"
        assert "rng must be the same on all ranks" in found["seed"]
        assert found["nan"].startswith("row 1 has no distribution")
        assert found["token"] == "tokens must be from 0 to 9, got 10 in row 1"
        assert "the first stage must be top_k, top_p or min_p" in found["stage"]
        assert "xtc_probability must be 0" in found["xtc"]
        assert "unexpected keyword argument 'top_q'" in found["setting"]
        assert found["tensor"] == "z must be a torch tensor, got list"
        assert "weight must have shape (K, 5)" in found["weight"]


def see_nan():
    from logitlab import parallel

    z = torch.zeros(2, 5000)
    if dist.get_rank() == 1:
        z[1, 9] = torch.nan
    loss = parallel.cross_entropy(z, torch.tensor([0, 1]), reduction="none")
    assert loss.isfinite().tolist() == [True, False]
    assert parallel.softmax(z).isnan().all(1).tolist() == [False, True]


def test_nan_of_one_rank_is_seen_on_all():
    process_groups.run(see_nan, 3)


def lose_a_rank(rank, store):
    """Rank 1 dies between two calls; rank 0 ends with status 0 if the second one fails."""
    from logitlab import parallel

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    file = dist.FileStore(store, 2)
    dist.init_process_group("gloo", store=file, rank=rank, world_size=2)
    z = torch.zeros(2, 5000)
    parallel.softmax(z)
    if rank == 1:
        os._exit(3)
    try:
        parallel.softmax(z)
    except RuntimeError:
        os._exit(0)
    os._exit(1)


def test_a_rank_that_dies_ends_the_others(tmp_path):
    context = multiprocessing.get_context("spawn")
    store = str(tmp_path / "store")
    processes = [context.Process(target=lose_a_rank, args=(rank, store)) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 3]
    finally:
        for process in processes:
            process.kill()


def compare_extremes():
    from logitlab import parallel

    failures = []
    generator = torch.Generator().manual_seed(0)
    for dtype, scale in itertools.product(DTYPES[:2], (1.0, 1e30)):
        z = (torch.randn(3, 9000, generator=generator, dtype=torch.float64) * scale).to(dtype)
        own = own_classes(9000, seed=2)
        for t, settings in itertools.product(
            (1e-320, 1e-40, 1e-3, 1e6, 1e30, 1e307),
            ({}, {"top_k": 5}, {"min_p": 0.1}, {"top_p": 0.9}),
        ):
            settings = settings | {"temperature": t}
            wanted = logitlab.sample(z, 3, rng=1, **settings)
            found = parallel.sample(z[:, own], 3, rng=1, **settings)
            kept = parallel.truncate(z[:, own], **settings)
            if not (
                torch.equal(found, wanted)
                and torch.equal(kept, logitlab.truncate(z, **settings)[:, own])
            ):
                failures.append((dtype, scale, settings))
    return failures


def test_samples_at_extreme_temperatures():
    for failures in process_groups.run(compare_extremes, 2, timeout=120):
        assert not failures


def use_without_kernels():
    """As on devices without kernels: the formulas."""
    from logitlab import parallel
    from logitlab._backends import torch_kernels

    z = rows(9000, torch.float32, 2)
    own = own_classes(9000, seed=6)
    y = torch.arange(ROWS)
    wanted = parallel.softmax(z[:, own]), parallel.log_softmax(z[:, own], temperature=0.5)
    wanted += parallel.logsumexp(z[:, own]), parallel.cross_entropy(z[:, own], y)
    tokens = parallel.sample(z[:, own], 50, rng=1)
    torch_kernels.readable = lambda *_: False
    found = parallel.softmax(z[:, own]), parallel.log_softmax(z[:, own], temperature=0.5)
    found += parallel.logsumexp(z[:, own]), parallel.cross_entropy(z[:, own], y)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0, equal_nan=True)
    assert (parallel.sample(z[:, own], 50, rng=1) == tokens).double().mean() > 0.99


def test_the_formulas_of_other_devices():
    process_groups.run(use_without_kernels, 2)


def test_a_process_without_a_group():
    from logitlab import parallel

    assert "init_process_group" in message(parallel.softmax, torch.zeros(2, 3))
