"""The page in a real browser: it opens, slides, counts, saves, and keeps text text."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

from asced_analysis import Thresholds
from asced_analysis.detection.external import read_labels, read_masks
from asced_analysis.viewer import Session, ViewerServer, open_session
from asced_analysis.viewer.answers import Answer

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no chromium and chromedriver in the PATH to drive"
    )
]
selenium = pytest.importorskip("selenium", reason="selenium is not installed")

OPTIONS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1500,1200")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[Any]:
    """A browser that can reach this machine and nothing else."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"):
        options.add_argument(option)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def server(
    runs: xr.Dataset, thresholds: Thresholds, corrected: xr.Dataset
) -> Iterator[ViewerServer]:
    """96 runs with thresholds and corrected, scored."""
    session = open_session(runs, thresholds=thresholds, replay=corrected, keep_scores=False)
    assert session.background.wait()
    with ViewerServer(session, port=0) as serving:
        yield serving


@pytest.fixture
def page(browser: Any, server: ViewerServer) -> Iterator[tuple[Any, Session]]:
    """The page, freshly opened, nothing labelled."""
    server.session.hand.labels.clear()
    server.session.hand.masks.clear()
    browser.get(server.url)
    until(
        lambda: said(browser, ".asced-grid", "painted") and said(browser, ".asced-run", "painted")
    )
    until(lambda: find(browser, ".asced-heading").text)
    yield browser, server.session
    leave(browser)


def leave(browser: Any) -> None:
    """Go away; the page has not complained meanwhile."""
    wrong = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    browser.get("about:blank")
    assert not wrong


def until(true: Callable[[], Any], seconds: float = 120) -> None:
    """Wait until something is so, on a busy machine too; what is not there yet is not so."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    end = time.monotonic() + seconds
    while True:
        with suppress(NoSuchElementException, StaleElementReferenceException):
            if true():
                return
        assert time.monotonic() < end, "this did not come true in time"
        time.sleep(0.02)


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def said(browser: Any, selector: str, name: str) -> str | None:
    """A data attribute of an element, None where there is no such thing yet."""
    script = "return document.querySelector(arguments[0])?.dataset[arguments[1]] ?? null"
    found: str | None = browser.execute_script(script, selector, name)
    return found


def count(browser: Any) -> int:
    return int(said(browser, ".asced-count", "flagged") or -1)


def flagged(session: Session, level: float) -> int:
    return int((session.scores.known.values > np.float32(level)).sum())


def give(browser: Any, selector: str, value: object) -> None:
    """Move a slider or choose from a list, as a person does."""
    browser.execute_script(
        "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event(e.type === 'range' ? 'input' : 'change'));",
        selector,
        str(value),
    )


def pixels(browser: Any, name: str) -> npt.NDArray[np.uint8]:
    """What a picture shows, as bytes."""
    script = (
        "const c = document.querySelector(`canvas[aria-label='${arguments[0]}']`);"
        "return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
    )
    return np.array(browser.execute_script(script, name), np.uint8).reshape(-1, 4)[:, :3]


def drag(browser: Any, place: Any, path: list[tuple[int, int]]) -> None:
    """Draw over an element, from its middle."""
    from selenium.webdriver import ActionChains

    chain = ActionChains(browser, duration=20)
    chain.move_to_element_with_offset(place, *path[0]).click_and_hold()
    for (x0, y0), (x1, y1) in itertools.pairwise(path):
        chain.move_by_offset(x1 - x0, y1 - y0)
    chain.release().perform()


def test_the_slider_moves_the_pictures(page: tuple[Any, Session], runs: xr.Dataset) -> None:
    browser, _ = page
    row = int((said(browser, ".asced-run", "painted") or "").split(":")[0])
    for step in (3, 20):
        give(browser, ".asced-steps", step)
        until(lambda: said(browser, ".asced-run", "painted") == f"{row}:{step}")  # noqa: B023
        x0 = runs["x0"].isel(run=row, step=step).values.astype(np.float32).ravel()
        expected = np.clip((x0 + 1) * 127.5, 0, 255)
        assert np.abs(pixels(browser, "Predicted x0")[:, 0] - expected).max() <= 1
        assert pixels(browser, "Dynamics").std() > 5
        assert pixels(browser, "Weighted score").std() > 5
    assert browser.title == "runs.zarr - runs"


def test_it_opens_on_the_most_suspicious_run_as_the_detector_sees_it(
    page: tuple[Any, Session],
) -> None:
    browser, session = page
    worst = int(np.argmax(session.scores.known.values))
    until(lambda: find(browser, ".asced-heading").text == f"Run {worst}")
    assert find(browser, "select[aria-label=signal]").get_attribute("value") == "predicted_x0"
    window = session.scores.window
    assert window is not None
    assert said(browser, ".asced-run", "painted") == f"{worst}:{window[1]}"
    details = find(browser, ".asced-details").text
    assert f"of steps {window[0]} to {window[1]}" in details


def test_legends_keep_their_room_while_loading(
    browser: Any, runs: xr.Dataset, thresholds: Thresholds
) -> None:
    """Nothing moves when the pictures come: legends are there, and their numbers follow."""
    session = open_session(runs, thresholds=thresholds, keep_scores=False)
    legends = (
        "return [...document.querySelectorAll('.asced-legend')]"
        ".map((e) => [e.offsetHeight, e.style.visibility])"
    )
    with ViewerServer(session, port=0) as serving:
        browser.get(serving.url)
        until(lambda: browser.execute_script("return document.querySelector('.asced-stages')"))
        before = browser.execute_script(legends)
        until(lambda: said(browser, ".asced-run", "painted"))
        assert browser.execute_script(legends) == before
        assert [shown for _, shown in before[:4]] == ["hidden", "hidden", "visible", "visible"]
        assert all(height > 10 for height, _ in before[:5])  # the last was not corrected
        leave(browser)


def test_two_stores_side_by_side(
    browser: Any, runs: xr.Dataset, thresholds: Thresholds, corrected: xr.Dataset
) -> None:
    first = open_session(runs, thresholds=thresholds, keep_scores=False)
    later = runs.isel(run=slice(20, None), step=slice(None, None, 2))
    second = open_session(later, keep_scores=False)
    assert first.background.wait()
    assert second.background.wait()
    headings = "return [...document.querySelectorAll('.asced-heading')].map((e) => e.textContent)"
    steps = "return [...document.querySelectorAll('.asced-step-text')].map((e) => e.textContent)"
    with ViewerServer(first, beside=second, port=0) as serving:
        browser.get(serving.url)
        until(lambda: all(browser.execute_script(steps)) and browser.execute_script(headings)[1:])
        give(browser, ".asced-viewer + .asced-viewer input[aria-label=find]", "33")
        until(lambda: browser.execute_script(headings) == ["Run 33", "Run 33"])
        give(browser, ".asced-steps", 24)
        until(lambda: browser.execute_script(steps) == ["24 of 24", "12 of 12"])
        give(browser, "input[aria-label=find]", "7")
        until(lambda: browser.execute_script(headings)[0] == "Run 7")
        until(
            lambda: (
                "Run 7 is not in this store"
                in find(browser, ".asced-viewer + .asced-viewer .asced-message").text
            )
        )
        leave(browser)


@pytest.mark.parametrize("slow", [0, 1])
def test_a_run_chosen_while_the_page_opens_stays_chosen(
    browser: Any, runs: xr.Dataset, monkeypatch: pytest.MonkeyPatch, slow: int
) -> None:
    """Whoever is quicker than the page is not sent on to the most suspicious run."""
    sessions = [open_session(runs, keep_scores=False) for _ in range(2)]
    for session in sessions:
        assert session.background.wait()
    go_on, answer = threading.Event(), sessions[slow].answer

    def held_back(request: str, given: Mapping[str, Any]) -> Answer:
        if request == "gallery":
            assert go_on.wait(60)
        return answer(request, given)

    monkeypatch.setattr(sessions[slow], "answer", held_back)
    headings = "return [...document.querySelectorAll('.asced-heading')].map((e) => e.textContent)"
    with ViewerServer(sessions[0], beside=sessions[1], port=0) as serving:
        browser.get(serving.url)
        until(lambda: len(browser.execute_script(headings)) == 2)
        give(browser, ".asced-viewer + .asced-viewer input[aria-label=find]", "33")
        until(lambda: browser.execute_script(headings) == ["Run 33", "Run 33"])
        go_on.set()
        until(lambda: len(browser.find_elements("css selector", ".asced-grid[data-painted]")) == 2)
        assert browser.execute_script(headings) == ["Run 33", "Run 33"]
        leave(browser)


def test_the_threshold_changes_the_count_the_marks_and_the_mask(
    page: tuple[Any, Session],
) -> None:
    browser, session = page
    assert find(browser, ".asced-note").text.startswith("Calibrated level")
    before = count(browser)
    give(browser, "input[aria-label=threshold]", 0)
    assert count(browser) == 96 > before
    until(lambda: "100.0 %" in find(browser, ".asced-rate").text)
    until(lambda: "No promise" in find(browser, ".asced-note").text)
    assert len(browser.find_elements("css selector", ".asced-flagged")) == 48
    give(browser, "input[aria-label=level]", np.sort(session.scores.known.values)[-5])
    until(lambda: count(browser) == 4)
    assert len(browser.find_elements("css selector", ".asced-flagged")) == 4
    until(lambda: "95 %: " in find(browser, ".asced-rate").text)


def test_the_gallery_is_sorted_filtered_and_turned(page: tuple[Any, Session]) -> None:
    browser, session = page

    def order() -> list[int]:
        return [int(row) for row in (said(browser, ".asced-grid", "painted") or "").split(",")]

    worst = np.argsort(-session.scores.known.values, kind="stable")
    give(browser, "select[aria-label='sort by']", "anomaly")
    until(lambda: order() == worst[:48].tolist())
    give(browser, "select[aria-label='sort by']", "change")
    until(lambda: order()[:3] == [93, 90, 87])
    give(browser, "select[aria-label='sort by']", "seed")
    until(lambda: order() == list(range(48)))
    find(browser, "button[aria-label='next page']").click()
    until(lambda: order() == list(range(48, 96)))
    give(browser, "select[aria-label=show]", "flagged")
    until(lambda: len(order()) == count(browser))
    give(browser, "select[aria-label=show]", "all")
    give(browser, "input[aria-label=find]", "number 77")
    until(lambda: order() == [77])


def test_a_script_in_a_prompt_stays_text(page: tuple[Any, Session]) -> None:
    browser, _ = page
    give(browser, "input[aria-label=find]", "7")
    until(lambda: find(browser, ".asced-heading").text == "Run 7")
    shown = browser.execute_script(
        "return [...document.querySelectorAll('.asced-details dd')].map((e) => e.textContent)"
    )
    assert any("<script>" in text and text.endswith("number 7") for text in shown)
    assert not browser.find_elements("css selector", ".asced-viewer script, .asced-viewer img")
    assert browser.title == "runs.zarr - runs"


def test_a_drawn_region_is_followed(page: tuple[Any, Session]) -> None:
    browser, session = page
    place = find(browser, "canvas[aria-label='Predicted x0'] + canvas")
    drag(browser, place, [(-40, -40), (40, -40), (40, 40), (-40, 40), (-40, -38)])
    until(lambda: "region of" in find(browser, ".asced-wide figcaption").text)
    until(lambda: len(browser.find_elements("css selector", ".asced-chart circle")) == 24)
    names = browser.execute_script(
        "return [...document.querySelectorAll('.asced-chart text')].map((e) => e.textContent)"
    )
    phases = session.population.phases
    assert phases is not None
    expected = {name for name, _, _ in phases.population.spans("step", 0, session.runs.steps)}
    assert expected >= {"Profiling", "Mutation"}
    assert {"Profiling", "Mutation", "Refinement"} & set(names) == expected
    drag(browser, place, [(10, 10)])
    until(lambda: "pixel (" in find(browser, ".asced-wide figcaption").text)


def test_a_mask_painted_by_hand_arrives_as_files(
    page: tuple[Any, Session], downloads: Path
) -> None:
    browser, session = page
    give(browser, "input[aria-label=find]", "30")
    until(lambda: find(browser, ".asced-heading").text == "Run 30")
    give(browser, "select[aria-label=tool]", "paint")
    place = find(browser, "canvas[aria-label='Final image'] + canvas")
    drag(browser, place, [(0, 0), (30, 0)])
    until(lambda: find(browser, "button[data-what=masks]").is_enabled())
    for what in ("masks", "labels", "selection", "film"):
        find(browser, f"button[data-what={what}]").click()
    files = [downloads / f"runs-{end}" for end in ("masks.npz", "labels.csv", "selection.csv")]
    film = downloads / "runs-run30-film.png"
    until(lambda: all(file.exists() for file in (*files, film)))
    mask = read_masks(files[0])[30]
    assert mask[8, 8]
    assert 3 < mask.sum() < 60
    np.testing.assert_array_equal(mask, session.hand.masks[30])
    assert read_labels(files[1]) == {30: True}
    assert len(files[2].read_text().splitlines()) == 1 + count(browser)
    assert film.read_bytes().startswith(b"\x89PNG")


def test_a_corrected_version_is_shown_swiped_and_subtracted(page: tuple[Any, Session]) -> None:
    browser, session = page
    give(browser, "input[aria-label=find]", "30")
    until(lambda: find(browser, ".asced-heading").text == "Run 30")
    answer = session.answer("run", {"row": 30}).arrays
    first, second = (answer[name][..., 0].ravel() for name in ("image", "corrected"))
    np.testing.assert_array_equal(pixels(browser, "Final image")[:, 0], first)
    np.testing.assert_array_equal(pixels(browser, "Corrected version")[:, 0], second)
    give(browser, "select[aria-label=compare]", "swipe")
    give(browser, "input[aria-label=swipe]", 25)
    half = pixels(browser, "Swipe: as sampled | corrected")[:, 0].reshape(16, 16)
    np.testing.assert_array_equal(half[:, :4], first.reshape(16, 16)[:, :4])
    np.testing.assert_array_equal(half[:, 4:], second.reshape(16, 16)[:, 4:])
    give(browser, "input[aria-label=find]", "31")  # not flagged in the replay
    until(lambda: find(browser, ".asced-heading").text == "Run 31")
    until(lambda: browser.find_elements("css selector", "canvas[aria-label='Not corrected']"))
    give(browser, "input[aria-label=find]", "30")
    until(lambda: find(browser, ".asced-heading").text == "Run 30")
    give(browser, "select[aria-label=compare]", "difference")
    shown = pixels(browser, "Difference of the two images").reshape(16, 16, 3)
    assert shown[:8, :8].std() > 5
    assert shown[8:].reshape(-1, 3).std(axis=0).max() == 0


@pytest.mark.parametrize("kind", ["rgb", "latents", "video"])
def test_other_pipelines_open(browser: Any, other_runs: dict[str, xr.Dataset], kind: str) -> None:
    with ViewerServer(Session(other_runs[kind], keep_scores=False), port=0) as other:
        browser.get(other.url)
        until(lambda: said(browser, ".asced-run", "painted"))
        assert pixels(browser, "Predicted x0").std() > 10
        if kind == "video":
            before = pixels(browser, "Predicted x0")
            give(browser, "input[aria-label=frame]", 4)
            until(lambda: (pixels(browser, "Predicted x0") != before).any())
        else:
            assert not browser.find_elements("css selector", "input[aria-label=frame]")
        leave(browser)
