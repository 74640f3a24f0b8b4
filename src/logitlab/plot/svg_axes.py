"""Axes that write SVG themselves: the part of matplotlib's interface that the report's plots use.

A picture takes less than a hundredth of the time of matplotlib. The colors are CSS variables
of the page: ``--ink``, ``--muted``, ``--line``, ``--first`` and ``--second``.
"""

import html
from collections.abc import Callable, Sequence
from typing import Any
from unicodedata import east_asian_width

import numpy as np

from logitlab._rows import Floats
from logitlab.plot.svg_axis import Axis, decades

_FONT = 9.0  # all lengths are points
_ASCENT = 0.36 * _FONT  # from the middle of a line of text down to its baseline
_LINE = 1.25 * _FONT
_TICK, _PAD, _BORDER = 3.5, 3.5, 3.0
_COLORS = {"C0": "var(--first)", "C1": "var(--second)", "0.5": "#808080", "none": "none"}


def _text_width(text: str) -> float:
    """About the width in DejaVu Sans, which is wide: the page chooses the font."""

    def width(c: str) -> float:
        if c in "fijlrt.,:;'|!()[] ":
            return 0.4
        return 1.0 if c in "mwMW%@…" or east_asian_width(c) in "WF" else 0.64

    return _FONT * sum(map(width, text))


def _number(x: float) -> str:
    return f"{x:.2f}".rstrip("0").rstrip(".")


class SvgAxes:
    """Axes of a figure of `width` by `height` inches; the methods are those of matplotlib."""

    def __init__(self, width: float, height: float) -> None:
        self._width, self._height = 72 * width, 72 * height
        self.xaxis, self.yaxis = Axis(), Axis()
        self._shapes: list[tuple[float, Callable[[], str]]] = []
        self._legend: list[tuple[str, str]] = []
        self._has_legend = self._has_annotation = False

    def plot(
        self,
        x: Any,
        y: Any,
        *,
        color: str,
        linewidth: float,
        linestyle: Any = None,
        marker: str | None = None,
        label: str | None = None,
        zorder: float = 2,
    ) -> None:
        self.xaxis.add(x)
        self.yaxis.add(y)
        if label is not None:
            self._legend.append((label, color))
        self._shape(
            zorder, lambda: self._line([(self._x(x), self._y(y))], color, linewidth, linestyle)
        )
        if marker is not None:
            self.scatter(x, y, s=36, color=color, zorder=zorder)

    def axvline(self, x: float, *, color: str, linewidth: float, linestyle: Any = None) -> None:
        self.xaxis.add(x)

        def draw() -> str:
            at = np.repeat(self._x(x), 2)
            return self._line([(at, [self._bottom, self._top])], color, linewidth, linestyle)

        self._shape(2, draw)

    def vlines(self, x: Any, ymin: Any, ymax: Any, *, color: str, linewidth: float) -> None:
        self.xaxis.add(x)
        self.yaxis.add([*ymin, *ymax])

        def draw() -> str:
            ends = zip(self._x(x), self._y(ymin), self._y(ymax), strict=True)
            return self._line([((at, at), (a, b)) for at, a, b in ends], color, linewidth)

        self._shape(1, draw)

    def hlines(self, y: Any, xmin: Any, xmax: Any, *, color: str, linewidth: float) -> None:
        self.yaxis.add(y)
        self.xaxis.add([*xmin, *xmax])

        def draw() -> str:
            ends = zip(self._y(y), self._x(xmin), self._x(xmax), strict=True)
            return self._line([((a, b), (at, at)) for at, a, b in ends], color, linewidth)

        self._shape(1, draw)

    def bar(
        self,
        x: Any,
        height: Any,
        width: Any = 0.8,
        bottom: Any = 0.0,
        *,
        align: str = "center",
        color: str,
        alpha: float = 1.0,
        linewidth: float = 0.0,
    ) -> None:
        left = np.asarray(x, float) - (np.asarray(width) / 2 if align == "center" else 0)
        ends = left, left + width, np.add(bottom, np.zeros_like(left)), np.add(bottom, height)
        self.xaxis.add(ends[:2])
        self.yaxis.add(ends[2:])
        self.yaxis.starts_at_zero = True

        def draw() -> str:
            a, b, y0, y1 = self._x(ends[0]), self._x(ends[1]), self._y(ends[2]), self._y(ends[3])
            low, high = np.maximum(y0, y1), np.minimum(y0, y1)
            path = "".join(
                f"M{_number(p)} {_number(q)}V{_number(r)}H{_number(s)}V{_number(q)}z"
                for p, q, r, s in zip(a, low, high, b, strict=True)
            )
            opacity = f' fill-opacity="{alpha:g}"' if alpha < 1 else ""
            return f'<path d="{path}" fill="{_COLORS[color]}"{opacity}/>'

        self._shape(1, draw)

    def scatter(
        self,
        x: Any,
        y: Any,
        *,
        s: Any,
        color: str,
        marker: str = "o",
        edgecolors: str = "none",
        linewidths: float = 1.0,
        zorder: float = 1,
    ) -> None:
        self.xaxis.add(x)
        self.yaxis.add(y)

        def draw() -> str:
            radius = np.sqrt(np.broadcast_to(s, np.shape(x))) / 2
            centers = zip(self._x(x), self._y(y), radius, strict=True)
            style = f'fill="{_COLORS[color]}" stroke="{_COLORS[edgecolors]}"'
            if edgecolors != "none":
                style += f' stroke-width="{linewidths:g}"'
            return f"<g {style}>{''.join(_marker(marker, *c) for c in centers)}</g>"

        self._shape(zorder, draw)

    def annotate(
        self,
        text: str,
        xy: tuple[float, float],
        *,
        xycoords: tuple[str, str],
        xytext: tuple[float, float],
        textcoords: str,
        ha: str,
        color: str,
    ) -> None:
        """Text above the axes; only these coordinates."""
        assert (xycoords, xy[1]) == (("data", "axes fraction"), 1)
        assert textcoords == "offset points"
        self._has_annotation = True
        anchor = {"left": "start", "right": "end"}[ha]
        self._shape(
            3,
            lambda: _text(
                float(self._x(xy[0])) + xytext[0],
                self._top - xytext[1],
                text,
                anchor,
                _COLORS[color],
            ),
        )

    def legend(self, *, frameon: bool, loc: str, bbox_to_anchor: Any, ncols: int) -> None:
        """A line above the axes, without a frame; only this place."""
        assert (frameon, loc, bbox_to_anchor) == (False, "lower center", (0.5, 1))
        assert ncols == len(self._legend)
        self._has_legend = True

    def set(self, *, xscale: str = "linear", **values: Any) -> None:
        self.xaxis.log = self.xaxis.log or xscale == "log"
        for name, value in values.items():
            setter = getattr(self, f"set_{name}")
            setter(*value) if name.endswith("lim") else setter(value)

    def set_xlim(self, left: float, right: float) -> None:
        self.xaxis.low, self.xaxis.high = left, right

    def set_ylim(self, bottom: float, top: float | None = None) -> None:
        self.yaxis.low, self.yaxis.high = bottom, top

    def set_xlabel(self, label: str) -> None:
        self.xaxis.label = label

    def set_ylabel(self, label: str) -> None:
        self.yaxis.label = label

    def set_xticks(self, ticks: Any, labels: Sequence[str], *, parse_math: bool) -> None:
        self.xaxis.set_ticks(ticks, labels)

    def set_yticks(self, ticks: Any, labels: Sequence[str], *, parse_math: bool) -> None:
        self.yaxis.set_ticks(ticks, labels)

    def margins(self, *, x: float) -> None:
        self.xaxis.margin = x

    def tick_params(self, axis: str, *, rotation: float) -> None:
        assert (axis, rotation) == ("x", 90)
        self.xaxis.rotated = True

    def to_svg(self, label: str) -> str:
        """The SVG element; `label` is its text for screen readers."""
        self._lay_out()
        shapes = [draw() for _, draw in sorted(self._shapes, key=lambda shape: shape[0])]
        size = f"{_number(self._width)} {_number(self._height)}"
        return (
            f'<svg role="img" aria-label="{html.escape(label)}" viewBox="0 0 {size}" '
            f'font-size="{_FONT:g}" stroke-linejoin="round">'
            f"{self._frame()}{''.join(shapes)}{self._draw_legend()}</svg>"
        )

    def _shape(self, zorder: float, draw: Callable[[], str]) -> None:
        self._shapes.append((zorder, draw))

    def _x(self, values: Any) -> Floats:
        return self._left + (self._right - self._left) * self.xaxis.fractions(values)

    def _y(self, values: Any) -> Floats:
        return self._bottom + (self._top - self._bottom) * self.yaxis.fractions(values)

    def _lay_out(self) -> None:
        """Choose the ticks, and the edges of the axes so that all text has space."""
        above = _LINE + _BORDER if self._has_annotation else 0.0
        above = 2 * _LINE if self._has_legend else above
        self._top = _BORDER + max(above, _LINE / 2)
        below = _BORDER + _TICK + _PAD + (_LINE + _PAD if self.xaxis.label else 0)
        self._bottom = self._height - below - _LINE
        self._y_ticks = self.yaxis.ticks(self._bottom - self._top, lambda _: 1.6 * _FONT)
        widest = max(map(_text_width, self._y_ticks[1]), default=0)
        self._left = _BORDER + _TICK + _PAD + widest + (_LINE + _PAD if self.yaxis.label else 0)
        self._right = self._width - _BORDER
        self._x_ticks = self.xaxis.ticks(
            self._right - self._left, lambda text: _text_width(text) + _FONT
        )
        widths = [_text_width(text) for text in self._x_ticks[1]]
        if self.xaxis.rotated:
            self._bottom = self._height - below - max(widths, default=0)
        elif widths:
            # The last label is centered below its tick; it may end right of the axes.
            beyond = float(self._x(self._x_ticks[0][-1])) + widths[-1] / 2 - self._width + 1
            self._right -= max(0.0, beyond)

    def _line(self, parts: Any, color: str, linewidth: float, linestyle: Any = None) -> str:
        path = "".join(
            "M" + "L".join(f"{_number(a)} {_number(b)}" for a, b in zip(x, y, strict=True))
            for x, y in parts
        )
        dashes = ""
        if linestyle is not None:
            lengths = " ".join(_number(linewidth * length) for length in linestyle[1])
            dashes = f' stroke-dasharray="{lengths}"'
        return (
            f'<path d="{path}" fill="none" stroke="{_COLORS[color]}" '
            f'stroke-width="{linewidth:g}"{dashes}/>'
        )

    def _frame(self) -> str:
        """The two axes with their ticks and labels."""
        left, right, top, bottom = map(_number, (self._left, self._right, self._top, self._bottom))
        x, y = self._x(self._x_ticks[0]), self._y(self._y_ticks[0])
        ticks = [f"M{_number(a)} {bottom}v{_TICK}" for a in x]
        ticks += [f"M{left} {_number(b)}h-{_TICK}" for b in y]
        if self.xaxis.log:
            low, high = self.xaxis.limits()
            minor = np.outer(decades(low / 10, high), np.arange(2, 10)).ravel()
            minor = minor[(minor > low) & (minor < high)]
            ticks += [f"M{_number(a)} {bottom}v{_TICK / 2}" for a in self._x(minor)]
        parts = [
            f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="var(--line)" '
            'stroke-width=".8"/>',
            f'<path d="{"".join(ticks)}" stroke="var(--muted)" stroke-width=".8"/>',
        ]
        below = self._bottom + _TICK + _PAD
        for at, text in zip(x, self._x_ticks[1], strict=True):
            if self.xaxis.rotated:
                parts.append(_text(at + _ASCENT, below, text, "end", rotated=True))
            else:
                parts.append(_text(at, below + _LINE / 2 + _ASCENT, text, "middle"))
        for at, text in zip(y, self._y_ticks[1], strict=True):
            parts.append(_text(self._left - _TICK - _PAD, at + _ASCENT, text, "end"))
        if self.xaxis.label:
            center, line = (self._left + self._right) / 2, self._height - _BORDER - _LINE / 4
            parts.append(_text(center, line, self.xaxis.label, "middle"))
        if self.yaxis.label:
            center = (self._top + self._bottom) / 2
            parts.append(
                _text(_BORDER + 0.8 * _FONT, center, self.yaxis.label, "middle", rotated=True)
            )
        return "".join(parts)

    def _draw_legend(self) -> str:
        if not self._has_legend:
            return ""
        handle, gap = 2 * _FONT, 0.8 * _FONT
        widths = [handle + gap + _text_width(text) for text, _ in self._legend]
        x = (self._left + self._right - sum(widths) - 2 * gap * (len(widths) - 1)) / 2
        y, parts = _BORDER + _LINE / 2, []
        for (text, color), width in zip(self._legend, widths, strict=True):
            parts.append(self._line([((x, x + handle), (y, y))], color, 2))
            parts.append(_text(x + handle + gap, y + _ASCENT, text, "start", "var(--ink)"))
            x += width + 2 * gap
        return "".join(parts)


def _marker(marker: str, x: float, y: float, radius: float) -> str:
    if marker == "o":
        return f'<circle cx="{_number(x)}" cy="{_number(y)}" r="{_number(radius)}"/>'
    side = radius if marker == ">" else -radius
    back, tip, low, high = map(_number, (x - side, x + side, y - radius, y + radius))
    return f'<path d="M{back} {low}L{tip} {_number(y)}L{back} {high}z"/>'


def _text(
    x: float,
    y: float,
    text: str,
    anchor: str,
    color: str = "var(--muted)",
    *,
    rotated: bool = False,
) -> str:
    """Text whose baseline is at y, or at x if it is rotated by 90 degrees."""
    place = f'x="{_number(x)}" y="{_number(y)}"'
    if rotated:
        place = f'transform="translate({_number(x)} {_number(y)}) rotate(-90)"'
    return f'<text {place} fill="{color}" text-anchor="{anchor}">{html.escape(text)}</text>'
