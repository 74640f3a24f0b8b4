"""`logitlab info`."""

import platform
import re
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app
from logitlab._app.info import blas_advice

pytestmark = pytest.mark.slow

_HASWELL = {"internal_api": "openblas", "architecture": "Haswell"}


def test_versions_and_settings():
    """A line each, in the order of a bug report; libraries that are missing have none."""
    result = CliRunner().invoke(app, ["info"])
    assert result.exit_code == 0
    values = dict(line.split(": ", 1) for line in result.stdout.splitlines() if ": " in line)
    assert values["Python"].startswith(platform.python_version())
    assert values["numpy"] == np.__version__
    if logitlab.native_available():
        threads = logitlab.get_num_threads()
        assert values["kernels"].endswith(f", {threads} thread{'s' * (threads > 1)}")
    else:
        assert values["kernels"].startswith("not compiled")
    assert "torch" in values
    assert "cupy" not in values
    assert any(name.startswith("BLAS ") for name in values)


def test_without_packages(monkeypatch):
    """BLAS is what NumPy was built with where the package that finds it is missing."""
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    result = CliRunner().invoke(app, ["info"])
    assert result.exit_code == 0
    assert re.search(r"^BLAS: \S+", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("features", [["X86_V3", "X86_V4"], ["AVX2", "AVX512_SKX"]])
def test_advice_about_openblas(features):
    """Only where OpenBLAS uses its kernels for Haswell, and the processor has AVX-512."""
    assert "OPENBLAS_CORETYPE=SkylakeX" in blas_advice([_HASWELL], features)
    assert blas_advice([_HASWELL], features[:1]) is None
    assert blas_advice([{**_HASWELL, "architecture": "SkylakeX"}], features) is None
    assert blas_advice([{"internal_api": "mkl"}], features) is None
    assert blas_advice([], features) is None
