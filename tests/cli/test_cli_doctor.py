"""``asced doctor``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import diffusers
import pytest
import torch
from tiny_pipelines import stable_diffusion

from asced_cli.main import run


def test_a_pipeline_that_can_be_recorded(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", "--pipeline", str(tiny_folder), "--folder", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    found = {check["name"]: check for check in result["checks"]}
    assert result["problems"] == 0
    assert "DDIMScheduler, v_prediction" in found["scheduler"]["found"]
    assert found["trial"]["state"] == "ok"
    assert "/s (fsync included), reads " in found["disk speed"]["found"]
    assert not list(tmp_path.iterdir()), "the trial file is gone"
    assert "takes nothing" in found["pipeline"]["found"]
    assert "caches: none; compiled: none" in found["computing"]["found"]
    assert re.search(
        r"of 25 steps: [\d.]+ MB of disk .* of sampling with --batch-size 16 \(",
        found["500 runs"]["found"],
    )
    assert "ttc, renoise" in found["in the loop"]["found"]
    assert "best_of" in found["in replay only"]["found"]
    assert "any checkpoint" in found["replay"]["found"]
    assert "look at steps 5 to 11 of 25" in found["detection"]["found"]
    assert {"torch", "diffusers", "zarr", "device", "disk", "processes", "pipeline"} <= set(found)


def test_latents_with_prompts_few_steps_and_a_solver_that_remembers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    pipe = stable_diffusion()
    pipe.scheduler = diffusers.PNDMScheduler.from_config(pipe.scheduler.config)
    pipe.save_pretrained(tmp_path / "sd")
    assert run(["doctor", str(tmp_path / "sd"), "--steps", "4", "--folder", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "StableDiffusionPipeline, takes prompts; its own loop; latents that are decoded" in said
    assert "500 runs" in said
    assert "from the beginning: the sampler draws noise or remembers" in said
    assert "? detection" in said
    assert "steps 0 to 1 of 4, which is little" in said


def test_a_pipeline_that_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--pipeline", "nope"]) == 1
    assert "unknown pipeline" in capsys.readouterr().out
