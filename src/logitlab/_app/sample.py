"""Draws from the rows of a file, block by block, and where they go."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from logitlab._app.io.outputs import atomic_write
from logitlab._app.io.source import Logits, UserError
from logitlab._rows import blocks
from logitlab.sampling import ORDERS, sample, sample_with_log_prob


def _drawn(z: Any, log_prob: bool, options: dict[str, Any]) -> tuple[Any, Any]:
    return sample_with_log_prob(z, **options) if log_prob else (sample(z, **options), None)


MOST = 1 << 40  # draws of a row: far more than fits in any memory
_OPTIONS = {
    "n": "-n",
    "temperature": "--temperature",
    "top_k": "--top-k",
    "top_p": "--top-p",
    "min_p": "--min-p",
}


def _said(error: Exception) -> str:
    """With the option where the function names its argument."""
    name, _, rest = str(error).partition(" ")
    return f"{_OPTIONS.get(name, name)} {rest}"


def _mend(error: ValueError, z: Any, first: int, options: dict[str, Any]) -> UserError:
    """The error of a block, with the row's number in the file."""
    for i, row in enumerate(z):
        try:
            sample(row, **{**options, "row_keys": None})
        except ValueError as one:
            return UserError(_said(one).replace("z has", f"row {first + i} has"))
    return UserError(str(error))


def _check(options: dict[str, Any]) -> None:
    """What the function would take, or refuse in words that are not of the command line."""
    if options["order"] not in ORDERS:
        raise UserError(f"--order is {options['order']!r}; accepted: {', '.join(ORDERS)}")
    if options["rng"] < 0:
        raise UserError(f"--seed is {options['rng']}; accepted: 0 and up")
    if options["n"] > MOST:
        raise UserError(f"-n is {options['n']}; accepted: 1 to {MOST}")
    try:
        sample([0.0], **{**options, "n": min(options["n"], 1)})
    except (TypeError, ValueError) as error:
        raise UserError(_said(error)) from None


def tables(logits: Logits, *, log_prob: bool, **options: Any) -> Iterator[Any]:
    """Arrow tables of the draws: row, draw, index, name and log_prob where there are any.

    A row's key is its number in the file, so the draws do not depend on the blocks.
    """
    import pyarrow as pa

    n, first = options["n"], 0
    if options["top_k"] is not None:
        options["top_k"] = min(options["top_k"], logits.classes)
    _check(options)
    names = None if logits.names is None else pa.array(logits.names)
    for block in logits.read():
        for part in blocks(len(block), n):
            try:
                yield _table(block[part], first + part.start, names, log_prob, options)
            except MemoryError:
                raise UserError(f"-n {n}: not enough memory for so many draws of a row") from None
        first += len(block)


def _table(z: Any, first: int, names: Any, log_prob: bool, options: dict[str, Any]) -> Any:
    import pyarrow as pa

    n, keys = options["n"], np.arange(first, first + len(z))
    try:
        index, log_p = _drawn(z, log_prob, {**options, "row_keys": keys})
    except ValueError as error:
        raise _mend(error, z, first, options) from None
    columns = {
        "row": np.repeat(keys, n),
        "draw": np.tile(np.arange(n), len(z)),
        "index": index.ravel(),
    }
    if names is not None:
        columns["name"] = names.take(pa.array(columns["index"]))
    if log_p is not None:
        columns["log_prob"] = log_p.astype(np.float64).ravel()
    return pa.table(columns)


def print_json(parts: Iterator[Any]) -> None:
    """One JSON object for each row: its number, and a list for each column."""
    for table in parts:
        lists = {name: table.column(name).to_pylist() for name in table.column_names}
        starts = [i for i, draw in enumerate(lists["draw"]) if draw == 0]
        for start, end in zip(starts, [*starts[1:], len(lists["row"])], strict=True):
            found = {name: lists[name][start:end] for name in table.column_names[2:]}
            print(json.dumps({"row": lists["row"][start], **found}))


def _send(parts: Iterator[Any], open_writer: Callable[[Any], Any]) -> int:
    count, writer = 0, None
    try:
        for table in parts:
            writer = writer or open_writer(table.schema)
            writer.write_table(table)
            count += table.num_rows
    finally:
        if writer is not None:
            writer.close()
    return count


def print_csv(parts: Iterator[Any]) -> None:
    from pyarrow import csv

    with contextlib.suppress(BrokenPipeError):
        _send(parts, lambda schema: csv.CSVWriter(sys.stdout.buffer, schema))


def write(parts: Iterator[Any], path: Path) -> int:
    """To a .csv or .parquet file, which appears when it is whole. The number of draws."""
    from pyarrow import csv, parquet

    kind = parquet.ParquetWriter if path.suffix.lower() == ".parquet" else csv.CSVWriter
    with atomic_write(path) as temporary:
        return _send(parts, lambda schema: kind(temporary, schema))
