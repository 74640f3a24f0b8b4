"""Runs Python code in a separate process."""

import os
import subprocess
import sys


def run_process(code, **environment):
    """The process that has run the code, with what it printed."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def run_code(code, **environment):
    """The words that the code prints."""
    process = run_process(code, **environment)
    assert process.returncode == 0, process.stderr
    return process.stdout.split()
