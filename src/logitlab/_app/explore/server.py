"""The server of the page, on the loopback interface, protected by a token.

Other users of the machine and other pages in the same browser can reach the port. So every path
begins with a token of 256 bits, Host must be 127.0.0.1 or localhost, which no DNS answer can
imitate, and Origin, if there is one, must be the page itself.
"""

import asyncio
import contextlib
import functools
import os
import secrets
import socket
import tempfile
import webbrowser
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from logitlab._app.explore.datasets import Datasets
from logitlab._app.explore.page_files import page_files, render_page
from logitlab._app.explore.view import answer
from logitlab._app.io.outputs import catch_print_errors
from logitlab._app.io.source import UserError

_KINDS = {".js": "text/javascript", ".css": "text/css"}
_MAX_STATE = 1 << 20  # bytes
_HEADER_SECONDS = 5.0
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Answers requests without the token or from another page with 403."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    def _is_forbidden(self, scope: Scope) -> bool:
        headers = [(name.decode("latin-1"), v.decode("latin-1")) for name, v in scope["headers"]]
        port = scope["server"][1]
        hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        requested = [value for name, value in headers if name == "host"]
        origins = [value for name, value in headers if name == "origin"]
        # The path is not one in OPTIONS *, CONNECT HOST:PORT and malformed requests.
        start, _, rest = scope["path"].partition("/")
        token = rest.partition("/")[0].encode("utf-8", "replace")
        return (
            len(requested) != 1
            or requested[0] not in hosts
            or any(origin != f"http://{requested[0]}" for origin in origins)
            or start != ""
            or not secrets.compare_digest(token, self._token.encode())
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_forbidden(scope):
            response = PlainTextResponse("forbidden\n", 403)
            await response(scope, receive, send)
        elif scope["type"] in ("http", "lifespan"):
            await self._app(scope, receive, send)


class Protocol(H11Protocol):
    """HTTP that closes a connection whose next request is not complete in time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._schedule_check(None)

    def _schedule_check(self, last: Any) -> None:
        """Close the connection after some seconds if it has no request after `last` by then."""

        def check() -> None:
            idle = self.cycle is None or self.cycle.response_complete
            if idle and self.cycle is last:
                self.transport.close()
            elif not self.transport.is_closing():
                self._schedule_check(self.cycle)

        self.loop.call_later(_HEADER_SECONDS, check)


def application(datasets: Datasets, token: str) -> ASGIApp:
    """The page, its files, and the values that it requests."""
    page, files = render_page(datasets.titles, "server"), page_files()

    def index(request: Request) -> Response:
        return HTMLResponse(page, headers=_HEADERS)

    def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in files:
            return PlainTextResponse("not found\n", 404, headers=_HEADERS)
        kind = _KINDS[os.path.splitext(name)[1]]
        return Response(files[name], media_type=kind, headers=_HEADERS)

    def respond(text: str) -> Response:
        values = answer(text, datasets)
        return JSONResponse(values, 400 if "error" in values else 200, headers=_HEADERS)

    async def state(request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_STATE:
                return JSONResponse(
                    {"error": f"the state must have at most {_MAX_STATE} bytes"},
                    413,
                    headers=_HEADERS,
                )
        return await run_in_threadpool(functools.partial(respond, body.decode("utf-8", "replace")))

    routes = [
        Route(f"/{token}/", index),
        Route(f"/{token}/view", state, methods=["POST"]),
        Route(f"/{token}/{{name}}", static),
    ]
    return Guard(Starlette(routes=routes), token)


def listen(port: int) -> socket.socket:
    """A socket that listens on the loopback interface; port 0 selects a free one."""
    # With an explicit protocol asyncio sets TCP_NODELAY, which saves 40 ms per answer.
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if os.name == "posix":
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind(("127.0.0.1", port))
        opened.listen(128)
    except OSError as error:
        opened.close()
        raise UserError(
            f"--port {port}: {error.strerror}; choose another, or 0 for a free one"
        ) from None
    return opened


@contextlib.contextmanager
def _opened_in_browser(address: str) -> Iterator[None]:
    """Open the page in the browser, through a file that only this user can read.

    Other users can see the arguments of the browser's process: they must not contain the token.
    """
    with tempfile.TemporaryDirectory(prefix="logitlab-") as folder:
        path = os.path.join(folder, "explore.html")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'<meta http-equiv="refresh" content="0; url={address}">')
        webbrowser.open(f"file://{path}")
        yield


def serve(datasets: Datasets, port: int, browser: bool) -> None:
    """Print the address of the page on one line, and serve the page until Ctrl-C."""
    token = secrets.token_urlsafe(32)
    with listen(port) as opened:
        address = f"http://127.0.0.1:{opened.getsockname()[1]}/{token}/"
        settings: dict[str, Any] = {
            "http": Protocol,
            "ws": "none",
            "log_level": "error",
            "access_log": False,
            "server_header": False,
            "timeout_graceful_shutdown": 1,
            "lifespan": "off",
        }
        server = uvicorn.Server(uvicorn.Config(application(datasets, token), **settings))
        with catch_print_errors():
            print(address)
        page = _opened_in_browser(address) if browser else contextlib.nullcontext()
        # uvicorn raises the signal again once it has closed every connection.
        with page, contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[opened])
