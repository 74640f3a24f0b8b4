"""`logitlab apply`: calibrated probabilities of new logits, by a saved calibrator."""

import itertools
import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from logitlab._app.cluster import Cluster, check_shards, connect
from logitlab._app.io.outputs import (
    atomic_folder,
    atomic_write,
    can_show_progress,
    catch_print_errors,
    check_file,
    check_shard_folder,
    csv_text,
    print_line,
    progress,
)
from logitlab._app.io.passes import untracked
from logitlab._app.io.source import (
    TABLES,
    Logits,
    Shard,
    Track,
    UserError,
    parse_file_spec,
    pluralize,
    printable,
)
from logitlab._app.io.write_tables import is_csv, print_csv, write_file
from logitlab._app.options import FORMATS, Axis, NoProgress, Overwrite, Quiet, Scheduler
from logitlab._rows import Floats, Integers
from logitlab.probabilities import softmax

if TYPE_CHECKING:
    import pyarrow as pa

    from logitlab._app.saved import SavedCalibrator


def apply(
    calibrator: Annotated[
        Path,
        typer.Argument(
            metavar="CALIBRATOR",
            help="calibrator.safetensors, or the folder that logitlab calibrate wrote.",
            show_default=False,
        ),
    ],
    logits: Annotated[
        str,
        typer.Argument(
            metavar="LOGITS",
            help=f"{FORMATS} As in the fit: one number for each row, if the calibrator was fitted "
            "so.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            metavar="FILE",
            help="Output file: .csv or .parquet; .npy holds the probabilities alone. For a folder "
            "of LOGITS, a folder too: a file for each shard, with its name. Without it: CSV on "
            "standard output.",
            show_default=False,
        ),
    ] = None,
    overwrite: Overwrite = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Add the probability of each class.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Add the N most probable classes of each row with their probabilities.",
            show_default=False,
        ),
    ] = None,
    axis: Axis = -1,
    scheduler: Scheduler = None,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Calibrate the logits of a file with a calibrator of `logitlab calibrate`.

    The output has a row for each row of LOGITS: the predicted class and its probability, the
    confidence; with the rules of --max-error and --coverage, the decision, which is empty where
    the row is rejected, and the prediction set. A row with NaN, or with -inf only, has nothing.
    An array of three or more dimensions has a row for each position of the axes without the
    classes, in C order; a .npy file has the shape of LOGITS.
    """
    from logitlab._app.io.arrays import open_logits
    from logitlab._app.io.layouts import describe_layout
    from logitlab._app.saved import read_saved

    if top is not None and top < 1:
        raise UserError(f"--top must be >= 1, got {top}")
    if top is not None and probabilities:
        raise UserError("give one of --top and --probabilities, not both")
    writes_shards = False
    if out is not None:
        path = parse_file_spec(logits)[0]
        writes_shards = path.is_dir() and (out.is_dir() or not out.suffix)
        if writes_shards:
            check_shard_folder(out, path, overwrite=overwrite)
        else:
            check_file(out, [path, calibrator], (*TABLES, ".npy"), overwrite=overwrite)
    saved = read_saved(calibrator)
    source = open_logits(logits, axis=axis, probabilities=saved.probabilities)
    check_shards(scheduler, [source])
    source = saved.match_columns(source)
    if scheduler is not None and not writes_shards:
        raise UserError(f"--scheduler writes a file for each shard; -o must be a folder, got {out}")
    if out is not None:
        written = out / source.shards[0].name if writes_shards else out
        if _is_npy(written) and (top is not None or probabilities):
            raise UserError(f"{written}: an .npy file holds all probabilities; omit the option")
    for note in () if quiet else describe_layout(source, saved.probabilities):
        print_line(note, err=out is None)
    with progress(shown=can_show_progress(no_progress, quiet)) as track:
        columns = _Columns(probabilities, top)
        if out is None:
            with catch_print_errors():
                print_csv(_tables(saved, source, columns, track, is_text=True))
            return
        if writes_shards:
            with atomic_folder(out) as folder, connect(scheduler) as cluster:
                _write_shards(saved, source, columns, track, folder, cluster)
        else:
            _write(saved, source, columns, track, out)
    if not quiet:
        print_line(f"Written: {out} ({pluralize(source.rows, 'row')})")


def _write_shards(
    saved: "SavedCalibrator",
    source: Logits,
    columns: "_Columns",
    track: Any,
    folder: Path,
    cluster: Cluster | None,
) -> None:
    """Write a file of the results for each shard."""
    calls = [
        partial(_write_shard, saved, shard, columns, folder / shard.name) for shard in source.shards
    ]
    if cluster is None:
        for call in calls:
            call(track)
    else:
        sizes = [shard.rows for shard in source.shards]
        cluster.run(calls, sum, sizes, track, "calibrating")


def _write_shard(
    saved: "SavedCalibrator",
    shard: Shard,
    columns: "_Columns",
    path: Path,
    track: Track = untracked,
) -> int:
    """Write the results of a shard, return the number of rows."""
    source = saved.match_columns(shard.open())
    _write(saved, source, columns, track, path)
    return source.rows


class _Columns(NamedTuple):
    """The optional columns of the output."""

    probabilities: bool
    top: int | None


def _is_npy(path: Path) -> bool:
    return path.suffix.lower() == ".npy"


def _write(
    saved: "SavedCalibrator", source: Logits, columns: _Columns, track: Any, path: Path
) -> None:
    """Write the results of all rows to a file."""
    if _is_npy(path):
        _write_npy((block.p for block in _calibrated(saved, source, track)), source, path)
    else:
        write_file(_tables(saved, source, columns, track, is_csv(path)), path)


class _Block(NamedTuple):
    """Results of rows; those without a distribution are `missing`."""

    p: NDArray[Any]
    predicted: Integers
    missing: NDArray[np.bool_]
    accepted: NDArray[np.bool_] | None
    sets: NDArray[np.bool_] | None


def _calibrated(saved: "SavedCalibrator", source: Logits, track: Any) -> Iterator[_Block]:
    """The calibrated probabilities of blocks of rows, and what the rules say of them."""
    from logitlab.calibration.base import RowError

    rules, start = saved.rules, 0
    empty = np.empty((0, source.classes), source.dtype)  # a file without rows has columns
    blocks = source.read() if source.rows else iter([empty])
    for raw in track(blocks, source.rows, "calibrating"):
        z = saved.as_logits(raw, start, source)
        valid = z.max(axis=-1) > -math.inf
        p, predicted = np.full(z.shape, np.nan, z.dtype), np.zeros(len(z), np.int64)
        accepted = sets = None
        rows = z if valid.all() else z[valid]
        try:
            calibrated = saved.calibrator.transform(rows.astype(np.float64))
        except RowError as error:
            row = start + int(np.flatnonzero(valid)[error.row])
            raise UserError(f"{source.place(row)} {error.reason}") from None
        p[valid] = softmax(calibrated)
        # Of the probabilities, which have fewer digits, several may be the largest.
        predicted[valid] = calibrated.argmax(axis=-1)
        if rules.classifier is not None:
            accepted = np.zeros(len(z), bool)
            accepted[valid] = rules.classifier.accepts(calibrated)
        if rules.sets is not None:
            sets = np.zeros(z.shape, bool)
            sets[valid] = rules.sets.predict(calibrated)
        yield _Block(p, predicted, ~valid, accepted, sets)
        start += len(raw)


def _most_probable(p: NDArray[Any], n: int) -> Integers:
    """The n most probable classes of each row, the first of equal ones first."""
    k = p.shape[1]
    classes = (
        np.argpartition(-p, n - 1, axis=1)[:, :n] if n < k else np.tile(np.arange(k), (len(p), 1))
    )
    classes.sort(axis=1)
    order = np.argsort(-np.take_along_axis(p, classes, axis=1), axis=1, kind="stable")
    return np.take_along_axis(classes, order, axis=1)


def _tables(
    saved: "SavedCalibrator", source: Logits, columns: _Columns, track: Any, is_text: bool
) -> Iterator["pa.Table"]:
    """Arrow tables with the columns predicted, confidence, those of the rules, and others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names, (probabilities, top) = saved.names_of(source), columns
    labels = set_names = None
    if names is not None:
        set_names = pa.array([_json_text(name) for name in names] if is_text else names)
        names = tuple(csv_text(printable(name)) for name in names) if is_text else names
        labels = pa.array(names)

    def class_column(classes: Integers, missing: NDArray[np.bool_]) -> Any:
        numbers = pa.array(classes, mask=missing)
        return numbers if labels is None else labels.take(numbers)

    def number_column(x: NDArray[Any], missing: NDArray[np.bool_]) -> Any:
        wide: Floats = x.astype(np.float32 if x.dtype.itemsize < 4 else x.dtype, copy=False)
        return pa.array(wide, mask=missing)

    def set_column(sets: NDArray[np.bool_], missing: NDArray[np.bool_]) -> Any:
        members = pa.array(np.nonzero(sets)[1])
        if set_names is not None:
            members = set_names.take(members)
        offsets = pa.array(np.r_[0, np.cumsum(sets.sum(axis=1))], pa.int32())
        lists = pa.ListArray.from_arrays(offsets, members, mask=pa.array(missing))
        if not is_text:
            return lists
        # A JSON list: a name may contain any separator.
        text = pc.binary_join(lists.cast(pa.list_(pa.string())), ", ")
        return pc.binary_join_element_wise("[", text, "]", "")

    for p, predicted, missing, accepted, sets in _calibrated(saved, source, track):
        confidence = np.take_along_axis(p, predicted[:, None], axis=1)[:, 0]
        found = {
            "predicted": class_column(predicted, missing),
            "confidence": number_column(confidence, missing),
        }
        if accepted is not None:
            found["decision"] = class_column(predicted, ~accepted)
        if sets is not None:
            found["prediction_set"] = set_column(sets, missing)
        if probabilities:
            for k in range(p.shape[1]):
                name = k if names is None else names[k]
                found[f"probability_{name}"] = number_column(p[:, k], missing)
        if top is not None:
            classes = _most_probable(p, min(top, p.shape[1]))
            values = np.take_along_axis(p, classes, axis=1)
            for i in range(classes.shape[1]):
                found[f"top_{i + 1}"] = class_column(classes[:, i], missing)
                found[f"probability_{i + 1}"] = number_column(values[:, i], missing)
        yield pa.table(found)


def _json_text(name: str) -> str:
    """The name as JSON; a control character is written as its escape."""
    return json.dumps(name, ensure_ascii=not name.isprintable())


def _write_npy(blocks: Iterator[NDArray[Any]], source: Logits, path: Path) -> None:
    """Write the probabilities, with the classes along the axis of the logits."""
    *batch, k = source.shape
    axis = source.axis if source.axis >= 0 else len(batch)
    shape, inner = (*batch[:axis], k, *batch[axis:]), math.prod(batch[axis:])
    first = next(blocks)
    dtype = np.dtype(np.float32) if first.dtype.itemsize < 4 else first.dtype
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start, offset = 0, file.tell()
        if inner > 1:
            file.truncate(offset + math.prod(shape) * dtype.itemsize)
        for p in itertools.chain([first], blocks):
            if inner == 1 or not len(p):
                p.astype(dtype).tofile(file)
                continue
            # A map of the planes of this block alone: written pages do not stay in the memory.
            rows = start + np.arange(len(p))
            plane, last = start // inner, int(rows[-1]) // inner
            planes = np.memmap(
                temporary,
                dtype,
                "r+",
                offset + plane * k * inner * dtype.itemsize,
                (last + 1 - plane, k, inner),
            )
            planes[rows // inner - plane, :, rows % inner] = p
            start += len(p)
