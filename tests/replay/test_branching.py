"""Counterfactual branches, restarts and tuning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_analysis.calibration import calibrate
from asced_analysis.evaluation import try_remedies, tune
from asced_analysis.replay import Branch, branch, replay
from asced_analysis.replay.planning import detect_recorded
from asced_analysis.replay.recording import Recording
from asced_analysis.thresholds.document import Thresholds
from asced_cli.main import run
from asced_recorders import record
from asced_stores import open_runs
from asced_stores.errors import InputError

MASK = np.zeros((16, 16), bool)
MASK[4:9, 5:10] = True
MASKS = {3: MASK, 12: MASK.T}


@pytest.fixture(scope="module")
def runs(tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("branching") / "runs.zarr"
    record(tiny_pipeline, path, runs=60, steps=10, batch_size=20, seed=50, checkpoints=(6, 8))
    return path


@pytest.fixture(scope="module")
def thresholds(runs: Path) -> Thresholds:
    return calibrate(runs, "calibrated", false_alarm_rate=0.3)


def test_branches_are_what_replays_give(
    tiny_runs: Path, tiny_pipeline: Any, rounding: Callable[[Any], float], tmp_path: Path
) -> None:
    branches = [
        Branch(step=4),
        Branch(step=6),
        Branch(step=6, strategy="renoise"),
        Branch(step=6, control="everywhere"),
    ]
    ds = open_runs(
        branch(tiny_runs, tmp_path / "b.zarr", branches, masks=MASKS, pipeline=tiny_pipeline).path
    )
    assert ds["branch_sample"].dims == ("run", "branch", "channel", "y", "x")
    assert ds["run"].values.tolist() == [3, 12]
    for i, step in enumerate((4, 6)):
        replayed = replay(
            tiny_runs,
            tmp_path / f"{step}.zarr",
            masks=MASKS,
            step=step,
            pipeline=tiny_pipeline,
            only_flagged=True,
        )
        alone = open_runs(replayed.path)["sample"].sel(run=[3, 12]).values
        bound = rounding(tiny_runs)
        np.testing.assert_allclose(ds["branch_sample"].values[:, i], alone, rtol=0, atol=bound)
    assert (ds["branch_sample"].values[:, 2] == ds["branch_sample"].values[:, 3]).all()
    recorded = open_runs(tiny_runs)["sample"].sel(run=[3, 12]).values
    assert (ds["sample"].values == recorded).all()


def test_branches_refuse_what_cannot_branch(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"masks": MASKS, "pipeline": tiny_pipeline}
    for branches, message in (
        ([], "no branch"),
        ([Branch(step=0)], "step 0"),
        ([Branch(step=5, strategy="score_clipping")], "from init"),
    ):
        with pytest.raises(InputError, match=message):
            branch(tiny_runs, tmp_path / "b.zarr", branches, **options)
    with pytest.raises(InputError, match="nothing to branch off"):
        branch(tiny_runs, tmp_path / "b.zarr", [Branch(step=5)], masks={}, pipeline=tiny_pipeline)
    store = record(
        tiny_pipeline, tmp_path / "r.zarr", runs=2, steps=6, batch_size=2, scheduler="dpm++"
    )
    with pytest.raises(InputError, match="from init"):
        branch(store, tmp_path / "b.zarr", [Branch(step=3)], **options)


def test_restart_draws_anew_and_counts_what_it_pays(
    runs: Path, thresholds: Thresholds, tiny_pipeline: Any, tmp_path: Path
) -> None:
    sampled: list[int] = []
    hook = tiny_pipeline.unet.register_forward_pre_hook(
        lambda _, inputs: sampled.append(len(inputs[0]))
    )
    replayed = replay(
        runs,
        tmp_path / "c.zarr",
        thresholds=thresholds,
        strategy="restart",
        tries=2,
        pipeline=tiny_pipeline,
    )
    hook.remove()
    ds = open_runs(replayed.path)
    flagged = ds["flagged"].values
    plan = detect_recorded(Recording(runs), thresholds)
    assert sorted(ds["run"].values[flagged]) == sorted(plan.masks)
    same = (ds["sample"].values == open_runs(runs)["sample"].values).all((1, 2, 3))
    assert (same == ~flagged).all()
    target = replayed.attributes["correction_step"]
    paid = ds["evaluations"].values[flagged]
    assert set(paid) <= {target * (1 + tries) + 10 - target for tries in (1, 2)}
    # the first run, abandoned at T_c, was paid for when it was recorded
    assert sum(sampled) == paid.sum() - target * flagged.sum()
    assert (ds["evaluations"].values[~flagged] == 0).all()
    with pytest.raises(InputError, match="needs thresholds, not masks"):
        replay(runs, tmp_path / "d.zarr", masks=MASKS, strategy="restart", pipeline=tiny_pipeline)


def test_tune_chooses_on_one_half_and_reports_on_the_other(
    runs: Path, thresholds: Thresholds, tiny_pipeline: Any
) -> None:
    tuned = tune(
        runs,
        thresholds,
        strengths=(0.0, 0.2),
        strategies=("ttc",),
        share=0.5,
        judge="patches",
        pipeline=tiny_pipeline,
    )
    values = [one.chosen_on.value for one in tuned.candidates]
    assert tuned.best.chosen_on.value == min(values)
    assert len({one.step for one in tuned.candidates}) > 1
    correction = tuned.thresholds.correction
    table = open_runs(runs)["log_snr"].values
    assert correction.log_snr == pytest.approx(table[tuned.best.step])
    assert correction.strength == tuned.best.strength
    assert Thresholds.from_dict(tuned.thresholds.to_dict()) == tuned.thresholds


def test_tune_tries_the_places_of_a_renewal(
    runs: Path, thresholds: Thresholds, tiny_pipeline: Any
) -> None:
    tuned = tune(
        runs,
        thresholds,
        steps=[6],
        strategies=("renoise", "stochastic_steps"),
        share=0.2,
        judge="patches",
        pipeline=tiny_pipeline,
    )
    assert [one.title for one in tuned.candidates] == [
        "renoise, everywhere, step 6, strength 0",
        "renoise, foreground, step 6, strength 0",
        "stochastic_steps, step 6, strength 0",
    ]
    assert len({one.chosen_on.value for one in tuned.candidates}) == 3
    assert dict(tuned.thresholds.correction.parameters) == tuned.best.parameters
    assert Thresholds.from_dict(tuned.thresholds.to_dict()) == tuned.thresholds
    with pytest.raises(InputError, match="in one pass"):
        tune(runs, thresholds, strategies=["best_of"], judge="patches", pipeline=tiny_pipeline)


def test_images_that_do_not_come_back_are_refused_before_anything_is_sampled(
    runs: Path,
    thresholds: Thresholds,
    tiny_pipeline: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiny_pipeline, "vae", object(), raising=False)  # decodes nothing
    asked: list[Any] = []
    hook = tiny_pipeline.unet.register_forward_pre_hook(lambda *_: asked.append(1))
    nowhere = {99: MASK}
    for work in (
        lambda: replay(runs, tmp_path / "r.zarr", masks=nowhere, step=5, pipeline=tiny_pipeline),
        lambda: tune(runs, thresholds, share=0.5, judge="patches", pipeline=tiny_pipeline),
        lambda: try_remedies(runs, runs=8, pipeline=tiny_pipeline),
    ):
        with pytest.raises(InputError, match=r"decode to no images .* AttributeError"):
            work()
    hook.remove()
    assert not asked


def test_tune_from_the_command_line(
    runs: Path,
    thresholds: Thresholds,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given, out = thresholds.save(tmp_path / "t.json"), tmp_path / "tuned.json"
    command = ["tune", str(runs), "--thresholds", str(given), "--pipeline", str(tiny_folder)]
    command += ["--judge", "patches", "--steps", "6,8", "--strategies", "ttc", "--share", "0.5"]
    assert run([*command, "--out", str(out), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["candidates"]) == 2
    assert Thresholds.load(out).correction.strategy == "ttc"
    assert run([*command, "--steps", "soon"]) == 2
    assert run([*command, "--share", "0.01"]) == 2
    assert "at least 8" in capsys.readouterr().err
