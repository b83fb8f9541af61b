"""Distilled models sample in one to three steps: what works there, and what asks for more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asced_analysis as aa
from asced_analysis.replay import replay
from asced_analysis.report import write_report
from asced_recorders import record
from asced_stores.errors import TooFewStepsError


@pytest.fixture(scope="module")
def distilled(make_tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model with its folder, and stores of 40 runs by their number of steps."""
    import diffusers

    folder = tmp_path_factory.mktemp("few")
    pipe = make_tiny("DDPM", 1)
    pipe.scheduler = diffusers.LCMScheduler(clip_sample=False, prediction_type="v_prediction")
    for steps in (1, 2, 3):
        record(pipe, folder / f"{steps}.zarr", runs=40, steps=steps, batch_size=40)
    return pipe, folder


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_phases_are_refused_and_a_report_leaves_them_out(
    steps: int, distilled: Any, tmp_path: Path
) -> None:
    _, folder = distilled
    path = folder / f"{steps}.zarr"
    with pytest.raises(TooFewStepsError, match=rf"{steps} steps? found; .* need at least 4"):
        aa.segment_phases(aa.open_runs(path))
    page = write_report(path, tmp_path / "report.md").read_text()
    assert "Phases need at least 4 steps" in page
    assert ("## Score dynamics" in page) == (steps > 1)


def test_two_steps_are_looked_at_and_not_corrected(distilled: Any, tmp_path: Path) -> None:
    pipe, folder = distilled
    path = folder / "2.zarr"
    with pytest.raises(TooFewStepsError, match="1 step; a detector needs at least 2"):
        aa.calibrate(folder / "1.zarr", false_alarm_rate=0.2)
    with pytest.raises(TooFewStepsError, match="takes at least 3"):
        aa.calibrate(path, false_alarm_rate=0.2, strategy="renoise")
    thresholds = aa.calibrate(path, false_alarm_rate=0.2)
    assert (thresholds.window.steps, thresholds.correction.strategy) == ((0, 1), "none")
    replayed = replay(path, tmp_path / "replayed.zarr", thresholds=thresholds, pipeline=pipe)
    assert float(aa.open_runs(replayed.path)["difference"].max()) == 0
    with pytest.raises(TooFewStepsError, match="dynamics need two steps"):
        replay(path, tmp_path / "no.zarr", thresholds=thresholds, strategy="ttc", pipeline=pipe)


def test_three_steps_are_corrected(distilled: Any, tmp_path: Path) -> None:
    pipe, folder = distilled
    thresholds = aa.calibrate(folder / "3.zarr", false_alarm_rate=0.2)
    assert thresholds.window.steps == (0, 1)
    replayed = replay(folder / "3.zarr", tmp_path / "t.zarr", thresholds=thresholds, pipeline=pipe)
    ds = aa.open_runs(replayed.path)
    assert ds["changed"].values[ds["flagged"].values].all()
