"""Levels by group, log-SNR within a tolerance, and room for rounding, wherever thresholds apply."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asced_analysis.calibration import calibrate, calibrate_transfer
from asced_analysis.correction.detecting import LoopDetector
from asced_analysis.detection.apply import detect
from asced_analysis.replay.planning import detect_recorded
from asced_analysis.replay.recording import Recording
from asced_analysis.replay.sampling import recorded_event
from asced_analysis.thresholds.conformal import conformal_level
from asced_analysis.thresholds.document import Thresholds
from asced_analysis.viewer.reading import Trajectories
from asced_analysis.viewer.scores import RunScores
from asced_recorders.tap.schedulers import StepTable
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError
from asced_stores.testing.synthetic import synthetic_batch, synthetic_spec

RUNS, BATCH = 200, 50


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two labels; those of label 1 change more at every step."""
    path = tmp_path_factory.mktemp("groups") / "runs.zarr"
    spec = synthetic_spec(steps=12)
    with TrajectoryStore.create(path, spec, runs=RUNS, batch_size=BATCH).writer(0, 1) as writer:
        for number in writer.pending_batches():
            runs = np.arange(number * BATCH, (number + 1) * BATCH)
            arrays = synthetic_batch(spec, runs.tolist())
            for row in np.flatnonzero(runs % 2):
                noise = np.random.default_rng(runs[row]).standard_normal(arrays["x0"][row].shape)
                arrays["x0"][row] = (arrays["x0"][row] + 0.4 * noise).astype(np.float16)
            writer.write_batch(number, arrays, scalars={"seed": runs, "label": runs % 2})
    return path


@pytest.fixture(scope="module")
def thresholds(store: Path) -> Thresholds:
    return calibrate(store, "calibrated", false_alarm_rate=0.1, groups="label")


def own_levels(thresholds: Thresholds, labels: Any) -> np.ndarray:
    return np.array([thresholds.groups[str(label)] for label in labels])


def test_each_run_is_compared_with_the_level_of_its_group(
    store: Path, thresholds: Thresholds
) -> None:
    assert set(thresholds.groups) == {"0", "1"}
    assert thresholds.grouped_by == "label"
    assert Thresholds.from_dict(thresholds.to_dict()) == thresholds
    found = detect(open_runs(store), thresholds).compute()
    labels, scores = found["label"].values, found["score"].values
    expected = scores > own_levels(thresholds, labels)
    assert (found["flagged"].values == expected).all()
    assert (expected != (scores > thresholds.levels.level)).any()
    assert (found["mask"].any(("y", "x")).values == expected).all()
    for label in (0, 1):
        assert 0 < expected[labels == label].mean() < 0.2
    plan = detect_recorded(Recording(store), thresholds)
    assert sorted(plan.masks) == np.flatnonzero(expected).tolist()
    viewer = RunScores(Trajectories(open_runs(store)), thresholds, None)
    list(viewer.score(keep=False))
    level = viewer.level()
    assert level is not None
    assert viewer.rates(level, {})["all"]["flagged"] == expected.sum()
    for row in (np.flatnonzero(expected)[0], np.flatnonzero(~expected)[0]):
        mask = viewer.mask(int(row), level)
        assert (mask == found["mask"].values[row]).all()


def test_groups_of_what_is_no_coordinate_of_runs_are_refused(
    store: Path, thresholds: Thresholds
) -> None:
    """As in a file that was edited by hand."""
    with pytest.raises(InputError, match="levels by step, which is not known of these runs"):
        detect(open_runs(store), replace(thresholds, grouped_by="step"))


def test_the_loop_asks_for_the_group(store: Path, thresholds: Thresholds) -> None:
    recording = Recording(store)
    spec = recording.spec
    table = StepTable(
        timestep=np.asarray(spec.timestep),
        alpha=np.asarray(spec.alpha),
        sigma=np.asarray(spec.sigma),
        log_snr=np.asarray(spec.log_snr),
        prediction_type="epsilon",
        sigma_data=0.5,
        calls=np.arange(spec.steps),
        editable=np.ones(spec.steps, np.bool_),
        resumable=False,
        scheduler_class="DDIMScheduler",
    )
    batch = next(iter(recording.batches()))
    watch = LoopDetector(thresholds, table, None)
    with pytest.raises(InputError, match="levels by label"):
        watch.start(torch.zeros(BATCH, 1, 16, 16))
    watch.start(torch.zeros(BATCH, 1, 16, 16), batch.scalars["label"])
    for step in range(spec.steps):
        watch.update(recorded_event(recording, batch, table, step, torch.zeros(1)))
    flagged = detect(open_runs(store), thresholds)["flagged"].values[:BATCH]
    assert (watch.result().flagged == flagged).all()


def test_another_sampler_keeps_the_distances_of_the_groups(
    store: Path, thresholds: Thresholds
) -> None:
    moved = replace(thresholds, fingerprint={**thresholds.fingerprint, "scheduler_class": "Other"})
    again = calibrate_transfer(moved, store)
    flagged = detect(open_runs(store), again)["flagged"].values
    labels = np.arange(RUNS) % 2
    assert flagged.mean() == pytest.approx(0.1, abs=0.01)
    assert 0 < flagged[labels == 0].mean() < 0.2


def test_levels_a_hair_apart_are_the_same(store: Path, thresholds: Thresholds) -> None:
    """Tables of float32 differ from loops of float64 by 1e-7; the window is whole all the same."""
    runs = open_runs(store)
    plain = detect(runs, thresholds).compute()
    for away in (-3e-4, 3e-4):
        log_snr = ("step", runs["log_snr"].values + away)
        found = detect(runs.assign_coords(log_snr=log_snr), thresholds).compute()
        np.testing.assert_allclose(found["score"], plain["score"], atol=1e-3)
        assert (found["flagged"] == plain["flagged"]).mean() > 0.98


def test_a_level_leaves_room_for_rounding_and_never_jumps_over_a_run() -> None:
    scores = np.array([0.0, 1.0, 2.0, 3.0, 3.0 + 1e-5, 9.0])
    level, rank = conformal_level(scores, 0.3)
    assert rank == 2
    assert level == pytest.approx(3 + 1e-5 + 3e-3)
    level, rank = conformal_level(scores, 0.43)
    assert rank == 3
    assert 3 < level < 3 + 1e-5
    assert level == pytest.approx(3 + 0.5e-5, abs=1e-8)
