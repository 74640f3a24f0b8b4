"""The stub of the native module is what nanobind generates from the module."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from logitlab._backends import native

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not native.native_available(), reason="the kernels are not installed")
@pytest.mark.skipif(not importlib.util.find_spec("nanobind"), reason="nanobind is not installed")
def test_stub_is_generated_from_the_module(tmp_path):
    stub = tmp_path / "_native.pyi"
    patterns = ROOT / "src/native/stub_patterns.txt"
    command = [sys.executable, "-m", "nanobind.stubgen", "-q", "-m", "logitlab._native"]
    subprocess.run([*command, "-p", patterns, "-o", stub], check=True)
    committed = (ROOT / "src/logitlab/_native.pyi").read_text()
    assert stub.read_text() == committed, "run `make stub`"
