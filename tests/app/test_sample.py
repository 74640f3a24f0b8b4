"""`logitlab sample`: samples from the rows of a file."""

import io

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import logitlab
from logitlab._app.cli import app
from logitlab._app.io.source import memory_bytes
from logitlab._rows import blocks

pytestmark = pytest.mark.slow

LIMIT = memory_bytes() // 64


def sample(*arguments):
    return CliRunner().invoke(app, ["sample", *map(str, arguments)], catch_exceptions=False)


def test_many_samples(logits_file):
    """Samples in blocks equal those of all rows at once."""
    n = next(blocks(1 << 40, 1)).stop // 2
    result = sample("z.npy", "-n", n, "--seed", 5, "--top-k", 10**22)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(io.StringIO(result.stdout))
    assert table["index"].tolist() == logitlab.sample(logits_file, n, rng=5).ravel().tolist()
    assert table["row"].tolist() == np.repeat(np.arange(7), n).tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", 10**12], f"-n must be <= {LIMIT} in the memory of this machine, got 1000000000000"),
        (["-n", 10**22], f"-n must be <= {LIMIT} in the memory"),
        (["-n", 0], "-n must be >= 1, got 0"),
        (["-n", 4, "--without-replacement"], "-n must be <= 3 without replacement, got 4"),
        (["--top-k", 0], "--top-k must be >= 1, got 0"),
        (["--top-p", 2], "--top-p must be in (0, 1], got 2.0"),
        (["--min-p", -1], "--min-p must be in [0, 1], got -1.0"),
        (["--temperature", "nan"], "--temperature must be a number, 0 and ±inf included, got nan"),
        (["--seed", -1], "--seed must be >= 0, got -1"),
        (
            ["--order", "luck"],
            "--order must be one of 'transformers', 'vllm', 'llama.cpp', 'sglang', got 'luck'\n",
        ),
    ],
)
def test_errors_of_options(logits_file, arguments, message):
    """One line that names the option and its rule."""
    result = sample("z.npy", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"logitlab: {message}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
