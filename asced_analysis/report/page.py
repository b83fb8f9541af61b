"""What a report is made of, and how it becomes one file: HTML or Markdown.

Everything that comes from a store is data here; the templates escape it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Picture:
    """An embedded image with the words that stand for it."""

    uri: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its heading."""

    caption: str
    rows: tuple[tuple[str, ...], ...]
    header: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """One line that is seen, and a table that is folded away."""

    title: str
    line: str
    table: Table


@dataclass(frozen=True)
class Case:
    """One run of the gallery: its pictures side by side and a line of figures."""

    title: str
    pictures: tuple[Picture, ...]
    text: str


@dataclass(frozen=True)
class Key:
    """A figure that the reader should not miss."""

    value: str
    label: str


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, figures, tables and cases."""

    title: str
    paragraphs: tuple[str, ...] = ()
    figures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    cases: tuple[Case, ...] = ()
    groups: tuple[Group, ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    keys: tuple[Key, ...]
    summary: tuple[str, ...]
    sections: tuple[Section, ...]
    footer: str


def render_html(page: Page) -> str:
    """Render one self-contained HTML page; every string is escaped, nothing is fetched."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    source = (files("asced_analysis.report") / "page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(page=page)


def render_markdown(page: Page) -> str:
    """Render Markdown with embedded pictures; markup in stored strings is escaped."""
    lines = [f"# {_plain(page.title)}", "", _plain(page.subtitle), ""]
    lines += [f"- **{_plain(key.value)}** {_plain(key.label)}" for key in page.keys]
    lines += ["", *(f"> {_plain(sentence)}  " for sentence in page.summary), ""]
    for section in page.sections:
        lines += [f"## {_plain(section.title)}", ""]
        for paragraph in section.paragraphs:
            lines += [_plain(paragraph), ""]
        for picture in section.figures:
            lines += [_image(picture), "", f"*{_plain(picture.caption)}*", ""]
        for group in section.groups:
            summary = f"<b>{_plain(group.title)}</b>: {_plain(group.line)}"
            lines += [f"<details><summary>{summary}</summary>", "", *_table(group.table), ""]
            lines += ["</details>", ""]
        for table in section.tables:
            lines += [*_table(table), ""]
        for case in section.cases:
            lines += [f"### {_plain(case.title)}", "", " ".join(map(_image, case.pictures)), ""]
            lines += [_plain(case.text), ""]
    return "\n".join([*lines, _plain(page.footer), ""])


def _plain(text: str) -> str:
    """Escape what Markdown or HTML would read as markup."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|#":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())


def _image(picture: Picture) -> str:
    return f"![{_plain(picture.alt)}]({picture.uri})"


def _table(table: Table) -> list[str]:
    columns = max((len(row) for row in table.rows), default=0)
    header = table.header or ("",) * columns
    lines = [f"*{_plain(table.caption)}*", "", "| " + " | ".join(map(_plain, header)) + " |"]
    lines.append("|" + "---|" * columns)
    return lines + ["| " + " | ".join(map(_plain, row)) + " |" for row in table.rows]
