"""Draws the pictures of gallery.md anew: each is what the code block above it draws on `ax`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

PAGE = Path(__file__).with_name("gallery.md")
_BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n!\[.*?\]\((.*?)\))?", re.DOTALL)


def pictures() -> Iterator[tuple[str, Figure]]:
    """The place of each picture beside the page, and the picture."""
    names: dict[str, Any] = {}
    for code, place in _BLOCK.findall(PAGE.read_text("utf-8")):
        with mpl.rc_context(mpl.rcParamsDefault):
            figure = Figure(figsize=(6, 4), dpi=100, layout="constrained")
            if place:
                names["ax"] = figure.add_subplot()
            exec(code, names)
            if place:
                yield place, figure


if __name__ == "__main__":
    for place, figure in pictures():
        path = PAGE.parent / place
        path.parent.mkdir(exist_ok=True)
        figure.savefig(path, metadata={"Software": None})
        print(path)
