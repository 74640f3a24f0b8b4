import numpy as np

import logitlab


def test_softmax_of_float64():
    """exp(z) over its sum, to the last place."""
    p = logitlab.softmax(np.array([0.0, np.log(3.0)]))
    assert p.dtype == np.float64
    np.testing.assert_allclose(p, [0.25, 0.75], rtol=4e-16)
