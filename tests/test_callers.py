"""The state of the caller: its floating-point mode, forks, and where its arrays are in memory."""

import os
import sys

import numpy as np
import pytest

import arrays
import logitlab
from processes import run_code

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not logitlab.native_available(), reason="installed without a C++ compiler"),
]

MODES = """
import ctypes, hashlib, platform
import numpy as np
import logitlab
libm = ctypes.CDLL("libm.so.6")
unit = 0x400000 if platform.machine() == "aarch64" else 0x400
rng = np.random.default_rng(0)

inputs = []
for shape in ((50, 7), (50, 500), (3, 20_000), (1, 300_000)):
    for dtype in (np.float16, np.float32, np.float64):
        z = rng.standard_normal(shape) * 20  # some probabilities are subnormal
        inputs.append((z.astype(dtype), z, z * 1e-300, np.arange(len(z)) % shape[1]))

def digest():
    words = hashlib.sha256()
    for z, wide, tiny, y in inputs:
        for result in (
            logitlab.softmax(z),
            logitlab.softmax(tiny, temperature=1e-300),
            logitlab.log_softmax(z, temperature=2.0),
            logitlab.logsumexp(z, temperature=0.5),
            logitlab.cross_entropy(wide, y, reduction="none"),
            *logitlab.cross_entropy_and_grad(wide, y, label_smoothing=0.25, reduction="none"),
            logitlab.jacobian_product(wide, wide),
            logitlab.truncate(z, top_p=0.75),
            logitlab.sample(z, 4, rng=0, top_p=0.75),
            logitlab.sample(z, 4, rng=0, replacement=False),
        ):
            words.update(np.asarray(result).tobytes())
    return words.hexdigest()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs libm of Linux")
def test_the_rounding_mode_of_the_caller():
    """It changes no result, also where the threads start in that mode, and is kept."""
    code = """
one, small = 1.0, float("1e-30")
libm.fesetround(MODE * unit)
mode = one + small, one - small, small - one
logitlab.set_num_threads(4)
result = digest()
assert (one + small, one - small, small - one) == mode
print(result)
"""
    digests = {run_code(MODES + code.replace("MODE", str(mode)))[0] for mode in range(4)}
    assert len(digests) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_forked_child_starts_its_own_threads():
    """Also a child that is forked while another thread is in a kernel."""
    code = """
import os, threading, time
import numpy as np
import logitlab
logitlab.set_num_threads(4)
z = np.random.default_rng(0).standard_normal((400, 1000))
slow = z * 1e-300
expected = logitlab.softmax(z).tobytes()
def loop():
    while not done:
        logitlab.softmax(slow, temperature=1e-300)
for busy in (False, True):
    done = False
    thread = threading.Thread(target=loop)
    if busy:
        thread.start()
    for _ in range(5):
        child = os.fork()
        if child == 0:
            right = logitlab.softmax(z).tobytes() == expected
            os._exit(0 if right and len(os.listdir("/proc/self/task")) == 4 else 1)
        end = time.monotonic() + 60
        while (status := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < end:
            time.sleep(0.001)
        assert status == (child, 0), status
    done = True
    if busy:
        thread.join()
print("same")
"""
    assert run_code(code) == ["same"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_forked_while_a_thread_waits_for_the_interpreter_exits():
    code = """
import os, sys, threading
import numpy as np
import logitlab
z = np.zeros((64, 100))
def loop():
    while not done:
        logitlab.softmax(z)  # long enough to release the lock of the interpreter
done = False
threads = [threading.Thread(target=loop) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        sys.exit(0)  # with the functions registered with atexit
    assert os.waitpid(child, 0)[1] == 0
done = True
print("end")
"""
    assert run_code(code) == ["end"]


def shifted(x, items):
    """A copy that begins `items` entries after an address that every register accepts."""
    memory = np.zeros(x.nbytes + 64 + items * x.itemsize, np.uint8)
    start = -memory.ctypes.data % 64 + items * x.itemsize
    copied = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copied[...] = x
    return copied


@pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(33, 7), (20, 129), (5, 5000), (1, 70_001), (3000, 2001)])
def test_offsets_in_memory_change_no_bit(shape, dtype):
    """Of inputs and results; results above 16 MB are written around the caches."""
    if shape[0] == 3000 and dtype.itemsize < 4:
        pytest.skip("the result is small")
    z = arrays.normal(shape, dtype)
    y = np.arange(len(z)) % 5
    aligned, out = shifted(z, 0), shifted(z, 0)
    functions = [logitlab.softmax, logitlab.log_softmax]
    expected = [function(aligned, out=out).tobytes() for function in functions]
    losses = [x.tobytes() for x in logitlab.cross_entropy_and_grad(aligned, y)]
    product = logitlab.jacobian_product(aligned, aligned).tobytes()
    samples = logitlab.sample(aligned, 3, rng=0, top_p=0.9)
    for items in (1, 5, 15):
        offset, out = shifted(z, items), shifted(z, 16 - items)
        for function, right in zip(functions, expected, strict=True):
            assert function(offset, out=out).tobytes() == right
        if shape[0] == 3000:
            continue
        assert [x.tobytes() for x in logitlab.cross_entropy_and_grad(offset, y)] == losses
        assert logitlab.jacobian_product(offset, shifted(z, 3)).tobytes() == product
        assert (logitlab.sample(offset, 3, rng=0, top_p=0.9) == samples).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_unaligned_arguments_change_no_bit(dtype):
    """Numbers whose addresses are not multiples of their size, in every array argument."""

    def unaligned(x):
        memory = np.zeros(x.nbytes + 1, np.uint8)[1:]
        copied = memory.view(x.dtype).reshape(x.shape)
        copied[...] = x
        assert not copied.flags.aligned
        return copied

    z, v = arrays.normal((20, 300), np.dtype(dtype)), arrays.normal((20, 300), np.dtype(dtype))
    target = logitlab.softmax(v.astype(np.float64))
    t, weight = np.linspace(0.5, 2, 20), np.linspace(1, 2, 20)
    y = np.arange(20)
    calls = [
        lambda z, v, target, t, weight, y: logitlab.softmax(z, temperature=t),
        lambda z, v, target, t, weight, y: logitlab.logsumexp(z, temperature=t),
        lambda z, v, target, t, weight, y: logitlab.cross_entropy(
            z, y, temperature=t, sample_weight=weight
        ),
        lambda z, v, target, t, weight, y: logitlab.cross_entropy_and_grad(
            z, target.astype(dtype), temperature=t, sample_weight=weight
        )[1],
        lambda z, v, target, t, weight, y: logitlab.cross_entropy(z.astype("f8"), target),
        lambda z, v, target, t, weight, y: logitlab.jacobian_product(z, v, temperature=t),
        lambda z, v, target, t, weight, y: logitlab.hessian_product(z, v, z, temperature=t),
        lambda z, v, target, t, weight, y: logitlab.sample(
            z, 3, rng=0, temperature=t, row_keys=y, top_k=9
        ),
        lambda z, v, target, t, weight, y: logitlab.entropy(z, temperature=t),
        lambda z, v, target, t, weight, y: np.float64(
            logitlab.TemperatureScaling().fit(z, y % 2).temperature_
        ),
    ]
    arguments = (z, v, target, t, weight, y)
    for call in calls:
        assert call(*map(unaligned, arguments)).tobytes() == call(*arguments).tobytes()
