"""Masks found beforehand do what the detector in the loop does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_analysis.calibration import calibrate
from asced_analysis.evaluation import evaluate
from asced_analysis.replay import Branch, branch, replay
from asced_analysis.replay.planning import detect_recorded
from asced_analysis.replay.recording import Recording
from asced_analysis.thresholds.document import Thresholds
from asced_recorders import record
from asced_stores import open_runs

STEP = 7


@pytest.fixture(scope="module")
def runs(tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("given") / "runs.zarr"
    record(tiny_pipeline, path, runs=40, steps=10, batch_size=20, seed=90, checkpoints=(STEP,))
    return path


@pytest.fixture(scope="module")
def thresholds(runs: Path) -> Thresholds:
    found = calibrate(runs, "calibrated", false_alarm_rate=0.4, window=(0.2, 0.7))
    return changed(found, correction=changed(found.correction, grow=0.1))


def samples(replayed: Any) -> Any:
    return open_runs(replayed.path)["sample"].values


@pytest.mark.parametrize("strategy", ["ttc", "state_replacement"])
def test_a_start_at_a_checkpoint_gives_what_the_loop_gives(
    strategy: str,
    runs: Path,
    thresholds: Thresholds,
    tiny_pipeline: Any,
    rounding: Callable[[Any], float],
    tmp_path: Path,
) -> None:
    options: dict[str, Any] = {"thresholds": thresholds, "pipeline": tiny_pipeline, "step": STEP}
    whole = replay(runs, tmp_path / "a.zarr", strategy=strategy, **options)
    part = replay(runs, tmp_path / "b.zarr", strategy=strategy, start=STEP, **options)
    assert open_runs(whole.path)["flagged"].values.any()
    assert (samples(whole) == samples(part)).all()
    assert (open_runs(whole.path)["mask"].values == open_runs(part.path)["mask"].values).all()
    replayed = branch(
        runs,
        tmp_path / "c.zarr",
        [Branch(step=STEP, strategy=strategy)],
        thresholds=thresholds,
        pipeline=tiny_pipeline,
    )
    ds = open_runs(replayed.path)
    alone = open_runs(whole.path)["sample"].sel(run=ds["run"].values).values
    found = ds["branch_sample"].values[:, 0]
    np.testing.assert_allclose(found, alone, rtol=0, atol=rounding(runs))


def test_replay_grows_masks_as_deployment_does(
    runs: Path, thresholds: Thresholds, tiny_pipeline: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"thresholds": thresholds, "pipeline": tiny_pipeline, "step": STEP}
    grown = open_runs(replay(runs, tmp_path / "a.zarr", **options).path)["mask"].values
    bare = open_runs(replay(runs, tmp_path / "b.zarr", grow=0, **options).path)["mask"].values
    assert (grown >= bare).all()
    assert grown.sum() > bare.sum() > 0


def test_the_first_flagged_step_is_that_of_the_loop(runs: Path, thresholds: Thresholds) -> None:
    plan = detect_recorded(Recording(runs), thresholds, last_step=STEP - 1, streamed=True)
    assert sorted(plan.first_flagged) == sorted(plan.masks)
    assert len(set(plan.first_flagged.values())) > 1
    for run, first in plan.first_flagged.items():
        early = detect_recorded(Recording(runs), thresholds, last_step=first)
        assert run in early.masks


@pytest.mark.parametrize(
    ("strategy", "step"),
    [
        ("score_clipping", STEP - 2),  # flagged at one step: the loop's masks do not grow later
        ("state_replacement", STEP),
    ],
)
def test_a_control_with_the_right_masks_is_the_correction(
    strategy: str,
    step: int,
    runs: Path,
    thresholds: Thresholds,
    tiny_pipeline: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Controls act at the steps at which the correction itself acts."""
    options: dict[str, Any] = {"thresholds": thresholds, "pipeline": tiny_pipeline, "step": step}
    replayed = replay(runs, tmp_path / "a.zarr", strategy=strategy, grow=0, **options)
    monkeypatch.setattr(
        "asced_analysis.replay.planning.control_plan", lambda plan, *rest, **named: plan
    )
    result = evaluate(
        runs, replayed, controls=["shuffled"], judge="patches", pipeline=tiny_pipeline
    ).to_dict()
    effect = result["flagged_runs"]["effect"]["all"]["value"]
    control = result["controls"]["shuffled"]["effect"]["all"]["value"]
    assert abs(effect) > 1e-3
    assert control == pytest.approx(effect, abs=1e-5)
