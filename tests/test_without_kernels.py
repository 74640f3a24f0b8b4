"""Without the compiled kernels every function gives the same results by the reference."""

import numpy as np
import pytest
import torch

import arrays
import logitlab
from logitlab._backends import native, plain_numpy

RNG = np.random.default_rng(0)
Z = RNG.standard_normal((60, 5)) * 2
V = RNG.standard_normal((60, 5))
X = RNG.standard_normal((60, 3))
W = RNG.standard_normal((5, 3))
Y = (Z + RNG.gumbel(size=Z.shape)).argmax(1)
UNIFORM = np.full(Z.shape, 0.2)


def gradient(y, **options):
    z = torch.from_numpy(Z).requires_grad_()
    logitlab.cross_entropy(z, torch.from_numpy(y), **options).backward()
    return z.grad.numpy()


CALLS = {
    "softmax": lambda: logitlab.softmax(Z, temperature=0.5),
    "log_softmax": lambda: logitlab.log_softmax(Z, 0),
    "logsumexp": lambda: logitlab.logsumexp(Z, where=Z > -2),
    "jacobian": lambda: logitlab.jacobian(Z),
    "jacobian_product": lambda: logitlab.jacobian_product(Z, V),
    "cross_entropy": lambda: logitlab.cross_entropy_and_grad(Z, Y)[1],
    "smoothed": lambda: logitlab.cross_entropy_and_grad(Z, Y, label_smoothing=0.1)[1],
    "distributions": lambda: logitlab.cross_entropy_and_grad(Z, UNIFORM)[1],
    "linear": lambda: logitlab.linear_cross_entropy_and_grad(X, W, Y, label_smoothing=0.1)[1][1],
    "of tensors": lambda: gradient(Y),
    "of smoothed tensors": lambda: gradient(Y, label_smoothing=0.1),
    "of tensors and distributions": lambda: gradient(UNIFORM),
    "sample": lambda: logitlab.sample(Z, rng=3, top_p=0.9),
    "truncate": lambda: logitlab.truncate(Z, top_k=2),
    "regression": lambda: logitlab.SoftmaxRegression().fit(X, Y).coef_,
    "weighted regression": lambda: logitlab.SoftmaxRegression().fit(X, Y, np.ones(60)).coef_,
    "elastic net": lambda: logitlab.SoftmaxRegression(l1_ratio=0.5).fit(X, Y).coef_,
    "grouped": lambda: logitlab.SoftmaxRegression(l1_ratio=1.0, grouped=True).fit(X, Y).coef_,
    "temperature": lambda: logitlab.TemperatureScaling().fit(Z, Y).temperature_,
    "vector": lambda: logitlab.VectorScaling().fit(Z, Y).transform(Z),
}


@pytest.mark.skipif(not logitlab.native_available(), reason="installed without a C++ compiler")
@pytest.mark.parametrize("name", CALLS)
def test_results_without_kernels(name, monkeypatch):
    expected = CALLS[name]()
    monkeypatch.setattr(native, "_native", None)
    monkeypatch.setattr(native, "plain", plain_numpy)
    assert not logitlab.native_available()
    np.testing.assert_allclose(CALLS[name](), expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("dtype", [np.dtype(c) for c in "efd"], ids=str)
def test_plain_results_without_kernels(name, dtype, monkeypatch):
    """Within the bound of the kernels, and equal to the reference at special values."""
    monkeypatch.setattr(native, "_native", None)
    monkeypatch.setattr(native, "plain", plain_numpy)
    function = getattr(logitlab, name)
    wide = np.longdouble if dtype == np.float64 else np.float64
    rows = [row for row in arrays.rows(dtype) if row.size]
    cases = [np.stack([row, row]) for row in rows] + [arrays.normal((300, 200), dtype)]
    for z in cases:
        with np.errstate(all="ignore"):
            value, exact = function(z), function(z.astype(wide))
            expected = np.asarray(exact).astype(dtype)
            finite_z = np.where(np.isfinite(z), np.abs(z), 0)
            size = finite_z.max() if name == "logsumexp" else 0
            ulp = np.spacing(np.maximum(np.abs(expected), dtype.type(size)))
            error = np.abs(np.asarray(value).astype(wide) - exact) / ulp
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(value[~finite], expected[~finite])
        assert np.all(error[finite] <= 4)
