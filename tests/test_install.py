"""An install without a C++ compiler succeeds, and works on the reference."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

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
    """CXX names no compiler; pip succeeds; the library says so and is right."""
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "logitlab-report", "*.so")
    shutil.copytree(ROOT, source, ignore=ignored)
    venv.create(tmp_path / "env", with_pip=True, system_site_packages=False)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    hidden = {**os.environ, "CXX": str(tmp_path / "no-such-compiler"), "PYTHONPATH": ""}
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", source],
        env=hidden,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ran = subprocess.run(
        [python, "-W", "error", "-c", CHECK], capture_output=True, text=True, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("[-2.06")


def test_the_main_job_needs_the_app_extra_alone(tmp_path):
    """The command runs where the libraries of the other extras are missing."""
    others = "hypothesis mpmath starlette uvicorn distributed"
    code = (
        "import sys\n"
        f"for name in {others.split()}: sys.modules[name] = None\n"
        "from logitlab._app import main\n"
        f"sys.argv = ['logitlab', 'report', '-o', {str(tmp_path / 'out')!r}]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").glob("*.html"))
