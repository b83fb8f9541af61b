"""Few steps of each run are kept where that is asked for, and large runs never lie in memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from asced_analysis.compute import stepped
from asced_analysis.replay import replay
from asced_analysis.statistics.by_step import step_statistics
from asced_analysis.statistics.observing import StatisticsObserver, observed_features
from asced_cli.main import run
from asced_recorders import Recorder, record
from asced_recorders.recording import recording_loop
from asced_recorders.writing import capture
from asced_recorders.writing.observers import Observation
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError
from asced_stores.format.steps_on_disk import StepsOnDisk

ALPHA = np.linspace(0.1, 0.99, 10)
SIGMA = np.sqrt(1 - ALPHA**2)


def record_loop(path: Path, runs: int = 3, *, broken: bool = False, **options: object) -> None:
    """Ten steps of a loop of one's own."""
    generator = torch.Generator().manual_seed(0)
    with Recorder.custom(path, (2, 4, 4), 10, batch_size=4, **options) as recorder:
        x = torch.randn(runs, 2, 4, 4, generator=generator)
        for step in range(10):
            eps = torch.randn(runs, 2, 4, 4, generator=generator)
            if broken and step == 6:
                eps[1] = float("inf")
            recorder.step(
                sample=x,
                model_output=eps,
                alpha=ALPHA[step],
                sigma=SIGMA[step],
                prediction_type="epsilon",
            )
        recorder.end(x)


def test_some_steps_are_kept_and_analyses_say_which(tmp_path, capsys):
    record_loop(tmp_path / "all.zarr")
    record_loop(tmp_path / "few.zarr", every=2, window=(3, 8))
    whole, few = open_runs(tmp_path / "all.zarr"), open_runs(tmp_path / "few.zarr")
    assert few["step"].values.tolist() == [3, 5, 7]
    assert few["step"].attrs["recorded"] == 10
    for name in ("eps", "x0", "alpha", "log_snr"):
        np.testing.assert_array_equal(few[name], whole[name].sel(step=[3, 5, 7]))
    np.testing.assert_array_equal(few["sample"], whole["sample"])
    assert step_statistics(few)["step"].values.tolist() == [5, 7]
    TrajectoryStore.open(tmp_path / "few.zarr").seal()
    assert run(["info", str(tmp_path / "few.zarr")]) == 0
    assert "3 (3 to 7, every 2) of 10" in capsys.readouterr().out
    with pytest.raises(InputError, match="keeps 3 of 10 steps, and a replay needs every one"):
        replay(tmp_path / "few.zarr", tmp_path / "again.zarr")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every is 0"),
        ({"window": (4, 12)}, "ends at step 12 of 10"),
        ({"window": (5, 2)}, "the window is 5 to 2"),
        ({"every": 2, "checkpoints": (4,)}, "leave out either"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_sampling(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        record_loop(tmp_path / "runs.zarr", **options)
    assert not (tmp_path / "runs.zarr").exists()


def test_a_pipeline_keeps_a_window_from_the_command_line(tmp_path, capsys):
    arguments = ["--pipeline", "fashion", "--runs", "2", "--steps", "5", "--batch-size", "2"]
    out = ["--out", str(tmp_path / "runs.zarr"), "--json"]
    assert run(["record", *arguments, "--window", "1:3", *out]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 3
    assert open_runs(tmp_path / "runs.zarr")["step"].values.tolist() == [1, 2, 3]
    assert run(["record", *arguments, "--window", "3", *out]) == 2
    assert "give the first and the last step" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::asced_recorders.writing.session.RecordingWarning")
@pytest.mark.parametrize("broken", [False, True])
def test_large_runs_go_through_a_file(tmp_path, monkeypatch, broken):
    record_loop(tmp_path / "memory.zarr", broken=broken)
    monkeypatch.setattr(capture, "LARGE_RUN_BYTES", 0)
    monkeypatch.setattr(StepsOnDisk, "__array__", None)  # never whole in memory
    record_loop(tmp_path / "file.zarr", broken=broken)
    record_loop(tmp_path / "file.zarr", resume=True)  # another batch
    statuses = ("complete", "failed")
    one, other = (
        open_runs(tmp_path / name, statuses=statuses) for name in ("memory.zarr", "file.zarr")
    )
    assert other.sizes["run"] == 6
    for name in ("eps", "x0", "x_init", "status", "overflows", "first_bad_step"):
        np.testing.assert_array_equal(other[name][:3], one[name])
    assert one["first_bad_step"].values.tolist() == ([-1, 6, -1] if broken else [-1] * 3)


@pytest.mark.parametrize("keep", ["sample:0.4", "flagged"])
def test_large_runs_are_watched_and_chosen_step_by_step(tmp_path, tiny_pipeline, monkeypatch, keep):
    class EveryThird:
        def observe(self, batch):
            return Observation(keep=np.asarray(batch.runs) % 3 == 1)

    given = {"runs": 10, "steps": 5, "batch_size": 2, "keep": keep}
    monkeypatch.setattr(recording_loop, "GROUP_RUNS", 4)
    for name in ("memory.zarr", "file.zarr"):
        observers = [StatisticsObserver(), EveryThird()]
        record(tiny_pipeline, tmp_path / name, observers=observers, **given)
        monkeypatch.setattr(capture, "LARGE_RUN_BYTES", 0)
        monkeypatch.setattr(stepped, "LARGE_RUN_BYTES", 0)
        monkeypatch.setattr(StepsOnDisk, "__array__", None)  # never whole in memory
    one, other = (open_runs(tmp_path / name) for name in ("memory.zarr", "file.zarr"))
    assert 0 < one.sizes["run"] < 10
    assert other.equals(one)
    found = [observed_features(tmp_path / name) for name in ("memory.zarr", "file.zarr")]
    assert found[0].equals(found[1])
