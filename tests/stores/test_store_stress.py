"""Stress: what a store must survive. Run by ``make stress``; counts stand in the last line."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_cli.main import run
from asced_stores import TrajectoryStore, open_runs

TRIALS = Path(__file__).parents[1] / "support" / "crash_trials.py"
RECORD = ["record", "--pipeline", "fashion", "--runs", "12", "--steps", "3", "--batch-size", "2"]
PRELOADED = ["torch", "diffusers.models.unets.unet_2d", "diffusers.pipelines.ddim.pipeline_ddim"]
PRELOADED += [
    "asced_cli.commands.record",
    "asced_recorders.recording.recording_loop",
    "zarr",
    "xarray",
]

pytestmark = [pytest.mark.stress, pytest.mark.timeout(1800)]


def trial(kind: str, count: int, folder: Path, *prefix: str) -> dict[str, Any]:
    command = [*prefix, sys.executable, str(TRIALS), kind]
    command += ["--count", str(count), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_killed_writers_lose_nothing(tmp_path: Path, stress_counts: dict[str, Any]) -> None:
    found = trial("kills", 200, tmp_path)
    assert found["kills"] == 200
    stress_counts["kills"] = found


def test_full_disks_lose_nothing(tmp_path: Path, stress_counts: dict[str, Any]) -> None:
    namespace = ("unshare", "--map-root-user", "--mount")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*namespace, "true"], check=False).returncode
    ):
        pytest.skip("a mount namespace is needed for a small tmpfs")
    found = trial("full-disks", 20, tmp_path, *namespace)
    assert found["full disks"] == 20
    stress_counts["full disks"] = found


def test_flipped_bits_are_all_found(tmp_path: Path, stress_counts: dict[str, Any]) -> None:
    found = trial("bit-flips", 500, tmp_path)
    assert found["found"] == found["flips"] == 500
    stress_counts["bit flips"] = found


def test_crowds_lose_and_double_nothing(tmp_path: Path, stress_counts: dict[str, Any]) -> None:
    found = trial("crowds", 10, tmp_path)
    assert found["crowds"] == 10
    stress_counts["crowds"] = found


def test_killed_recordings_are_resumed(
    tmp_path: Path, stress_counts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("diffusers")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")  # torch is imported once, not 21 times
    context.set_forkserver_preload(PRELOADED)

    def begin(out: Path, *more: str) -> Any:
        process = context.Process(target=run, args=([*RECORD, "--out", str(out), *more],))
        process.start()
        return process

    def finish(out: Path, *more: str) -> float:
        start = time.perf_counter()
        process = begin(out, *more)
        process.join(600)
        assert process.exitcode == 0
        return time.perf_counter() - start

    rng = np.random.default_rng(0)
    whole = tmp_path / "whole.zarr"
    finish(whole)
    expected = open_runs(whole).load()
    length = finish(tmp_path / "again.zarr")
    kills = during = trials = 0
    while kills < 10:
        trials += 1
        assert trials < 40
        path = tmp_path / f"killed-{trials}.zarr"
        process = begin(path)
        deadline, wanted = time.monotonic() + 120, int(rng.integers(0, 6))
        commits = path / "commits"
        while process.is_alive() and time.monotonic() < deadline:
            if commits.exists() and len(list(commits.glob("[0-9]*.json"))) >= wanted:
                break
            time.sleep(0.001)
        time.sleep(float(rng.uniform(0, length / 10)))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        laid_out = (path / "zarr.json").exists()
        during += laid_out and 0 < len(list(commits.glob("[0-9]*.json"))) < 6
        finish(path, *(["--resume"] if laid_out else []))
        store = TrajectoryStore.open(path)
        report = store.verify()
        assert report.ok
        assert not report.leftovers
        assert not report.missing
        found = open_runs(store).load()
        for name in ("eps", "x0", "x_init", "sample"):
            np.testing.assert_array_equal(found[name].values, expected[name].values)
        shutil.rmtree(path)
    stress_counts["killed recordings"] = {"kills": kills, "between two batches": during}
