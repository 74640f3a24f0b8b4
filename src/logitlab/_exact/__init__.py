"""Exact arithmetic: double-double and multiprecision softmax, and errors in ULP."""
