"""Peers side by side, one run: ``python -m bench``."""
