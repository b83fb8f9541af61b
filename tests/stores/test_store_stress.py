"""Stress: what a store must survive. Run by ``make stress``; counts stand in the last line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_stores import TrajectoryStore, open_runs

pytestmark = [pytest.mark.stress, pytest.mark.timeout(1800)]


def trial(kind: str, count: int, folder: Path, *prefix: str) -> dict[str, Any]:
    command = [*prefix, sys.executable, "-m", "asced_stores.testing.crashes", kind]
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


def test_killed_recordings_are_resumed(tmp_path: Path, stress_counts: dict[str, Any]) -> None:
    pytest.importorskip("diffusers")
    command = [sys.executable, "-m", "asced_cli", "record", "--pipeline", "fashion", "--runs", "12"]
    command += ["--steps", "3", "--batch-size", "2", "--seed", "7"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    rng = np.random.default_rng(0)
    whole = tmp_path / "whole.zarr"
    start = time.perf_counter()
    subprocess.run([*command, "--out", str(whole)], check=True, env=environment)
    length = time.perf_counter() - start
    expected = open_runs(whole).load()
    kills = 0
    for number in range(10):
        path = tmp_path / f"killed-{number}.zarr"
        with subprocess.Popen([*command, "--out", str(path)], env=environment) as process:
            deadline = time.monotonic() + 120
            wanted = int(rng.integers(0, 5))
            while process.poll() is None and time.monotonic() < deadline:
                commits = path / "commits"
                if commits.exists() and len(list(commits.glob("[0-9]*.json"))) >= wanted:
                    break
                time.sleep(0.005)
            time.sleep(float(rng.uniform(0, length / 20)))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
        resume = [*command, "--out", str(path), "--resume"]
        if not (path / "zarr.json").exists():
            resume.remove("--resume")
        subprocess.run(resume, check=True, env=environment)
        store = TrajectoryStore.open(path)
        report = store.verify()
        assert report.ok
        assert not report.leftovers
        found = open_runs(store).load()
        for name in ("eps", "x0", "x_init", "sample"):
            np.testing.assert_array_equal(found[name].values, expected[name].values)
        shutil.rmtree(path)
    stress_counts["killed recordings"] = {"trials": 10, "kills": kills}
