"""A proxy on 127.0.0.1 that lets an object storage fail: errors, silence, lost answers."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

Fault = int | str | None
"""A status to answer with, ``silence``, ``lost`` (done, but the answer never comes), or None."""


class FaultyProxy:
    """Forwards requests to a server, except where a function wants a fault.

    Parameters
    ----------
    endpoint : str
        URL of the real server.
    choose : callable
        From method and path to a `Fault`.
    silence : float
        Seconds that ``silence`` lasts; longer than the client's patience.
    """

    def __init__(
        self, endpoint: str, choose: Callable[[str, str], Fault], *, silence: float = 3.0
    ) -> None:
        self.faults: list[tuple[str, str, Fault]] = []
        target = urlsplit(endpoint)
        assert target.hostname is not None
        host, port = target.hostname, target.port
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                fault = choose(self.command, self.path)
                if fault is not None:
                    proxy.faults.append((self.command, self.path, fault))
                if isinstance(fault, int):
                    self.send_response(fault)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if fault == "silence":
                    time.sleep(silence)
                    self.close_connection = True
                    return
                upstream = http.client.HTTPConnection(host, port, timeout=60)
                upstream.request(self.command, self.path, body, dict(self.headers))
                answer = upstream.getresponse()
                data = answer.read()
                upstream.close()
                if fault == "lost":
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    skipped = ("transfer-encoding", "connection", "date", "server")
                    if name.lower() not in (*skipped, "content-length"):
                        self.send_header(name, value)
                size = answer.getheader("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", size or str(len(data)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

            def log_message(self, format: str, *arguments: object) -> None:
                """Stay silent."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """A client that went away in the middle is what is being tried."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
