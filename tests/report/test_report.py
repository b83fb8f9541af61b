"""The report: whole, self-contained, escaped, honest about what it was not given."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from asced_analysis import calibrate, segment_phases, step_statistics
from asced_analysis.detection.apply import detect
from asced_analysis.plots.images import end_pictures
from asced_analysis.report import build_page, write_report
from asced_analysis.report.page import (
    Group,
    Key,
    Page,
    Section,
    Table,
    render_html,
    render_markdown,
)
from asced_analysis.report.pictures import OUTLINE, as_rgb, with_outline
from asced_analysis.report.sections import place_in_words
from asced_recorders.custom.loop import CustomRecorder
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
    assert "promise to flag at most 20 % of all runs" in text
    assert len(list(tmp_path.iterdir())) == 1


def test_runs_without_images_are_shown_by_their_samples(tmp_path: Path) -> None:
    """Latents of a loop that nobody decodes: false colours alike for a run and its correction."""
    rng = np.random.default_rng(0)
    path, x = tmp_path / "runs.zarr", rng.standard_normal((96, 4, 8, 8)).astype("f4")
    with CustomRecorder(path, (4, 8, 8), 8) as recorder:
        for step in range(8):
            sigma = 0.95 - step / 10
            x0 = np.tanh(x) + rng.standard_normal(x.shape) / (2 + step)
            recorder.step(sample=x, model_output=x0, alpha=1 - sigma, sigma=sigma,
                          prediction_type="sample")  # fmt: skip
            x = (x + x0.astype("f4")) / 2
        recorder.end(x)
    thresholds = calibrate(path, false_alarm_rate=0.2)
    text = write_report(path, tmp_path / "r.html", thresholds=thresholds).read_text()
    assert 'class="case"' in text
    run = open_runs(path).isel(run=0)
    assert "image" not in run
    one, same, other = end_pictures(run, run, run.assign(sample=-run["sample"]))
    assert one.shape == (8, 8, 3)
    assert (one == same).all()
    assert (one != other).any()
    grey = open_runs(synthetic_store(tmp_path / "grey.zarr", runs=2).path).isel(run=0)
    difference = end_pictures(grey)[0].astype(int) - end_pictures(grey.drop_vars("image"))[0]
    assert abs(difference).max() <= 1


def test_gallery_shows_what_the_thresholds_flag(runs: Path, tmp_path: Path) -> None:
    thresholds = calibrate(runs, false_alarm_rate=0.2)
    flagged = int(detect(open_runs(runs), thresholds)["flagged"].sum())
    text = write_report(runs, tmp_path / "r.html", thresholds=thresholds, gallery=3).read_text()
    assert f"{min(3, flagged)} of {flagged} flagged runs" in text
    assert text.count('class="case"') == min(3, flagged)
    assert "of them fit a promise that is kept" in text


def test_groups_of_ones_own_are_known_of_a_replay(runs: Path) -> None:
    """Its store lacks what was put on the recording by hand; scores are those that it holds."""
    ds = open_runs(runs).assign_coords(mine=("run", np.arange(96) // 48))
    thresholds = calibrate(runs, false_alarm_rate=0.2)
    level = thresholds.levels.level
    groups = {"0": level + 2.0, "1": level - 2.0}
    thresholds = replace(thresholds, groups=groups, grouped_by="mine")
    found = detect(ds, thresholds).compute().isel(run=slice(None, None, -1))
    corrected = ds[["image"]].sel(run=found["run"]).assign(found).drop_vars("mine")
    page = build_page(
        ds,
        name="runs",
        phases=None,
        statistics=None,
        thresholds=thresholds,
        corrected=corrected.assign_attrs(correction_step=4),
        gallery=96,
    )
    cases = page.sections[-2].cases
    order = [int(case.title.removeprefix("run ")) for case in cases]
    scores = found["score"].sel(run=order).values
    assert len(order) == found["flagged"].sum()
    for score, one in zip(scores, cases, strict=True):
        assert f"score {score:.3g};" in one.text
    beyond = scores - [groups[str(run // 48)] for run in order]
    assert (np.diff(beyond) <= 0).all()


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
    with pytest.raises(InputError, match=r"\.html"):
        write_report(runs, tmp_path / "report.pdf")
    assert target.read_text() == "mine"


def test_evaluation_without_replay_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="replay"):
        write_report(runs, tmp_path / "r.html", evaluation=tmp_path / "evaluation.json")


def test_remedies_are_read_before_a_replay_is_evaluated(runs: Path, tmp_path: Path) -> None:
    absent = tmp_path / "absent.json"
    with pytest.raises(InputError, match="table of remedies"):
        write_report(runs, tmp_path / "a.html", replay=tmp_path / "none.zarr", remedies=absent)


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


def _luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb, as WCAG 2.2 defines it."""
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    shares = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def _style() -> str:
    page = Page("t", "s", (), (), (), "f")
    found = re.search(r"<style>(.*?)</style>", render_html(page), flags=re.S)
    assert found is not None
    return found[1]


def test_contrast_of_every_text_colour() -> None:
    assert round(_contrast("#000", "#fff"), 1) == 21.0
    assert round(_contrast("#777777", "#ffffff"), 2) == 4.48  # known to fail by a little
    style = _style()
    names = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", style))
    used = set(re.findall(r"(?<![-\w])color: var\(--(\w+)\)", style))
    assert used, "text colours are variables"
    assert not re.search(r"(?<![-\w])color: #", style), "a colour that this test would miss"
    for name in used:
        for ground in (names["paper"], "#f3f5f7", "#fff"):
            assert _contrast(names[name], ground) >= 4.5, name


def test_print_keeps_things_whole() -> None:
    printed = _style().split("@media print", 1)[1]
    assert "break-inside: avoid" in printed
    assert ".case" in printed.split("break-inside")[0]


def test_page_can_be_read_without_being_seen(runs: Path, tmp_path: Path) -> None:
    thresholds = calibrate(runs, false_alarm_rate=0.2)
    text = write_report(runs, tmp_path / "r.html", thresholds=thresholds).read_text()
    assert '<html lang="en">' in text
    assert re.findall(r"<h([1-6])", text)[:3] == ["1", "2", "2"], "no level is skipped"
    assert text.count("<table>") == text.count("<caption>")
    assert "outlined: " in text, "the place of a mask stands in words"
    assert "Histogram of the scores" in text


def test_place_of_a_mask_in_words() -> None:
    mask = np.zeros((30, 30), bool)
    assert place_in_words(mask) == "nothing is outlined"
    mask[22:28, 1:7] = True
    assert place_in_words(mask) == "4.0 % of the image, bottom left"


def test_markdown_says_the_same(runs: Path, tmp_path: Path) -> None:
    thresholds = calibrate(runs, false_alarm_rate=0.2)
    html = write_report(runs, tmp_path / "r.html", thresholds=thresholds).read_text()
    plain = write_report(runs, tmp_path / "r.md", thresholds=thresholds).read_text()
    for title in re.findall(r"<h2>(.*?)</h2>", html):
        assert f"## {title}" in plain
    assert html.count("data:image/png") == plain.count("data:image/png")


def test_groups_show_one_line_and_fold_the_rest() -> None:
    group = Group(SCRIPT, "one line", Table("caption", (("name", SCRIPT),)))
    page = Page("t", "s", (), (), (Section("Before and after", groups=(group,) * 4),), "f")
    for text in (render_html(page), render_markdown(page)):
        assert text.count("<details>") == 4  # closed
        assert "<script" not in text
        for folded in text.split("<details>")[1:]:
            seen, _, hidden = folded.partition("</summary>")
            assert "one line" in seen
            assert "caption" in hidden.partition("</details>")[0]
