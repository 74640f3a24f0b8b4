"""Coefficients of two classes: one row as in scikit-learn, or a row for each class."""

import numpy as np

from logitlab.regression.solver import Floats


def one_row_per_class(coef: Floats, intercept: Floats) -> tuple[Floats, Floats]:
    """Return coefficients with K rows; a single row is split evenly between two classes.

    The two rows add up to 0, which gives half of the squared norm of the single row.
    """
    if len(coef) > 1:
        return coef, intercept
    return np.vstack([-coef, coef]) / 2, np.hstack([-intercept, intercept]) / 2


def scikit_learn_rows(coef: Floats, intercept: Floats) -> tuple[Floats, Floats]:
    """Return coefficients as scikit-learn stores them: of two classes the difference."""
    if len(coef) != 2:
        return coef, intercept
    return coef[1:] - coef[:1], intercept[1:] - intercept[:1]
