"""Fits a softmax regression on a table, and computes the logits of held-out rows."""

import csv
import io
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.fit.features import encode, infer_columns, read_table, target_values
from logitlab._app.fit.model import Model
from logitlab._app.io.outputs import csv_text
from logitlab._app.io.source import Logits, UserError, in_memory, pluralize
from logitlab._rows import Integers

if TYPE_CHECKING:
    from logitlab.regression.estimator import SoftmaxRegression


@dataclass(frozen=True)
class TrainingResult:
    """A fitted model that is not calibrated yet, and the held-out rows to calibrate it on."""

    model: Model
    held_out: Logits
    held_out_labels: Integers
    messages: list[str]  # a summary of the fit, and warnings
    coefficients: list[dict[str, Any]]  # a dictionary per line of coefficients.csv


def train(
    path: Path, target: str, *, C: float, impute: bool, held_out_fraction: float, verbose: bool
) -> TrainingResult:
    """Fit on the rows of a table that are not held out; the temperature of the model is 1."""
    from logitlab.regression.estimator import SoftmaxRegression

    if not 0 < held_out_fraction < 1:
        raise UserError(f"--held-out must be between 0 and 1, got {held_out_fraction:g}")
    if not C > 0:
        raise UserError(f"-C must be > 0, got {C:g}")
    table = read_table(path)
    y = target_values(table, target, path)
    fit_rows, held_out_rows = _split(y, target, held_out_fraction, path)
    # Medians and categories come from the fitted rows alone.
    columns = infer_columns(table.take(fit_rows), target, impute, math.isinf(C), path)
    x, encoding_messages = encode(table, columns, path)
    names = [*(name for column in columns for name in column.features()), "intercept"]
    repeated = [name for name, n in Counter(names).items() if n > 1]
    if repeated:
        raise UserError(
            f"{path}: coefficient names must be distinct, got {repeated[0]!r} twice; "
            "rename a column"
        )
    regression = SoftmaxRegression(C=C, verbose=verbose)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        regression.fit(x[fit_rows], y[fit_rows])
    coef, intercept = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:
        # Two classes have one row of coefficients: the difference of their logits.
        coef, intercept = np.vstack([-coef, coef]) / 2, np.hstack([-intercept, intercept]) / 2
    model = Model(target, tuple(regression.classes_.tolist()), tuple(columns), coef, intercept, 1.0)
    messages = [
        f"Fitted on {pluralize(len(fit_rows), 'row')}, {pluralize(len(held_out_rows), 'row')} held "
        f"out: {pluralize(len(columns), 'column')}, {pluralize(len(names) - 1, 'feature')}, "
        f"{len(model.classes)} classes; C={C:g}, "
        f"{pluralize(int(regression.n_iter_[0]), 'iteration')}",
        *encoding_messages,
        *(str(warning.message) for warning in caught),
    ]
    coefficients = _coefficients(model, names)
    if math.isinf(C):
        try:
            coefficients = _standard_errors(regression, x[fit_rows], y[fit_rows], names)
        except ValueError as error:
            messages.append(f"Standard errors are not available: {error}")
    z = model.logits(x[held_out_rows])
    held_out = in_memory(f"{path}: {target}, held out", z, tuple(map(str, model.classes)))
    labels = np.searchsorted(regression.classes_, y[held_out_rows]).astype(np.int64)
    return TrainingResult(model, held_out, labels, messages, coefficients)


def _split(
    y: NDArray[Any], target: str, held_out_fraction: float, path: Path
) -> tuple[Integers, Integers]:
    """Row numbers to fit on and to hold out, stratified by class."""
    from sklearn.model_selection import train_test_split

    classes, counts = np.unique(y, return_counts=True)
    k, rows = len(classes), len(y)
    if k < 2:
        raise UserError(
            f"{path}: target {target!r} must have at least 2 classes, got {classes[0]} in every row"
        )
    if counts.min() < 2:
        raise UserError(
            f"{path}: target {target!r} must have at least 2 rows of each class, got 1 of class "
            f"{classes[counts.argmin()]} ({k} classes in {rows} rows)"
        )
    held_out = math.ceil(held_out_fraction * rows)
    if min(held_out, rows - held_out) < k:
        raise UserError(
            f"{path}: --held-out must leave at least {k} rows, one per class, to fit and to hold "
            f"out, got {held_out_fraction:g}: {rows - held_out} to fit and {held_out} held out"
        )
    fit_rows, held_out_rows = train_test_split(
        np.arange(rows), test_size=held_out, random_state=0, stratify=y
    )
    return np.sort(fit_rows), np.sort(held_out_rows)


def _coefficients(model: Model, names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"class": label, "name": name, "coef": float(value)}
        for label, row, b in zip(model.classes, model.coef, model.intercept, strict=True)
        for name, value in zip(names, [*row, b], strict=True)
    ]


def _standard_errors(
    regression: "SoftmaxRegression", x: Any, y: NDArray[Any], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Coefficients relative to the base class, with standard errors, tests and intervals."""
    summary = regression.summary(x, y)
    statistics = ("coef", "standard_error", "z", "p_value", "lower", "upper")
    return [
        {"class": label, "base": summary.base, "name": name}
        | {key: float(getattr(summary, key)[k, j]) for key in statistics}
        for k, label in enumerate(summary.classes)
        for j, name in enumerate(names)
    ]


def coefficients_csv(rows: list[dict[str, Any]]) -> str:
    """The text of coefficients.csv: a line per row, the keys as the header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: csv_text(v) if isinstance(v, str) else v for k, v in row.items()})
    return text.getvalue()
