"""Bad input to the whole path: one clear error, the right status, nothing left half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from asced_analysis import calibrate
from asced_cli.main import run
from asced_stores import open_runs
from asced_stores.errors import InputError, StoreError
from asced_stores.testing import synthetic_store


def fails(capsys: pytest.CaptureFixture[str], status: int, *arguments: object) -> str:
    """Run a command that must fail so, and return its error."""
    assert run([str(argument) for argument in arguments]) == status
    error = capsys.readouterr().err
    assert error.strip()
    assert "Traceback" not in error
    return error


def record_arguments(pipeline: object, out: Path, **more: object) -> list[object]:
    options: dict[str, object] = {"runs": 4, "steps": 5, "batch-size": 2, **more}
    named = [part for name, value in options.items() for part in (f"--{name}", value)]
    return ["record", "--pipeline", pipeline, "--out", out, *named]


def test_unknown_pipeline(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "runs.zarr"
    error = fails(capsys, 2, *record_arguments(tmp_path / "nothing", out))
    assert "nothing" in error
    assert not out.exists()


def test_existing_store_is_kept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_folder: Path
) -> None:
    out = tmp_path / "runs.zarr"
    synthetic_store(out, runs=8)
    before = open_runs(out)["sample"].values
    error = fails(capsys, 2, *record_arguments(tiny_folder, out))
    assert "--resume" in error or "--overwrite" in error
    assert (open_runs(out)["sample"].values == before).all()


@pytest.mark.parametrize(
    "more",
    [
        {"runs": 0},
        {"checkpoints": "0,1,2,3,4,5,6"},
        {"steps": 0},
        {"guidance-scale": "nan"},
    ],
)
def test_impossible_recordings(
    more: dict[str, object], capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_folder: Path
) -> None:
    out = tmp_path / "runs.zarr"
    fails(capsys, 2, *record_arguments(tiny_folder, out, **more))
    assert not out.exists()


def test_damaged_chunk_is_found_and_never_data(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "runs.zarr"
    synthetic_store(out, runs=16)
    shard = max(
        (path for path in out.rglob("c/*/**/*") if path.is_file()), key=lambda p: p.stat().st_size
    )
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 16
    shard.chmod(0o644)
    shard.write_bytes(content)
    assert run(["verify", str(out)]) == 1
    said = capsys.readouterr()
    assert "checksum" in said.out + said.err
    with pytest.raises((StoreError, OSError, ValueError)):
        open_runs(out)["eps"].compute()
    assert run(["stats", str(out), "--out", str(tmp_path / "s.zarr")]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "s.zarr").exists()


def test_thresholds_of_another_model(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_runs: Path, tiny_folder: Path
) -> None:
    other = tmp_path / "other.zarr"
    synthetic_store(other, runs=96)
    thresholds = tmp_path / "thresholds.json"
    assert (
        run(["calibrate", str(other), "--false-alarm-rate", "0.2", "--out", str(thresholds)]) == 0
    )
    capsys.readouterr()
    corrected = tmp_path / "corrected.zarr"
    error = fails(
        capsys,
        2,
        *("replay", tiny_runs, "--thresholds", thresholds, "--out", corrected),
        *("--pipeline", tiny_folder),
    )
    assert "model" in error
    assert not corrected.exists()


def test_too_few_runs_for_the_promise(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_runs: Path
) -> None:
    out = tmp_path / "thresholds.json"
    error = fails(capsys, 2, "calibrate", tiny_runs, "--false-alarm-rate", "0.01", "--out", out)
    assert "99" in error, "the number of runs needed is named"
    assert not out.exists()


def test_too_few_prompts_for_the_promise(tmp_path: Path) -> None:
    """Sixty runs of three prompts are three: the error says so."""
    ds = open_runs(synthetic_store(tmp_path / "runs.zarr", runs=60).path)
    ds = ds.assign_coords(prompt=("run", ["a coat", "a boot", "a bag"] * 20))
    with pytest.raises(
        InputError, match=r"19 prompts to calibrate on .* it has 1: record .* repeat"
    ):
        calibrate(ds, false_alarm_rate=0.05)


def test_torn_thresholds_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_runs: Path
) -> None:
    torn = tmp_path / "thresholds.json"
    torn.write_text('{"format": "asced-thresholds", "format_ver')
    error = fails(
        capsys, 2, "replay", tiny_runs, "--thresholds", torn, "--out", tmp_path / "c.zarr"
    )
    assert "thresholds.json" in error
    assert not (tmp_path / "c.zarr").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--grow", -1], "grow is -1"),
        (["--soft", -1], "soft is -1"),
        (["--seed", -5], "seed is -5"),
        (["--noise-scale", "nan"], "noise_scale is a size of at least 0, not nan"),
        (["--step", -1], "step is -1"),
        (["--set", "grow=nan"], "this is --grow"),
        (["--set", "renoise_steps=[13]"], "this is --renoise-step\n"),
        (["--set", "store=other.zarr"], "this is STORE\n"),
        (["--set", "progress=3"], "this is what the command shows by itself"),
    ],
)
def test_corrections_that_make_no_sense(
    more: list[object],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tiny_runs: Path,
    tiny_folder: Path,
) -> None:
    masks = tmp_path / "masks.npz"
    np.savez(masks, run=np.array([0]), mask=np.ones((1, 16, 16), bool))
    given = ["replay", tiny_runs, "--pipeline", tiny_folder, "--masks", masks, "--step", 5]
    assert said in fails(capsys, 2, *given, "--out", tmp_path / "c.zarr", *more)
    assert not (tmp_path / "c.zarr").exists()


def test_a_store_is_no_thresholds_file(capsys: pytest.CaptureFixture[str], tiny_runs: Path) -> None:
    error = fails(capsys, 2, "detect", tiny_runs, "--thresholds", tiny_runs)
    assert "is a folder; expected a thresholds file" in error


def test_a_folder_that_is_no_store(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copy(__file__, tmp_path / "photos" / "picture.txt")
    for command in ("info", "verify", "seal"):
        assert "photos" in fails(capsys, 2, command, tmp_path / "photos")
