"""Pictures that how-to pages end with: what their own commands print and make, run here.

`make_figures.py` calls `draw` with the folder of `make demo`; ``python docs/pages.py --only hub``
draws one.
"""

from __future__ import annotations

import argparse
import html
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import screens

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
LOOK = """body { margin: 0; padding: 14px; width: max-content; background: #fff }
pre { margin: 0; white-space: pre-wrap; max-width: 1000px; color: #222;
  font: 14px/1.4 "DejaVu Sans Mono", monospace }
b { color: #0b5fa5 } article { width: 960px; font: 15px/1.45 "DejaVu Sans", sans-serif }
article pre { background: #f3f3f3; padding: 8px } table { border-collapse: collapse }
td, th { border: 1px solid #ccc; padding: 2px 8px; text-align: left } h1 { margin: 0 }
img { image-rendering: pixelated; width: 160px; display: block; margin-top: 10px }"""


def page(body: str, out: Path, *, height: int = 2000) -> None:
    """A picture of some HTML, as large as it is."""
    import io

    from PIL import Image

    with tempfile.TemporaryDirectory() as folder, screens.browser(1300, height) as driver:
        file = Path(folder, "page.html")
        text = f"<!doctype html><meta charset=utf-8><style>{LOOK}</style><body>{body}"
        file.write_text(text, encoding="utf-8")
        driver.get(file.as_uri())
        shown = driver.find_element("css selector", "body").screenshot_as_png
    picture = Image.open(io.BytesIO(shown)).convert("RGB")
    picture.save(out, quality=60, method=6)


def terminal(out: Path, *lines: tuple[str, str], more: str = "") -> None:
    """Commands and what they printed."""
    told = "\n\n".join(f"<b>$ {html.escape(c)}</b>\n{html.escape(t.rstrip())}" for c, t in lines)
    page(f"<pre>{told}</pre>{more}", out)


def asced(*arguments: object, cwd: Path | None = None) -> str:
    """What a command prints; status 1 (something was found) is no failure."""
    command = [sys.executable, "-m", "asced_cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode > 1:
        raise SystemExit(done.stderr)
    return done.stdout


def choosing(demo: Path, out: Path) -> None:
    """What doctor says of a pipeline."""
    with tempfile.TemporaryDirectory() as folder:
        said = asced("doctor", "fashion", cwd=Path(folder))
    terminal(out, ("asced doctor fashion", said))


def command_line(demo: Path, out: Path) -> None:
    """All commands."""
    terminal(out, ("asced --help", asced("--help")))


def comfyui(demo: Path, out: Path) -> None:
    """The workflow file, node by node."""
    from matplotlib.figure import Figure

    from asced_analysis.plots import save_figure, style

    nodes: dict[str, Any] = json.loads((ROOT / "asced_analysis/comfyui/workflow.json").read_text())
    ours = {key: node["class_type"].startswith("Asced") for key, node in nodes.items()}
    links = {
        key: [value[0] for value in node["inputs"].values() if isinstance(value, list)]
        for key, node in nodes.items()
    }

    def column(key: str) -> int:
        return 1 + max((column(source) for source in links[key]), default=-1)

    columns = {key: column(key) for key in nodes}
    place: dict[str, tuple[float, float]] = {}
    for key, at in columns.items():
        above = [other for other in place if columns[other] == at and not ours[other]]
        place[key] = (at * 1.9, -1.8 if ours[key] else -0.9 * len(above))
    with style.look():
        figure = Figure(figsize=(11, 3), layout="constrained")
        axes = figure.subplots()
        boxes = {}
        for key, (x, y) in place.items():
            box = {"boxstyle": "round,pad=0.4", "ec": style.BLUE if ours[key] else style.GREY}
            box["fc"] = "#e3effa" if ours[key] else "white"
            name = node_name(nodes[key]["class_type"])
            named = axes.text(x, y, name, ha="center", va="center", fontsize=8, bbox=box, zorder=2)
            boxes[key] = named.get_bbox_patch()
        for key, sources in links.items():
            for source in sources:
                arrow = {"arrowstyle": "-|>", "color": style.GREY, "shrinkA": 0, "shrinkB": 1}
                arrow |= {"patchA": boxes[source], "patchB": boxes[key]}
                axes.annotate("", place[key], place[source], arrowprops=arrow, zorder=1)
        axes.set(xlim=(-0.9, max(x for x, _ in place.values()) + 0.9))
        axes.set(ylim=(min(y for _, y in place.values()) - 0.5, 0.5))
        axes.set_axis_off()
        save_figure(figure, out)


def node_name(kind: str) -> str:
    """What ComfyUI shows of a node of ours; of another, its class."""
    from asced_analysis.comfyui import NODE_DISPLAY_NAME_MAPPINGS

    return NODE_DISPLAY_NAME_MAPPINGS.get(kind, kind).replace(" (ASCED)", "\n(ASCED)")


def hub(demo: Path, out: Path) -> None:
    """The card of the demo's thresholds, as the Hub would show it."""
    from markdown_it import MarkdownIt

    from asced_analysis import Thresholds
    from asced_analysis.export.cards import thresholds_card
    from asced_stores.hub import HubReference

    found = Thresholds.load(demo / "thresholds.json")
    card = thresholds_card(found, HubReference("owner/name")).split("---\n", 2)[2]
    shown = MarkdownIt().enable("table").render(card)
    page(f"<article>{shown}</article>", out)


def labelling(demo: Path, out: Path) -> None:
    """What is exported, read back by pycocotools: pictures, and the masks on them."""
    from matplotlib.figure import Figure
    from PIL import Image
    from pycocotools.coco import COCO

    from asced_analysis.plots import save_figure, style

    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder, "labelling")
        asced(
            "export", demo / "runs.zarr", "--thresholds", demo / "thresholds.json", "--format",
            "coco", "--only-flagged", "--out", labels,
        )  # fmt: skip
        coco = COCO(labels / "labels.json")
        shown = sorted(coco.getImgIds())[:8]
        with style.look():
            figure = Figure(figsize=(8, 1.3), layout="constrained")
            for axes, image in zip(figure.subplots(1, len(shown)), shown, strict=True):
                name = coco.loadImgs(image)[0]["file_name"]
                axes.imshow(Image.open(labels / "data" / name), cmap="gray")
                for one in coco.loadAnns(coco.getAnnIds(imgIds=[image])):
                    axes.contour(coco.annToMask(one), [0.5], colors=[style.ORANGE], linewidths=1)
                axes.set_title(Path(name).name, fontsize=8)
                axes.set(xticks=[], yticks=[])
            save_figure(figure, out)


def serving(demo: Path, out: Path) -> None:
    """The server of docs/server.py, asked once, and its image."""
    import base64

    import server
    from fastapi.testclient import TestClient

    from asced_analysis import Thresholds
    from asced_recorders import load_pipeline

    thresholds = Thresholds.load(demo / "thresholds.json")
    client = TestClient(server.make_app(load_pipeline("fashion"), thresholds))
    asked = {"seed": flagged_seed(demo), "steps": 25}
    answer = client.post("/images", json=asked)
    names = ("content-type", "asced-flagged", "asced-score", "asced-edited")
    told = "\n".join(f"{name}: {answer.headers[name]}" for name in names)
    image = base64.b64encode(answer.content).decode()
    line = "curl -X POST localhost:8000/images -H 'content-type: application/json' \\\n    "
    line += f"-d '{json.dumps(asked)}' -D - -o image.png"
    terminal(out, (line, told), more=f"<img src='data:image/png;base64,{image}'>")


def flagged_seed(demo: Path) -> int:
    """Seed of the flagged run whose correction shows as much as the run did."""
    from asced_analysis import open_runs

    runs, corrected = open_runs(demo / "runs.zarr"), open_runs(demo / "corrected.zarr")
    change = abs((corrected["sample"] - runs["sample"]).mean(("channel", "y", "x")))
    row = int(change.where(corrected["flagged"], 9.0).values.argmin())
    return int(runs["seed"].values[row])


def monitoring(demo: Path, out: Path) -> None:
    """What a monitor tells Prometheus after 64 images."""
    import prometheus_client
    import torch

    from asced_analysis import Corrector, Thresholds
    from asced_analysis.monitoring import Monitor
    from asced_recorders import load_pipeline

    thresholds = Thresholds.load(demo / "thresholds.json")
    pipe = load_pipeline("fashion")
    pipe.set_progress_bar_config(disable=True)
    corrector = Corrector(thresholds, monitor=Monitor(thresholds, name="products"))
    with corrector.attach(pipe):
        pipe(batch_size=64, num_inference_steps=25, generator=torch.Generator().manual_seed(0))
    served = prometheus_client.generate_latest().decode().splitlines()
    kept = [line for line in served if line.startswith("asced_") and "_created" not in line]
    told = [line for line in kept if "_bucket" not in line]
    shown = "curl -s localhost:9464/metrics | grep ^asced_ | grep -v '_bucket\\|_created'"
    terminal(out, (shown, "\n".join(told)))


def remedies(demo: Path, out: Path) -> None:
    """What a report says of remedies; those that the demo's folder holds are not tried again."""
    found = demo / "remedies.json"
    if not found.exists():
        asced(
            "tune", demo / "runs.zarr", "--remedies", "--budget", 50, "--runs", 64,
            "--thresholds", demo / "thresholds.json", "--out", found,
        )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.html")
        asced("report", demo / "runs.zarr", "--remedies", found, "--out", report)
        section(report, "What helps at this cost", out)


def section(report: Path, name: str, out: Path) -> None:
    """One section of a report, down to the end of its figure."""
    import io

    from PIL import Image

    with screens.browser(1000, 2400) as driver:
        driver.get(report.resolve().as_uri())
        time.sleep(1)
        height = driver.execute_script("return document.documentElement.scrollHeight")
        driver.set_window_size(1000, height + 200)  # what lies below the window is cut off
        path = f"//section[h2[normalize-space()='{name}']]"
        whole = driver.find_element("xpath", path)
        figure = whole.find_element("css selector", "figure").rect
        picture = Image.open(io.BytesIO(whole.screenshot_as_png)).convert("RGB")
        until = round(figure["y"] + figure["height"] - whole.rect["y"])
    picture.crop((0, 0, picture.width, until)).save(out, quality=60, method=6)


def own_pipeline(demo: Path, out: Path) -> None:
    """The top of the report on another model: grey pictures of simple shapes."""
    with tempfile.TemporaryDirectory() as folder:
        mine = Path(folder, "mine")
        shapes = "experiments.models.shapes.pictures:pipeline"
        asced("demo", "--pipeline", shapes, "--runs", 200, "--out", mine, cwd=ROOT)
        screens.report(mine, out)


PAGES = {
    "choosing": choosing,
    "command-line": command_line,
    "comfyui": comfyui,
    "hub": hub,
    "labelling": labelling,
    "monitoring": monitoring,
    "own-pipeline": own_pipeline,
    "remedies": remedies,
    "serving": serving,
}


def draw(demo: Path, folder: Path, only: tuple[str, ...] = ()) -> None:
    """Draw each page's picture."""
    for name, make in PAGES.items():
        if not only or name in only:
            make(demo, folder / f"{name}.webp")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=ROOT / "build" / "demo")
    parser.add_argument("--only", nargs="*", default=[], choices=list(PAGES))
    args = parser.parse_args()
    draw(args.demo, IMAGES, tuple(args.only))
