"""Functions of logits whose classes are sharded over the ranks of a torch process group.

Each rank calls a function with its own shard of the class axis, as in tensor-parallel heads; the
results are those of the ordinary functions of all classes. :class:`RowShard` stands for rows that
are sharded, as in data-parallel evaluation.
"""

from logitlab._distributed import RowShard
from logitlab.parallel._functions import entropy, log_softmax, logsumexp, softmax
from logitlab.parallel._loss_functions import cross_entropy, linear_cross_entropy
from logitlab.parallel._sampling_functions import (
    log_prob,
    sample,
    sample_with_log_prob,
    truncate,
)

__all__ = [
    "RowShard",
    "cross_entropy",
    "entropy",
    "linear_cross_entropy",
    "log_prob",
    "log_softmax",
    "logsumexp",
    "sample",
    "sample_with_log_prob",
    "softmax",
    "truncate",
]
