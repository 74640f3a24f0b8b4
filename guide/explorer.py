"""The explorer in the guide: its files, and frames of it in pages.

``{explorer} NAME`` is a frame of ``explorer/index.html?embed=NAME``; the content of the directive
is the text of the settings.
"""

import os
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from logitlab._app.explore.export import export_page

FOLDER = "explorer"


class Explorer(SphinxDirective):
    """A frame of the explorer in HTML; nothing in other formats."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        name, settings = self.arguments[0], "&".join(self.content)
        up = "../" * self.env.docname.count("/")
        # An empty fragment, "#", would scroll the page of the guide to the frame.
        fragment = f"#{settings}".replace("&", "&amp;") if settings else ""
        address = f"{up}{FOLDER}/index.html?embed={name}{fragment}"
        frame = (
            f'<iframe class="explorer" src="{address}" loading="lazy" '
            f'title="Explorer: {name}"></iframe>'
        )
        return [nodes.raw("", frame, format="html")]


def _export(app: Any, error: Exception | None) -> None:
    """Write the explorer, with Python if LOGITLAB_PYODIDE names the folder of Pyodide."""
    if error is None and app.builder.format == "html":
        pyodide = os.environ.get("LOGITLAB_PYODIDE")
        folder = Path(app.outdir) / FOLDER
        export_page(folder, Path(pyodide) if pyodide else None, overwrite=True)


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("explorer", Explorer)
    app.connect("build-finished", _export)
    return {"parallel_read_safe": True}
