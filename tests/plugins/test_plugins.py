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
def used(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came out, with the distribution installed beside the project's own."""
    folder = tmp_path_factory.mktemp("plugins")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    install += ["--no-build-isolation", "--target", str(folder / "site"), str(HERE)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "whole_path.py"), str(tiny_folder), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_names_are_offered_and_explained(used: dict[str, Any]) -> None:
    assert "last_change" in used["variants"]
    assert "freeze" in used["strategies"]
    assert "last_change" in used["help"]
    assert "freeze" in used["help"]
    assert "last_change" in used["schema"]
    assert "edges" in used["features"]
    assert "edges" in used["help"]


def test_they_calibrate_replay_evaluate_report_and_correct(used: dict[str, Any]) -> None:
    assert used["thresholds"] == "last_change"
    assert used["replayed"][0] == "freeze"
    assert used["replayed"][1]["scale"] == 0.25
    assert used["evaluated"] == "freeze"
    assert used["judge"] == "edges"
    assert "edges" in used["reported"]
    assert "freeze" in used["reported"]
    assert "last_change" in used["reported"]
    assert used["corrected"] == 4
    assert used["viewer"] == "Session"


def test_without_the_distribution_the_name_is_refused() -> None:
    from asced_analysis.detection import VARIANTS
    from asced_stores.errors import InputError

    with pytest.raises(InputError, match="unknown detection variant 'last_change'; choose one of"):
        VARIANTS.get("last_change")
