"""Fixtures of the tests of the command line."""

import numpy as np
import pytest

from logitlab._app.report import figures


@pytest.fixture
def with_figures():
    """Keeps the figures in a file of tests that uses `no_figures`."""


@pytest.fixture
def no_figures(request, monkeypatch):
    """Replaces the figures of a report, which take most of its time."""
    if "with_figures" not in request.fixturenames:
        monkeypatch.setattr(figures, "svg", lambda draw, **_: "<svg></svg>")


@pytest.fixture
def logits_file(tmp_path, monkeypatch):
    """The array in z.npy of the current folder: 7 rows of 3 classes."""
    monkeypatch.chdir(tmp_path)
    z = np.random.default_rng(0).standard_normal((7, 3))
    np.save("z.npy", z)
    return z
