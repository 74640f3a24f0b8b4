"""A fit of rows in .parquet files: time and peak memory, beside the same fit in memory."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

COLUMNS, CLASSES = 100, 10
_PART = 1 << 18  # rows written at a time

_FIT = """
import sys, time
import numpy as np
from pyarrow import dataset
from logitlab import SoftmaxRegression
start = time.perf_counter()
rows = dataset.dataset(sys.argv[1])
if sys.argv[2] == "memory":
    table = rows.to_table()
    names = table.column_names[:-1]
    X = np.empty((table.num_rows, len(names)), np.float32, order="F")
    for j, name in enumerate(names):
        X[:, j] = table[name].to_numpy()
    y = table["y"].to_numpy()
    del table
    model = SoftmaxRegression().fit(X, y)
else:
    model = SoftmaxRegression().fit(rows, "y")
line = next(l for l in open("/proc/self/status") if l.startswith("VmHWM"))
print(time.perf_counter() - start, int(line.split()[1]) / 1024, model.n_iter_[0])
"""


def _write(path: Path, rows: int) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    weights = rng.standard_normal((COLUMNS, CLASSES), np.float32) * (2 / COLUMNS**0.5)
    names = [*(f"x{j}" for j in range(COLUMNS)), "y"]
    types = [*[pa.float32()] * COLUMNS, pa.int16()]
    with parquet.ParquetWriter(
        path, pa.schema(zip(names, types, strict=True)), use_dictionary=False
    ) as writer:
        for start in range(0, rows, _PART):
            x = rng.standard_normal((min(_PART, rows - start), COLUMNS), np.float32)
            z = x @ weights
            y = (z + rng.gumbel(size=z.shape)).argmax(axis=1).astype(np.int16)
            writer.write_table(pa.table([*np.ascontiguousarray(x.T), y], names))


def measure(rows: int) -> dict[str, dict[str, float]]:
    """Return seconds, peak MiB and iterations of each fit."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        _write(path, rows)
        for which in ("files", "memory"):
            command = [sys.executable, "-c", _FIT, str(path), which]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, peak, iterations = (float(value) for value in done.stdout.split())
            results[which] = {"seconds": seconds, "peak": peak, "iterations": iterations}
    return results | {"data": {"rows": float(rows)}}


def sentence(results: dict[str, dict[str, float]]) -> str:
    """Return the figures in words."""
    files, memory = results["files"], results["memory"]
    return (
        f"{results['data']['rows']:,.0f} rows of {COLUMNS} float32 columns, {CLASSES} classes, in "
        f"a .parquet file: fitted from the file in {files['seconds']:.0f} s "
        f"({files['iterations']:.0f} iterations) with a peak of {files['peak']:.0f} MiB, the "
        f"libraries included; read into memory and fitted in {memory['seconds']:.0f} s with "
        f"{memory['peak']:.0f} MiB."
    )
