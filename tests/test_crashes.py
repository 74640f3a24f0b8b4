"""Nothing that a program does with the library ends its process: each case runs in its own one."""

import sys

import pytest

import logitlab
from processes import run_code, run_process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not logitlab.native_available(), reason="installed without a C++ compiler"),
]
by_platform = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")

RACE = """
import threading, time
import numpy as np
import logitlab
rng = np.random.default_rng(0)

def race(change, restore, call, seconds=0.4):
    "Calls while another thread changes an argument."
    done = False
    def loop():
        while not done:
            change()
            restore()
    thread = threading.Thread(target=loop)
    thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            call()
        except (ValueError, IndexError):
            pass  # the change came before the check
    done = True
    thread.join()
"""


@pytest.mark.parametrize("k", [8, 1000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_that_another_thread_changes(k, smoothing):
    """A label is used as an index only after a check that no thread can precede."""
    code = f"""
n = 400_000 // {k}
z = rng.standard_normal((n, {k}))
y = np.zeros(n, np.int64)
def change():
    y[n // 2 :] = 1 << 40
def restore():
    y[:] = 0
for function in (logitlab.cross_entropy, logitlab.cross_entropy_and_grad):
    race(change, restore, lambda: function(z, y, label_smoothing={smoothing}))
x, head = z[:, :4].copy(), rng.standard_normal(({k}, 4))
race(change, restore, lambda: logitlab.linear_cross_entropy_and_grad(x, head, y))
race(change, restore, lambda: logitlab.TemperatureScaling().fit(z, y))
print("alive")
"""
    assert run_code(RACE + code) == ["alive"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_that_another_thread_changes(dtype):
    """Truncation and sampling read a row several times."""
    code = f"""
z = rng.standard_normal((4, 50_000)).astype("{dtype}")
before = z.copy()
def change():
    z[:, ::3] = 50
    z[:, ::7] = np.inf
def restore():
    z[...] = before
for options in ({{"top_k": 5}}, {{"top_p": 0.9}}, {{"min_p": 0.1}}, {{}}, {{"replacement": False}}):
    race(change, restore, lambda: logitlab.sample(z, 3, rng=0, **options), 0.3)
    if "replacement" not in options:
        race(change, restore, lambda: logitlab.truncate(z, **options), 0.2)
print("alive")
"""
    assert run_code(RACE + code) == ["alive"]


@by_platform
def test_a_daemon_thread_in_a_kernel_at_exit():
    """The interpreter ends normally while daemon threads compute."""
    code = """
import threading, time
import numpy as np
import logitlab
z = np.random.default_rng(0).standard_normal((2000, 1000))
y = np.zeros(2000, int)
def loop():
    while True:
        logitlab.softmax(z, temperature=1e-200)  # slow, row by row
        logitlab.cross_entropy(z, y)
        logitlab.sample(z)
for _ in range(3):
    threading.Thread(target=loop, daemon=True).start()
time.sleep({delay})
print("end")
"""
    for delay in (0.05, 0.11, 0.18):
        process = run_process(code.format(delay=delay))
        assert (process.returncode, process.stdout, process.stderr) == (0, "end\n", "")


def test_kernels_after_the_end_of_the_main_thread():
    """Functions registered with atexit, before and after the library, call kernels."""
    code = """
import atexit
import numpy as np
def last():
    print(logitlab.softmax(np.zeros((3000, 4)), temperature=2.0).sum())
atexit.register(last)
import logitlab
atexit.register(last)
"""
    assert run_code(code) == ["3000.0", "3000.0"]


@by_platform
def test_memory_that_ends_in_a_worker():
    """MemoryError, also where a thread of the pool needs the memory; the next call is right.

    The threads have worked before: the C library ends a process that has no memory to register
    the end of a thread.
    """
    code = """
import resource
import numpy as np
import logitlab
logitlab.set_num_threads(4)
small = np.random.default_rng(0).standard_normal((64, 4000))
expected = logitlab.softmax(small)  # starts the threads
z = np.zeros((8, 3_000_000), np.float16)
out = np.empty_like(z)
short = z[:, :100_000].copy()
for _ in range(20):
    logitlab.softmax(short), logitlab.logsumexp(short), logitlab.sample(short, top_p=0.5)
holes = [bytes(2000) for _ in range(4000)]
del holes[::2]  # small allocations, such as that of an exception, still succeed
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
for rest in (4 << 20, 16 << 20, 30 << 20):
    resource.setrlimit(resource.RLIMIT_AS, (used + rest, -1))
    for function in (lambda: logitlab.softmax(z, out=out), lambda: logitlab.logsumexp(z),
                     lambda: logitlab.sample(z, top_p=0.5)):
        try:
            function()
            print("done")
        except MemoryError as error:
            assert "bytes" in str(error), error
            print("MemoryError")
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    assert logitlab.softmax(small).tobytes() == expected.tobytes()
assert (logitlab.softmax(z[:, :4], out=out[:, :4]) == 0.25).all()
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs /proc")
    assert "MemoryError" in run_code(code)


@by_platform
def test_threads_that_cannot_start():
    """The calls work on with the threads that there are."""
    code = """
import resource
import numpy as np
import logitlab
z = np.random.default_rng(0).standard_normal((4000, 1000))
logitlab.set_num_threads(1)
expected = logitlab.softmax(z)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_STACK, (64 << 20, -1))
out = np.empty_like(z)
logitlab.softmax(z, out=out)
resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20), -1))  # room for some stacks
logitlab.set_num_threads(64)
for _ in range(3):
    logitlab.softmax(z, out=out)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
assert out.tobytes() == expected.tobytes()
print("alive")
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs /proc")
    assert run_code(code) == ["alive"]


SIGNALS = """
import signal, threading
import numpy as np
import logitlab
rng = np.random.default_rng(0)
# Logits and temperatures of about 1e-300 take the slowest path.

def interrupted(call, seconds=0.05):
    "Whether KeyboardInterrupt ends the call."
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        call()
        return False
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
"""


@by_platform
@pytest.mark.parametrize("threads", [1, 4])
def test_an_interrupt_ends_a_long_call(threads):
    """The rest of the work is skipped, of many rows and of a long one."""
    code = f"""
signal.signal(signal.SIGALRM, signal.default_int_handler)
logitlab.set_num_threads({threads})
z = rng.standard_normal((10_000, 1_000)) * 1e-300
y = np.zeros(len(z), int)
logitlab.cross_entropy(z[:2], y[:2], label_smoothing=0.5)  # imports modules
for shape in (z.shape, (1, -1), (-1, 4)):
    x = z.reshape(shape)
    out = np.full(x.shape, np.nan)
    assert interrupted(lambda: logitlab.softmax(x, temperature=1e-300, out=out))
    assert np.isnan(out).any()
assert interrupted(lambda: logitlab.cross_entropy(z, y, temperature=1e-300))
assert interrupted(lambda: logitlab.sample(z, 100_000))
assert interrupted(lambda: logitlab.sample(z[:1], 1_000_000_000 // 4))
print("alive")
"""
    assert run_code(SIGNALS + code) == ["alive"]


@by_platform
@pytest.mark.parametrize("threads", [1, 4])
def test_a_signal_handler_that_returns(threads):
    """The call goes on with the same results, also where the handler calls kernels itself."""
    code = f"""
z = rng.standard_normal((300, 3_000)) * 1e-300
expected = [logitlab.softmax(x, temperature=1e-300) for x in (z, z.reshape(1, -1))]
small = logitlab.softmax(z[:100])
handled = []
def handler(*_):
    assert logitlab.softmax(z[:100]).tobytes() == small.tobytes()
    assert abs(logitlab.softmax(z[0, :9], temperature=1e-300).sum() - 1) < 1e-15
    handled.append(1)
    signal.setitimer(signal.ITIMER_REAL, 0.02)  # not before, as this takes time
signal.signal(signal.SIGALRM, handler)
logitlab.set_num_threads({threads})
for x, right in zip((z, z.reshape(1, -1)), expected):
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    result = logitlab.softmax(x, temperature=1e-300)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert result.tobytes() == right.tobytes()
assert handled
print("alive")
"""
    assert run_code(SIGNALS + code) == ["alive"]


@by_platform
def test_an_interrupt_leaves_the_calls_of_other_threads_alone():
    code = """
signal.signal(signal.SIGALRM, signal.default_int_handler)
z = rng.standard_normal((300, 3_000)) * 1e-300
expected = logitlab.softmax(z, temperature=1e-300)
results = []
thread = threading.Thread(
    target=lambda: results.extend(logitlab.softmax(z, temperature=1e-300) for _ in range(3))
)
thread.start()
long = rng.standard_normal((10_000, 1_000)) * 1e-300
assert interrupted(lambda: logitlab.softmax(long, temperature=1e-300))
thread.join()
assert all(result.tobytes() == expected.tobytes() for result in results)
print("alive")
"""
    assert run_code(SIGNALS + code) == ["alive"]
