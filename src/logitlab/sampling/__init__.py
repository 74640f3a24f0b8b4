"""Truncation of distributions and sampling from the softmax of logits."""

from logitlab.sampling.log_probs import log_prob
from logitlab.sampling.mirostat import mirostat
from logitlab.sampling.penalties import penalize
from logitlab.sampling.sampler import Sampler
from logitlab.sampling.settings import ORDERS, SETTINGS
from logitlab.sampling.speculative import verify_draft
from logitlab.sampling.truncation import (
    sample,
    sample_with_log_prob,
    sample_with_support,
    truncate,
)

__all__ = [
    "ORDERS",
    "SETTINGS",
    "Sampler",
    "log_prob",
    "mirostat",
    "penalize",
    "sample",
    "sample_with_log_prob",
    "sample_with_support",
    "truncate",
    "verify_draft",
]
