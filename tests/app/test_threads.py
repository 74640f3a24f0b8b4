"""Threads of the commands."""

import threading
from functools import partial

import pytest

import logitlab
from logitlab._app.threads import run_all

pytestmark = pytest.mark.slow


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = logitlab.get_num_threads()
    logitlab.set_num_threads(request.param)
    yield request.param
    logitlab.set_num_threads(before)


def test_results_are_in_order(threads):
    """For fewer, as many and more functions than threads; one thread is the caller's."""
    for n in (0, 1, 2, 7):
        assert run_all([partial(pow, i, 2) for i in range(n)]) == [i**2 for i in range(n)]
    if threads == 1:
        assert set(run_all([threading.get_ident] * 3)) == {threading.get_ident()}


def test_functions_run_at_the_same_time():
    """Two functions that wait for each other end."""
    before = logitlab.get_num_threads()
    logitlab.set_num_threads(2)
    barrier = threading.Barrier(2, timeout=60)
    assert sorted(run_all([barrier.wait, barrier.wait])) == [0, 1]
    logitlab.set_num_threads(before)


def test_first_error_is_raised(threads):
    """After the others have ended where they run in threads."""
    done = []

    def fail(name):
        done.append(name)
        raise ValueError(name)

    with pytest.raises(ValueError, match="first"):
        run_all([partial(done.append, "before"), partial(fail, "first"), partial(fail, "second")])
    assert set(done) == ({"before", "first"} if threads == 1 else {"before", "first", "second"})
