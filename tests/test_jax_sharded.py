"""logitlab.jax on four devices, whose number JAX reads when it starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_on_four_devices():
    """All tests of `jax_devices.py` pass."""
    tests = Path(__file__).with_name("jax_devices.py")
    # Compiling takes most of the time of these tests: without optimization. Devices that wait for
    # one another need more threads than a machine of two cores gives them.
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    options = {"XLA_FLAGS": flags, "NPROC": "16", "JAX_PLATFORMS": "cpu"}
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **options},
    )
    assert process.returncode == 0, process.stdout
