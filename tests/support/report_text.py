"""What a report says, and what none may say without real images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from asced_analysis.report.corrections import evaluation_section
from asced_analysis.report.summary import effect_in_words, stores_in_words


def sentences(report: Path) -> str:
    """The report's text, without pictures and markup."""
    text = re.sub(r"<(style|script|head).*?</\1>", " ", report.read_text(), flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def said_of(evaluation: Any) -> str:
    """What reports say of an evaluation, without drawing the whole page."""
    section = evaluation_section(evaluation)
    tables = [f"{group.title} {group.line}" for group in section.groups or ()]
    rows = [" ".join(row) for group in section.groups or () for row in group.table.rows]
    figures = [f"{one.alt} {one.caption}" for one in section.figures]
    of_replay = evaluation.replay_of is not None
    summary = (effect_in_words if of_replay else stores_in_words)(evaluation)
    return " ".join([*summary, section.title, *section.paragraphs, *figures, *tables, *rows])


def true_with_real_images(text: str) -> None:
    assert "local distance to real images" in text
    for claim in ("typical of this population", "least typical", "no real images", "other runs of"):
        assert claim not in text, claim


def true_without_real_images(text: str) -> None:
    assert "typical of this population" in text
    for claim in (
        *("Frechet", "recall", "precision", "more realistic", "distance to real images"),
        *("repaired", "harmed", "good runs"),
    ):
        assert claim not in text, claim
    said = [part for part in re.split(r"(?<=[.:;])\s", text) if "real images" in part]
    assert all("no real images" in part for part in said), said
