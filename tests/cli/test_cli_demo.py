"""The demo walks the whole path on the embedded model and leaves what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from report_text import sentences, true_without_real_images
from tiny_pipelines import stable_diffusion

from asced_cli.demo_stages import refuse_too_few
from asced_cli.main import run
from asced_stores import open_runs
from asced_stores.errors import InputError


@pytest.mark.pages
def test_demo_walks_the_whole_path(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "demo"
    arguments = ["demo", "--out", str(out), "--runs", "100", "--steps", "6"]
    assert run([*arguments, "--batch-size", "50", "--false-alarm-rate", "0.2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["runs"] == 100
    assert set(result["files"]) == {path.name for path in out.iterdir() if path.suffix} - {
        path.name for path in out.glob("*.safetensors")
    }
    for path in result["files"].values():
        assert Path(path).exists()
    assert "Score dynamics of runs.zarr" in (out / "report.html").read_text()


@pytest.mark.pages
def test_on_a_model_of_ones_own_every_word_is_true_of_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Latents and prompts; too few runs to learn how they end, which is said."""
    torch.manual_seed(0)
    stable_diffusion().save_pretrained(tmp_path / "my-model")
    out = tmp_path / "out"
    arguments = ["demo", "--pipeline", str(tmp_path / "my-model"), "--out", str(out)]
    arguments += ["--runs", "48", "--steps", "6", "--batch-size", "24"]
    assert run([*arguments, "--false-alarm-rate", "0.2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert all(Path(path).exists() for path in result["files"].values())
    ds = open_runs(out / "runs.zarr")
    assert len(set(ds["prompt"].values)) == 48, "a prompt a run"
    text = sentences(out / "report.html")
    assert "48 images were sampled from my-model in 6 steps with DDIMScheduler" in text
    assert "fashion" not in text.lower()
    assert len(result["corrections"]) == 1, (
        "ttc is the thresholds' own, and not compared with itself"
    )
    assert result["flagged"] > 0
    true_without_real_images(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "50", "--false-alarm-rate", "0.01"], "--runs 248"),
        (["--runs", "200", "--prompts", "p.txt"], "leave --prompts out"),
        (["--runs", "200", "--steps", "3"], "--steps 4 or more"),
        (["--runs", "200", "--real", str(Path(__file__).parent)], "no image in"),
    ],
)
def test_what_can_not_work_is_said_before_anything_is_sampled(
    arguments: list[str], message: str, tiny_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    command = ["demo", "--pipeline", str(tiny_folder), "--out", str(tmp_path / "out"), *arguments]
    assert run(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_too_few_prompts_are_refused_before_anything_is_sampled() -> None:
    with pytest.raises(InputError, match=r"3 different prompts .* give 48 or more"):
        refuse_too_few(200, 0.05, 3)
    refuse_too_few(200, 0.05, 48)
    refuse_too_few(60, 0.2, 10)


def test_demo_keeps_what_is_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert run(["demo", "--out", str(tmp_path), "--runs", "4"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
