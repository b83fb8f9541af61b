"""Tables of docs/truth.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# ruff: noqa: E402
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "truth")]

import pytest
import report
from marked_tables import fill


@pytest.mark.parametrize("path", report.PAGES, ids=lambda path: path.stem)
def test_every_marked_table_of_a_page_has_a_writer(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    named = re.findall(r"<!-- table ([\w-]+) -->", page)
    assert len(named) == len(set(named))
    assert set(named) <= set(report.TABLES)
    assert page.count("<!-- end -->") == len(named)


def test_a_page_keeps_its_text_and_the_tables_without_results() -> None:
    row = {"smoothing": 0.05, "broken": 0.25, "aurocs": {"learnt": 0.875}}
    tables = report.written({"grid": {"mixture": [row], "score": [row]}})
    assert list(tables) == ["grid"]
    page = "a <!-- table grid -->\nold\n<!-- end --> b <!-- table judge -->kept<!-- end --> c"
    text, missing = fill(page, tables)
    assert missing == ["judge"]
    assert text.startswith("a <!-- table grid -->\n\n| smoothed, h | broken | learnt |\n")
    assert "| mixture, 0.05 | 25.0 % | 0.88 |" in text
    assert "old" not in text
    assert text.endswith("b <!-- table judge -->kept<!-- end --> c")
