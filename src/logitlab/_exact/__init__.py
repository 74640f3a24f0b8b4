"""Exact arithmetic: values of floating-point types, double-double and multiprecision."""
