"""What a person runs: the command line and the report."""

import sys

_EXPLORE = {"starlette", "uvicorn"}
_LAWS = {"hypothesis", "mpmath"}
_EXTRA = {"typer", "rich", "matplotlib", "pyarrow", "safetensors", "sklearn", "jinja2", "ml_dtypes"}


def main() -> None:
    """Run the ``logitlab`` command; without its libraries, say in one line what to install."""
    try:
        from logitlab._app.cli import app

        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA | _EXPLORE | _LAWS:
            raise
        extra = "explore" if missing in _EXPLORE else "laws" if missing in _LAWS else "app"
        sys.exit(f"logitlab: {error.name} is not installed; run: pip install 'logitlab[{extra}]'")
