"""From a table to a fitted model, judged on rows that it has not seen."""

import csv
import io
import math
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from logitlab._app.fit.features import encode, labels, learn_columns, read_table
from logitlab._app.fit.model import Model
from logitlab._app.io.source import Logits, UserError, in_memory, pluralize
from logitlab._rows import Integers


@dataclass(frozen=True)
class Learned:
    model: Model
    held_out: Logits  # of rows that the fit has not seen
    truth: Integers
    story: list[str]  # what was fitted, and what a reader should know
    coefficients: list[dict[str, Any]]


def learn(
    path: Path, target: str, *, C: float, impute: bool, share: float, verbose: bool
) -> Learned:
    """Fit on a part of the rows of a table; the temperature is left at 1."""
    from logitlab.regression.coefficients import one_row_per_class
    from logitlab.regression.estimator import SoftmaxRegression

    if not 0 < share < 1:
        raise UserError(f"--held-out is {share}; accepted: between 0 and 1")
    if not C > 0:
        raise UserError(f"-C is {C}; accepted: above 0, or inf")
    table = read_table(path)
    y = labels(table, target, path)
    fitted, judged = _split(y, target, share, path)
    # What a missing value counts as, and which texts there are, is known from the fitted rows.
    columns = learn_columns(table.take(fitted), target, impute, math.isinf(C), path)
    x, remarks = encode(table, columns, path)
    names = [name for column in columns for name in column.features()]
    twice = [name for name, n in Counter([*names, "intercept"]).items() if n > 1]
    if twice:
        raise UserError(f"{path}: two coefficients would be called {twice[0]!r}; rename a column")
    regression = SoftmaxRegression(C=C, verbose=verbose)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        regression.fit(x[fitted], y[fitted])
    coef, intercept = one_row_per_class(regression.coef_, regression.intercept_)
    model = Model(target, tuple(regression.classes_.tolist()), tuple(columns), coef, intercept, 1.0)
    story = [
        f"{len(fitted)} rows fitted, {len(judged)} held out; {pluralize(len(columns), 'column')}, "
        f"{pluralize(len(names), 'feature')}, {len(model.classes)} classes; C={C:g}, "
        f"{pluralize(int(regression.n_iter_[0]), 'iteration')}",
        *remarks,
        *(str(warning.message) for warning in caught),
    ]
    rows: list[dict[str, Any]] = [
        {"class": label, "name": name, "coef": float(value)}
        for label, row, b in zip(model.classes, coef, intercept, strict=True)
        for name, value in zip([*names, "intercept"], [*row, b], strict=True)
    ]
    if math.isinf(C):
        try:
            summary = regression.summary(x[fitted], y[fitted])
        except ValueError as error:
            story.append(f"no standard errors: {error}")
        else:
            parts = ("coef", "standard_error", "z", "p_value", "lower", "upper")
            rows = [
                {"class": label, "base": summary.base, "name": name}
                | {part: float(getattr(summary, part)[k, j]) for part in parts}
                for k, label in enumerate(summary.classes)
                for j, name in enumerate([*names, "intercept"])
            ]
    z = model.logits(x[judged])
    source = in_memory(f"{path}: {target}, held out", z, tuple(map(str, model.classes)))
    truth = np.searchsorted(regression.classes_, y[judged]).astype(np.int64)
    return Learned(model, source, truth, story, rows)


def _split(y: Any, target: str, share: float, path: Path) -> tuple[Any, Any]:
    """Which rows are fitted and which held out, every class in both as in the whole."""
    from sklearn.model_selection import train_test_split

    values, counts = np.unique(y, return_counts=True)
    if len(values) < 2:
        raise UserError(f"{path}: target {target!r} is {values[0]} in every row")
    if counts.min() < 2:
        raise UserError(
            f"{path}: target {target!r} is {values[counts.argmin()]} in one row only; a class "
            f"needs two, and there are {len(values)} in {len(y)} rows"
        )
    judging = math.ceil(share * len(y))
    if min(judging, len(y) - judging) < len(values):
        raise UserError(
            f"{path}: --held-out {share:g} leaves {pluralize(len(y) - judging, 'row')} to fit and "
            f"{judging} to judge; accepted: a share that leaves both a row for each of the "
            f"{len(values)} classes"
        )
    fitted, judged = train_test_split(
        np.arange(len(y)), test_size=judging, random_state=0, stratify=y
    )
    return np.sort(fitted), np.sort(judged)


def as_csv(rows: list[dict[str, Any]]) -> str:
    """A line for each, under their keys."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
