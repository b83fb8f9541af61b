"""Pictures of the pages themselves, by a headless browser: the viewer and the report."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from asced_analysis import open_runs
from asced_analysis.viewer import ViewerServer, open_session

OPTIONS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars")
PATIENCE = 60.0


@contextmanager
def browser(width: int, height: int) -> Iterator[Any]:
    """Chromium, as it is installed."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for option in (*OPTIONS, f"--window-size={width},{height}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def save(driver: Any, out: Path) -> None:
    """What the browser shows, as a small picture."""
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    picture.save(out, quality=72, method=6)


def viewer(demo: Path, out: Path) -> None:
    """The viewer on the demo's runs, once everything is scored and counted."""
    session = open_session(
        demo / "runs.zarr",
        thresholds=demo / "thresholds.json",
        replay=demo / "corrected.zarr",
        keep_scores=False,
    )
    session.background.wait()
    runs = open_runs(demo / "runs.zarr").sizes["run"]
    with ViewerServer(session, port=0) as server, browser(1400, 1000) as driver:
        driver.get(server.url)
        painted = "document.querySelector('.asced-run')?.dataset.painted != null"
        counted = f"document.body.innerText.includes('every pixel of {runs} runs')"
        script, end = f"return {painted} && {counted}", time.monotonic() + PATIENCE
        while not driver.execute_script(script) and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(2)  # curves come after the pictures
        save(driver, out)


def report(demo: Path, out: Path) -> None:
    """The top of the demo's report."""
    with browser(1000, 1250) as driver:
        driver.get((demo / "report.html").resolve().as_uri())
        time.sleep(1)
        save(driver, out)
