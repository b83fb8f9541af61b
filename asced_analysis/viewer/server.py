"""The viewer as a local page: five fixed routes, a token, no file is ever served by its path.

There is no websocket and no cross-origin header: the page asks by POST with JSON, so another
site's page can neither read an answer nor have one computed (its Origin is refused, and it has no
cookie: ``SameSite=Strict``).
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import ipaddress
import json
import logging
import secrets
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from asced_analysis.viewer import page
from asced_stores.errors import AscedError, InputError, install_hint

try:
    import tornado.httpserver
    import tornado.web
except ModuleNotFoundError as error:
    raise InputError(
        f"the viewer needs {(error.name or '').split('.')[0]}: {install_hint('viewer')}"
    ) from error

if TYPE_CHECKING:
    from asced_analysis.viewer.session import Session

LOCAL = "127.0.0.1"
PORT = 8717
LARGEST_REQUEST = 8 * 2**20
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
REFUSED = (
    "This page needs the token of the person who started it. Open the whole address that "
    "`asced view` printed; it ends in ?token=...\n"
)

_log = logging.getLogger(__name__)


class ViewerServer:
    """Serve a session until it is closed; a context manager.

    Parameters
    ----------
    session : Session
    host : str
        Address to bind to; 127.0.0.1 is reached from this machine only.
    port : int
        0 for any free one.
    beside : Session, optional
        Of a second store, at the first one's side.
    token : str, optional
        What the page's address must carry; a fresh random one by default.

    Raises
    ------
    InputError
        Where the port is taken or the address is not one of this machine's.
    """

    def __init__(
        self,
        session: Session,
        *,
        beside: Session | None = None,
        host: str = LOCAL,
        port: int = PORT,
        token: str | None = None,
    ) -> None:
        self.session, self.beside = session, beside
        self.token = secrets.token_urlsafe(24) if token is None else token
        if len(self.token) < 16:
            raise InputError("the token is shorter than 16 characters: it could be guessed")
        self.host = host
        self._socket = _bind(host, port)
        self.port = int(self._socket.getsockname()[1])
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="asced-viewer-answer")
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._serve, name="asced-viewer-http", daemon=True)
        self._thread.start()
        self._ready.wait()

    @property
    def url(self) -> str:
        """The address to open, with its token."""
        host = socket.gethostname() if _everywhere(self.host) else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/?token={self.token}"

    def close(self) -> None:
        """Stop serving and end the session's work."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=30)
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.session.close()
        if self.beside is not None:
            self.beside.close()

    def __enter__(self) -> Self:
        """Serve."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.close()

    def _serve(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        shared = {"server": self}
        application = tornado.web.Application(
            [
                (r"/", _Page, shared),
                (r"/(viewer\.js|viewer\.css)", _Part, shared),
                (r"/(api)/([a-z]+)", _Request, shared),
                *([(r"/(beside)/([a-z]+)", _Request, shared)] if self.beside else []),
            ],
            default_handler_class=_Nothing,
            log_function=lambda _handler: None,
            compress_response=False,
        )
        server = tornado.httpserver.HTTPServer(application, max_body_size=LARGEST_REQUEST)
        server.add_socket(self._socket)
        self._ready.set()
        await self._stop.wait()
        server.stop()
        await server.close_all_connections()

    def admits(self, given: str | None) -> bool:
        """Whether this is the token, compared in constant time."""
        return given is not None and hmac.compare_digest(given.encode(), self.token.encode())


class _Handler(tornado.web.RequestHandler):
    """What every route does: security headers, token, origin."""

    def initialize(self, server: ViewerServer) -> None:
        self.viewer = server

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in SECURITY.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        origin = self.request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.request.host:
            self._refuse("This page answers no other site.\n")
        elif not self.viewer.admits(self.get_cookie(self._cookie)) and not self.viewer.admits(
            self.get_query_argument("token", None)
        ):
            self._refuse(REFUSED)

    @property
    def _cookie(self) -> str:
        """Cookies are shared by all ports of a host: the name tells them apart."""
        return f"asced-view-{self.viewer.port}"

    def _refuse(self, why: str) -> None:
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(why)

    def write_error(self, status_code: int, **_more: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{status_code}\n")


class _Page(_Handler):
    """The page; a token in the address becomes a cookie, so that it leaves the address bar."""

    def get(self) -> None:
        if self.get_query_argument("token", None) is not None:
            self.set_cookie(
                self._cookie, self.viewer.token, httponly=True, samesite="Strict", path="/"
            )
            self.redirect("./")
            return
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(page.markup(beside=self.viewer.beside is not None))


class _Part(_Handler):
    """Style and script."""

    def get(self, name: str) -> None:
        if name == "viewer.js":
            self.set_header("Content-Type", "text/javascript; charset=utf-8")
            self.finish(page.script())
        else:
            self.set_header("Content-Type", "text/css; charset=utf-8")
            self.finish(page.style())


class _Request(_Handler):
    """Answers, worked out in threads so that one slow read holds up nobody else."""

    async def post(self, of: str, name: str) -> None:
        if not self.request.headers.get("Content-Type", "").startswith("application/json"):
            self._refuse("Requests are JSON.\n")
            return
        loop = asyncio.get_running_loop()
        try:
            given = json.loads(self.request.body)
            if not isinstance(given, dict):
                raise InputError("a request's body is a JSON object")
            message = await loop.run_in_executor(self.viewer._pool, self._answer, of, name, given)
        except (AscedError, ValueError) as error:
            self._fail(400, str(error))
        except Exception as error:
            _log.exception("the viewer could not answer %r", name)
            self._fail(500, f"{type(error).__name__}: {error}")
        else:
            self.set_header("Content-Type", "application/octet-stream")
            self.finish(message)

    def _answer(self, of: str, name: str, given: dict[str, Any]) -> bytes:
        session = self.viewer.beside if of == "beside" else self.viewer.session
        assert session is not None
        return session.answer(name, given).message()

    def _fail(self, status: int, why: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": why}))


class _Nothing(tornado.web.RequestHandler):
    """Any other path."""

    def prepare(self) -> None:
        self.clear_header("Server")
        self.set_status(404)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("Nothing is served here.\n")


def _bind(host: str, port: int) -> socket.socket:
    """A socket to listen on, or an error that says what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        found = socket.create_server((host, port), family=family)
    except OSError as error:
        place = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"{place} is taken, perhaps by another viewer; choose another with --port, or "
                "--port 0 for any free one"
            ) from error
        raise InputError(f"can't listen on {place}: {error.strerror or error}") from error
    except OverflowError as error:
        raise InputError(f"port {port} found; expected 0 to 65535") from error
    found.setblocking(False)
    return found


def _everywhere(host: str) -> bool:
    """Whether a host stands for all addresses of this machine."""
    try:
        return host == "" or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
