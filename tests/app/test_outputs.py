"""Output files: permissions, links, temporary files; and names as plain text everywhere."""

import csv
import json
import os
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from reports import overwriting
from typer.testing import CliRunner

from logitlab._app.cli import app
from logitlab._app.io.outputs import atomic_write, csv_text, write_files
from logitlab._app.io.source import UserError, printable

pytestmark = pytest.mark.slow


def run(*arguments):
    result = CliRunner().invoke(app, overwriting(*arguments), catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def write_one(path):
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"new")


def write_several(path):
    write_files({path.name: b"new", "other": b"new"}, path.parent)


WRITERS = pytest.mark.parametrize("write", [write_one, write_several])
POSIX = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


@POSIX
@WRITERS
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions(tmp_path, write, umask):
    """A new file has those that the umask leaves; an existing one keeps its own."""
    path = tmp_path / "a"
    before = os.umask(umask)
    try:
        write(path)
        assert mode(path) == 0o666 & ~umask
        for existing in (0o600, 0o640, 0o664):
            path.chmod(existing)
            path.write_bytes(b"old")
            write(path)
            assert path.read_bytes() == b"new"
            assert mode(path) == existing
    finally:
        os.umask(before)
    assert {p.name for p in tmp_path.iterdir()} <= {"a", "other"}


@POSIX
@WRITERS
def test_symbolic_links_are_followed(tmp_path, write):
    """The file that the link points to is written, in its folder; the link stays."""
    (tmp_path / "data").mkdir()
    target, link = tmp_path / "data" / "target", tmp_path / "link"
    link.symlink_to("data/target")
    for _ in ("missing", "existing"):
        write(link)
        assert link.is_symlink()
        assert target.read_bytes() == b"new"
    target.write_bytes(b"old")
    target.chmod(0o600)
    write(link)
    assert mode(target) == 0o600
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["target"]


@POSIX
def test_link_into_a_missing_folder(logits_file, tmp_path):
    """Refused before anything is computed."""
    (tmp_path / "out.csv").symlink_to("nowhere/out.csv")
    status, _, stderr = run("sample", "z.npy", "-o", "out.csv")
    assert status == 2
    assert "nowhere: no such folder" in stderr


@POSIX
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_no_temporary_file_after_a_signal(tmp_path, number):
    """The output is unchanged, and only it is in the folder."""
    code = (
        "import sys, time\n"
        "from logitlab import _app\n"
        "from logitlab._app import cli\n"
        "from logitlab._app.io.outputs import atomic_write\n"
        "from pathlib import Path\n"
        "def slow():\n"
        "    with atomic_write(Path(sys.argv[1])):\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "cli.app = slow\n"
        "_app.main()\n"
    )
    (tmp_path / "a").write_bytes(b"old")
    command = [sys.executable, "-c", code, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(timeout=20) == 128 + number
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("'=1", "''=1"),
        ("-2.5", "-2.5"),
        ("+1e3", "+1e3"),
        ("a=b", "a=b"),
        ("", ""),
        ("'tis", "'tis"),
    ],
)
def test_cells_that_a_spreadsheet_would_run(text, cell):
    """An apostrophe before a formula; numbers and other texts stay as they are."""
    assert csv_text(text) == cell


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\nb\r", r"a\nb\r"),
        ("\x9b\u202e\udcff", r"\x9b\u202e\udcff"),
        ("café, 東京, a b", "café, 東京, a b"),
        ("a\\b", "a\\b"),
    ],
)
def test_printable(text, shown):
    """Control characters, marks of direction and undecodable bytes are written as escapes."""
    assert printable(text) == shown


HOSTILE = ["=1+1", "$\\frac{$", "\x1b[31mred", "[/bold]", "_hidden"]


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A table whose columns have hostile names, and labels, in a folder with a hostile name."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((60, len(HOSTILE)))
    table = pa.table(dict(zip(HOSTILE, z.T, strict=True)))
    os.mkdir("[")
    pa.parquet.write_table(table, "[/x]\x1b[2J.parquet")
    np.save("y.npy", z.argmax(axis=1))
    features = {"x\x1b[2J": z[:, 0], "$_{": z[:, 1], "=w": pa.array(["-a", "b"] * 30)}
    target = np.array(HOSTILE)[z.argmax(axis=1)]
    pa.parquet.write_table(pa.table(features | {"t\x1b": target}), "fit.parquet")
    return "[/x]\x1b[2J.parquet"


def assert_plain(*texts):
    for text in texts:
        assert "\x1b" not in text


def test_hostile_names_in_a_report(hostile):
    """Names with mathematics, markup and escapes are text in the page and on the terminal."""
    status, stdout, stderr = run("report", hostile, "--labels", "y.npy", "-o", "out\x1b[2J")
    assert status == 0
    assert_plain(stdout, stderr)
    assert "[/x]" in stdout
    with open("out\x1b[2J/report.html", encoding="utf-8") as file:
        page = file.read()
    assert "$\\frac{$" in page
    assert "\x1b" not in page
    status, stdout, stderr = run("report", hostile, hostile, "--labels", "y.npy", "-o", "both")
    assert status == 0
    assert_plain(stdout, stderr)


def test_hostile_names_in_errors(hostile):
    """A file, a column, an array and an option."""
    for arguments in (
        ["report", "no\x1b[2J.npy"],
        ["report", f"{hostile}:no\x1b[2J"],
        ["report", "y.npy:\x1b[2J"],
        ["sample", hostile, "--order", "\x1b[2J"],
        ["sample", hostile, "-o", "\x1b[2J.txt"],
        ["fit", "fit.parquet", "--target", "\x1b[2J"],
        ["predict", "\x1b[2J", "fit.parquet"],
    ):
        status, stdout, stderr = run(*arguments)
        assert status == 2, arguments
        assert stderr.count("\n") == 1
        assert_plain(stdout, stderr)


def test_hostile_names_in_tables(hostile, no_figures):
    """Formulas are escaped in .csv files only."""
    assert run("sample", hostile, "-n", "9", "-o", "s.csv")[0] == 0
    with open("s.csv", newline="", encoding="utf-8") as file:
        names = {row["name"] for row in csv.DictReader(file)}
    assert names == {"'=1+1", *HOSTILE[1:]}
    assert run("sample", hostile, "-n", "9", "-o", "s.parquet")[0] == 0
    assert set(pa.parquet.read_table("s.parquet")["name"].to_pylist()) == set(HOSTILE)
    _, stdout, _ = run("sample", hostile, "-n", "9", "--json")
    assert {name for line in stdout.splitlines() for name in json.loads(line)["name"]} == set(
        HOSTILE
    )
    status, stdout, stderr = run("fit", "fit.parquet", "--target", "t\x1b", "-o", "fit")
    assert status == 0
    assert_plain(stdout, stderr)
    with open("fit/coefficients.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row[k] for row in rows for k in ("base", "class")} == {"'=1+1", *HOSTILE[1:]}
    assert {row["name"] for row in rows} >= {"'=w=-a", "$_{", "intercept"}
    assert run("predict", "fit", "fit.parquet", "-o", "p.csv")[0] == 0
    with open("p.csv", newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert set(header) == {"label", "'=1+1", *HOSTILE[1:]}
    assert {line[0] for line in lines} <= set(header)


@POSIX
def test_undecodable_file_name(tmp_path, monkeypatch, no_figures):
    """The bytes are escaped in the page and in messages."""
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"\xff.npy")
    try:
        np.save(name, np.zeros((3, 2)))
    except OSError:
        pytest.skip("the file system refuses the name")
    status, stdout, _ = run("report", name, "-o", "out")
    assert status == 0
    assert r"\udcff.npy" in stdout
    assert r"\udcff.npy" in (tmp_path / "out" / "report.html").read_text("utf-8")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("change", ["truncate", "replace", "remove", "rewrite"])
def test_file_that_changes_while_it_is_read(tmp_path, order, change):
    """An error of the next block or row, not a crash or other rows."""
    from logitlab._app.explore.datasets import read_dataset
    from logitlab._app.io.arrays import open_logits

    path = tmp_path / "z.npy"
    z = np.arange(600_000, dtype=float).reshape(-1, 3)
    np.save(path, np.asarray(z, order=order))
    logits, dataset = open_logits(str(path)), read_dataset(str(path), None, False)
    np.testing.assert_array_equal(np.concatenate(list(logits.read())), z)
    np.testing.assert_array_equal(dataset.row(199_999), z[-1])
    blocks = logits.read()
    np.testing.assert_array_equal(next(blocks)[0], z[0])
    match change:
        case "truncate":
            os.truncate(path, 200)
        case "replace":
            np.save(tmp_path / "new.npy", z + 1)
            os.replace(tmp_path / "new.npy", path)
        case "remove":
            path.unlink()
        case "rewrite":
            with path.open("r+b") as file:
                file.seek(200)
                file.write(bytes(8))
            os.utime(path, ns=(time.time_ns(), time.time_ns() + 10**9))
    message = "No such file" if change == "remove" else "the file was changed"
    for read in (lambda: next(blocks), lambda: dataset.row(199_999)):
        with pytest.raises(UserError, match=message):
            read()


def test_array_of_three_dimensions_in_fortran_order(tmp_path):
    """All but the last dimension are rows, in C order."""
    from logitlab._app.io.arrays import open_logits

    z = np.arange(24.0).reshape(2, 4, 3)
    np.save(tmp_path / "z.npy", np.asfortranarray(z))
    (block,) = open_logits(str(tmp_path / "z.npy")).read()
    np.testing.assert_array_equal(block, z.reshape(8, 3))
