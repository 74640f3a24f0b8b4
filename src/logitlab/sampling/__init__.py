"""Truncation of distributions and sampling from the softmax of logits."""

from logitlab.sampling.mirostat import mirostat
from logitlab.sampling.sampler import Sampler
from logitlab.sampling.settings import ORDERS, SETTINGS
from logitlab.sampling.truncation import sample, sample_with_log_prob, truncate

__all__ = [
    "ORDERS",
    "SETTINGS",
    "Sampler",
    "mirostat",
    "sample",
    "sample_with_log_prob",
    "truncate",
]
