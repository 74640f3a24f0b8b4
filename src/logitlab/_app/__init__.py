"""The `logitlab` command line."""

import signal
import sys

_EXTRAS = {
    "app": {
        "jinja2",
        "matplotlib",
        "ml_dtypes",
        "narwhals",
        "pyarrow",
        "rich",
        "safetensors",
        "scipy",
        "sklearn",
        "threadpoolctl",
        "typer",
    },
    "dask": {"dask", "distributed"},
    "explore": {"starlette", "uvicorn"},
    "laws": {"hypothesis", "mpmath"},
}


def main() -> None:
    """Run the ``logitlab`` command; if a package is missing, print how to install it.

    A request of the system to end is an exit, so that temporary files are removed.
    """
    for name in ("SIGTERM", "SIGHUP"):
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        from logitlab._app.cli import app

        app()
        return
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((name for name, packages in _EXTRAS.items() if package in packages), None)
        if extra is None:
            raise
        message = f"{error.name} is not installed; run: pip install 'logitlab[{extra}]'"
        status = 2
    except KeyboardInterrupt:  # while the commands are imported
        message, status = "interrupted", 130
    print(f"logitlab: {message}", file=sys.stderr)
    sys.exit(status)
