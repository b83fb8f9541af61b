"""``asced doctor``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
    assert {"torch", "diffusers", "zarr", "device", "disk", "processes", "pipeline"} <= set(found)


def test_a_pipeline_that_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--pipeline", "nope"]) == 1
    assert "unknown pipeline" in capsys.readouterr().out
