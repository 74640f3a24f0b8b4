"""Output files and progress: targets are checked first, files are written atomically."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from logitlab._app.io.source import UserError


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Print a UserError as one line on standard error, and exit with status 2."""
    try:
        yield
    except UserError as error:
        typer.echo(f"logitlab: {error}", err=True)
        raise typer.Exit(2) from None


@contextlib.contextmanager
def catch_print_errors() -> Iterator[None]:
    """Turn an error of standard output into a UserError, except that of a closed pipe."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # The text that is left in the buffer would fail again at exit.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
        raise UserError(f"standard output: {error.strerror or error}") from error


@contextlib.contextmanager
def catch_write_errors(out: Path) -> Iterator[None]:
    """Turn an error of writing `out` into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}") from error


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file that replaces `path` at the end, and is removed after an error."""
    with catch_write_errors(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".logitlab-")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _check_target(path: Path, inputs: Iterable[Path]) -> None:
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a special file"
        raise UserError(f"{path}: the output must be a file, got {kind}")
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise UserError(f"{path}: the output must not be an input file")


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: {'not a' if folder.exists() else 'no such'} folder")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: no permission to write in this folder")


def check_file(path: Path, inputs: Iterable[Path], suffixes: tuple[str, ...] = ()) -> None:
    """Refuse an output file that cannot be written, is one of `inputs`, or has another suffix."""
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"{path}: the file type must be one of {', '.join(suffixes)}")
    _check_folder(path.parent)
    _check_target(path, inputs)


def check_folder(folder: Path, names: Iterable[str], inputs: Iterable[Path]) -> None:
    """Refuse a folder in which files of these names cannot be written, or are `inputs`."""
    inputs = list(inputs)
    _check_folder(next(path for path in (folder, *folder.absolute().parents) if path.exists()))
    for name in names:
        _check_target(folder / name, inputs)


def write_files(files: Mapping[str, bytes], directory: Path) -> None:
    """Write files of these names in `directory`; after an error none is changed."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in files:
        if (directory / name).is_dir():
            raise UserError(f"{directory / name}: the output must be a file, got a folder")
    with tempfile.TemporaryDirectory(dir=directory, prefix=".logitlab-") as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        new.mkdir()
        old.mkdir()
        for name, content in files.items():
            (new / name).write_bytes(content)
        started = []
        try:
            for name in files:
                started.append(name)
                if (directory / name).exists():
                    os.replace(directory / name, old / name)
                os.replace(new / name, directory / name)
        except BaseException:
            for name in started:
                if (old / name).exists():
                    os.replace(old / name, directory / name)
                elif not (new / name).exists():
                    os.unlink(directory / name)
            raise


@contextlib.contextmanager
def progress(shown: bool) -> Iterator[Any]:
    """A :data:`Track` of passes over blocks: a progress bar on standard error if `shown`."""
    if not shown:
        yield lambda chunks, total, task: chunks
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:

        def track(chunks: Any, total: int, task: str) -> Iterator[Any]:
            number = bar.add_task(task, total=total)
            for chunk in chunks:
                yield chunk
                bar.advance(number, len(chunk))
            bar.remove_task(number)

        yield track
