"""The guide: executed pages, and a reference made from the library itself."""

import os
import sys
from functools import partialmethod
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import reference  # noqa: E402
import site_files  # noqa: E402
from nbclient import NotebookClient  # noqa: E402

project = "logitlab"
author = "the logitlab authors"
release = metadata.version("logitlab")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx-mathjax-offline",
    "explorer",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxext.opengraph",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "dollarmath"]
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

# Copied code has no prompts; output has no button.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_selector = "div.highlight pre:not(.cell_output pre)"

# The address that the site is published at; below it each version has a folder.
ADDRESS = os.environ.get("LOGITLAB_GUIDE_URL", "").rstrip("/")
ogp_site_url = site_files.home(ADDRESS, release)
ogp_social_cards = {"image_mini": "_static/logo.png", "line_color": "#2f6fb5"}

html_theme = "pydata_sphinx_theme"
html_title = "logitlab"
html_static_path = ["_static"]
html_css_files = ["guide.css"]
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_favicon = "_static/logo.svg"
html_theme_options = {
    "logo": {
        "image_light": "_static/logo.svg",
        "image_dark": "_static/logo.svg",
        "alt_text": "",
        "text": "logitlab",
    },
    "navbar_end": ["version-switcher", "theme-switcher"],
    "switcher": {"json_url": f"{ADDRESS}/switcher.json".lstrip("/"), "version_match": release},
    "check_switcher": False,  # the file is made with the pages
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "footer_start": [],
    "footer_end": [],
}
html_sidebars: dict[str, list[str]] = {"index": []}


def setup(app: Any) -> None:
    reference.write(HERE / "reference")
    app.connect("build-finished", lambda app, error: error or reference.confirm(app.env))
    app.connect(
        "build-finished", lambda app, error: error or site_files.write(Path(app.outdir), ADDRESS)
    )
