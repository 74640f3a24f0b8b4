"""Fixtures of the tests of the command line."""

import numpy as np
import pytest


@pytest.fixture
def logits_file(tmp_path, monkeypatch):
    """The array in z.npy of the current folder: 7 rows of 3 classes."""
    monkeypatch.chdir(tmp_path)
    z = np.random.default_rng(0).standard_normal((7, 3))
    np.save("z.npy", z)
    return z
