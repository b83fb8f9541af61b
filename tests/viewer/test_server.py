"""The server: local, by token, from five routes; nobody else's page gets an answer."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from asced_analysis.viewer import Session, ViewerServer, page
from asced_stores.errors import InputError

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def server(looked_at: Path) -> Iterator[ViewerServer]:
    from asced_analysis.accessor import open_runs

    session = Session(open_runs(looked_at), name=looked_at.name, keep_scores=False)
    with ViewerServer(session, port=0) as serving:
        yield serving


def ask(
    server: ViewerServer, path: str, body: str | None = None, **headers: str
) -> tuple[HTTPResponse, bytes]:
    """One request, with just these headers."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET" if body is None else "POST", path, body, named)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def with_cookie(server: ViewerServer) -> dict[str, str]:
    answer, _ = ask(server, f"/?token={server.token}")
    assert answer.status == 302
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    return {"Cookie": cookie.split(";")[0]}


def test_the_token_opens_the_page_and_becomes_a_cookie(server: ViewerServer) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    assert server._socket.getsockname()[0] == "127.0.0.1"
    cookie = with_cookie(server)
    answer, content = ask(server, "/", **cookie)
    assert answer.status == 200
    assert b"viewer.js" in content
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", ["/", "/viewer.js", "/api/about", "/?token=", "/?token=wrong"])
def test_without_the_token_nothing_is_told(server: ViewerServer, path: str) -> None:
    body = "{}" if path.startswith("/api") else None
    for headers in ({}, {"Cookie": f"asced-view-{server.port}=wrong"}):
        answer, content = ask(server, path, body, **headers, **(JSON if body else {}))
        assert answer.status == 403
        assert b"token" in content
        assert b"runs" not in content.replace(b"`asced view`", b"")


def test_requests_are_answered_with_a_header_and_arrays(server: ViewerServer) -> None:
    cookie = with_cookie(server)
    answer, content = ask(server, "/api/gallery", '{"rows": [2]}', **cookie, **JSON)
    assert answer.status == 200
    (length,) = struct.unpack_from("<I", content)
    header = json.loads(content[4 : 4 + length])
    assert header["arrays"] == [{"name": "2", "dtype": "uint8", "shape": [16, 16, 1]}]
    assert len(content) == 4 + length + 256


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        ("{}", {**JSON, "Origin": "https://evil.example"}, 403, "no other site"),
        ("{}", {**JSON, "Origin": "null"}, 403, "no other site"),
        ("{}", {"Content-Type": "text/plain"}, 403, "JSON"),
        ("{", JSON, 400, "error"),
        ("[]", JSON, 400, "JSON object"),
        ('{"row": 1000}', JSON, 400, "no run at position"),
    ],
)
def test_other_sites_and_nonsense_are_refused(
    server: ViewerServer, body: str, headers: dict[str, str], status: int, said: str
) -> None:
    answer, content = ask(server, "/api/run", body, **with_cookie(server), **headers)
    assert answer.status == status
    assert said in content.decode()


@pytest.mark.parametrize(
    "path",
    [
        "/zarr.json",
        "/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/viewer.js/../session.py",
        "/index.html",
        "/static/x",
        "/api/../about",
    ],
)
def test_no_file_is_served_by_its_path(server: ViewerServer, path: str) -> None:
    answer, content = ask(server, path, **with_cookie(server))
    assert answer.status in (404, 405)
    assert len(content) < 40


def test_nothing_comes_from_another_place() -> None:
    for text in (page.script(), page.style(), page.markup()):
        found = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text))
        assert found <= {"http://www.w3.org/2000/svg"}
        assert "@import" not in text
    for dangerous in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert dangerous not in page.script()


def test_a_taken_port_is_an_error_that_says_what_to_do(
    server: ViewerServer, runs: xr.Dataset
) -> None:
    session = Session(runs, keep_scores=False)
    with pytest.raises(InputError, match=r"is taken.*--port"):
        ViewerServer(session, port=server.port)
    with pytest.raises(InputError, match="can't listen"):
        ViewerServer(session, host="192.0.2.1", port=0)
    with pytest.raises(InputError, match="could be guessed"):
        ViewerServer(session, port=0, token="short")
    session.close()


def test_other_addresses_need_the_token_too(runs: xr.Dataset) -> None:
    session = Session(runs, keep_scores=False)
    with ViewerServer(session, host="0.0.0.0", port=0) as everywhere:
        assert "0.0.0.0" not in everywhere.url
        answer, _ = ask(everywhere, "/api/about", "{}", **JSON)
        assert answer.status == 403
        answer, _ = ask(everywhere, "/api/about", "{}", **with_cookie(everywhere), **JSON)
        assert answer.status == 200


def test_closing_ends_the_work_and_frees_the_port(runs: xr.Dataset) -> None:
    first = ViewerServer(Session(runs, keep_scores=False), port=0)
    first.close()
    first.close()
    assert not first._thread.is_alive()
    with ViewerServer(Session(runs, keep_scores=False), port=first.port) as second:
        assert second.port == first.port


def test_a_slow_answer_holds_up_nobody(server: ViewerServer, monkeypatch: Any) -> None:
    import threading

    going, seen = threading.Event(), threading.Event()
    real = server.session._requests["about"]

    def slow(given: Any) -> Any:
        seen.set()
        assert going.wait(20)
        return real(given)

    monkeypatch.setitem(server.session._requests, "about", slow)
    cookie = with_cookie(server)
    waiting = threading.Thread(target=ask, args=(server, "/api/about", "{}"), kwargs=cookie | JSON)
    waiting.start()
    assert seen.wait(20)
    answer, _ = ask(server, "/api/gallery", '{"rows": [1]}', **cookie, **JSON)
    assert answer.status == 200
    going.set()
    waiting.join()
