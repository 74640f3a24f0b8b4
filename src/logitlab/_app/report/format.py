"""Formatting of numbers for the report."""

import math

import numpy as np

from logitlab.resampling import Interval


def percent(x: float, digits: int = 1) -> str:
    """A share in per cent; a share below 1 is never rounded up to 100 %."""
    largest = 100 - 10**-digits
    text = f"{100 * x:.{digits}f}"
    return f"> {largest:.{digits}f} %" if x < 1 and float(text) == 100 else f"{text} %"


def count(n: int) -> str:
    """An integer with a narrow space between groups of three digits."""
    return f"{n:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def number(x: float, digits: int = 4) -> str:
    """A number with `digits` decimals, or in exponent notation from a million on."""
    if math.isnan(x):
        return "–"
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    text = f"{x:z.{digits}f}" if abs(x) < 1e6 else f"{x:.{digits}g}"
    return text.replace("-", "−")


def p_value(p: float) -> str:
    """``p = 0.31``, or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def signed(x: float, digits: int = 4) -> str:
    """A number with its sign; without one if it rounds to 0."""
    text = number(x, digits)
    return f"+{text}" if x > 0 and text.strip("0.") else text


def bounds(interval: Interval, digits: int = 4) -> str:
    """``low to high``; an infinite score has no interval."""
    if not np.isfinite(interval.low):
        return "no interval"
    return f"{number(interval.low, digits)} to {number(interval.high, digits)}"
