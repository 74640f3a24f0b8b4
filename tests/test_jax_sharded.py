"""logitlab.jax on four devices, whose number JAX reads when it starts."""

import os
import subprocess
import sys
from pathlib import Path


def test_on_four_devices():
    """All tests of `jax_devices.py` pass."""
    tests = Path(__file__).with_name("jax_devices.py")
    flags = "--xla_force_host_platform_device_count=4"
    process = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    )
    assert process.returncode == 0, process.stdout
