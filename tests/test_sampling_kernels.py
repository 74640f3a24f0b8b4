"""Sampling kernels: agreement with the reference, and on all instruction sets and threads."""

import os
import subprocess
import sys

import numpy as np
import pytest

import arrays
import logitlab
from arrays import inf
from logitlab._backends import native, native_sampling, reference_sampling
from logitlab._backends.reference_sampling import philox, uniforms
from truncations import stages

pytestmark = pytest.mark.skipif(
    not logitlab.native_available(), reason="installed without a C++ compiler"
)

KEY = (1234567890, 987654321)
CUTS = [
    stages(),
    stages(top_k=7),
    stages(top_p=0.8),
    stages(min_p=0.05),
    stages(("min_p", "temperature", "top_p", "top_k"), top_k=40, top_p=0.9, min_p=0.001),
    stages(("top_p", "top_k", "temperature", "min_p"), top_k=3000, top_p=0.999, min_p=0.01),
]


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
@pytest.mark.parametrize("k", [1, 3, 10, 129, 1000, 9000])
@pytest.mark.slow
def test_against_the_reference(cut, dtype, k):
    """Equal, except where a uniform number is within rounding of a category's boundary."""
    z = arrays.normal((12, k), dtype, 3.0, seed=k)
    z[3, k // 2] = inf
    z[4, : k // 2] = -inf
    z[5] = z[5, 0]
    z[6, 0] = 50.0
    z[7] = np.linspace(-60_000, 0, k).astype(dtype)
    keys = np.arange(100, 112, dtype=np.uint64)
    where = np.random.default_rng(k).random((12, k)) < 0.9
    where[:, 0] = True
    for t, mask in (
        (1.0, None),
        (0.3, where),
        (0.0, None),
        (inf, None),
        (-1.5, None),
        (1e-6, None),
    ):
        if t < 0:
            z[3, k // 2] = 0
        mask = None if mask is None or (z[4, mask[4]] == -inf).all() else mask
        kept, _ = native_sampling.keep(z, 1, t, mask, cut)
        expected_kept, _ = reference_sampling.keep(z, t, mask, cut)
        differ = (kept != expected_kept) & (z != -inf)
        assert differ.sum() <= 1
        rows = np.flatnonzero(~differ.any(1))
        expected = reference_sampling.sample(z, t, mask, cut, 50, True, KEY, keys)
        samples = native_sampling.sample(z, 1, t, mask, cut, 50, True, KEY, keys)
        assert (samples != expected)[rows].mean() < 0.01
        for row, j in np.argwhere((samples != expected) & ~differ.any(1, keepdims=True)):
            p = logitlab.softmax(z[row].astype(float), temperature=t, where=expected_kept[row])
            u = uniforms(philox(KEY, keys[row], np.uint64(j)))
            assert np.abs(np.cumsum(p) - u).min() < 1e-6
        expected = reference_sampling.sample(z, t, mask, cut, 20, False, KEY, keys)
        samples = native_sampling.sample(z, 1, t, mask, cut, 20, False, KEY, keys)
        assert (samples == expected)[rows].all()


def test_fewer_categories_than_samples():
    """Without replacement, missing samples are -1."""
    z = np.array([[0.0, -inf, 1.0], [2.0, 2.0, 2.0], [-inf, -inf, -inf]])
    arguments = CUTS[0], 3, False, KEY, np.arange(3, dtype=np.uint64)
    samples = native_sampling.sample(z, 1, 1.0, None, *arguments)
    assert (samples == reference_sampling.sample(z, 1.0, None, *arguments)).all()
    assert ((samples >= 0).sum(1) == [2, 3, 0]).all()


DIGEST = """
import hashlib, sys
import numpy as np
import ml_dtypes, logitlab
from logitlab._backends import native
rng = np.random.default_rng(0)
digest = hashlib.sha256()
logitlab.set_num_threads(int(sys.argv[1]))
for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
    for rows, k in ((40, 1), (40, 3), (37, 10), (19, 129), (9, 1000), (3, 5000), (1, 30_000)):
        z = (rng.standard_normal((rows, k)) * 3).astype(dtype)
        for t in (1.0, 0.7, 0.0, -2.0):
            for cut in ({}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.01, "top_p": 0.99}):
                for n in (1, 30):
                    samples = logitlab.sample(z, n, temperature=t, order="vllm", rng=7, **cut)
                    digest.update(samples.tobytes())
        digest.update(logitlab.sample(z, min(k, 9), replacement=False, rng=7).tobytes())
print(native._native.isa, digest.hexdigest())
"""


def digest(isa, threads):
    done = subprocess.run(
        [sys.executable, "-c", DIGEST, str(threads)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "LOGITLAB_ISA": isa},
    )
    return done.stdout.split()


def test_samples_are_equal_on_all_instruction_sets_and_threads():
    """On every instruction set of this processor, with one thread and with three."""
    digests = [digest("v2", 1), digest("v3", 3), digest("v4", 1), digest("v4", 3)]
    assert len({bits for _, bits in digests}) == 1
    if len({isa for isa, _ in digests}) < 3:
        pytest.skip("this processor does not support all instruction sets")


def inverse_cdf(z, u):
    """The categories that the kernel samples for given uniform numbers u."""
    indices = np.empty((1, len(u)), np.int64)
    arguments = native.KINDS[z.dtype.name], z[None], 1, 1.0, None, [], True, 0, 0
    native._native.sample(*arguments, u[None], indices)
    return indices[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("k", [2, 100, 1000, 4096, 4097, 20_000])
def test_probability_of_a_rare_category(k, dtype):
    """A category of probability 1e-9 at any index has an interval of uniform numbers of that width.

    The uniform numbers are on a grid of step 1e-13 around the interval, so the test is not random.
    """
    rare = 1e-9
    for i in {0, k // 2, k - 2, k - 1}:
        z = np.linspace(-1, 1, k).astype(dtype)
        z[i] = np.log(rare * np.exp(z.astype(float)).sum())
        p = logitlab.softmax(z.astype(float))
        low = np.cumsum(p)[i] - p[i]
        # Rounding the weights before it to float32 moves the interval by up to 2e-7.
        slack = 2e-7 if dtype == "float32" else 1e-11
        # Integers times 1e-13: np.arange with a step of 1e-13 would accumulate rounding errors.
        first, last = -min(slack, low), min(p[i] + slack, 1 - low)
        u = low + (np.arange(round(first * 1e13), round(last * 1e13)) + 0.5) * 1e-13
        width = (inverse_cdf(z, u) == i).sum() * 1e-13
        assert width == pytest.approx(p[i], rel=3e-4)


@pytest.mark.parametrize("k", [3, 16, 17, 256, 257, 4096, 4097, 20_000])
def test_every_category_is_sampled(k):
    """By the center of its interval; u = 1 samples the last category of positive weight."""
    z = np.zeros(k, np.float64)
    centers = (np.arange(k) + 0.5) / k
    assert (inverse_cdf(z, np.append(centers, 1.0)) == [*range(k), k - 1]).all()
    z[k // 3 + 1 :] = -inf
    assert inverse_cdf(z, np.array([1.0, 1 - 2**-53]))[0] == k // 3
