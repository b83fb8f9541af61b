"""Outcomes learnt from activations: what recorded modules say, applied wherever thresholds are."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import asced_analysis as aa
from asced_analysis.correction import Corrector, Pruner
from asced_analysis.correction.halting import Halting
from asced_analysis.detection.apply import detect
from asced_analysis.detection.streaming import Detector
from asced_analysis.replay import replay
from asced_analysis.replay.from_checkpoint import FromCheckpoint
from asced_analysis.statistics.observing import FlagObserver, observed_features
from asced_cli.main import run
from asced_recorders import load_pipeline, record
from asced_recorders.pipelines.activations import pooled
from asced_recorders.pipelines.sampling import (
    initial_noise,
    run_generators,
    sample_unconditional,
)
from asced_recorders.tap.tap import TapListener
from asced_stores import open_runs
from asced_stores.errors import InputError

STEPS, MODULE, RUNS = 5, "mid_block", 160


@pytest.fixture(scope="module")
def taught(tmp_path_factory: Any, make_tiny: Any) -> tuple[Any, Path, aa.Thresholds, Any]:
    """A pipeline, its runs, and thresholds that learnt an outcome which one module knows."""
    folder = tmp_path_factory.mktemp("activations")
    pipe = make_tiny("DDIM", 3)
    given: Any = {"runs": RUNS, "steps": STEPS, "batch_size": RUNS}
    record(pipe, folder / "runs.zarr", activations=[MODULE], **given)
    ds = open_runs(folder / "runs.zarr")
    known = ds["activations"].isel(step=2).values.astype(np.float64)
    outcome = ((known - known.mean(0)) / known.std(0))[:, :4].sum(axis=1)
    lines = [f"{run},{value}" for run, value in enumerate(outcome)]
    (folder / "outcomes.csv").write_text("\n".join(["run,score", *lines]))
    thresholds = aa.calibrate(
        folder / "runs.zarr",
        method="outcome",
        false_alarm_rate=0.2,
        outcomes=folder / "outcomes.csv",
        window=(0.0, 0.5),
        parameters={"inputs": "activations"},
        outcome={"epochs": 1, "within_content": False},
    )
    thresholds.save(folder / "thresholds.json")
    return pipe, folder, aa.Thresholds.load(folder / "thresholds.json"), outcome


def test_what_a_module_knows_is_learnt(taught: Any) -> None:
    _, folder, thresholds, outcome = taught
    ds = open_runs(folder / "runs.zarr")
    found = detect(ds, thresholds)
    assert thresholds.parameters["modules"] == {MODULE: ds.sizes["activation"]}
    # learnt on a quarter of the fit set; chance would be about .08
    assert np.corrcoef(found["score"].values, outcome)[0, 1] > 0.5
    assert "activations" in thresholds.conformance[0]
    assert 0 < found["flagged"].values.mean() < 1


def test_loop_pruner_and_replay_see_what_the_store_says(taught: Any, tmp_path: Path) -> None:
    pipe, folder, thresholds, _ = taught
    recorded = detect(open_runs(folder / "runs.zarr"), thresholds)["score"].values
    corrector = Corrector(thresholds)
    hooks = len(pipe.unet.mid_block._forward_hooks)
    with corrector.attach(pipe):  # steps after the look of a call are none of the next one's
        pipe(batch_size=3, num_inference_steps=STEPS, generator=run_generators(range(3)))
        pipe(batch_size=4, num_inference_steps=STEPS, generator=run_generators(range(4)))
    assert len(pipe.unet.mid_block._forward_hooks) == hooks
    scores = [one.score for one in corrector.report]
    # a batch of four beside one of 160: float32 sampling differs by up to 1e-4 (units of the data)
    spread = float(np.std(recorded))
    assert np.allclose(scores, recorded[:4], atol=0.02 * spread)
    pruner = Pruner.from_file(folder / "thresholds.json", draw=4, finish=1)
    pruned = pruner.sample(pipe, groups=2, num_inference_steps=STEPS)
    assert np.allclose(pruned.scores, recorded[:8], atol=0.02 * spread)
    assert repr(pruned).startswith("Pruned(2 of 8 draws finished, chosen at step ")
    replay(folder / "runs.zarr", tmp_path / "again.zarr", thresholds=thresholds, pipeline=pipe)
    again = open_runs(tmp_path / "again.zarr")
    assert np.allclose(again["score"].values, recorded, atol=1e-6)
    assert "activation" not in again.dims


def test_thresholds_choose_what_is_kept(taught: Any, tmp_path: Path) -> None:
    pipe, folder, thresholds, _ = taught
    wanted = detect(open_runs(folder / "runs.zarr"), thresholds)["flagged"].values[:8]
    given: Any = {"runs": 8, "steps": STEPS, "batch_size": 8, "activations": [MODULE]}
    observers = [FlagObserver(thresholds)]
    with pytest.raises(InputError, match=r"in code activations=\['mid_block'\]"):
        record(pipe, tmp_path / "kept.zarr", observers=observers, **(given | {"activations": []}))
    assert not (tmp_path / "kept.zarr").exists()
    record(pipe, tmp_path / "kept.zarr", keep="flagged", observers=observers, **given)
    assert (observed_features(tmp_path / "kept.zarr")["flagged"] == wanted).all()


def test_what_thresholds_look_at_is_asked_for_before_work(
    taught: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thresholds, out = taught[1] / "thresholds.json", tmp_path / "runs.zarr"
    given = ["--keep", "flagged", "--thresholds", str(thresholds), "--runs", "2"]
    assert run(["record", "--pipeline", "fashion", "--out", str(out), *given]) == 2
    assert f"record them with --activations {MODULE}" in capsys.readouterr().err
    assert not out.exists()


def test_modules_that_did_not_run_teach_nothing(taught: Any) -> None:
    _, folder, _, _ = taught
    ds = open_runs(folder / "runs.zarr").load()
    ds["activations"][:] = np.nan  # as where a cache answered
    with pytest.raises(
        InputError, match=r"not finite in \d+ runs, run \d+ for .* at step 1 a module"
    ):
        aa.calibrate(
            ds,
            method="outcome",
            outcomes=folder / "outcomes.csv",
            window=(0.0, 0.5),
            parameters={"inputs": "activations"},
            false_alarm_rate=0.2,
        )


def test_without_activations_it_refuses(taught: Any, tmp_path: Path, make_tiny: Any) -> None:
    pipe, _, thresholds, _ = taught
    record(pipe, tmp_path / "bare.zarr", runs=RUNS, steps=STEPS, batch_size=RUNS)
    bare = open_runs(tmp_path / "bare.zarr")
    with pytest.raises(InputError, match=r"record them with activations=\['mid_block'\]"):
        detect(bare, thresholds)
    with (
        pytest.raises(InputError, match="attach the corrector to the whole pipeline"),
        Corrector(thresholds).attach(pipe.scheduler),
    ):
        pass
    other = load_pipeline("fashion")
    del other.unet.mid_block
    with (
        pytest.raises(InputError, match="no network of this pipeline has a module 'mid_block'"),
        Corrector(thresholds).attach(other),
    ):
        pass
    levels = bare["alpha"].values.tolist(), bare["sigma"].values.tolist()
    corrector = Corrector(thresholds, schedule=levels)
    x = torch.zeros(2, 3, 16, 16)
    given: Any = {"sample": x, "model_output": x, "next_sample": x}
    with pytest.raises(InputError, match="attach the corrector to the pipeline, whose modules"):
        corrector.step(alpha=levels[0][0], sigma=levels[1][0], **given)
    with pytest.raises(InputError, match="hold no activations to learn from"):
        aa.calibrate(
            tmp_path / "bare.zarr",
            method="outcome",
            parameters={"inputs": "all"},
            teacher="patches",
            false_alarm_rate=0.2,
        )


@pytest.fixture
def shown(taught: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Step, activations as a detector is given them, and as the pipeline's first call made them.

    Steps are of second order, and the detector asks the network, as one with a lookahead does.
    """
    pipe = taught[0]
    seen: list[Any] = []
    own: list[torch.Tensor] = []
    asking: list[bool] = []
    heun = diffusers.HeunDiscreteScheduler
    levels: Any = {"beta_start": 0.0001, "beta_end": 0.02, "timestep_spacing": "leading"}  # DDIM's
    update, step = Detector.update, heun.step

    def told(self: Any, state: Any, at: int, **given: Any) -> Any:
        if not isinstance(given["activations"], torch.Tensor):  # a store is read
            return update(self, state, at, **given)
        seen.append((at, given["activations"], own[0]))
        asking.append(True)
        with torch.no_grad():
            pipe.unet(torch.ones_like(given["x0"]), 5)
        asking.clear()
        return update(self, state, at, **given)

    @functools.wraps(step)
    def stepping(self: Any, *args: Any, **kwargs: Any) -> Any:
        own.clear()
        return step(self, *args, **kwargs)

    def keep(_: Any, __: Any, output: torch.Tensor) -> None:
        if not asking:
            own.append(pooled(output))

    monkeypatch.setattr(Detector, "update", told)
    monkeypatch.setattr(heun, "step", stepping)
    monkeypatch.setattr(pipe, "scheduler", heun(**levels, prediction_type="v_prediction"))
    handle = pipe.unet.mid_block.register_forward_hook(keep)
    yield seen
    handle.remove()


@pytest.mark.filterwarnings("ignore::asced_analysis.thresholds.fingerprints.PortabilityWarning")
def test_of_second_order_steps_all_see_what_is_recorded(
    taught: Any, shown: list[Any], tmp_path: Path
) -> None:
    pipe, _, thresholds, _ = taught
    path, given = tmp_path / "runs.zarr", {"num_inference_steps": STEPS}
    options: Any = {"runs": 4, "batch_size": 4, "value_range": (-4, 4)}
    record(pipe, path, steps=STEPS, activations=[MODULE], **options)
    recorded = open_runs(path)["activations"].values
    corrector = Corrector(thresholds)
    with corrector.attach(pipe):
        pipe.scheduler.set_timesteps(STEPS)
        start = initial_noise(pipe, run_generators(range(4)))
        sample_unconditional(pipe, x_init=start, steps=STEPS)
    looked = len(shown)
    Pruner(thresholds, draw=2).sample(pipe, groups=2, **given)
    assert [step for step, _, _ in shown] == [*range(looked)] * 2
    assert looked > 1
    close = 1e-5 * np.abs(recorded).max()
    for step, found, _ in shown:  # the same calls of the same batch
        assert np.allclose(found, recorded[:, step], atol=close)
    shown.clear()
    every = replace(thresholds, levels=replace(thresholds.levels, level=-1e3))
    replay(path, tmp_path / "r.zarr", thresholds=every, strategy="restart", pipeline=pipe)
    assert len(shown) >= looked
    for _, found, first in shown:
        assert np.allclose(found, first, atol=close)


def test_listeners_inside_others_are_told_of_calls() -> None:
    told: list[bool] = []

    class Inside(TapListener):
        def calling(self, inside: bool) -> None:
            told.append(inside)

    for one in (FromCheckpoint(Inside(), 1, torch.ones(1)), Halting(Inside(), [])):
        one.calling(True)
        one.calling(False)
    assert told == [True, False] * 2
