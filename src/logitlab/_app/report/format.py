"""Numbers as text."""

import math

import numpy as np

from logitlab.resampling import Interval


def percent(x: float, digits: int = 1) -> str:
    """With so many decimals; what is below 1 never as 100 %."""
    least = 100 - 10**-digits
    text = f"{100 * x:.{digits}f}"
    return f"> {least:.{digits}f} %" if x < 1 and float(text) == 100 else f"{text} %"


def count(n: int) -> str:
    return f"{n:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def figure(x: float, digits: int = 4) -> str:
    """With so many decimals; a number of very many digits by its power of ten."""
    if math.isnan(x):
        return "–"
    if math.isinf(x):
        return "∞" if x > 0 else "−∞"
    text = f"{x:z.{digits}f}" if abs(x) < 1e6 else f"{x:.{digits}g}"
    return text.replace("-", "−")


def p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def signed(x: float, digits: int = 4) -> str:
    """With its sign, but for what rounds to 0."""
    text = figure(x, digits)
    return f"+{text}" if x > 0 and text.strip("0.") else text


def span(i: Interval, digits: int = 4) -> str:
    """The bounds of an interval; of an infinite score there are none."""
    if not np.isfinite(i.low):
        return "no interval"
    return f"{figure(i.low, digits)} to {figure(i.high, digits)}"
