"""Inference from the likelihood of a fit without penalty."""
