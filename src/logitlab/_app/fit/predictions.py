"""Writes predicted classes and probabilities to a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from logitlab._app.io.outputs import atomic_write, csv_text
from logitlab._rows import Floats


def write_predictions(path: Path, classes: Sequence[Any], p: Floats) -> None:
    """Write the predicted class and the probability of each class to a .csv or .parquet file.

    The first column is ``label``, or ``label_`` if a class has that name.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    is_parquet = path.suffix.lower() == ".parquet"
    names = [str(name) if is_parquet else csv_text(str(name)) for name in classes]
    # In a .csv file the text of a label is the header of its column.
    labels = pa.array(np.array(classes if is_parquet else names))
    predicted = labels.take(pa.array(p.argmax(axis=1)))
    label = "label"
    while label in names:
        label += "_"
    table = pa.table([predicted, *p.T.copy()], [label, *names])
    write = parquet.write_table if is_parquet else csv.write_csv
    with atomic_write(path) as temporary:
        write(table, temporary)
