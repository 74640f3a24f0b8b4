"""The page as a folder of files, with Python in the browser if Pyodide is given."""

import io
import json
import zipfile
from importlib.metadata import files as files_of
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np

from logitlab._app.explore.datasets import Dataset, Datasets
from logitlab._app.explore.page_files import page_files, render_page
from logitlab._app.explore.reliability import reliability
from logitlab._app.explore.state import parse_state
from logitlab._app.io.json_values import json_values
from logitlab._app.io.outputs import catch_write_errors, check_folder, write_files
from logitlab._app.io.source import UserError

_RUNTIME = ("pyodide.mjs", "pyodide.asm.*", "python_stdlib.zip", "pyodide-lock.json")
# Temperatures at which the calibration of the digits is stored, for browsers without Python.
_TEMPERATURES = np.geomspace(0.1, 10, 81)


def export_page(folder: Path, pyodide: Path | None = None, *, overwrite: bool = False) -> None:
    """Write the page to a folder, with the runtime and the NumPy wheel of `pyodide`."""
    runtime = [] if pyodide is None else _runtime_files(pyodide)
    names = ["index.html", *page_files(), "digits.json"]
    if runtime:
        names += ["logitlab.zip", *(f"pyodide/{path.name}" for path in runtime)]
    check_folder(folder, names, [] if pyodide is None else [pyodide, *runtime], overwrite=overwrite)
    python, wheel = ("worker", runtime[-1].name) if runtime else ("none", "")
    contents = {
        "index.html": render_page(Datasets().titles, python, wheel).encode(),
        "digits.json": _digits_json(),
        **page_files(),
    }
    if runtime:
        contents["logitlab.zip"] = package_archive()
    with catch_write_errors(folder):
        if runtime:
            write_files({path.name: path.read_bytes() for path in runtime}, folder / "pyodide")
        write_files(contents, folder)


def _runtime_files(folder: Path) -> list[Path]:
    """The files of Pyodide, the last one the wheel of NumPy."""
    if not folder.is_dir():
        raise UserError(f"--pyodide {folder}: no such folder")
    paths = []
    for pattern in (*_RUNTIME, "numpy-*wasm32.whl"):
        found = sorted(path for path in folder.glob(pattern) if path.suffix != ".map")
        if not found:
            raise UserError(
                f"--pyodide {folder}: has no {pattern}; it must be a Pyodide distribution with "
                "its wheel of NumPy"
            )
        paths += found
    return paths


def _digits_json() -> bytes:
    """The logits and labels of the digits, and their calibration at several temperatures."""
    datasets = Datasets()
    dataset: Dataset = datasets.get("digits")
    (block,) = dataset.source.read()
    states = (parse_state(f"set=digits&T={t!r}", datasets) for t in _TEMPERATURES.tolist())
    values = {
        "z": block,
        "labels": dataset.labels,
        "reliability": [reliability(state) for state in states],
    }
    return json.dumps(json_values(values, infinity_as_text=True), allow_nan=False).encode()


def package_archive() -> bytes:
    """A .zip file of the Python modules of logitlab and of array-api-compat, with its metadata."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(name: str, data: bytes) -> None:
            # A fixed date: the same modules make the same file.
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)

        for name, file in sorted(_modules("logitlab", files("logitlab"))):
            add(name, file.read_bytes())
        for path in sorted(files_of("array-api-compat") or []):
            if path.suffix == ".py" or path.name == "METADATA":
                add(path.as_posix(), path.read_binary())
    return stream.getvalue()


def _modules(prefix: str, folder: Traversable) -> list[tuple[str, Traversable]]:
    """The .py files of a package: their names in an archive, and the files."""
    found: list[tuple[str, Any]] = []
    for file in folder.iterdir():
        name = f"{prefix}/{file.name}"
        if file.is_dir():
            found += _modules(name, file)
        elif name.endswith(".py"):
            found.append((name, file))
    return found
