"""The report: whole, self-contained, escaped, honest about what it was not given."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from asced_analysis import calibrate, segment_phases, step_statistics
from asced_analysis.report import build_page, write_report
from asced_analysis.report.page import Key, Page, Section, Table, render_html, render_markdown
from asced_analysis.report.pictures import OUTLINE, as_rgb, with_outline
from asced_stores import open_runs
from asced_stores.errors import InputError
from asced_stores.testing import synthetic_store

SCRIPT = '<script>alert("x")</script>'


class Sources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.tags: list[str] = []
        self.without_alt = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.urls += [found[name] or "" for name in ("src", "href") if name in found]
        if tag == "img" and not found.get("alt"):
            self.without_alt += 1


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return Path(synthetic_store(folder / "runs.zarr", runs=96).path)


def test_report_is_one_page_without_network(runs: Path, tmp_path: Path) -> None:
    thresholds = calibrate(runs, false_alarm_rate=0.2)
    path = write_report(runs, tmp_path / "report.html", thresholds=thresholds)
    text = path.read_text()
    page = Sources()
    page.feed(text)
    assert page.urls
    assert all(url.startswith("data:image/png;base64,") for url in page.urls)
    assert "script" not in page.tags
    assert not page.without_alt
    assert not re.search(r"url\(|@import|https?://", text)
    assert "promise to flag at most 20.0 % of all runs" in text
    assert len(list(tmp_path.iterdir())) == 1


def test_gallery_shows_what_the_thresholds_flag(runs: Path, tmp_path: Path) -> None:
    from asced_analysis.detection.apply import detect

    thresholds = calibrate(runs, false_alarm_rate=0.2)
    flagged = int(detect(open_runs(runs), thresholds)["flagged"].sum())
    text = write_report(runs, tmp_path / "r.html", thresholds=thresholds, gallery=3).read_text()
    assert f"{min(3, flagged)} of {flagged} flagged runs" in text
    assert text.count('class="case"') == min(3, flagged)


def test_stored_strings_stay_text(runs: Path) -> None:
    ds = open_runs(runs)
    ds = ds.assign_coords(prompt=("run", [SCRIPT] * ds.sizes["run"]))
    ds.attrs["pipeline"] = SCRIPT
    page = build_page(
        ds,
        name=SCRIPT,
        phases=segment_phases(ds),
        statistics=step_statistics(ds),
        thresholds=calibrate(runs, false_alarm_rate=0.2),
    )
    assert any(SCRIPT in case.text for section in page.sections for case in section.cases)
    for text in (render_html(page), render_markdown(page)):
        assert "<script" not in text
        assert "&lt;script" in text


def test_markup_is_escaped_wherever_it_stands() -> None:
    evil = f"{SCRIPT} | *b* [l](u)"
    page = Page(
        evil,
        evil,
        (Key(evil, evil),),
        (evil,),
        (Section(evil, (evil,), (), (Table(evil, ((evil, evil),)),)),),
        evil,
    )
    assert "<script" not in render_html(page)
    markdown = render_markdown(page)
    assert "<script" not in markdown
    assert "[l](u)" not in markdown


def test_an_existing_file_is_kept(runs: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("mine")
    with pytest.raises(InputError, match="overwrite"):
        write_report(runs, target)
    assert target.read_text() == "mine"


def test_evaluation_without_replay_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="replay"):
        write_report(runs, tmp_path / "r.html", evaluation=tmp_path / "evaluation.json")


def test_outline_lies_inside_the_mask_and_nowhere_else() -> None:
    image = np.full((8, 8, 1), 100, np.uint8)
    mask = np.zeros((8, 8), bool)
    mask[2:6, 3:7] = True
    drawn = with_outline(image, mask, size=64)
    coloured = (drawn == OUTLINE).all(-1)
    assert drawn.shape == (64, 64, 3)
    assert coloured.any()
    assert not coloured[~mask.repeat(8, 0).repeat(8, 1)].any()
    assert (drawn[~coloured] == 100).all()
    assert not (with_outline(image, np.zeros_like(mask)) == OUTLINE).all(-1).any()
    assert as_rgb(image).shape == (8, 8, 3)
