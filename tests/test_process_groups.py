import os
import time

import pytest

torch = pytest.importorskip("torch")

from process_groups import run  # noqa: E402

pytestmark = pytest.mark.slow

dist = torch.distributed


def sum_of_ranks(offset):
    x = torch.tensor([dist.get_rank() + offset])
    dist.all_reduce(x)
    return dist.get_rank(), int(x)


def fails_on_rank_1():
    if dist.get_rank() == 1:
        raise KeyError("rank 1")
    dist.barrier()


def dies_on_rank_1():
    if dist.get_rank() == 1:
        os._exit(3)
    dist.barrier()


def sleeps_on_rank_1():
    if dist.get_rank() == 1:
        time.sleep(100)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_results_in_the_order_of_the_ranks(world_size):
    total = sum(range(10, 10 + world_size))
    assert run(sum_of_ranks, world_size, 10) == [(rank, total) for rank in range(world_size)]


def test_error_of_a_rank():
    with pytest.raises(AssertionError, match=r"rank 1 failed:\n(.|\n)*KeyError: 'rank 1'"):
        run(fails_on_rank_1, 2)


def test_lost_rank():
    # The other rank may notice it first.
    with pytest.raises(AssertionError, match=r"rank 1 ended with exit code 3|rank 0 failed"):
        run(dies_on_rank_1, 2)


def test_timeout():
    start = time.monotonic()
    with pytest.raises(AssertionError, match=r"ranks \[.*1\] did not end in 12 s"):
        run(sleeps_on_rank_1, 2, timeout=12)
    assert time.monotonic() - start < 60
