"""The values of the page without a server: Pyodide calls this module in a web worker."""

import json
from collections.abc import Callable

import numpy as np

from logitlab._app.explore.datasets import EXAMPLES, Dataset, Datasets
from logitlab._app.explore.view import answer
from logitlab._app.io.source import in_memory


def make_answer(digits: str) -> Callable[[str], str]:
    """A function from the settings of an address to the values of the page, as JSON.

    `digits` is the text of ``digits.json``: the logits and labels of that example, which needs
    scikit-learn otherwise.
    """

    def read_digits() -> Dataset:
        stored = json.loads(digits)
        z = np.array(stored["z"], dtype=np.float32)
        source = in_memory("scikit-learn's handwritten digits", z)
        return Dataset(source, labels=np.array(stored["labels"], dtype=np.int64))

    title, _ = EXAMPLES["digits"]
    datasets = Datasets(examples={**EXAMPLES, "digits": (title, read_digits)})
    return lambda text: json.dumps(answer(text, datasets), allow_nan=False)
