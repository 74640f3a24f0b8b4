"""The embedded example of the report: logits of handwritten digits."""

import numpy as np

from logitlab._app.io.source import Logits, in_memory
from logitlab._rows import Integers


def digits() -> tuple[Logits, Integers]:
    """Logits and labels of held-out handwritten digits, from a linear softmax model.

    The model is fitted on half of the 1797 images of 8 by 8 pixels that scikit-learn contains;
    the other half is held out.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from logitlab.regression.estimator import SoftmaxRegression

    x, y = load_digits(return_X_y=True)
    x_fit, x, y_fit, y = train_test_split(x / 16, y, test_size=0.5, random_state=0, stratify=y)
    model = SoftmaxRegression(C=100).fit(x_fit, y_fit)
    z = model.decision_function(x).astype(np.float32)
    names = tuple(str(name) for name in model.classes_)
    return in_memory("scikit-learn's handwritten digits", z, names), y.astype(np.int64)
