"""The commands read large files in blocks: their memory does not grow with the number of rows."""

import sys

import numpy as np
import pytest

import logitlab
from processes import run_code

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc"),
]


def test_apply_to_a_large_file(tmp_path):
    """A sparse file, whose rows are zeros except the first and the last; limits in MiB."""
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (300, 1000)).astype(np.float32)
    calibrator = logitlab.TemperatureScaling().fit(z, z.argmax(1) - (z.argmax(1) > 500))
    calibrator.save(tmp_path / "calibrator.safetensors")
    rows = 40_000
    with open(tmp_path / "logits.npy", "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, 1000)}
        np.lib.format.write_array_header_1_0(file, header)
        z.tofile(file)
        file.seek(4000 * (rows - 600), 1)
        z.tofile(file)
    code = f"""
import sys
from logitlab._app import main
sys.argv[1:] = ["apply", r"{tmp_path}", r"{tmp_path}/logits.npy", "-o", r"{tmp_path}/out.parquet"]
try:
    main()
except SystemExit as status:
    assert not status.code
lines = open("/proc/self/status").read().splitlines()
print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) >> 10)
"""
    # 165 MiB, of which the imports take most; the file has 153.
    assert int(run_code(code)[-1]) < 240
    import pandas as pd

    table = pd.read_parquet(tmp_path / "out.parquet")
    assert len(table) == rows
    np.testing.assert_array_equal(table["predicted"][-300:], z.argmax(1))
    np.testing.assert_allclose(
        table["confidence"][:300], calibrator.predict_proba(z).max(1), atol=1e-6
    )
