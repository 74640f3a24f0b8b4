"""Fitted parameters in a file: safetensors with metadata in JSON, which runs no code when read."""

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KEY = "logitlab"
_VERSION = 1

Arrays = dict[str, NDArray[Any]]


def to_bytes(kind: str, arrays: Arrays, metadata: dict[str, Any]) -> bytes:
    """The contents of a file; the metadata must be of JSON's types."""
    from safetensors.numpy import save

    text = json.dumps({"version": _VERSION, "kind": kind, **metadata}, allow_nan=False)
    data: bytes = save({n: np.asarray(a, order="C") for n, a in arrays.items()}, {_KEY: text})
    return data


def target_of(path: str | os.PathLike[str]) -> Path:
    """The file that is written: that which `path` points to if it is a symbolic link."""
    return Path(os.path.realpath(path))


def temporary_name(token: str = "") -> str:
    """The name of a new temporary file or folder; with the token ``*`` the pattern of all."""
    return f".logitlab-{token or secrets.token_hex(8)}"


@contextlib.contextmanager
def temporary_file(target: Path) -> Iterator[Path]:
    """A new file beside `target`, which is removed at the end if it is still there.

    Its permissions are those of `target` if that exists, else those of any new file.
    """
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    temporary = target.with_name(temporary_name())
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    try:
        os.close(os.open(temporary, flags, 0o666 if mode is None else 0o600))
        if mode is not None:
            temporary.chmod(mode)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace a file at once: after an error the old one is whole."""
    target = target_of(path)
    with temporary_file(target) as temporary:
        temporary.write_bytes(data)
        os.replace(temporary, target)


def read(path: str | os.PathLike[str]) -> tuple[str, Arrays, dict[str, Any]]:
    """The kind, the arrays and the metadata of a file.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        The file is not one that :func:`to_bytes` made.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = Path(path).read_bytes()
    try:
        arrays = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not a safetensors file: {error}") from None
    text = header.get("__metadata__", {}).get(_KEY)
    if text is None:
        raise ValueError(f"{path}: not a file of logitlab")
    try:
        metadata = json.loads(text)
        version, kind = metadata.pop("version"), metadata.pop("kind")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise ValueError(f"{path}: the metadata are incomplete") from None
    if version != _VERSION:
        raise ValueError(f"{path}: the version of the file must be {_VERSION}, got {version!r}")
    return str(kind), arrays, metadata
