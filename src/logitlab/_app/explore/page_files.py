"""The page, made from its template, and the scripts and style sheets that it loads."""

from collections.abc import Mapping
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from logitlab._app.explore.datasets import EXAMPLE_ROWS
from logitlab._page import style
from logitlab.sampling import ORDERS

# Of a page whose server sends no headers; the worker, which compiles Python, is not included.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "worker-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'"
)


def render_page(titles: Mapping[str, str], python: str, wheel: str = "") -> str:
    """The HTML of the page with datasets of these titles.

    `python` says where Python runs: ``"server"``, ``"worker"`` with the NumPy of `wheel`, or
    ``"none"``.
    """
    environment = Environment(
        loader=PackageLoader("logitlab._app.explore", "page"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        titles=titles,
        rows={key: z for key, (_, z) in EXAMPLE_ROWS.items()},
        orders=ORDERS,
        modules=sorted({name for name in page_files() if name.endswith(".js")} - {"worker.js"}),
        python=python,
        wheel=wheel,
        policy="" if python == "server" else _POLICY,
    )


def page_files() -> dict[str, bytes]:
    """The scripts and style sheets by name."""
    folder = files("logitlab._app.explore") / "page"
    own = [file for file in folder.iterdir() if file.name.endswith((".js", ".css"))]
    return {"shared.css": style().encode(), **{file.name: file.read_bytes() for file in own}}
