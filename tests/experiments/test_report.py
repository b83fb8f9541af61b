"""Tables in files of their own, and the pages that include them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from experiments.tables import truth
from experiments.tables.files import RESULTS, included

PAGES = sorted(RESULTS.parent.glob("*.md"))


def test_every_table_stands_on_one_page() -> None:
    named = [name for page in PAGES for name in included(page.read_text(encoding="utf-8"))]
    there = [str(file.relative_to(RESULTS)) for file in RESULTS.glob("*/**/*.md")]
    assert there
    assert sorted(named) == sorted(there)


def test_every_table_of_the_bench_is_included_and_written_by_it() -> None:
    assert {file.stem for file in (RESULTS / "truth").iterdir()} == set(truth.TABLES)


def test_tables_without_results_stay_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"smoothing": 0.05, "broken": 0.25, "aurocs": {"learnt": 0.875}}
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "grid.json").write_text(json.dumps({"mixture": [row], "score": [row]}))
    (tmp_path / "judge.md").write_text("kept")
    (tmp_path / "grid.md").write_text("old")
    given = [str(tmp_path / "results"), "--out", str(tmp_path), "--images", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["truth", *given])
    truth.main()
    assert "no results for judge, " in capsys.readouterr().out
    assert (tmp_path / "judge.md").read_text() == "kept"
    text = (tmp_path / "grid.md").read_text()
    assert text.startswith("| smoothed, h | broken | learnt |\n")
    assert "| mixture, 0.05 | 25.0 % | 0.88 |" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.md", "judge.md", "results"]
