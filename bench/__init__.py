"""Benchmarks against other libraries: ``python -m bench``."""
