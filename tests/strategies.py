"""Hypothesis strategies: rows of logits and temperatures."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

FINITE = {
    np.float32: st.floats(-1e4, 1e4, width=32),
    np.float64: st.floats(-1e4, 1e4),
}


@st.composite
def finite_rows(draw, dtype=None, max_size=40):
    """One row of finite logits; ties and near ties are likely."""
    kind = draw(st.sampled_from(list(FINITE))) if dtype is None else dtype
    pool = draw(npst.arrays(kind, st.integers(1, max_size), elements=FINITE[kind]))
    picks = draw(st.lists(st.integers(0, len(pool) - 1), min_size=1, max_size=max_size))
    return pool[picks]


temperatures = st.one_of(
    st.just(0.0), st.just(np.inf), st.floats(1e-3, 1e3), st.floats(-1e3, -1e-3)
)
