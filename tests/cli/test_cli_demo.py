"""The demo walks the whole path on the embedded model and leaves what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asced_cli.main import run


def test_demo_walks_the_whole_path(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "demo"
    arguments = ["demo", "--out", str(out), "--runs", "112", "--steps", "10"]
    assert run([*arguments, "--batch-size", "28", "--false-alarm-rate", "0.2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["runs"] == 112
    assert set(result["files"]) == {path.name for path in out.iterdir() if path.suffix} - {
        path.name for path in out.glob("*.safetensors")
    }
    for path in result["files"].values():
        assert Path(path).exists()
    assert "Score dynamics of runs.zarr" in (out / "report.html").read_text()


def test_demo_keeps_what_is_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert run(["demo", "--out", str(tmp_path), "--runs", "4"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
