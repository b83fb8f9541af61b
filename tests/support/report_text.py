"""What a report says, and what none may say without real images."""

from __future__ import annotations

import re
from pathlib import Path


def sentences(report: Path) -> str:
    """The report's text, without pictures and markup."""
    text = re.sub(r"<(style|script|head).*?</\1>", " ", report.read_text(), flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def true_without_real_images(text: str) -> None:
    assert "typical of this population" in text
    for claim in (
        *("Frechet", "recall", "precision", "more realistic", "distance to real images"),
        *("repaired", "harmed", "good runs"),
    ):
        assert claim not in text, claim
    said = [part for part in re.split(r"(?<=[.:;])\s", text) if "real images" in part]
    assert all("no real images" in part for part in said), said
