"""The package installs and works without a C++ compiler and without optional libraries."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent

CHECK = """
import numpy as np, logitlab
assert not logitlab.native_available()
logitlab.set_num_threads(4)
assert logitlab.get_num_threads() == 1
assert logitlab.softmax(np.int8([-128, 127]))[1] == 1
assert (logitlab.softmax(np.float32([1000, 2000, 5000])) == [0, 0, 1]).all()
print(logitlab.log_softmax(np.float32([0, -20])))
"""


@pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="no source tree")
def test_without_a_compiler(tmp_path):
    """With no compiler in CXX, pip succeeds and the results come from the reference."""
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "logitlab-report", "*.so")
    shutil.copytree(ROOT, source, ignore=ignored)
    venv.create(tmp_path / "env", with_pip=True, system_site_packages=False)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    environment = {**os.environ, "CXX": str(tmp_path / "no-such-compiler"), "PYTHONPATH": ""}
    process = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", source],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    check = subprocess.run(
        [python, "-W", "error", "-c", CHECK], capture_output=True, text=True, cwd=tmp_path
    )
    assert check.returncode == 0, check.stderr
    assert check.stdout.startswith("[-2.06")


def test_report_needs_only_the_app_extra(tmp_path):
    """`logitlab report` runs without the libraries of the other extras."""
    missing = "hypothesis mpmath starlette uvicorn distributed"
    code = (
        "import sys\n"
        f"for name in {missing.split()}: sys.modules[name] = None\n"
        "from logitlab._app import main\n"
        f"sys.argv = ['logitlab', 'report', '-o', {str(tmp_path / 'out')!r}]\n"
        "main()\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert list((tmp_path / "out").glob("*.html"))
