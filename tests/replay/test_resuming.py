"""A replay that was interrupted goes on, and nothing whole is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_analysis.replay import Branch, branch, exactness, replay
from asced_cli.main import run
from asced_recorders import record
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError

MASK = np.zeros((16, 16), bool)
MASK[4:9, 5:10] = True
MASKS = dict.fromkeys((1, 3, 9, 12, 18), MASK)


class InterruptedHereError(Exception):
    pass


def after(batches: int) -> Any:
    """Break off once so many batches are done."""

    def tell(done: int, total: int) -> None:
        if done == batches:
            raise InterruptedHereError

    return tell


def markers(store: Path) -> dict[str, int]:
    return {one.name: one.stat().st_mtime_ns for one in (store / "commits").glob("[0-9]*.json")}


@pytest.mark.parametrize("only_flagged", [False, True])
def test_it_ends_as_if_nothing_had_happened(
    only_flagged: bool, tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("asced_analysis.replay.replaying.REGROUPED", 2)
    options: dict[str, Any] = {
        "masks": MASKS,
        "step": 6,
        "pipeline": tiny_pipeline,
        "only_flagged": only_flagged,
    }
    whole = replay(tiny_runs, tmp_path / "whole.zarr", **options)
    out = tmp_path / "part.zarr"
    with pytest.raises(InterruptedHereError):
        replay(tiny_runs, out, progress=after(2), **options)
    kept = markers(out)
    assert sorted(kept) == ["0.json", "1.json"]
    told: list[tuple[int, int]] = []
    replayed = replay(
        tiny_runs, out, resume=True, progress=lambda *where: told.append(where), **options
    )
    assert told == [(3, 3)]
    assert kept.items() <= markers(out).items()
    assert replayed.verify().ok
    ours, theirs = open_runs(replayed.path), open_runs(whole.path)
    for name in ("sample", "image", "mask", "flagged", "changed", "difference", "evaluations"):
        assert (ours[name].values == theirs[name].values).all()


def test_branches_go_on(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("asced_analysis.replay.branching.AT_ONCE", 2)
    branches = [Branch(step=4), Branch(step=6, strategy="renoise")]
    options: dict[str, Any] = {"masks": MASKS, "pipeline": tiny_pipeline}
    whole = open_runs(branch(tiny_runs, tmp_path / "whole.zarr", branches, **options).path)
    out = tmp_path / "part.zarr"
    with pytest.raises(InterruptedHereError):
        branch(tiny_runs, out, branches, progress=after(1), **options)
    kept = markers(out)
    assert sorted(kept) == ["0.json"]
    found = open_runs(branch(tiny_runs, out, branches, resume=True, **options).path)
    assert kept.items() <= markers(out).items()
    assert (found["branch_sample"].values == whole["branch_sample"].values).all()
    with pytest.raises(InputError, match="branches"):
        branch(tiny_runs, out, branches[::-1], resume=True, **options)


def test_another_replay_is_refused(tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    options: dict[str, Any] = {"masks": MASKS, "step": 6, "pipeline": tiny_pipeline, "grow": 1}
    replay(tiny_runs, out, **options)
    for change, message in (
        ({"step": 5}, "correction step 6, now 5"),
        ({"masks": {1: MASK}}, "plan sha256"),
        ({"seed": 4}, "correction seed 0, now 4"),
        ({"strategy": "renoise"}, "strategy ttc, now renoise"),
        ({"noise_scale": 0.1}, "strategy parameters"),
        ({"grow": 2}, "grow 1, now 2"),
    ):
        with pytest.raises(InputError, match=message):
            replay(tiny_runs, out, resume=True, **(options | change))
    with pytest.raises(InputError, match="exclude each other"):
        replay(tiny_runs, out, resume=True, overwrite=True, **options)
    other = record(
        tiny_pipeline,
        tmp_path / "r.zarr",
        runs=20,
        steps=10,
        batch_size=8,
        seed=8,
        checkpoints=(3, 6),
    )
    plain = tmp_path / "plain.zarr"
    replay(tiny_runs, plain, strategy="none", pipeline=tiny_pipeline)
    with pytest.raises(InputError, match="run 0 of seed 7"):
        replay(other, plain, strategy="none", resume=True, pipeline=tiny_pipeline)
    assert replay(tiny_runs, out, resume=True, **options).committed_batches() == [0, 1, 2]


@pytest.mark.slow
def test_killed_it_goes_on_from_the_command_line(
    tiny_folder: Path, tiny_pipeline: Any, tmp_path: Path, capsys: Any
) -> None:
    runs, out = tmp_path / "runs.zarr", tmp_path / "again.zarr"
    record(tiny_pipeline, runs, runs=240, steps=25, batch_size=4, seed=3)
    command = ["replay", str(runs), "--strategy", "none", "--pipeline", str(tiny_folder)]
    command += ["--out", str(out), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-W", "error::UserWarning:asced", "-m", "asced_cli", *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while not (out / "commits" / "1.json").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = markers(out)
    assert 2 <= len(kept) < 60
    assert run(command) == 2  # neither --resume nor --overwrite
    assert "exists" in capsys.readouterr().err
    assert run([*command, "--resume"]) == 0
    assert kept.items() <= markers(out).items()
    replayed = TrajectoryStore.open(out)
    assert len(replayed.committed_batches()) == 60
    assert replayed.verify().ok
    assert exactness(replayed).bit_exact
