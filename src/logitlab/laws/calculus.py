"""Laws of the derivatives."""

from logitlab.laws.law import Law

LAWS: tuple[Law, ...] = ()
