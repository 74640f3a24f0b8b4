"""Truncation of distributions and sampling from the softmax of logits."""

from logitlab.sampling.sampler import Sampler
from logitlab.sampling.settings import ORDERS
from logitlab.sampling.truncation import sample, sample_with_log_prob, truncate

__all__ = ["ORDERS", "Sampler", "sample", "sample_with_log_prob", "truncate"]
