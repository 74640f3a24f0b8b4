"""The memory of the kernels: nothing is lost, intermediate arrays are small, errors name a size."""

import sys

import numpy as np
import pytest

import logitlab
from processes import run_code

pytestmark = pytest.mark.slow

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

Z = np.random.default_rng(0).standard_normal((40, 300))
Y = np.arange(40) % 300
WHERE = np.random.default_rng(1).random(Z.shape) < 0.9
T = np.linspace(0.5, 2, 40)
HEAD = np.random.default_rng(2).standard_normal((7, 300))
CALLS = {
    "softmax": lambda: logitlab.softmax(Z, temperature=T, where=WHERE),
    "log_softmax": lambda: logitlab.log_softmax(Z, temperature=T, where=WHERE),
    "logsumexp": lambda: logitlab.logsumexp(Z, temperature=T, where=WHERE),
    "jacobian": lambda: logitlab.jacobian(Z[:, :9], temperature=T),
    "jacobian_product": lambda: logitlab.jacobian_product(Z, Z, temperature=T),
    "hessian_product": lambda: logitlab.hessian_product(Z, Z, Z, temperature=T),
    "cross_entropy": lambda: logitlab.cross_entropy(Z, Y, temperature=T, where=WHERE),
    "cross_entropy_and_grad": lambda: logitlab.cross_entropy_and_grad(Z, Z**2, temperature=T),
    "linear_cross_entropy": lambda: logitlab.linear_cross_entropy_and_grad(Z, HEAD, Y % 7),
    "sample": lambda: logitlab.sample(Z, 5, temperature=T, where=WHERE, row_keys=Y),
    "truncate": lambda: logitlab.truncate(Z, temperature=T, where=WHERE, top_p=0.9),
    "entropy": lambda: logitlab.entropy(Z, temperature=T, where=WHERE),
    "kl_divergence": lambda: logitlab.kl_divergence(Z, Z, temperature=T, where=WHERE),
    "brier_score": lambda: logitlab.brier_score(Z, Y),
    "TemperatureScaling": lambda: logitlab.TemperatureScaling().fit(Z, Y),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_keeps_no_reference_to_its_arguments(name):
    """Not even where it fails."""
    arrays = (Z, Y, WHERE, T, HEAD)
    CALLS[name]()
    before = [sys.getrefcount(a) for a in arrays]
    for _ in range(3):
        CALLS[name]()
        with pytest.raises(ValueError, match="temperature"):
            logitlab.softmax(Z, temperature=T[:5], where=WHERE)
    assert [sys.getrefcount(a) for a in arrays] == before


RESIDENT = """
import gc, resource, threading
import numpy as np
import logitlab

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
"""


@linux
def test_many_calls_need_no_more_memory():
    """Of every function, on small and large arrays, in threads that end."""
    code = """
rng = np.random.default_rng(0)
small, long, many = (rng.standard_normal(shape) for shape in ((50, 20), (2, 40_000), (500, 1500)))
half = long.astype(np.float16)

def calls():
    for z in (small, long, half):
        y = np.zeros(len(z), int)
        logitlab.softmax(z, temperature=-2.0)
        logitlab.logsumexp(z)
        logitlab.cross_entropy_and_grad(z, y, temperature=-2.0)
        logitlab.cross_entropy(z, y, temperature=1e-300)
        logitlab.jacobian_product(z, z)
        logitlab.truncate(z, top_p=0.9)
        logitlab.sample(z, 3, top_k=50)
        logitlab.sample(z, 3, replacement=False)
    logitlab.TemperatureScaling().fit(small, np.zeros(len(small), int))
    logitlab.softmax(many)  # a large result, whose memory is used again

def in_thread():
    thread = threading.Thread(target=calls)
    thread.start()
    thread.join()

for _ in range(10):
    calls()
    in_thread()
before = resident()
for _ in range(60):
    calls()
    in_thread()
print((resident() - before) >> 20)
"""
    # A leak of 100 KB in one of the functions would be 12 MB.
    assert int(run_code(RESIDENT + code)[0]) < 8


@linux
@pytest.mark.parametrize(
    ("call", "limit"),
    [
        ("logitlab.cross_entropy(z[:1], [0])", 0.2),
        ("logitlab.cross_entropy(z.reshape(1, -1), [0])", 2.5),
        ("logitlab.logsumexp(z.reshape(1, -1))", 2.5),
        ("logitlab.cross_entropy_and_grad(z, np.zeros(len(z), int))", 1.3),
        ("logitlab.entropy(z)", 0.3),
        ("logitlab.entropy(z.reshape(1, -1))", 5),
        ("logitlab.kl_divergence(z, z)", 0.8),
        ("logitlab.brier_score(z, np.zeros(len(z), int))", 0.5),
        ("logitlab.hessian(z[:128, :64])", 3),
    ],
)
def test_memory_of_intermediate_arrays(call, limit):
    """In multiples of the memory of z, of a half type, or in that of the result of hessian."""
    code = f"""
z = np.zeros((1 << 10, 1 << 14), np.float16)
z += np.arange(len(z), dtype=np.float16)[:, None]
logitlab.entropy(z[:2]), logitlab.kl_divergence(z[:2], z[:2]), logitlab.softmax(z[:8])
before = resident()
{call}
lines = open("/proc/self/status").read().splitlines()
peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
print((peak - before) / z.nbytes)
"""
    assert float(run_code(RESIDENT + code)[0]) < limit


@pytest.mark.parametrize("function", [logitlab.jacobian, logitlab.hessian])
def test_memory_errors_name_the_shape(function):
    z = np.zeros(2_000_000 if function is logitlab.jacobian else 20_000)
    with pytest.raises(MemoryError, match=rf"TiB for an array with shape \(.*{len(z)}, {len(z)}\)"):
        function(z)
