"""Laws of a sampler."""

from logitlab.laws.law import Law

LAWS: tuple[Law, ...] = ()
