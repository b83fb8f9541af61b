"""How fast the viewer is: the first page and a step, on 10,000 runs, served and in a browser.

Milliseconds, because a person waits for them: medians and the 95th percentile of many questions,
each over HTTP to a server of its own process, runs drawn at random so that nothing is kept. ``raw``
is the same bytes read by the store's reader alone. Run ``python benchmarks/bench_viewer.py
[--store runs.zarr] [--thresholds t.json] [--json]``; without a store, 10,240 synthetic runs are
written first (1 x 32 x 32, 25 steps; the batches repeat). With chromium and chromedriver in the
PATH and selenium installed, the same is measured in the browser: until the pictures are painted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from analysis_stores import make_store

RUNS = 10_240
PAINTED = (
    "return document.querySelector('.asced-grid')?.dataset.painted && "
    "document.querySelector('.asced-run')?.dataset.painted"
)
STEP_CHANGE = """
const [step, done] = arguments;
const run = document.querySelector('.asced-run');
const slider = document.querySelector('.asced-steps');
const begun = performance.now();
const watcher = new MutationObserver(() => {
  if (!run.dataset.painted.endsWith(`:${step}`)) return;
  watcher.disconnect();
  done(performance.now() - begun);
});
watcher.observe(run, { attributes: true });
slider.value = step;
slider.dispatchEvent(new Event('input'));
"""
NEXT_RUN = """
const done = arguments[0];
const run = document.querySelector('.asced-run');
const before = run.dataset.painted;
const begun = performance.now();
const watcher = new MutationObserver(() => {
  if (run.dataset.painted === before) return;
  watcher.disconnect();
  done(performance.now() - begun);
});
watcher.observe(run, { attributes: true });
document.querySelector("button[aria-label='next run']").click();
"""


@contextmanager
def served(store: Path, thresholds: str | None) -> Iterator[dict[str, Any]]:
    """``asced view`` in a process of its own: what it printed, and the seconds until then."""
    command = [sys.executable, "-m", "asced_cli", "view", str(store), "--port", "0", "--json"]
    command += ["--no-cache", *(["--thresholds", thresholds] if thresholds else [])]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    told["seconds"] = time.perf_counter() - begun
    try:
        yield told
    finally:
        process.terminate()
        process.wait(timeout=60)


class Asking:
    """Questions over HTTP, as the page asks them."""

    def __init__(self, told: dict[str, Any]) -> None:
        cookies = urllib.request.HTTPCookieProcessor()
        self._opener = urllib.request.build_opener(cookies)
        self._root = told["url"].split("?")[0]
        self._opener.open(told["url"], timeout=60).read()

    def get(self, path: str) -> bytes:
        """A part of the page."""
        content: bytes = self._opener.open(self._root + path, timeout=60).read()
        return content

    def ask(self, question: str, **given: Any) -> dict[str, Any]:
        """The header of an answer."""
        body = json.dumps(given).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self._root}api/{question}", body, headers)
        content = self._opener.open(request, timeout=60).read()
        (length,) = struct.unpack_from("<I", content)
        header: dict[str, Any] = json.loads(content[4 : 4 + length])
        return header


def row(name: str, work: Callable[[], Any], times: int) -> dict[str, Any]:
    """Milliseconds of some work."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        found.append(1000 * (time.perf_counter() - begun))
    return summary(name, found)


def summary(name: str, found: list[float]) -> dict[str, Any]:
    """Median and 95th percentile."""
    middle, most = np.quantile(found, [0.5, 0.95])
    shown = {"median_ms": round(float(middle), 1), "p95_ms": round(float(most), 1)}
    return {"row": name, **shown, "times": len(found)}


def at_the_server(told: dict[str, Any], times: int) -> list[dict[str, Any]]:
    """Rows of what the server takes, while it scores and after."""
    rng = np.random.default_rng(0)
    asking = Asking(told)
    about = asking.ask("about")
    runs, size = about["runs"], about["page_size"]

    def first_page() -> None:
        for part in ("", "viewer.js", "viewer.css"):
            asking.get(part)
        asking.ask("about")
        asking.ask("table")
        asking.ask("scores", done=-1)
        asking.ask("gallery", rows=list(range(size)))
        step()

    def page() -> None:
        asking.ask("gallery", rows=rng.choice(runs, size, replace=False).tolist())

    def step() -> None:
        asking.ask("frames", row=int(rng.integers(runs)), first=0, signal=about["signals"][0])

    given = {"signal": about["signals"][0]}
    rows = [row("first page, all its questions one after another, once", first_page, 1)]
    rows.append(row("a step of a run not looked at yet, while scoring", step, times))
    begun = time.perf_counter()
    while True:
        state = asking.ask("scores", done=-1)
        if not state["pending"]:
            break
        time.sleep(0.2)
    waited = time.perf_counter() - begun
    rows.append({"row": "scores, bands and phases of all runs complete, s", "s": round(waited, 1)})
    rows.append(row("a page of the gallery, runs at random", page, times))
    rows.append(row("a step of a run not looked at yet", step, times))
    kept = {"row": int(rng.integers(runs)), "first": 0, **given}
    rows.append(row("another step of the same run", lambda: asking.ask("frames", **kept), times))
    level = state["level"]
    rows.append(row("rates at a level", lambda: asking.ask("rate", level=level), times))
    if about["masks"]:
        one = kept["row"]
        rows.append(row("mask at a level", lambda: asking.ask("mask", row=one, level=level), times))
    return rows


def in_the_browser(told: dict[str, Any], times: int) -> list[dict[str, Any]]:
    """Rows of what a person waits for, until it is painted."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for option in ("--headless=new", "--no-sandbox", "--window-size=1500,1100"):
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        firsts = []
        for _ in range(5):
            driver.get("about:blank")
            begun = time.perf_counter()
            driver.get(told["url"])
            while not driver.execute_script(PAINTED):
                time.sleep(0.01)
            firsts.append(1000 * (time.perf_counter() - begun))
        asked = np.random.default_rng(1).permutation(np.tile(np.arange(25), times // 25 + 1))
        steps = [s for s, before in zip(asked[1:], asked, strict=False) if s != before][:times]
        changes = [driver.execute_async_script(STEP_CHANGE, int(step)) for step in steps]
        opened = [driver.execute_async_script(NEXT_RUN) for _ in range(times)]
    finally:
        driver.quit()
    return [
        summary("browser: first page, once", firsts[:1]),
        summary("browser: the page again", firsts[1:]),
        summary("browser: a step of the run, until painted", changes),
        summary("browser: another run, until its step is painted", opened),
    ]


def measure(store: Path, thresholds: str | None, times: int) -> dict[str, Any]:
    """All rows."""
    rows = []
    with served(store, thresholds) as told:
        rows.append(
            {"row": "command until the page can be opened, s", "s": round(told["seconds"], 1)}
        )
        rows += at_the_server(told, times)
    if shutil.which("chromium") and shutil.which("chromedriver"):
        with served(store, thresholds) as told:
            rows += in_the_browser(told, times)
    return {"runs": told["runs"], "rows": rows}


def main() -> None:
    """Print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--thresholds")
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = given.store or make_store(Path(folder) / "runs.zarr", RUNS)
        result = measure(store, given.thresholds, given.times)
    if given.json:
        print(json.dumps(result))
        return
    print(f"viewer, {result['runs']:,} runs")
    for entry in result["rows"]:
        if "s" in entry:
            print(f"{entry['row']:<58} {entry['s']:>8}")
        else:
            print(f"{entry['row']:<58} {entry['median_ms']:>8} ms  95 %: {entry['p95_ms']} ms")


if __name__ == "__main__":
    main()
