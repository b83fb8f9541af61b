"""What the client needs of the Hub's API, on the loopback: every file is a plain one in a commit.

Large files go through Xet on the real Hub, which speaks a protocol of its own; here none is large.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_loopbackSecret0123456789abcdefghij"


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """Repositories by (kind, name): commits of files, newest last."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], list[tuple[str, dict[str, bytes]]]] = {}
        self.private: dict[tuple[str, str], bool] = {}
        self.commits_until_failure: int | None = None
        self.downloads_until_failure: int | None = None
        self.sent: list[str] = []
        self.fetched: list[str] = []
        self.endpoint = ""

    def files(self, kind: str, name: str) -> dict[str, bytes]:
        return self.repositories[kind, name][-1][1]

    def commit(self, kind: str, name: str, lines: list[dict[str, Any]]) -> str:
        files = dict(self.files(kind, name))
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                self.sent.append(value["path"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = hashlib.sha1(f"{len(self.repositories[kind, name])} {name}".encode()).hexdigest()
        self.repositories[kind, name].append((oid, files))
        return oid


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def answer(self, status: int, content: Any = None, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def break_off(self, content: bytes, **headers: str) -> None:
        """Send half of a file, and hang up."""
        self.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.close_connection = True

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, {"error": code}, X_Error_Code=code)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path, hub = urlsplit(self.path).path, self.hub
        if path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
            return
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer(401, {"error": "Invalid username or password."})
            return
        if path == "/api/repos/create":
            asked = json.loads(body)
            owner = asked.get("organization") or "me"
            key = (asked.get("type") or "model", f"{owner}/{asked['name']}")
            if key in hub.repositories:
                self.answer(409, {"error": "exists", "url": f"{hub.endpoint}/{key[1]}"})
                return
            hub.repositories[key] = [("0" * 40, {})]
            hub.private[key] = asked.get("private") or asked.get("visibility") == "private"
            self.answer(200, {"url": f"{hub.endpoint}/{key[1]}"})
            return
        found = re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)/(preupload|commit)/main", path)
        assert found is not None, path
        kind, name, action = found.groups()
        if action == "preupload":
            there = hub.files(kind, name)
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "regular",
                    "shouldIgnore": False,
                    "oid": git_oid(there[file["path"]]) if file["path"] in there else None,
                }
                for file in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})
            return
        if hub.commits_until_failure is not None:
            hub.commits_until_failure -= 1
            if hub.commits_until_failure < 0:
                self.answer(403, {"error": "quota exceeded"})
                return
        oid = hub.commit(kind, name, [json.loads(line) for line in body.splitlines()])
        self.answer(200, {"commitUrl": f"{hub.endpoint}/{name}/commit/{oid}", "commitOid": oid})

    def do_GET(self) -> None:
        path, hub = unquote(urlsplit(self.path).path), self.hub
        pattern = r"(?:/api)?/(?:(models|datasets)/)?([^/]+/[^/]+)"
        pattern += r"(?:/(revision|tree|resolve)/([^/]+))?"
        found = re.match(pattern, path)
        assert found is not None, path
        kinds, name, action, revision = found.groups()
        kind, rest = (kinds or "models")[:-1], path[found.end() :].lstrip("/")
        if (kind, name) not in hub.repositories:
            self.refuse(404, "RepoNotFound")
            return
        commits = hub.repositories[kind, name]
        revision = revision or "main"
        if revision != "main" and revision not in dict(commits):
            self.refuse(404, "RevisionNotFound")
            return
        oid, files = commits[-1] if revision == "main" else (revision, dict(commits)[revision])
        if action in (None, "revision"):
            listed = [{"rfilename": path} for path in files]
            self.answer(200, {"id": name, "sha": oid, "siblings": listed, "tags": []})
        elif action == "tree":
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
                for path, content in files.items()
            ]
            self.answer(200, entries)
        elif rest not in files:
            self.refuse(404, "EntryNotFound")
        else:
            if self.command == "GET":
                if hub.downloads_until_failure == len(hub.fetched):
                    self.break_off(files[rest], ETag=f'"{git_oid(files[rest])}"', X_Repo_Commit=oid)
                    return
                hub.fetched.append(rest)
            self.answer(200, files[rest], ETag=f'"{git_oid(files[rest])}"', X_Repo_Commit=oid)

    do_HEAD = do_GET  # noqa: N815  (the name that http.server looks for)


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub at ``hub.endpoint``, while the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def reached(patch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """A Hub that the client in this process talks to, with a cache of its own."""
    from huggingface_hub import constants

    with serving() as hub:
        files = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        patch.setenv("HF_TOKEN", TOKEN)
        yield hub
