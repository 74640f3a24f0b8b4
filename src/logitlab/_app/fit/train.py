"""Fits a softmax regression on a table, and computes the logits of held-out rows."""

import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from logitlab._app.fit.coefficients import Coefficients, coefficients
from logitlab._app.fit.reading import read_table, target_values
from logitlab._app.io.source import Logits, UserError, in_memory, pluralize
from logitlab._app.report.format import percent
from logitlab._arrays import bincount
from logitlab._rows import Integers
from logitlab.importance import PermutationImportance, permutation_importance

if TYPE_CHECKING:
    import pyarrow as pa

    from logitlab.tables.columns import PlanLine
    from logitlab.tables.model import TableModel

_IMPORTANCE_ROWS = 5000  # of the held-out rows, at random
_LARGE_CLASS = 0.9  # from this share of the rows on accuracy says little


@dataclass(frozen=True)
class TrainingResult:
    """A fitted model that is not calibrated yet, and the held-out rows to calibrate it on."""

    model: "TableModel"
    plan: "tuple[PlanLine, ...]"
    fitted_rows: int
    held_out: Logits
    held_out_labels: Integers
    messages: list[str]  # a summary of the fit, and warnings
    coefficients: Coefficients
    importance: PermutationImportance
    leaks: dict[str, float]  # columns that alone predict the class, and their recall
    base_rate: float  # of the largest class, held out
    roc_auc: float | None

    def as_json(self) -> dict[str, Any]:
        """The entry `fit` of report.json."""
        return {
            "columns": [asdict(line) for line in self.plan],
            "leak_suspects": self.leaks,
            "importance": self._importance_rows(),
            "base_rate": self.base_rate,
            "roc_auc": self.roc_auc,
        }

    def _importance_rows(self) -> list[dict[str, Any]]:
        """The increase of the log-loss when a column is shuffled, with its interval."""
        values = self.importance
        columns = zip(values.names, values.increase, values.low, values.high, strict=True)
        return [
            {"column": name, "increase": float(value), "low": float(low), "high": float(high)}
            for name, value, low, high in columns
        ]

    def warnings(self) -> list[str]:
        """What the scores do not say by themselves."""
        return [
            f"Column {name!r} alone predicts the class (mean recall {percent(recall)}). If it is "
            "not known before the class, the scores are too good: leave it out with "
            f"--drop {name!r}."
            for name, recall in self.leaks.items()
        ]

    def other_scores(self) -> dict[str, float]:
        """What the accuracy must be compared with where one class has most of the rows."""
        if self.base_rate <= _LARGE_CLASS or self.roc_auc is None:
            return {}
        average = ", macro" if len(self.model.classes_) > 2 else ""
        return {f"base rate ({self._largest()})": self.base_rate, f"ROC AUC{average}": self.roc_auc}

    def notes(self) -> list[str]:
        """The same in a sentence for the report."""
        if not self.other_scores():
            return []
        average = " (one-vs-rest, macro average)" if len(self.model.classes_) > 2 else ""
        return [
            f"Class {self._largest()!r} has {percent(self.base_rate)} of the held-out rows: "
            "compare the accuracy with this base rate. ROC AUC "
            f"{self.roc_auc:.3f}{average}."
        ]

    def _largest(self) -> str:
        return str(self.model.classes_[bincount(self.held_out_labels).argmax()])


def train(
    path: Path,
    model: "TableModel",
    target: str,
    *,
    held_out_fraction: float,
    delimiter: str | None,
    show_plan: "Callable[[tuple[PlanLine, ...], int], None]",
) -> TrainingResult:
    """Fit on the rows of a table that are not held out; `show_plan` is called before."""
    from logitlab.tables.infer import infer_plan
    from logitlab.tables.leaks import leak_suspects

    _check_numbers(model.C, held_out_fraction)
    table, y, messages = _labelled_table(path, model, target, delimiter)
    fit_rows, held_out_rows = _split(y, target, held_out_fraction, path)
    fit_table, fit_y = table.take(fit_rows), y[fit_rows]
    held_out_table, held_out_y = table.take(held_out_rows), y[held_out_rows]
    del table
    # Types, medians and levels come from the fitted rows alone.
    plan = infer_plan(
        fit_table,
        drop=model.drop,
        keep=model.keep,
        decimal=model.decimal,
        thousands=model.thousands,
    )
    leaks = leak_suspects(fit_table, fit_y, plan.columns)
    lines = tuple(_marked(line, leaks) for line in plan.lines)
    show_plan(lines, len(fit_y))
    if not plan.columns:
        raise UserError(f"{path}: must have a column besides the target {target!r} that is used")
    _check_feature_names(path, plan.columns, math.isinf(model.C))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model._fit_plan(fit_table, fit_y, plan)
        model.target_ = target
    with warnings.catch_warnings(record=True) as caught_held_out:
        warnings.simplefilter("always")
        z = model._logits(held_out_table)
    n_features = len(model.get_feature_names_out())
    messages = [
        f"Fitted on {pluralize(len(fit_y), 'row')}, {pluralize(len(held_out_y), 'row')} held "
        f"out: {pluralize(len(plan.columns), 'column')}, "
        f"{pluralize(n_features, 'feature')}, {len(model.classes_)} classes; "
        f"C={model.C:g}, {pluralize(int(model.regression_.n_iter_[0]), 'iteration')}",
        *messages,
        *(str(warning.message) for warning in caught),
        *(f"held-out rows: {warning.message}" for warning in caught_held_out),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of values that the plan mentions
        x = model.transform(fit_table)
    fitted, interval_messages = coefficients(model, x, fit_y)
    labels = np.searchsorted(model.classes_, held_out_y).astype(np.int64)
    return TrainingResult(
        model=model,
        plan=lines,
        fitted_rows=len(fit_y),
        held_out=in_memory(f"{path}: {target}, held out", z, tuple(map(str, model.classes_))),
        held_out_labels=labels,
        messages=messages + interval_messages,
        coefficients=fitted,
        importance=_importance(model, held_out_table, held_out_y),
        leaks=leaks,
        base_rate=float(bincount(labels).max() / len(labels)),
        roc_auc=_roc_auc(z, labels),
    )


def _importance(
    model: "TableModel", held_out: "pa.Table", y: NDArray[Any]
) -> PermutationImportance:
    """How much the log-loss of held-out rows increases when a column is shuffled."""
    rows = np.random.default_rng(0).permutation(len(y))[:_IMPORTANCE_ROWS]
    columns = held_out.select(model.feature_names_in_.tolist()).take(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of levels that are new: printed once above
        return permutation_importance(model, columns, y[rows], rng=0)


def _check_numbers(C: float, held_out_fraction: float) -> None:
    problems = []
    if not 0 < held_out_fraction < 1:
        problems.append(f"--held-out must be between 0 and 1, got {held_out_fraction:g}")
    if not C > 0:
        problems.append(f"-C must be > 0, got {C:g}")
    if problems:
        raise UserError("; ".join(problems))


def _labelled_table(
    path: Path, model: "TableModel", target: str, delimiter: str | None
) -> tuple["pa.Table", NDArray[Any], list[str]]:
    """The columns and the labels of the rows that have a label, and messages."""
    from logitlab.tables.columns import is_index
    from logitlab.tables.model import check_options

    table = read_table(path, delimiter)
    names = [name for name in table.column_names if not is_index(name)]
    columns = [name for name in names if name != target]
    problems = check_options(
        columns, model.drop, model.keep, model.decimal, model.thousands, option="--"
    )
    if target not in names:
        problems.insert(0, f"--target must be one of {', '.join(names)}, got {target!r}")
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}")
    y, has_label = target_values(table, target, path)
    table = table.select(columns)
    if has_label.all():
        return table, y, []
    rows = pluralize(int((~has_label).sum()), "row")
    message = f"target {target!r} is missing in {rows}: not used"
    return table.filter(has_label), y, [message]


def _marked(line: "PlanLine", leaks: dict[str, float]) -> "PlanLine":
    if line.name not in leaks:
        return line
    return replace(line, action=f"{line.action}; alone predicts the class: a leak?")


def _check_feature_names(path: Path, columns: Any, drop_first: bool) -> None:
    from logitlab.tables.encoder import feature_names

    names = [*feature_names(columns, drop_first), "intercept"]
    repeated = [name for name, n in Counter(names).items() if n > 1]
    if repeated:
        raise UserError(
            f"{path}: coefficient names must be distinct, got {repeated[0]!r} twice; "
            "rename a column"
        )


def _roc_auc(z: NDArray[Any], labels: Integers) -> float | None:
    """The area under the ROC curve; of more than two classes one-vs-rest, macro average.

    None if a class has no row.
    """
    from sklearn.metrics import roc_auc_score

    from logitlab.probabilities import softmax

    if len(np.unique(labels)) < z.shape[1]:
        return None
    if z.shape[1] == 2:
        return float(roc_auc_score(labels, z[:, 1] - z[:, 0]))
    return float(roc_auc_score(labels, softmax(z), multi_class="ovr"))


def _split(
    y: NDArray[Any], target: str, held_out_fraction: float, path: Path
) -> tuple[Integers, Integers]:
    """Row numbers to fit on and to hold out, stratified by class."""
    from sklearn.model_selection import train_test_split

    classes, counts = np.unique(y, return_counts=True)
    k, rows = len(classes), len(y)
    if k < 2:
        got = f"{classes[0]} in every row" if k else "only missing values"
        raise UserError(f"{path}: target {target!r} must have at least 2 classes, got {got}")
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
