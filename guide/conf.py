"""The guide: executed pages, and a reference made from the library itself."""

import os
import sys
from functools import partialmethod
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import reference  # noqa: E402
from nbclient import NotebookClient  # noqa: E402

project = "logitlab"
author = "the logitlab authors"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx-mathjax-offline",
    "explorer",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
# Predictions of networks that a page reads where they are there.
os.environ.setdefault("LOGITLAB_GUIDE_DATA", str(HERE.parent.parent / "shared" / "data"))
# Every page is executed in each build; an error in a page fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_execution_in_temp = True
nb_ipywidgets_js: dict[str, Any] = {}
nb_merge_streams = True
# Join the pieces of an output stream; myst-nb would end each piece with a newline.
NotebookClient.__init__ = partialmethod(NotebookClient.__init__, coalesce_streams=True)
nb_render_markdown_format = "myst"
nb_mime_priority_overrides = [("html", "image/svg+xml", 1), ("html", "text/html", 2)]

suppress_warnings = ["myst.header"]  # what is included from docs begins at its own level
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!logitlab).*")]

autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_validation_checks = {"GL08", "SS01", "PR01", "PR02", "PR03", "RT01"}

html_theme = "pydata_sphinx_theme"
html_title = "logitlab"
html_static_path = ["_static"]
html_css_files = ["guide.css"]
html_show_sourcelink = False
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "footer_start": [],
    "footer_end": [],
}
html_sidebars: dict[str, list[str]] = {"index": []}


def setup(app: Any) -> None:
    reference.write(HERE / "reference")
    app.connect("build-finished", lambda app, error: error or reference.confirm(app.env))
