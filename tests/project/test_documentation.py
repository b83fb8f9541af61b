"""The documentation builds without a warning, links within it hold, quoted messages exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [ROOT / part for part in ("asced_analysis", "recorders", "stores", "cli")]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<(https?://[^>\s]+)>")


def _prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and MyST make them."""
    found = re.findall(r"^#+ +(.+)$", _prose(page), flags=re.M)
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", title).lower()) for title in found)
    return {title.strip().replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_hold(page: Path) -> None:
    """Links to files and headings lead somewhere; outward ones are looked at, not fetched."""
    for match in LINK.finditer(_prose(page)):
        target = match[1] or match[2]
        parts = urlsplit(target)
        if parts.scheme:
            assert parts.scheme == "https", f"{target}: https only"
            assert "." in parts.netloc, target
            continue
        if "tutorials/" in parts.path:  # gathered from notebooks/ when the documentation is built
            assert (ROOT / "notebooks" / Path(parts.path).name).exists(), target
            continue
        file = (page.parent / parts.path).resolve() if parts.path else page
        assert file.exists(), f"{target} of {page.name} leads nowhere"
        if parts.fragment and file.suffix == ".md":
            assert parts.fragment in _anchors(file), f"{target} of {page.name}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_included_tables_are_there(page: Path) -> None:
    for target in re.findall(r"^```\{include\} (.+)$", page.read_text(), flags=re.M):
        assert (page.parent / target).is_file(), (
            f"{page.name} includes {target}, which is not there"
        )


def _texts() -> list[str]:
    """Every string of the sources; formatted values are shown as NUL."""
    found = []
    for path in (file for root in SOURCES for file in root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(_part(value) for value in node.values))
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
                found.append("".join(_part(value) for value in _terms(node)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def _part(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_part(value) for value in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else "\0"


def _terms(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_terms(node.left), *_terms(node.right)]
    return [node]


def _quoted() -> list[str]:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    return [line[5:-1] for line in text.splitlines() if line.startswith("### ")]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return _texts()


@pytest.mark.parametrize("message", _quoted(), ids=lambda message: message[:40])
def test_quoted_messages_exist(message: str, texts: list[str]) -> None:
    parts = [re.escape(part) for part in message.strip(" …").split("…")]
    pattern = re.compile(".*".join(parts), flags=re.S)
    assert any(pattern.search(text) for text in texts), f"no source says {message!r}"


@pytest.mark.pages
def test_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    """Offline, every warning an error."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"),
            *("-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(tmp_path / "html")),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(
        r"<(script|link|img)[^>]+(src|href)=\"(https?:)?//",
        (tmp_path / "html/method.html").read_text(),
    ), "a page fetches something from elsewhere"
