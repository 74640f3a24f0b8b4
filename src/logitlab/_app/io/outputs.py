"""What a command writes: refused before the work, written whole, or one line that says why not."""

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
def plain_mistakes() -> Iterator[None]:
    """A person's mistake is one line on standard error, and exit status 2."""
    try:
        yield
    except UserError as error:
        typer.echo(f"logitlab: {error}", err=True)
        raise typer.Exit(2) from None


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Standard output that takes no more is a mistake; but a pipe may be closed early."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # What its buffer still holds would fail once more at exit.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise UserError(f"standard output: {error.strerror or error}") from error


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}") from error


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write, which becomes `path` in the end; after an error there is nothing."""
    with writing(path):
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
        what = "a folder" if path.is_dir() else "no plain file"
        raise UserError(f"{path}: is {what}, where a file is to be written")
    for given in inputs:
        if path.exists() and given.exists() and path.samefile(given):
            raise UserError(f"{path}: is read from, so it cannot be written to")


def _check_room(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: {'is not a' if folder.exists() else 'no such'} folder")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: no permission to write in this folder")


def check_file(path: Path, inputs: Iterable[Path], kinds: tuple[str, ...] = ()) -> None:
    """Refuse a file that could not be written, is one of `inputs`, or is of no known kind."""
    if kinds and path.suffix.lower() not in kinds:
        raise UserError(f"{path}: unknown kind of file; accepted: {', '.join(kinds)}")
    _check_room(path.parent)
    _check_target(path, inputs)


def check_folder(folder: Path, names: Iterable[str], inputs: Iterable[Path]) -> None:
    """Refuse a folder in which files of these names could not be written, or are `inputs`."""
    inputs = list(inputs)
    _check_room(next(place for place in (folder, *folder.absolute().parents) if place.exists()))
    for name in names:
        _check_target(folder / name, inputs)


def write_files(files: Mapping[str, bytes], directory: Path) -> None:
    """Files of these names in `directory`: all whole, or none changed."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in files:
        if (directory / name).is_dir():
            raise UserError(f"{directory / name}: is a folder, where a file is to be written")
    with tempfile.TemporaryDirectory(dir=directory, prefix=".logitlab-") as temporary:
        new, old = Path(temporary) / "new", Path(temporary) / "old"
        new.mkdir()
        old.mkdir()
        for name, held in files.items():
            (new / name).write_bytes(held)
        begun = []
        try:
            for name in files:
                begun.append(name)
                if (directory / name).exists():
                    os.replace(directory / name, old / name)
                os.replace(new / name, directory / name)
        except BaseException:
            for name in begun:
                if (old / name).exists():
                    os.replace(old / name, directory / name)
                elif not (new / name).exists():
                    os.unlink(directory / name)
            raise


@contextlib.contextmanager
def progress(shown: bool) -> Iterator[Any]:
    """A `track` for the passes over blocks: a bar on a terminal's standard error."""
    if not shown:
        yield lambda chunks, total, what: chunks
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:

        def track(chunks: Any, total: int, what: str) -> Iterator[Any]:
            task = bar.add_task(what, total=total)
            for chunk in chunks:
                yield chunk
                bar.advance(task, len(chunk))
            bar.remove_task(task)

        yield track
