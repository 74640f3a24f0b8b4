"""`logitlab report`: evaluates and calibrates the logits of a file, or of several models."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from logitlab._app.cluster import check_shards, connect
from logitlab._app.io.outputs import (
    can_show_progress,
    catch_print_errors,
    catch_write_errors,
    check_folder,
    make_console,
    print_line,
    progress,
)
from logitlab._app.io.source import ClassLabels, Logits, UserError, parse_file_spec
from logitlab._app.options import (
    FORMATS,
    ONE_SCORE,
    SAMPLE_LOGS,
    Axis,
    IgnoreIndex,
    Labels,
    NoProgress,
    Overwrite,
    Probabilities,
    Quiet,
    Scheduler,
)
from logitlab._rows import Integers

if TYPE_CHECKING:
    from logitlab._app.io.arrays import Groups


def report(
    logits: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LOGITS",
            help=f"{FORMATS} {ONE_SCORE} {SAMPLE_LOGS} Several "
            "files: models to compare on the same --labels. Without a file: an example, "
            "handwritten digits.",
            show_default=False,
        ),
    ] = None,
    labels: Labels = None,
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="TOKENS",
            help="For a language model: FILE or FILE:NAME with the target token of each row. "
            "Adds the perplexity of the text, and the log-probability of each token (tokens.csv).",
            show_default=False,
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="FILE:COLUMN",
            help="The group of each row, such as a column of the table of the labels. Adds scores "
            "of each group.",
            show_default=False,
        ),
    ] = None,
    ignore_index: IgnoreIndex = None,
    probabilities: Probabilities = False,
    axis: Axis = -1,
    scheduler: Scheduler = None,
    out: Annotated[
        Path, typer.Option("-o", metavar="FOLDER", help="Output folder of the report.")
    ] = Path("logitlab-report"),
    overwrite: Overwrite = False,
    json_only: Annotated[
        bool, typer.Option("--json", help="Print report.json instead of a table.")
    ] = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
) -> None:
    """Evaluate and calibrate a classifier; write HTML and JSON reports."""
    from logitlab._app.report import compare, page
    from logitlab._app.report.analysis import analyse
    from logitlab._app.report.json import as_json
    from logitlab.regression.threads import single_blas_thread

    specs = [spec for spec in (*(logits or ()), labels, targets, group) if spec]
    files = (*page.FILES, page.TOKENS_FILE) if targets else page.FILES
    paths = [parse_file_spec(spec)[0] for spec in specs]
    check_folder(out, files, paths, overwrite=overwrite)
    inputs = _read_inputs(logits or [], labels, targets, group, ignore_index, probabilities, axis)
    analyses, shared = [], None
    check_shards(scheduler, [source for source, *_ in inputs])
    with (
        single_blas_thread(),
        connect(scheduler) as cluster,
        progress(shown=can_show_progress(no_progress, quiet)) as track,
    ):
        if len(inputs) > 1:
            sources = [source for source, *_ in inputs]
            shared = compare.shared_rows(sources, probabilities, track, cluster)
        for source, y, tokens, groups in inputs:
            analyses.append(
                analyse(
                    source,
                    None if y is None else y.classes,
                    targets=tokens,
                    probabilities=probabilities,
                    shared=shared,
                    mapping=None if y is None else y.mapping,
                    label_warnings=() if y is None else y.warnings,
                    groups=groups,
                    track=track,
                    cluster=cluster,
                )
            )
    with catch_write_errors(out):
        if len(analyses) > 1:
            models = compare.compare(analyses)
            compare.write(models, out)
        else:
            page.write(analyses[0], out)
    with catch_print_errors():
        if json_only:
            several = len(analyses) > 1
            data = compare.to_json(models) if several else as_json(analyses[0])
            typer.echo(json.dumps(data, indent=2))
        if json_only or quiet:
            return
        if len(analyses) > 1:
            compare.print_summary(models, make_console())
        else:
            page.print_summary(analyses[0], make_console())
        print_line(f"Written: {out / 'report.html'} and {out / 'report.json'}")


def _read_inputs(
    logits: list[str],
    labels: str | None,
    targets: str | None,
    group: str | None,
    ignore_index: int | None,
    probabilities: bool,
    axis: int,
) -> list[tuple[Logits, ClassLabels | None, Integers | None, "Groups | None"]]:
    """Logits, labels, targets and groups of each model, checked before the analysis starts."""
    from logitlab._app.io.arrays import class_labels, open_logits, read_groups, read_labels
    from logitlab._app.io.example import digits

    if not logits:
        if any((labels, targets, group, probabilities)):
            raise UserError("--labels, --targets, --group and --probabilities need LOGITS")
        source, y = digits()
        return [(source, ClassLabels(y, "Labels: the digits."), None, None)]
    if labels is not None and targets is not None:
        raise UserError("give one of --labels and --targets, not both")
    if len(logits) > 1 and group is not None:
        raise UserError("--group is for one file of LOGITS, got several")
    others = [spec for spec in (labels, targets, group) if spec]
    sources = [open_logits(spec, others, axis=axis, probabilities=probabilities) for spec in logits]
    has_labels = labels is not None or (not targets and all(source.labels for source in sources))
    if len(sources) > 1 and not has_labels:
        raise UserError("several LOGITS are compared by their true classes; give --labels")
    first = sources[0]
    for other in sources[1:]:
        if other.shape[:-1] != first.shape[:-1]:
            raise UserError(
                f"{other.source}: shape {other.shape}, {first.source}: shape {first.shape}; "
                "compared models must have the same rows"
            )
    tokens = [None if targets is None else read_labels(targets, s).classes for s in sources]
    found = [class_labels(labels, source, ignore_index) for source in sources]
    if targets is not None:
        found = [None]
    if len(sources) > 1 and labels is None:
        _check_same_labels(sources, found)
    if group is not None and found[0] is None:
        raise UserError("--group adds scores of each group; give --labels")
    groups = [None if group is None else read_groups(group, source) for source in sources]
    return list(zip(sources, found, tokens, groups, strict=True))


def _check_same_labels(sources: list[Logits], found: list[ClassLabels | None]) -> None:
    """Refuse several models whose files have different labels."""
    first = found[0]
    for source, labels in zip(sources, found, strict=True):
        if first is None or labels is None:
            continue
        if (different := labels.classes != first.classes).any():
            raise UserError(
                f"{source.source}: compared models must have the same labels, but the label of "
                f"row {int(different.argmax())} is not that of {sources[0].source}"
            )
