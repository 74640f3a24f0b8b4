"""Draw the images of gallery.md: each is drawn on `ax` by the code block above it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

PAGE = Path(__file__).with_name("gallery.md")
_BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n!\[.*?\]\((.*?)\))?", re.DOTALL)


def figures() -> Iterator[tuple[str, Figure]]:
    """The path of each image, relative to the page, and its figure."""
    names: dict[str, Any] = {}
    for code, path in _BLOCK.findall(PAGE.read_text("utf-8")):
        with mpl.rc_context(mpl.rcParamsDefault):
            figure = Figure(figsize=(6, 4), dpi=100, layout="constrained")
            if path:
                names["ax"] = figure.add_subplot()
            exec(code, names)
            if path:
                yield path, figure


if __name__ == "__main__":
    for path, figure in figures():
        image = PAGE.parent / path
        image.parent.mkdir(exist_ok=True)
        figure.savefig(image, metadata={"Software": None})
        print(image)
