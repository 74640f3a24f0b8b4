"""Runs Python code in a separate process."""

import os
import subprocess
import sys


def run_code(code, **environment):
    """The words that the code prints."""
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return process.stdout.split()
