"""A variant, a strategy and features of another distribution go the whole way, untouched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def walked(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came out, with the distribution installed beside the project's own."""
    folder = tmp_path_factory.mktemp("plugins")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    install += ["--no-build-isolation", "--target", str(folder / "site"), str(HERE)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}
    walk = [sys.executable, str(HERE / "walk.py"), str(tiny_folder), str(folder)]
    done = subprocess.run(walk, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_names_are_offered_and_explained(walked: dict[str, Any]) -> None:
    assert "last_change" in walked["variants"]
    assert "freeze" in walked["strategies"]
    assert "last_change" in walked["help"]
    assert "freeze" in walked["help"]
    assert "last_change" in walked["schema"]
    assert "edges" in walked["features"]
    assert "edges" in walked["help"]


def test_they_calibrate_replay_evaluate_report_and_correct(walked: dict[str, Any]) -> None:
    assert walked["thresholds"] == "last_change"
    assert walked["replayed"][0] == "freeze"
    assert walked["replayed"][1]["scale"] == 0.25
    assert walked["evaluated"] == "freeze"
    assert walked["judge"] == "edges"
    assert "edges" in walked["reported"]
    assert "freeze" in walked["reported"]
    assert "last_change" in walked["reported"]
    assert walked["corrected"] == 4
    assert walked["viewer"] == "Session"


def test_without_the_distribution_the_name_is_refused() -> None:
    from asced_analysis.detection import VARIANTS
    from asced_stores.errors import InputError

    with pytest.raises(InputError, match="unknown detection variant 'last_change'; choose one of"):
        VARIANTS.get("last_change")
