"""Logits whose classes are sharded over processes, against the functions of all classes."""

import itertools

import numpy as np
import pytest

import logitlab
import process_groups

torch = pytest.importorskip("torch")
dist = pytest.importorskip("torch.distributed")

CHUNK = 4096
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def shards(k, kind, seed=0):
    """The first class of each rank, and the number of all."""
    ranks = dist.get_world_size()
    if kind == "even chunks":
        inner = [min(k, CHUNK * (i + 1)) for i in range(ranks - 1)]
    else:
        generator = torch.Generator().manual_seed(seed)
        inner = torch.randint(0, k + 1, (ranks - 1,), generator=generator).sort().values.tolist()
    return [0, *inner, k]


def own_classes(k, kind="any", seed=0):
    starts = shards(k, kind, seed)
    return slice(starts[dist.get_rank()], starts[dist.get_rank() + 1])


def hostile_rows(k, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = (torch.randn(9, k, generator=generator) * 4).to(dtype)
    z[1, 7] = -torch.inf
    z[2, 3] = torch.nan
    z[3, 9] = torch.inf
    z[4] = -torch.inf
    z[5] = 2.5  # ties
    z[6, : k // 2] = -torch.inf
    z[7] *= 1e4
    z[8, -1] = torch.finfo(dtype).max
    return z


def equal(a, b):
    return a.dtype == b.dtype and torch.equal(a.nan_to_num(nan=0.125), b.nan_to_num(nan=0.125))


def compare_rows():
    from logitlab import parallel

    failures = []
    for k, kind in ((10_000, "even chunks"), (10_000, "any"), (300, "any"), (20_000, "any")):
        for dtype, t in itertools.product(DTYPES, (1.0, 0.3, -2.0, 0.0, np.inf, 1e-40)):
            z = hostile_rows(k, dtype)
            own = own_classes(k, kind)
            for name in ("softmax", "log_softmax", "logsumexp"):
                whole = getattr(logitlab, name)(z, temperature=t)
                found = getattr(parallel, name)(z[:, own], temperature=t)
                wanted = whole if name == "logsumexp" else whole[:, own]
                if kind == "any":
                    digits = {torch.bfloat16: 2**-7, torch.float32: 2**-22}.get(dtype, 2**-50)
                    close = torch.isclose(found, wanted, rtol=digits, atol=0, equal_nan=True)
                    same = bool(close.all())
                else:
                    same = equal(found, wanted)
                if not same:
                    failures.append((name, k, kind, dtype, t))
    return failures


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_rows_have_the_bits_of_one_process_in_shards_of_whole_chunks(ranks):
    for failures in process_groups.run(compare_rows, ranks, timeout=240):
        assert not failures


def compare_layouts():
    from logitlab import parallel

    k = 6000
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(3, k, 4, generator=generator, dtype=torch.float64)
    where = torch.rand(3, k, 4, generator=generator) < 0.7
    t = torch.rand(3, 4, generator=generator) * 3 - 1
    own = own_classes(k, seed=2)
    for name in ("softmax", "log_softmax", "logsumexp", "entropy"):
        whole = getattr(logitlab, name)(z, 1, temperature=t, where=where)
        found = getattr(parallel, name)(z[:, own], 1, temperature=t, where=where[:, own])
        wanted = whole[:, own] if whole.ndim == 3 else whole
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=0)
    kept = parallel.logsumexp(z[:, own], 1, keepdims=True)
    assert kept.shape == (3, 1, 4)
    empty = parallel.softmax(z[:0, own], 1)
    assert empty.shape == (0, own.stop - own.start, 4)


def test_any_axis_with_a_mask_and_a_temperature_for_each_row():
    process_groups.run(compare_layouts, 3)


def compare_gradients():
    from logitlab import parallel

    worst = {}
    for k, t in itertools.product((9000, 40), (1.0, 0.5, -2.0, 1e-310)):
        generator = torch.Generator().manual_seed(k)
        z = torch.randn(5, k, generator=generator, dtype=torch.float64) * 3
        z[0, 1] = -torch.inf
        own = own_classes(k, seed=3)
        for name in ("softmax", "log_softmax", "logsumexp", "entropy"):
            whole = z.clone().requires_grad_()
            result = getattr(logitlab, name)(whole, temperature=t)
            weight = torch.randn(result.shape, generator=generator, dtype=torch.float64)
            used = torch.where(result.isfinite(), result, 0.0)
            (used * weight).sum().backward()
            local = z[:, own].clone().requires_grad_()
            result = getattr(parallel, name)(local, temperature=t)
            used = torch.where(result.isfinite(), result, 0.0)
            (used * (weight[:, own] if result.ndim == 2 else weight)).sum().backward()
            wanted = whole.grad[:, own]
            error = torch.where(local.grad == wanted, 0.0, (local.grad - wanted).abs())
            worst[name, k, t] = float(error.max()) if local.numel() else 0.0
    return worst


def test_gradients_are_those_of_one_process():
    for worst in process_groups.run(compare_gradients, 2):
        assert max(worst.values()) < 1e-13, worst


def compare_losses():
    from logitlab import parallel

    worst = {}
    n = 8
    for k, t in itertools.product((9000, 40), (1.0, 0.5, -2.0)):
        generator = torch.Generator().manual_seed(k)
        z = torch.randn(n, k, generator=generator, dtype=torch.float64) * 3
        z[1, 7] = -torch.inf
        y = torch.randint(0, k, (n,), generator=generator)
        y[0], y[4] = z[0].argmax(), -100
        soft = torch.softmax(torch.randn(n, k, generator=generator, dtype=torch.float64), -1)
        soft[1, 7] = 0
        class_weight = torch.rand(k, generator=generator, dtype=torch.float64)
        sample_weight = torch.rand(n, generator=generator, dtype=torch.float64)
        own = own_classes(k, seed=4)
        options = (
            {},
            {"label_smoothing": 0.1},
            {"weight": class_weight},
            {"weight": class_weight, "label_smoothing": 0.2, "sample_weight": sample_weight},
        )
        for reduction, option, is_soft in itertools.product(
            ("mean", "sum", "none"), options, (False, True)
        ):
            settings = option | {"reduction": reduction, "temperature": t}
            if not is_soft:
                settings["ignore_index"] = -100
            whole, local = z.clone().requires_grad_(), z[:, own].clone().requires_grad_()
            wanted = logitlab.cross_entropy(whole, soft if is_soft else y, **settings)
            found = parallel.cross_entropy(local, soft[:, own] if is_soft else y, **settings)
            upstream = torch.linspace(0.5, 1.5, n, dtype=torch.float64)
            upstream = upstream if reduction == "none" else upstream[3]
            wanted.backward(upstream)
            found.backward(upstream)
            gradient = whole.grad[:, own]
            error = float((found - wanted).detach().abs().max() / wanted.detach().abs().max())
            if gradient.numel():
                scale = whole.grad.abs().max()
                error = max(error, float((local.grad - gradient).abs().max() / scale))
            worst[k, t, reduction, tuple(option), is_soft] = error
    return worst


def test_losses_and_their_gradients_are_those_of_one_process():
    for worst in process_groups.run(compare_losses, 2, timeout=120):
        assert max(worst.values()) < 1e-12, max(worst, key=worst.get)


def compare_linear_losses():
    from logitlab import parallel

    worst = {}
    n, d, k = 300, 16, 5000
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    weight = torch.randn(k, d, generator=generator, dtype=torch.float64)
    bias = torch.randn(k, generator=generator, dtype=torch.float64)
    y = torch.randint(0, k, (n,), generator=generator)
    y[4] = -100
    class_weight = torch.rand(k, generator=generator, dtype=torch.float64)
    t = torch.rand(n, generator=generator) + 0.5
    t[1] = -1.0
    own = own_classes(k, seed=5)
    options = ({}, {"label_smoothing": 0.1}, {"class_weight": class_weight}, {"temperature": t})
    for reduction, option in itertools.product(("mean", "sum", "none"), options):
        settings = option | {"reduction": reduction, "ignore_index": -100}
        whole = [a.clone().requires_grad_() for a in (x, weight, bias)]
        local = [a.clone().requires_grad_() for a in (x, weight[own], bias[own])]
        wanted = logitlab.linear_cross_entropy(*whole[:2], y, bias=whole[2], **settings)
        found = parallel.linear_cross_entropy(*local[:2], y, bias=local[2], **settings)
        upstream = torch.ones_like(wanted)
        wanted.backward(upstream)
        found.backward(upstream)
        error = float((found - wanted).detach().abs().max() / wanted.detach().abs().max())
        for a, b, rows in zip(whole, local, (slice(None), own, own), strict=True):
            if b.numel():
                difference = (a.grad[rows] - b.grad).abs().max() / a.grad.abs().max()
                error = max(error, float(difference))
        worst[reduction, tuple(option)] = error
    return worst


def test_linear_losses_and_their_gradients_are_those_of_one_process():
    for worst in process_groups.run(compare_linear_losses, 2, timeout=120):
        assert max(worst.values()) < 1e-12, max(worst, key=worst.get)


def compare_with_loss_parallel():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor
    from torch.distributed.tensor.parallel import loss_parallel

    from logitlab import parallel

    generator = torch.Generator().manual_seed(0)
    z = torch.randn(16, 8192, generator=generator) * 3
    y = torch.randint(0, 8192, (16,), generator=generator)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    tensor = distribute_tensor(z, mesh, [Shard(1)]).requires_grad_()
    with loss_parallel():
        theirs = torch.nn.functional.cross_entropy(tensor, y)
        theirs.backward()
    local = tensor.to_local().detach().requires_grad_()
    ours = parallel.cross_entropy(local, y)
    ours.backward()
    theirs = theirs.full_tensor() if hasattr(theirs, "full_tensor") else theirs
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(local.grad, tensor.grad.to_local(), rtol=1e-4, atol=1e-9)


def test_the_loss_is_that_of_loss_parallel():
    process_groups.run(compare_with_loss_parallel, 2)


def compare_dtensors():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

    generator = torch.Generator().manual_seed(0)
    z = torch.randn(6, 9001, generator=generator) * 3
    x = torch.randn(6, 8, generator=generator)
    weight = torch.randn(9001, 8, generator=generator)
    y = torch.randint(0, 9001, (6,), generator=generator)
    where = torch.rand(6, 9001, generator=generator) < 0.7
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("classes", "rows"))
    classes = [Shard(1), Replicate()]
    tensor = distribute_tensor(z, mesh, classes)
    mask = distribute_tensor(where, mesh, classes)
    for name in ("softmax", "log_softmax", "logsumexp", "entropy"):
        found = getattr(logitlab, name)(tensor, temperature=0.5, where=mask)
        wanted = getattr(logitlab, name)(z, temperature=0.5, where=where)
        assert isinstance(found, DTensor)
        torch.testing.assert_close(found.full_tensor(), wanted, rtol=1e-6, atol=0)
    found = logitlab.truncate(tensor, top_p=0.9).full_tensor()
    assert torch.equal(found, logitlab.truncate(z, top_p=0.9))
    tokens, log_p = logitlab.sample_with_log_prob(tensor, rng=1, top_k=50)
    wanted, _ = logitlab.sample_with_log_prob(z, rng=1, top_k=50)
    assert torch.equal(tokens.full_tensor(), wanted)
    assert torch.equal(logitlab.sample(tensor, rng=1, top_k=50).full_tensor(), wanted)
    sampler = logitlab.Sampler(top_k=50)
    assert torch.equal(sampler.sample(tensor, rng=1).full_tensor(), wanted)
    kept = logitlab.truncate(tensor, top_k=50)
    assert torch.equal(logitlab.log_prob(kept, wanted).full_tensor(), log_p.full_tensor())

    tensor, whole = tensor.requires_grad_(), z.clone().requires_grad_()
    loss, wanted_loss = logitlab.cross_entropy(tensor, y), logitlab.cross_entropy(whole, y)
    loss.backward()
    wanted_loss.backward()
    torch.testing.assert_close(loss.full_tensor(), wanted_loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(tensor.grad.full_tensor(), whole.grad, rtol=1e-4, atol=1e-9)

    head = distribute_tensor(weight, mesh, [Shard(0), Replicate()]).requires_grad_()
    whole = weight.clone().requires_grad_()
    logitlab.linear_cross_entropy(x, head, y).backward()
    logitlab.linear_cross_entropy(x, whole, y).backward()
    torch.testing.assert_close(head.grad.full_tensor(), whole.grad, rtol=1e-4, atol=1e-8)

    rows = distribute_tensor(z.detach(), mesh, [Shard(0), Shard(1)])
    with pytest.raises(ValueError, match="z must be sharded along the class axis over one dim"):
        logitlab.softmax(rows)
    with pytest.raises(ValueError, match="replacement must be True for sharded logits"):
        logitlab.sample(tensor, replacement=False)


def test_the_ordinary_functions_of_dtensors():
    process_groups.run(compare_dtensors, 2)
