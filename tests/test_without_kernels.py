"""Without the compiled kernels every function gives the same results by the reference."""

import numpy as np
import pytest
import torch

import logitlab
from logitlab._backends import native

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
    "temperature": lambda: logitlab.TemperatureScaling().fit(Z, Y).temperature_,
    "vector": lambda: logitlab.VectorScaling().fit(Z, Y).transform(Z),
}


@pytest.mark.skipif(not logitlab.native_available(), reason="installed without a C++ compiler")
@pytest.mark.parametrize("name", CALLS)
def test_results_without_kernels(name, monkeypatch):
    expected = CALLS[name]()
    monkeypatch.setattr(native, "_native", None)
    assert not logitlab.native_available()
    np.testing.assert_allclose(CALLS[name](), expected, rtol=1e-5, atol=1e-12)
