"""Columns that alone predict the class: such a column may follow from the class."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from logitlab._arrays import bincount
from logitlab._rows import Floats
from logitlab.tables.columns import Column
from logitlab.tables.values import column_values

if TYPE_CHECKING:
    import pyarrow as pa

MIN_RECALL = 0.99
_ROWS = 4_000  # that are looked at
_MIN_ROWS = 60
_MISSING = -1.0  # after the values are replaced by their ranks


def leak_suspects(
    table: "pa.Table", labels: NDArray[Any], columns: Sequence[Column]
) -> dict[str, float]:
    """The columns that alone predict the class, and their recall, averaged over the classes."""
    classes, codes = np.unique(labels, return_inverse=True)
    rows = np.arange(len(codes))
    if len(rows) < max(_MIN_ROWS, 4 * len(classes)):
        return {}
    if len(rows) > _ROWS:
        rows = np.sort(np.random.default_rng(0).choice(rows, _ROWS, replace=False))
    sample, codes = table.take(rows), codes[rows]
    recalls = {
        column.name: _recall(column_values(column, sample.column(column.name))[0][0], codes)
        for column in columns
    }
    return {name: recall for name, recall in recalls.items() if recall >= MIN_RECALL}


def _recall(values: Floats, codes: NDArray[Any]) -> float:
    """The recall of a decision tree on the values, averaged over the classes, 2-fold."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    _, ranks = np.unique(values, return_inverse=True)
    x = np.where(np.isnan(values), _MISSING, ranks)[:, None]
    counts = bincount(codes)
    tree = DecisionTreeClassifier(
        max_leaf_nodes=max(64, 2 * len(counts)), class_weight="balanced", random_state=0
    )
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # A class of one row is in one half only.
        warnings.simplefilter("ignore")
        predicted = cross_val_predict(tree, x, codes, cv=folds)
    present = counts > 0
    hits = bincount(codes, predicted == codes, len(counts))
    return float((hits[present] / counts[present]).mean())
