"""The design that the HTML pages share: a stylesheet and a script for tables and code.

A page contains both as text, so that it is one file without external requests. The script is a
module, to be put in ``<script type="module">``; the pages are readable without it.
"""

from importlib.resources import files


def style() -> str:
    """The text of the stylesheet: colours, text, cards, tables, panels, buttons and notes."""
    return _text("style.css")


def script() -> str:
    """The text of the module that makes tables sortable and tables and code copyable."""
    return _text("tables.js")


def _text(name: str) -> str:
    return (files("logitlab._page") / name).read_text("utf-8")
