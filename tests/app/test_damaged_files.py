"""Damaged files: one line on standard error and exit status 2, or a result; never a traceback."""

import io
import json
import re
import struct
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import safetensors.numpy
from reports import overwriting
from typer.testing import CliRunner

from logitlab._app.cli import app
from logitlab._app.io import files
from logitlab._app.report import figures

pytestmark = pytest.mark.slow

SUFFIXES = (".npy", ".npz", ".csv", ".parquet", ".safetensors")


def run(*arguments):
    """The exit status and standard error of a command; an unexpected exception is raised."""
    result = CliRunner().invoke(app, overwriting(*arguments), catch_exceptions=False)
    return result.exit_code, result.stderr


def assert_one_line(status, stderr):
    assert status == 2
    assert re.fullmatch(r"logitlab: [^\n]+\n", stderr), stderr


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """The bytes of one valid file of each type, and of a fitted model, by suffix."""
    folder = tmp_path_factory.mktemp("originals")
    rng = np.random.default_rng(0)
    z = rng.standard_normal((20, 3))
    np.save(folder / "z.npy", z)
    np.savez_compressed(folder / "z.npz", z=z)
    table = pa.table({"a": z[:, 0], "b": z[:, 1], "c": z[:, 2]})
    pa.csv.write_csv(table, folder / "z.csv")
    pa.parquet.write_table(table, folder / "z.parquet")
    safetensors.numpy.save_file({"z": z}, folder / "z.safetensors")
    files = {suffix: (folder / f"z{suffix}").read_bytes() for suffix in SUFFIXES}
    text = pa.array(["u", "v"] * 30)
    fit_table = pa.table({"x": rng.standard_normal(60), "w": text, "y": ["a", "b", "c"] * 20})
    pa.csv.write_csv(fit_table, folder / "fit.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "svg", lambda draw, **_: "<svg></svg>")
        assert run("fit", folder / "fit.csv", "--target", "y", "-o", folder / "fit")[0] == 0
    return files | {"model": (folder / "fit" / "model.safetensors").read_bytes()}


def mutated(data, rng):
    """The bytes with one to three changes: a bit, a byte, a piece removed, repeated or cut."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        # Headers decide how the rest is read: half of the changes are there or in the footer.
        place = rng.integers(0, 3)
        at = int(rng.integers(0, len(data)))
        if place == 0:
            at = min(at, int(rng.integers(1, 200)))
        elif place == 1:
            at = max(0, len(data) - 1 - int(rng.integers(0, 200)))
        size = int(rng.integers(1, 20))
        match rng.integers(0, 6):
            case 0 | 1:
                data[at] ^= 1 << int(rng.integers(0, 8))
            case 2:
                data[at] = int(rng.choice([0, 255, 45, 57, 91, 123]))
            case 3:
                del data[at : at + size]
            case 4:
                data[at:at] = data[at : at + size]
            case 5:
                del data[at:]
        if not data:
            return b""
    return bytes(data)


def check_mutations(originals, kind, folder, seeds):
    """Read mutations of a file with the command that reads its kind."""
    out = folder / "out.csv"
    table = folder / "table.csv"
    table.write_text("x,w\n1,u\n2,v\n")
    for seed in seeds:
        path = folder / ("model.safetensors" if kind == "model" else f"z{kind}")
        path.write_bytes(mutated(originals[kind], np.random.default_rng(seed)))
        if kind == "model":
            command = ("predict", path, table, "-o", out)
        else:
            command = ("sample", path, "--seed", "0", "-o", out)
        try:
            status, stderr = run(*command)
        except Exception as error:
            raise AssertionError(f"{kind}, seed {seed}: {error!r}") from error
        if status != 0:
            assert_one_line(status, stderr)


@pytest.mark.parametrize("kind", [*SUFFIXES, "model"])
def test_mutated_files(originals, tmp_path, kind):
    """Random changes of the bytes of a file."""
    check_mutations(originals, kind, tmp_path, range(60))


def npy(header):
    """A .npy file with this text as its header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)


def header(shape):
    return f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    "text",
    [
        header(f"({2**63 + 1}, 2)"),
        header(f"({2**62}, 2)"),
        header("(-1, 2)"),
        header(f"({2**40}, {2**40})"),
        header("(" * 3000 + ")" * 3000),
        "[" * 60_000,
        header("(True, 'a')"),
        "",
    ],
    ids=range(8),
)
def test_header_of_npy(tmp_path, text):
    """Dimensions beyond 2^63, and a header that is no dictionary."""
    for name in ("z.npy", "z.npz"):
        if name == "z.npy":
            (tmp_path / name).write_bytes(npy(text))
        else:
            with zipfile.ZipFile(tmp_path / name, "w") as archive:
                archive.writestr("z.npy", npy(text))
        assert_one_line(*run("sample", tmp_path / name))


def npz_bytes(compression=zipfile.ZIP_DEFLATED):
    array = io.BytesIO()
    np.save(array, np.zeros((50, 3)))
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        archive.writestr("z.npy", array.getvalue())
    return bytearray(data.getvalue())


def test_archive_with_password_or_unknown_compression(tmp_path):
    """Flags and method are in the local header and in the central directory."""
    path = tmp_path / "z.npz"
    for field, value in ((0, 1), (2, 99)):  # bit 0: encrypted; method 99
        data = npz_bytes()
        central = data.rindex(b"PK\x01\x02")
        for start in (6, central + 8):
            data[start + field : start + field + 2] = struct.pack("<H", value)
        path.write_bytes(data)
        assert_one_line(*run("sample", path))


def test_array_that_claims_more_than_the_memory(tmp_path):
    """The size in the directory of an archive is checked before memory is allocated."""
    data = npz_bytes()
    central = data.rindex(b"PK\x01\x02")
    data[central + 24 : central + 28] = struct.pack("<I", 2**32 - 2)
    (tmp_path / "z.npz").write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "memory_bytes", lambda: 1 << 20)
        status, stderr = run("sample", tmp_path / "z.npz")
    assert_one_line(status, stderr)
    assert "more than the memory of this machine" in stderr


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "C64"])
def test_types_of_safetensors(tmp_path, kind):
    """A type without a NumPy equivalent is named."""
    n_bytes = {"F4": 4, "C64": 64}.get(kind, 8)
    entry = {"dtype": kind, "shape": [4, 2], "data_offsets": [0, n_bytes]}
    text = json.dumps({"z": entry}).encode()
    path = tmp_path / "z.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(n_bytes))
    status, stderr = run("sample", path)
    assert_one_line(status, stderr)
    assert f"got {kind}" in stderr


@pytest.mark.parametrize("command", ["report", "sample", "explore", "fit", "predict"])
def test_name_that_is_too_long(logits_file, command):
    """As input and as output file."""
    long = "a" * 300 + ".npy"
    options = {"fit": ["--target", "y"], "predict": ["z.csv"]}.get(command, [])
    assert_one_line(*run(command, long, *options))
    if command in ("report", "sample"):
        assert_one_line(*run(command, "z.npy", "-o", "a" * 300 + "/b.csv"))
    assert_one_line(*run("sample", "z.npy", "-o", "a" * 300 + ".csv"))


def tampered(metadata, change):
    """A copy of the metadata of a model with one change."""
    metadata = json.loads(json.dumps(metadata))
    change(metadata)
    return metadata


TAMPERINGS = {
    "duplicate classes": lambda m: m.update(classes=["a", "a", "c"]),
    "one class": lambda m: m.update(classes=["a"]),
    "classes of several types": lambda m: m.update(classes=["a", 1, True]),
    "nested classes": lambda m: m.update(classes=[["a"], ["b"], ["c"]]),
    "classes are null": lambda m: m.update(classes=[None, "b", "c"]),
    "classes are a number": lambda m: m.update(classes=3),
    "classes are floats": lambda m: m.update(classes=[0.5, 1.5, 2.5]),
    "target is a list": lambda m: m.update(target=["y"]),
    "temperature is null": lambda m: m.update(temperature=None),
    "temperature is 0": lambda m: m.update(temperature=0),
    "temperature is NaN": lambda m: m.update(temperature=float("nan")),
    "temperature is huge": lambda m: m.update(temperature=10**400),
    "temperature is text": lambda m: m.update(temperature="warm"),
    "columns are text": lambda m: m.update(columns="xw"),
    "no columns": lambda m: m.update(columns=[]),
    "column of another name": lambda m: m["columns"][0].update(name=5),
    "column with a new key": lambda m: m["columns"][0].update(colour="red"),
    "column twice": lambda m: m["columns"].append(m["columns"][0]),
    "duplicate categories": lambda m: m["columns"][1].update(categories=["u", "u"]),
    "categories are numbers": lambda m: m["columns"][1].update(categories=[1, 2]),
    "categories are text": lambda m: m["columns"][1].update(categories="uv", fill=1.0),
    "fill is text": lambda m: m["columns"][0].update(fill="much"),
    "fill is NaN": lambda m: m["columns"][0].update(fill=float("nan")),
    "base of a number": lambda m: m["columns"][0].update(base="u"),
    "base is a category": lambda m: m["columns"][1].update(base="u"),
    "version": lambda m: m.update(version=2),
    "no version": lambda m: m.pop("version"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampered_models(originals, tmp_path, name):
    """The metadata of a model is checked before it is used."""
    size = struct.unpack("<Q", originals["model"][:8])[0]
    metadata = json.loads(json.loads(originals["model"][8 : 8 + size])["__metadata__"]["logitlab"])
    tensors = safetensors.numpy.load(originals["model"])
    path = tmp_path / "model.safetensors"
    text = json.dumps(tampered(metadata, TAMPERINGS[name]))
    safetensors.numpy.save_file(tensors, path, {"logitlab": text})
    (tmp_path / "table.csv").write_text("x,w\n1,u\n2,v\n")
    assert_one_line(*run("predict", path, tmp_path / "table.csv", "-o", tmp_path / "p.csv"))
    assert not (tmp_path / "p.csv").exists()


def test_metadata_that_is_deeply_nested(originals, tmp_path):
    """JSON of many brackets, and parameters of another type or shape."""
    (tmp_path / "table.csv").write_text("x,w\n1,u\n2,v\n")
    path = tmp_path / "model.safetensors"
    tensors = safetensors.numpy.load(originals["model"])
    size = struct.unpack("<Q", originals["model"][:8])[0]
    text = json.loads(originals["model"][8 : 8 + size])["__metadata__"]["logitlab"]
    changes = [
        (tensors, "[" * 50_000),
        (tensors, "5"),
        (tensors | {"coef": tensors["coef"].astype(np.int64)}, text),
        (tensors | {"coef": tensors["coef"][:, :1].copy()}, text),
        (tensors | {"intercept": np.full(3, np.nan)}, text),
        ({"coef": tensors["coef"]}, text),
    ]
    for parameters, metadata in changes:
        safetensors.numpy.save_file(parameters, path, {"logitlab": metadata})
        assert_one_line(*run("predict", path, tmp_path / "table.csv", "-o", tmp_path / "p.csv"))
