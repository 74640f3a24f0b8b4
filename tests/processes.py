"""Python code in a process of its own."""

import os
import subprocess
import sys


def run_code(code, **environment):
    """The words it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return done.stdout.split()
