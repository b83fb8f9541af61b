"""Evaluation: figures that are right where the truth is known, and honest about the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from asced_analysis.evaluation import Evaluation, evaluate, quality
from asced_analysis.evaluation.effects import (
    against_controls,
    damaged_locations,
    effect_of,
    pixel_change,
)
from asced_analysis.evaluation.intervals import bootstrap
from asced_analysis.realism import patch_model
from asced_analysis.replay import replay
from asced_stores import TrajectoryStore
from asced_stores.errors import InputError


@pytest.fixture(scope="module")
def corrected(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory
) -> TrajectoryStore:
    mask = np.zeros((16, 16), bool)
    mask[4:9, 5:10] = True
    path = tmp_path_factory.mktemp("evaluation") / "corrected.zarr"
    masks = {3: mask, 8: mask.T, 12: np.roll(mask, 3, 0)}
    return replay(tiny_runs, path, masks=masks, step=6, pipeline=tiny_pipeline)


@pytest.fixture(scope="module")
def evaluation(tiny_runs: Path, corrected: TrajectoryStore, tiny_pipeline: Any) -> Evaluation:
    return evaluate(tiny_runs, corrected, pipeline=tiny_pipeline)


def test_it_counts_and_compares(evaluation: Evaluation, tmp_path: Path) -> None:
    data = evaluation.to_dict()
    assert (data["runs"], data["flagged"]) == (20, 3)
    assert data["judge"]["name"].startswith("patches")
    assert data["other_runs"] == {
        "runs": 17,
        "changed": 0,
        "worse": 0,
        "largest_difference": 0.0,
    }
    assert data["judge"]["reference"]["kind"] == "population"
    assert set(data["quality"]) == {"local_realism"}, "a population has no distance to itself"
    for figure in data["quality"].values():
        change = figure["after"]["value"] - figure["before"]["value"]
        assert figure["change"]["value"] == pytest.approx(change, abs=1e-9)
        assert figure["change"]["low"] <= figure["change"]["value"] <= figure["change"]["high"]
    flagged = data["flagged_runs"]
    assert flagged["inside_mask"]["value"] > 3 * flagged["outside_mask"]["value"]
    assert [row["run"] for row in data["by_run"]] == [3, 8, 12]
    path = evaluation.save(tmp_path / "evaluation.json")
    assert Evaluation.load(path) == evaluation
    jsonschema.validate(data, Evaluation.schema())
    del data["flagged_runs"]["endings"]["broken"]
    with pytest.raises(InputError, match=r"endings: the required property 'broken' is missing"):
        Evaluation.from_dict(data)
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    with pytest.raises(InputError, match="exists"):
        evaluation.save(path)


def test_all_three_controls_and_the_effect_against_the_best(evaluation: Evaluation) -> None:
    data = evaluation.to_dict()
    assert set(data["controls"]) == {"shuffled", "foreground", "everywhere"}
    areas = {name: control["mask_area"] for name, control in data["controls"].items()}
    assert areas["everywhere"] == 1
    assert areas["shuffled"] == areas["foreground"] == data["flagged_runs"]["mask_area"]
    for where, figure in data["against_best_control"].items():
        effect = data["flagged_runs"]["effect"][where]["value"]
        best = data["controls"][figure["best_control"]]["effect"][where]["value"]
        assert figure["value"] == pytest.approx(effect - best)
        assert figure["best_control"] != "everywhere"
        assert set(figure["against"]) == set(areas)
    names = [name for name, _ in evaluation.table()]
    assert "control: the whole image" in names
    assert evaluation.summary()


def test_an_uncorrected_replay_changes_nothing(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    replayed = replay(
        tiny_runs, tmp_path / "n.zarr", strategy="none", start=6, pipeline=tiny_pipeline
    )
    result = evaluate(tiny_runs, replayed)
    data = result.to_dict()
    assert data["flagged"] == 0
    assert data["controls"] == {}
    assert data["against_best_control"] is None
    assert all(figure["change"]["value"] == 0 for figure in data["quality"].values())
    assert result.table()


def test_refusals(
    tiny_runs: Path, corrected: TrajectoryStore, tiny_pipeline: Any, tmp_path: Path
) -> None:
    from asced_recorders import record

    other = record(tiny_pipeline, tmp_path / "r.zarr", runs=4, steps=5, batch_size=4)
    with pytest.raises(InputError, match="another recording"):
        evaluate(other, corrected)
    with pytest.raises(InputError, match=r"no features are called 'me'.*patches"):
        evaluate(tiny_runs, corrected, judge="me")
    with pytest.raises(InputError, match="1, 32, 32"):
        evaluate(tiny_runs, corrected, judge="judge", controls=False)
    with pytest.raises(InputError, match="unknown control"):
        evaluate(tiny_runs, corrected, controls=("nowhere",))  # type: ignore[arg-type]
    (tmp_path / "junk.json").write_text("[1]")
    with pytest.raises(InputError, match="no evaluation"):
        Evaluation.load(tmp_path / "junk.json")


def test_a_replay_of_other_runs_or_of_half_of_them(
    tiny_runs: Path, corrected: TrajectoryStore, tiny_pipeline: Any, tmp_path: Path
) -> None:
    """The fingerprint knows neither seeds nor how far a replay came."""
    from asced_recorders import record

    options = {"runs": 20, "steps": 10, "batch_size": 8, "checkpoints": (3, 6)}
    other = record(tiny_pipeline, tmp_path / "other.zarr", seed=8, **options)
    assert other.fingerprint == TrajectoryStore.open(tiny_runs).fingerprint
    with pytest.raises(InputError, match="the seed of run 0 is"):
        evaluate(other, corrected, controls=False)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    half = tmp_path / "half.zarr"
    with pytest.raises(KeyboardInterrupt):
        replay(tiny_runs, half, strategy="none", pipeline=tiny_pipeline, progress=stop)
    with pytest.raises(InputError, match=r"lacks 2 of the 3 batches.*asced replay"):
        evaluate(tiny_runs, half)


def test_a_replay_of_flagged_runs_alone_is_whole(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    mask = np.ones((16, 16), bool)
    path = tmp_path / "only.zarr"
    replay(tiny_runs, path, masks={3: mask}, step=6, only_flagged=True, pipeline=tiny_pipeline)
    assert evaluate(tiny_runs, path, controls=False).data["runs"] == 20


def test_the_embedded_judge_knows_its_model_by_its_weights() -> None:
    """Where this fails, the fingerprint's making changed: write `models.json` anew from these."""
    import torch

    from asced_analysis.realism.embedded import KIND
    from asced_recorders import load_pipeline
    from asced_recorders.pipelines.fingerprint import model_fingerprint

    for precision in (torch.float32, torch.float16, torch.bfloat16):
        pipe = load_pipeline("fashion", device="cpu")
        torch.nn.Module.to(pipe.unet, precision)
        here = {"pipeline": "elsewhere", "model_fingerprint": model_fingerprint(pipe)}
        assert KIND.made_for(here, "judge") == "judge", here
        assert KIND.made_for(here, "teacher") == "teacher"
    assert not KIND.made_for({"pipeline": "fashion", "model_fingerprint": "sha256:0"}, "judge")
    assert KIND.made_for({"pipeline": "fashion"}, "judge") == "judge"
    assert not KIND.made_for({"pipeline": "tiny"}, "judge")


def test_effects_by_hand() -> None:
    """Two runs, 2x2 locations, 4x4 pixels: everything can be counted."""
    before = np.array([[[1, 2], [3, 9]], [[1, 1], [1, 1]]], np.float32)
    after = before.copy()
    after[0, 1, 1] = 5
    images = np.zeros((2, 1, 4, 4), np.float32)
    changed = images.copy()
    changed[0, 0, 2:, 2:] = 1
    damaged = damaged_locations(before)
    assert damaged.sum() == 1
    assert damaged[0, 1, 1]
    effect = effect_of(before, after, images, changed, damaged)
    assert effect.estimate("all").value == pytest.approx(-4 / 8)
    assert effect.estimate("damaged").value == pytest.approx(-4)
    assert effect.estimate("undamaged").value == 0
    assert effect.estimate("per_changed_pixel").value == pytest.approx(-4 * 4 / 4)
    assert effect.figures().improved.value == 0.5
    nothing = effect_of(before, before, images, images, damaged)
    assert against_controls(effect, {"shuffled": nothing}).all.value == pytest.approx(-0.5)
    masks = np.zeros((2, 4, 4), bool)
    masks[0, 2:, 2:] = True
    inside, outside = pixel_change(images, changed, masks)
    assert inside[0] == 1
    assert np.isnan(inside[1])
    assert outside.tolist() == [0, 0]


def test_bootstrap_is_not_fooled_by_repeated_runs() -> None:
    """The number of different runs falls when runs repeat: the shift brings it back."""
    estimate = bootstrap(lambda counts: float((counts > 0).sum()), 50, resamples=100)
    assert estimate.value == 50
    assert estimate.low <= 50 <= estimate.high


def test_a_judge_of_one_s_own(tiny_runs: Path, corrected: TrajectoryStore) -> None:
    rng = np.random.default_rng(0)
    model = patch_model(rng.uniform(-1, 1, (50, 1, 16, 16)).astype(np.float32), name="mine")
    result = evaluate(tiny_runs, corrected, judge=model, controls=False)
    assert result.to_dict()["judge"]["name"] == "mine"


def test_the_quality_of_runs_alone(tiny_runs: Path, evaluation: Evaluation) -> None:
    alone = quality(tiny_runs)
    assert alone["local_realism"] == evaluation.to_dict()["quality"]["local_realism"]["before"]
    assert alone["reference"] == evaluation.to_dict()["judge"]["reference"]
