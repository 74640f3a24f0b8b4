"""Output files and progress: targets are checked first, files are written atomically."""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from logitlab._app.io.source import UserError, printable
from logitlab._saved import target_of, temporary_file, temporary_name

_REMOVALS = 10  # of a folder in which workers may still create a file


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Print a UserError as one line on standard error, and exit with status 2.

    So is the error of a path that the system refuses, for instance because it is too long. Ctrl-C
    is a line and status 130; a closed pipe, as of ``| head``, is status 141 alone.
    """
    status = 2
    try:
        yield
    except UserError as error:
        message = str(error)
    except BrokenPipeError:
        _discard_stdout()
        raise typer.Exit(128 + 13) from None  # as a shell reports SIGPIPE
    except OSError as error:
        if error.filename is None:
            raise
        message = f"{os.fsdecode(error.filename)}: {error.strerror}"
    except KeyboardInterrupt:
        message, status = "interrupted", 128 + 2
    else:
        return
    print_line(f"logitlab: {message}", err=True)
    raise typer.Exit(status)


def _discard_stdout() -> None:
    """Text that is left in the buffer of standard output would fail again at exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


def print_line(text: str, err: bool = False) -> None:
    """Print one line; names in it cannot send commands to the terminal."""
    typer.echo(printable(text), err=err)


def make_console(err: bool = False, quiet: bool = False) -> Any:
    """A console of standard output, or error, that prints every text as it is.

    With the environment variable NO_COLOR there is neither colour nor bold text.
    """
    from rich.console import Console

    return Console(
        stderr=err,
        quiet=quiet,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        soft_wrap=False,
        markup=False,
        emoji=False,
        highlight=False,
    )


@contextlib.contextmanager
def catch_print_errors() -> Iterator[None]:
    """Turn an error of standard output into a UserError, except that of a closed pipe."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard_stdout()
        raise UserError(f"standard output: {error.strerror or error}") from error


@contextlib.contextmanager
def catch_write_errors(out: Path) -> Iterator[None]:
    """Turn an error of writing `out` into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}") from error


def csv_text(text: str) -> str:
    """`text` as a cell of a .csv file; an apostrophe keeps a spreadsheet from running it.

    https://owasp.org/www-community/attacks/CSV_Injection. A number is no formula.
    """
    if text.lstrip("'")[:1] not in tuple("=+-@\t\r\n"):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file that replaces `path` at the end, and is removed after an error."""
    target = target_of(path)
    with catch_write_errors(path), temporary_file(target) as temporary:
        yield temporary
        os.replace(temporary, target)


def _check_target(path: Path, inputs: Iterable[Path], overwrite: bool) -> None:
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a special file"
        raise UserError(f"{path}: the output must be a file, got {kind}")
    if path.is_symlink():
        _check_folder(target_of(path).parent)
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f"{path}: no permission to write this file")
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise UserError(f"{path}: the output must not be an input file")
    if path.exists() and not overwrite:
        raise _exists(path)


def _exists(path: Path) -> UserError:
    return UserError(
        f"{path}: the output file exists; add --overwrite to replace it, or choose another output"
    )


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(f"{folder}: {'not a' if folder.exists() else 'no such'} folder")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: no permission to write in this folder")


def check_file(
    path: Path, inputs: Iterable[Path], suffixes: tuple[str, ...] = (), *, overwrite: bool
) -> None:
    """Refuse an output file that cannot be written, is one of `inputs`, or has another suffix.

    A file that exists is refused too, unless `overwrite`.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"{path}: the file type must be one of {', '.join(suffixes)}")
    _check_folder(path.parent)
    _check_target(path, inputs, overwrite)


def check_folder(
    folder: Path, names: Iterable[str], inputs: Iterable[Path], *, overwrite: bool
) -> None:
    """Refuse a folder in which files of these names cannot be written, or are `inputs`.

    Files of these names that exist are refused too, unless `overwrite`.
    """
    inputs = list(inputs)
    _check_folder(next(path for path in (folder, *folder.absolute().parents) if path.exists()))
    if any(path.is_dir() and folder.exists() and path.samefile(folder) for path in inputs):
        raise UserError(f"{folder}: the output folder must not be that of an input")
    for name in names:
        _check_target(folder / name, inputs, overwrite)


def check_shard_folder(folder: Path, source: Path, *, overwrite: bool) -> None:
    """Refuse a folder for a file for each shard of `source` that cannot be written, or is in it.

    Files with the names of shards are refused too, unless `overwrite`; other files always, since
    they would be shards of the output.
    """
    target = target_of(folder)
    _check_folder(target.parent)
    if folder.exists():
        _check_folder(folder)
        if folder.samefile(source):
            raise UserError(f"{folder}: the output folder must not be that of an input")
        existing = sorted(path for path in folder.iterdir() if path.name[0] not in "._")
        for path in existing:
            if not (source / path.name).is_file() or not path.is_file():
                raise UserError(
                    f"{folder}: the output folder must have no other files than those of "
                    f"{source}, got {path.name}"
                )
        if existing and not overwrite:
            raise _exists(existing[0])
    if source.resolve() in target.parents:
        raise UserError(f"{folder}: the output folder must not be in that of an input")


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that gets the name `folder` at the end, and is removed after an error.

    If `folder` has files, those in the temporary folder are moved to it. Temporary files are those
    of processes that were killed, and are removed.
    """
    target = target_of(folder)
    temporary = target.with_name(temporary_name())
    with catch_write_errors(folder):
        temporary.mkdir()
        try:
            yield temporary
            for path in temporary.glob(temporary_name("*")):
                path.unlink()
            if target.exists() and any(target.iterdir()):
                for path in temporary.iterdir():
                    os.replace(path, target / path.name)
                return
            if target.exists():
                shutil.copymode(target, temporary)
                target.rmdir()
            os.replace(temporary, target)
        finally:
            for _ in range(_REMOVALS):
                shutil.rmtree(temporary, ignore_errors=True)
                if not temporary.exists():
                    break
                time.sleep(0.1)


def write_files(files: Mapping[str, bytes], directory: Path) -> None:
    """Write files of these names in `directory`; after an error none is changed."""
    directory.mkdir(parents=True, exist_ok=True)
    targets = {name: target_of(directory / name) for name in files}
    for name, target in targets.items():
        if target.is_dir():
            raise UserError(f"{directory / name}: the output must be a file, got a folder")
    with contextlib.ExitStack() as temporary_files:
        new: dict[Path, Path] = {}
        old: dict[Path, Path] = {}
        for name, target in targets.items():
            new[target] = temporary_files.enter_context(temporary_file(target))
            new[target].write_bytes(files[name])
            if target.exists():
                old[target] = temporary_files.enter_context(temporary_file(target))
                shutil.copyfile(target, old[target])
        started = []
        try:
            for target in new:
                started.append(target)
                os.replace(new[target], target)
        except BaseException:
            for target in started:
                if target in old:
                    os.replace(old[target], target)
                elif not new[target].exists():
                    target.unlink()
            raise


def can_show_progress(hidden: bool, quiet: bool) -> bool:
    """Whether a progress bar is shown: on a terminal, without --no-progress and --quiet."""
    return not hidden and not quiet and sys.stderr.isatty()


@contextlib.contextmanager
def progress(shown: bool) -> Iterator[Any]:
    """A :data:`Track` of passes over blocks: a progress bar on standard error if `shown`."""
    if not shown:
        yield lambda chunks, total, task: chunks
        return
    from rich.progress import Progress

    with Progress(console=make_console(err=True), transient=True) as bar:

        def track(chunks: Any, total: int, task: str) -> Iterator[Any]:
            number = bar.add_task(task, total=total)
            for chunk in chunks:
                yield chunk
                bar.advance(number, len(chunk))
            bar.remove_task(number)

        yield track
