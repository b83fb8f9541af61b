"""The examples of ``--help`` that sample, serve or ask a server, run as they are printed."""

from __future__ import annotations

import itertools
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from help_examples import examples
from hub_server import reached
from PIL import Image
from tiny_pipelines import stable_diffusion

from asced_cli.main import run
from asced_recorders import load_pipeline, record
from asced_stores import open_runs

pytestmark = [
    pytest.mark.pages,
    pytest.mark.xdist_group("sampled examples"),
    pytest.mark.timeout(900),
]

RUNS, STEPS, PORT = 100, 25, 8717
FEW = (60, 7)
"""Runs and steps of the store that tune tries its candidates on."""
PLACES = ("far away", "at sea", "in snow", "by night")
PROMPTS = [
    f"a {colour} {thing} {place}"
    for colour in ("red", "green", "blue")
    for thing in ("house", "tree", "boat", "dog")
    for place in PLACES
]
OWN = ("./my-model", "--loop mine:sample")
LOOP = """
from asced_recorders import load_pipeline

pipe = load_pipeline("./my-model")


def sample(x_init, step):
    scheduler = pipe.scheduler
    scheduler.set_timesteps({steps})
    x = x_init
    for t in scheduler.timesteps:
        alpha = float(scheduler.alphas_cumprod[t]) ** 0.5
        sigma = (1 - alpha**2) ** 0.5
        said = pipe.unet(x, t).sample
        following = scheduler.step(said, t, x).prev_sample
        x = step(
            sample=x, model_output=said, alpha=alpha, sigma=sigma,
            prediction_type="v_prediction", next_sample=following,
        )
    return x
"""


def printed(kind: Callable[[str], bool]) -> list[str]:
    lines = [one.values[0] for one in examples(sampled=True)]
    return [line for line in lines if not line.startswith("asced record") and kind(line)]


def own(line: str) -> bool:
    return any(word in line for word in OWN)


def tunes(line: str) -> bool:
    return line.startswith("asced tune")


def source(line: str) -> str:
    """Which folder holds what a line speaks of."""
    if "--prompts" in line:
        return "prompted"
    return "tuned" if tunes(line) else "own" if own(line) else "fashion"


def asks(line: str) -> bool:
    return line.startswith(("asced push", "asced pull"))


def serves(line: str) -> bool:
    return line.startswith("asced view")


SAMPLES = printed(lambda line: not (asks(line) or serves(line) or own(line)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_tiny: Any) -> Path:
    """Folders: with runs of `fashion` and what is made of them, with few, and with own models."""
    root = tmp_path_factory.mktemp("sampled")
    for folder, name in (("fashion", "fashion"), ("own", "my-model")):
        here = root / folder
        here.mkdir()
        if folder == "own":
            make_tiny("DDIM", 1, timestep_spacing="trailing").save_pretrained(here / name)
        pipe = name if folder == "fashion" else str(here / name)
        many = {"runs": RUNS, "steps": STEPS, "batch_size": 32, "checkpoints": (12,)}
        record(pipe, here / "runs.zarr", **many)
        for line in (
            "calibrate {0}/runs.zarr --out {0}/thresholds.json",
            "replay {0}/runs.zarr --thresholds {0}/thresholds.json --out {0}/corrected.zarr",
        ):
            more = ["--pipeline", pipe] if line.startswith("replay") else []
            assert run([*line.format(here).split(), *more]) == 0
    here = root / "fashion"
    line = f"calibrate {here}/runs.zarr --variant outcome --method outcome --out {here}/learnt.json"
    assert run(line.split()) == 0
    line = f"calibrate {here}/runs.zarr --method outcome --lookahead 0.24 --out"
    assert run([*line.split(), f"{here}/lookahead.json"]) == 0
    line = f"evaluate {here}/runs.zarr {here}/corrected.zarr --out {here}/evaluation.json"
    assert run(line.split()) == 0
    load_pipeline("fashion").save_pretrained(here / "path" / "to" / "pipeline")
    ends = open_runs(here / "runs.zarr")["sample"].values.mean((1, 2, 3))
    rows = "".join(f"{run_},{value}\n" for run_, value in enumerate(ends))
    (here / "scores.csv").write_text(f"run,score\n{rows}")
    (here / "photos").mkdir()
    for i in range(24):
        picture = np.random.default_rng(i).integers(0, 255, (32, 32), np.uint8)
        Image.fromarray(picture).save(here / "photos" / f"{i}.png")
    for name in ("before", "after"):
        shutil.copytree(here / "runs.zarr", here / f"{name}.zarr")
    (root / "own" / "mine.py").write_text(LOOP.format(steps=STEPS))
    prompted, tuned = root / "prompted", root / "tuned"
    stable_diffusion().save_pretrained(prompted / "my-model")
    (prompted / "prompts.txt").write_text("\n".join(PROMPTS))
    shutil.copytree(here / "photos", prompted / "photos")
    record("fashion", tuned / "runs.zarr", runs=FEW[0], steps=FEW[1], batch_size=FEW[0])
    line = f"calibrate {tuned}/runs.zarr --false-alarm-rate 0.1 --out {tuned}/thresholds.json"
    assert run(line.split()) == 0
    return root


def there(source: Path, line: str, target: Path) -> list[str]:
    """The words of a line, and what it speaks of in a folder of its own."""
    words = shlex.split(line)
    outs = {after for word, after in itertools.pairwise(words) if word == "--out"}
    beside = (".safetensors", *((".py", "") if "mine:" in line else ()))
    for path in source.iterdir():
        if path.name not in outs and (path.name in line or path.suffix in beside):
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, target / path.name)
    return words[1:]


@pytest.mark.parametrize("line", [*SAMPLES, *printed(own)])
def test_an_example_that_samples_runs_as_printed(
    line: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = there(made / source(line), line, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run(words) == 0
    if "--out" in words:
        assert Path(words[words.index("--out") + 1]).exists()


@pytest.mark.parametrize("line", printed(serves))
def test_an_example_that_serves_opens_its_page_and_stops(
    line: str, made: Path, tmp_path: Path
) -> None:
    with socket.socket() as asked:
        if not asked.connect_ex(("127.0.0.1", PORT)):
            pytest.skip(f"somebody else serves at port {PORT}, which the example takes")
    words = there(made / "fashion", line, tmp_path)
    command = [sys.executable, "-m", "asced_cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            assert any(f"http://127.0.0.1:{PORT}" in said for said in process.stdout)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()


@pytest.fixture
def hub(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub that holds what the examples pull."""
    with reached(monkeypatch, tmp_path / "cache/hub") as served:
        for name in ("thresholds.json", "runs.zarr"):
            assert run(["push", str(made / "fashion" / name), "owner/name"]) == 0
        store = made / "fashion" / "corrected.zarr"
        inside = [path for path in store.rglob("*") if path.is_file()]
        commits = served.repositories["dataset", "owner/name"]
        commits.insert(0, ("1f3c2a7", dict(commits[-1][1])))
        files = served.files("dataset", "owner/name")
        files |= {
            path.relative_to(made / "fashion").as_posix(): path.read_bytes() for path in inside
        }
        yield


@pytest.mark.parametrize("line", printed(asks))
def test_an_example_that_asks_a_server_runs_as_printed(
    line: str, hub: None, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    if line.startswith("asced push"):
        there(made / "fashion", line, here)
    monkeypatch.chdir(here)
    assert run(shlex.split(line)[1:]) == 0
