"""The control of corrections that take whole runs: as many runs, but others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_analysis.calibration import calibrate
from asced_analysis.correction.controls import other_runs
from asced_analysis.evaluation import evaluate, populations
from asced_analysis.evaluation.effects import Effect, against_other_runs
from asced_analysis.evaluation.intervals import Estimate
from asced_analysis.phases.segmentation import segment_phases
from asced_analysis.plots import effects
from asced_analysis.replay import Branch, branch, replay
from asced_analysis.report.summary import in_plain_words
from asced_analysis.thresholds.document import Thresholds
from asced_cli.main import run
from asced_recorders import record
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError

STEP = 7
WHOLE: dict[str, dict[str, Any]] = {
    "renoise": {},
    "best_of": {"where": "everywhere", "choose": 9, "teacher": "patches"},
    "noise_normalisation": {},
    "restart": {"tries": 1},
}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of whole populations are not what is tested here."""
    monkeypatch.setattr(populations, "RESAMPLES", 20)


@pytest.fixture(scope="module")
def runs(tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("others") / "runs.zarr"
    record(tiny_pipeline, path, runs=40, steps=10, batch_size=20, seed=90, checkpoints=(STEP,))
    return path


@pytest.fixture(scope="module")
def thresholds(runs: Path) -> Thresholds:
    return calibrate(runs, "calibrated", false_alarm_rate=0.3, window=(0.2, 0.7))


def flagged(store: TrajectoryStore) -> set[int]:
    ds = open_runs(store)
    return set(ds["run"].values[ds["flagged"].values.astype(bool)].tolist())


@pytest.mark.parametrize("strategy", WHOLE)
def test_as_many_others_are_corrected(
    strategy: str, runs: Path, thresholds: Thresholds, tiny_pipeline: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "thresholds": thresholds,
        "strategy": strategy,
        "step": STEP,
        "only_flagged": True,
        "pipeline": tiny_pipeline,
        **WHOLE[strategy],
    }
    replayed = replay(runs, tmp_path / "a.zarr", **options)
    wrong = replay(runs, tmp_path / "b.zarr", control="shuffled", **options)
    assert len(flagged(wrong)) == len(flagged(replayed)) > 2
    assert not flagged(wrong) & flagged(replayed)
    ds = open_runs(wrong)
    assert (ds["mask"].values.any((1, 2)) == ds["flagged"].values).all()
    same = (ds["sample"].values == open_runs(runs)["sample"].values).all((1, 2, 3))
    assert (same == ~ds["flagged"].values.astype(bool)).all()
    for control_name in ("foreground", "everywhere"):
        with pytest.raises(InputError, match="as many runs, but others"):
            replay(runs, tmp_path / "c.zarr", control=control_name, **options)


def test_the_choice_of_runs_is_measured(
    runs: Path, thresholds: Thresholds, tiny_pipeline: Any, tmp_path: Path
) -> None:
    """What the evaluation samples is what a replay with the control gives; `restart` needs most."""
    options: dict[str, Any] = {
        "thresholds": thresholds,
        "strategy": "restart",
        "tries": 1,
        "step": STEP,
        "only_flagged": True,
        "pipeline": tiny_pipeline,
    }
    replayed = replay(runs, tmp_path / "a.zarr", **options)
    wrong = replay(runs, tmp_path / "b.zarr", control="shuffled", **options)
    result = evaluate(runs, replayed, pipeline=tiny_pipeline)
    data = result.to_dict()
    assert set(data["controls"]) == {"shuffled"}
    assert data["against_best_control"] is None
    others = evaluate(runs, wrong, controls=False).to_dict()
    control = data["controls"]["shuffled"]
    assert control["runs"] == len(flagged(replayed))
    expected = others["flagged_runs"]["effect"]["all"]["value"]
    assert control["effect"]["all"]["value"] == pytest.approx(expected, abs=1e-5)
    ends = others["flagged_runs"]["endings"]
    assert control["repaired"] == ends["repaired"]
    for where, figure in data["against_other_runs"].items():
        own = data["flagged_runs"]["effect"][where]["value"]
        assert figure["value"] == pytest.approx(own - control["effect"][where]["value"])
        assert figure["low"] < figure["value"] < figure["high"]
    names = [name for name, _ in result.table()]
    assert {"control: other runs", "effect against other runs, all"} <= set(names)
    assert "effect against other runs" in result.summary()
    labels = [text.get_text() for text in effects(result).get_yticklabels()]
    assert labels[1] == "as many other runs"
    ds = open_runs(runs)
    for low, high, words in ((-1.0, 1.0, "no clear difference"), (-2.0, -1.0, "gained more")):
        figure = Estimate((low + high) / 2, low, high)
        assert result.against_other_runs is not None
        given = replace(result, against_other_runs=replace(result.against_other_runs, all=figure))
        said = in_plain_words(ds, segment_phases(ds), thresholds, 3, given)[1]
        assert any(words in sentence for sentence in said)


def test_branches_of_other_runs(
    runs: Path, thresholds: Thresholds, tiny_pipeline: Any, tmp_path: Path
) -> None:
    branches = [
        Branch(STEP, "renoise"),
        Branch(STEP, "renoise", control="shuffled"),
    ]
    replayed = branch(
        runs, tmp_path / "b.zarr", branches, thresholds=thresholds, pipeline=tiny_pipeline
    )
    edited = open_runs(replayed)["branch_mask"].values.any((2, 3))
    assert (edited.sum(1) == 1).all()  # each run in one branch alone
    assert edited[:, 0].sum() == edited[:, 1].sum() > 2


def test_where_everybody_is_corrected_nobody_is_left(
    tiny_runs: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = np.ones((20, 16, 16), bool)
    given: dict[str, Any] = {
        "strategy": "noise_normalisation",
        "step": 6,
        "pipeline": str(tiny_folder),
    }
    replayed = replay(tiny_runs, tmp_path / "a.zarr", masks=masks, **given)
    data = evaluate(tiny_runs, replayed, pipeline=str(tiny_folder)).to_dict()
    assert data["controls"] == {}
    assert data["against_other_runs"] is None
    np.savez(tmp_path / "m.npz", run=np.arange(20), mask=masks)
    command = ["replay", str(tiny_runs), "--masks", str(tmp_path / "m.npz"), "--step", "6"]
    command += ["--strategy", "noise_normalisation", "--control", "shuffled"]
    command += ["--pipeline", str(tiny_folder), "--out", str(tmp_path / "b.zarr")]
    assert run(command) == 2
    assert "no other runs" in capsys.readouterr().err


def test_others_are_others() -> None:
    everyone = np.arange(10)
    chosen = other_runs(np.array([0, 3, 4]), everyone)
    assert len(set(chosen.tolist())) == 3
    assert not set(chosen.tolist()) & {0, 3, 4}
    assert (chosen == other_runs(np.array([4, 3, 0]), everyone)).all()
    assert (other_runs(np.arange(7), everyone) == [7, 8, 9]).all()
    draws = [tuple(other_runs(np.array([0]), everyone, seed=seed)) for seed in range(30)]
    assert len(set(draws)) > 5


def test_the_effect_against_other_runs_by_hand() -> None:
    rng = np.random.default_rng(0)

    def effect(mean: float, count: int) -> Effect:
        values = mean + rng.standard_normal(count)
        names = ("all", "damaged", "undamaged", "per_changed_pixel")
        return Effect(dict.fromkeys(names, values), dict.fromkeys(names, np.ones(count)))

    first, second = effect(-1.0, 400), effect(-0.2, 100)
    found = against_other_runs(first, second).all
    assert found.value == pytest.approx(first.sums["all"].mean() - second.sums["all"].mean())
    spread = 1.96 * (1 / 400 + 1 / 100) ** 0.5
    assert found.high - found.low == pytest.approx(2 * spread, rel=0.25)
    alone = against_other_runs(first, effect(0.0, 1)).all
    assert alone.low is None
