"""Input and output files of the command line."""

import os

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import safetensors.numpy
from reports import labelled, report

import logitlab
from logitlab._app.io.outputs import write_files
from logitlab._app.io.source import UserError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_figures")]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, ml_dtypes.bfloat16])
def test_file_types(tmp_path, dtype):
    """Every file type that supports the dtype gives the same results."""
    z, y = labelled()
    z = (z * 3).astype(dtype)
    files = {}
    if dtype is not ml_dtypes.bfloat16:
        np.save(tmp_path / "z.npy", z)
        np.savez(tmp_path / "z.npz", z=z)
        files = {"z.npy": "", "z.npz": ""}
        columns = {f"c{k}": z[:, k] for k in range(4)}
        pa.parquet.write_table(pa.table({**columns, "y": y}), tmp_path / "z.parquet")
        files["z.parquet"] = ":c0,c1,c2,c3"
        lists = pa.array(list(z), pa.list_(pa.from_numpy_dtype(z.dtype)))
        pa.parquet.write_table(pa.table({"z": lists}), tmp_path / "lists.parquet")
        files["lists.parquet"] = ":z"
    safetensors.numpy.save_file({"z": z, "y": y}, tmp_path / "z.safetensors")
    files["z.safetensors"] = ":z"
    np.save(tmp_path / "y.npy", y)
    found = [
        report(tmp_path, f"{tmp_path / f}{name}", "--labels", tmp_path / "y.npy")
        for f, name in files.items()
    ]
    for each in found:
        each.pop("source")
        assert each["input_summary"].pop("notes")[0].startswith("Labels: column numbers, from 0 ")
        assert each["dtype"] == np.dtype(dtype).name
        assert each == found[0]


def test_tables(tmp_path):
    """Columns are classes, except a column of labels and one without a name."""
    z, y = labelled()
    names = np.array(["cat", "dog", "eel", "fox"])
    head = ",cat,dog,eel,fox,truth\n"
    lines = [
        f"{i},{','.join(map(repr, r.tolist()))},{n}\n"
        for i, (r, n) in enumerate(zip(z, names[y], strict=True))
    ]
    (tmp_path / "t.csv").write_text(head + "".join(lines), "utf-8")
    found = report(tmp_path, tmp_path / "t.csv", "--labels", f"{tmp_path}/t.csv:truth")
    assert found["classes"] == 4
    assert found["accuracy"] == logitlab.accuracy(z, y)
    assert "cat" in (tmp_path / "out" / "report.html").read_text("utf-8")
    # Without a header.
    np.savetxt(tmp_path / "plain.csv", z, delimiter=",")
    np.savetxt(tmp_path / "y.csv", y, fmt="%d")
    plain = report(tmp_path, tmp_path / "plain.csv", "--labels", tmp_path / "y.csv")
    assert plain["rows"] == len(z)
    assert plain["accuracy"] == found["accuracy"]


def test_files_are_written_all_or_none(tmp_path, monkeypatch):
    """If the last file cannot be written, all old files are restored."""
    write_files({"a": b"old"}, tmp_path)
    replace = os.replace

    def fails(source, target):
        if target == tmp_path / "c":
            raise OSError("disk full")
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fails)
        with pytest.raises(OSError, match="disk full"):
            write_files({"a": b"new", "b": b"new", "c": b"new"}, tmp_path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="b: the output must be a file, got a folder"):
        write_files({"a": b"new", "b": b"new"}, tmp_path)
    assert (tmp_path / "a").read_bytes() == b"old"
    write_files({"a": b"new", "c": b"new"}, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]
    assert (tmp_path / "a").read_bytes() == b"new"
