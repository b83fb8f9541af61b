"""docs/own-pipeline.md followed on three pipelines that are not `fashion`.

An unconditional colour model, latents with prompts and guidance, and a loop of one's own,
with real images and without; every sentence of each report has to be true of that model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from report_text import (
    said_of,
    sentences,
    true_with_real_images,
    true_without_real_images,
)

import asced_analysis as aa
from asced_analysis.evaluation import Evaluation, evaluate
from asced_cli.main import run
from asced_recorders import Recorder
from asced_stores.named_functions import named_function

pytestmark = pytest.mark.pages

RUNS, STEPS, RATE = 104, 6, "0.2"


@dataclass(frozen=True)
class OwnProject:
    """What a user has after recording: a folder, commands that sample, a few real images."""

    folder: Path
    runs: Path
    pipeline: list[str]
    real: Path


def real_images(folder: Path, colour: bool) -> Path:
    """Photographs of sorts, larger than the runs and of other shapes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        size = (int(rng.integers(20, 50)), int(rng.integers(20, 50)))
        small = rng.integers(0, 255, (5, 5, 3), np.uint8)
        picture = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
        (picture if colour else picture.convert("L")).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def unconditional(make_tiny: Callable[..., Any], tmp_path_factory: Any) -> OwnProject:
    folder = tmp_path_factory.mktemp("colour")
    make_tiny("DDIM", 3, timestep_spacing="trailing").save_pretrained(folder / "my-model")
    command = ["record", "--pipeline", str(folder / "my-model"), "--runs", str(RUNS)]
    command += ["--steps", str(STEPS), "--batch-size", "52", "--out", str(folder / "runs.zarr")]
    assert run(command) == 0
    pipeline = ["--pipeline", str(folder / "my-model")]
    return OwnProject(folder, folder / "runs.zarr", pipeline, real_images(folder / "photos", True))


@pytest.fixture(scope="module")
def latent(tmp_path_factory: Any) -> OwnProject:
    from tiny_pipelines import stable_diffusion

    folder = tmp_path_factory.mktemp("latent")
    torch.manual_seed(0)
    stable_diffusion().save_pretrained(folder / "my-model")
    letters = "abcdefghijklmnopqrstuvwxyz"
    prompts = [f"{letters[i % 26]} {letters[i // 26]}" for i in range(RUNS)]
    (folder / "prompts.txt").write_text("\n".join(prompts) + "\n")
    command = ["record", "--pipeline", str(folder / "my-model"), "--steps", str(STEPS)]
    command += ["--prompts", str(folder / "prompts.txt"), "--batch-size", "52"]
    assert run([*command, "--out", str(folder / "runs.zarr")]) == 0
    pipeline = ["--pipeline", str(folder / "my-model")]
    return OwnProject(folder, folder / "runs.zarr", pipeline, real_images(folder / "photos", True))


def learnt_and_corrected(
    project: OwnProject, capsys: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    """Thresholds that the model itself taught, and the replay; made once for a project."""
    here, runs = project.folder, str(project.runs)
    learnt, out = here / "learnt.json", here / "corrected.zarr"
    if not learnt.exists():
        command = ["calibrate", runs, "--method", "outcome", "--false-alarm-rate", RATE]
        assert run([*command, *project.pipeline, "--out", str(learnt)]) == 0
        said = capsys.readouterr().out
        assert "self-consistency: the model itself" in said
        assert "content explains" in said
        taught = aa.Thresholds.load(learnt).teacher
        assert taught is not None
        assert taught["reference"]["kind"] == "model"
        command = ["replay", runs, "--thresholds", str(learnt), *project.pipeline]
        assert run([*command, "--out", str(out)]) == 0
    return str(learnt), str(out)


@pytest.fixture(params=["unconditional", "latent"])
def project(request: pytest.FixtureRequest) -> OwnProject:
    found: OwnProject = request.getfixturevalue(request.param)
    return found


def test_from_a_folder_to_a_judgement(
    project: OwnProject, capsys: pytest.CaptureFixture[str]
) -> None:
    learnt, out = learnt_and_corrected(project, capsys)
    judged = str(project.folder / "evaluation.json")
    command = [
        "evaluate",
        str(project.runs),
        out,
        *project.pipeline,
        "--no-controls",
        "--out",
        judged,
    ]
    assert run(command) == 0
    said = capsys.readouterr().out
    assert "the judge's half of the recorded runs" in said
    true_without_real_images(said)
    true_without_real_images(said_of(Evaluation.load(judged)))
    if "prompt" in aa.open_runs(project.runs).coords:
        return  # pages differ in their figures alone, and drawing is slow
    report = project.folder / "report.html"
    command = ["report", str(project.runs), "--thresholds", learnt, "--replay", out]
    assert run([*command, "--evaluation", judged, "--out", str(report)]) == 0
    text = sentences(report)
    true_without_real_images(text)
    assert "self-consistency" in text, "who taught"
    assert "the same correction elsewhere" not in text, "no control was sampled"
    found = Evaluation.load(judged).data["flagged_runs"]["effect"]["all"]
    assert f"{found['value']:.3g}" in text


def test_with_real_images(project: OwnProject, capsys: pytest.CaptureFixture[str]) -> None:
    _learnt, out = learnt_and_corrected(project, capsys)
    runs, real = str(project.runs), ["--real", str(project.real)]
    command = ["calibrate", runs, "--method", "outcome", "--false-alarm-rate", RATE, *real]
    assert run([*command, "--out", str(project.folder / "taught.json")]) == 0
    assert "the teacher's half of the real images in photos, 12 images" in capsys.readouterr().out
    judged = str(project.folder / "by-real.json")
    command = ["evaluate", runs, out, *real, "--no-controls", "--out", judged]
    assert run(command) == 0
    said = capsys.readouterr().out
    assert "the judge's half of the real images in photos, 12 images" in said
    assert "local distance to real images" in said
    assert "Frechet distance" in said
    true_with_real_images(said_of(Evaluation.load(judged)))
    if "prompt" not in aa.open_runs(project.runs).coords:
        return
    report = project.folder / "by-real.html"
    command = ["report", runs, "--replay", out, "--evaluation", judged, "--out", str(report)]
    assert run(command) == 0
    true_with_real_images(sentences(report))


def loop(recorder: Any, seed: int, count: int, pull: float = 1.0) -> None:
    """Another library's loop: blobs by a velocity, in its own words."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((count, 1, 16, 16), generator=generator)
    for step in range(STEPS):
        now, then = 1 - step / STEPS, 1 - (step + 1) / STEPS
        x0 = network(x, 1 - now, now) * pull
        eps = (x - (1 - now) * x0) / now
        recorder.step(
            sample=x, model_output=eps, alpha=1 - now, sigma=now, prediction_type="epsilon"
        )
        x = (1 - then) * x0 + then * eps
    recorder.end(x)


def network(sample: Any, alpha: float, sigma: float) -> Any:
    """Predicted x0: smooth, and bounded."""
    wide = torch.nn.functional.pad(sample, (2, 2, 2, 2), mode="replicate")
    return torch.tanh(3 * torch.nn.functional.avg_pool2d(wide, 5, 1) / (alpha + sigma))


def test_a_loop_of_ones_own(tmp_path: Path) -> None:
    stores = []
    for name, seed, pull in (("runs", 1, 1.0), ("corrected", 1, 0.9), ("fresh", 77, 1.0)):
        stores.append(tmp_path / f"{name}.zarr")
        with Recorder.custom(stores[-1], (1, 16, 16), STEPS) as recorder:
            loop(recorder, seed, RUNS, pull)
    learnt = aa.calibrate(
        stores[0], method="outcome", false_alarm_rate=0.2, network=network, outcome={"epochs": 3}
    )
    assert learnt.teacher is not None
    assert learnt.teacher["name"] == "self-consistency"
    paired = evaluate(stores[0], stores[1])
    assert paired.data["paired"]
    fresh = evaluate(stores[0], stores[2])
    fresh.save(tmp_path / "fresh.json")
    page = str(tmp_path / "report.md")
    command = ["report", str(stores[0]), "--evaluation", str(tmp_path / "fresh.json")]
    assert run([*command, "--out", page]) == 0
    said = Path(page).read_text()
    assert f"{RUNS} images were sampled in {STEPS} steps of a custom loop" in said
    assert f"{RUNS} runs of a second store" in said
    assert "Correcting them" not in said
    assert "No control was sampled" not in said
    true_without_real_images(sentences(Path(page)))
    assert not fresh.data["paired"]
    beyond = fresh.data["flagged_runs"]["endings"]["worst_quarter"]["after"]
    assert beyond["low"] <= 0.25 <= beyond["high"]
    for result in (paired, fresh):
        true_without_real_images(said_of(result))
    real = np.clip(np.random.default_rng(0).standard_normal((20, 16, 16)) / 3, -1, 1)
    judged = evaluate(stores[0], stores[1], real=real)
    assert judged.data["judge"]["reference"]["source"].endswith("the real images in an array")
    assert "recall" in judged.data["quality"]
    for result in (judged, evaluate(stores[0], stores[2], real=real)):
        true_with_real_images(said_of(result))


MINE = """
import torch

def network(sample, alpha, sigma):
    wide = torch.nn.functional.pad(sample, (2, 2, 2, 2), mode="replicate")
    return torch.tanh(3 * torch.nn.functional.avg_pool2d(wide, 5, 1) / (alpha + sigma))

def sample(x, step):
    for k in range(6):
        now, then = 1 - k / 6, 1 - (k + 1) / 6
        x0 = network(x, 1 - now, now)
        eps = (x - (1 - now) * x0) / now
        x = step(
            sample=x, model_output=eps, alpha=1 - now, sigma=now, prediction_type="epsilon",
            next_sample=(1 - then) * x0 + then * eps, next_alpha=1 - then, next_sigma=then,
        )
    return x
"""


def test_a_replay_of_ones_own_loop_is_judged_by_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With controls, which sample the loop again, and without it, which is said."""
    (tmp_path / "mine.py").write_text(MINE)
    sample = named_function(f"{tmp_path}/mine.py:sample")
    runs, out = tmp_path / "runs.zarr", tmp_path / "corrected.zarr"
    with Recorder.custom(runs, (1, 16, 16), STEPS, batch_size=20) as recorder:
        start = torch.randn((20, 1, 16, 16), generator=torch.Generator().manual_seed(5))
        recorder.end(sample(start, recorder.step))
    limits = str(tmp_path / "t.json")
    command = ["calibrate", str(runs), "--false-alarm-rate", "0.3"]
    assert run([*command, "--out", limits]) == 0
    own = ["--loop", f"{tmp_path}/mine.py:sample"]
    assert run(["replay", str(runs), "--thresholds", limits, *own, "--out", str(out)]) == 0
    assert "uncorrected runs came back bit for bit" in capsys.readouterr().out
    judged = str(tmp_path / "evaluation.json")
    assert run(["evaluate", str(runs), str(out), *own, "--out", judged]) == 0
    found = Evaluation.load(judged)
    assert set(found.controls) == {"shuffled", "foreground", "everywhere"}
    assert found.flagged > 0
    true_without_real_images(said_of(found))
    rng = np.random.default_rng(0)
    np.save(tmp_path / "real.npy", rng.integers(0, 255, (20, 24, 20), np.uint8))
    command = ["evaluate", str(runs), str(out), "--real", str(tmp_path / "real.npy")]
    assert run([*command, "--overwrite", "--out", judged]) == 0
    assert "no controls: the recording names no pipeline" in capsys.readouterr().out
    true_with_real_images(said_of(Evaluation.load(judged)))
