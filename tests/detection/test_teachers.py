"""Who teaches: the model itself, real images, scores from elsewhere; and what content has to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asced_analysis import calibrate, open_runs
from asced_analysis.calibration.labelling import choose_teacher
from asced_analysis.calibration.matched_content import learning_warnings, within_matched_content
from asced_analysis.calibration.outcome_training import Examples
from asced_analysis.calibration.teachers import GivenTeacher
from asced_analysis.compute.source import open_source
from asced_analysis.detection import self_consistency as variant
from asced_analysis.detection.variant import Sampler
from asced_analysis.realism.content import (
    auroc,
    content_of,
    explained_by,
    matched_auroc,
    neighbour_means,
    rank_correlations,
)
from asced_analysis.realism.outcomes import Outcomes, read_outcomes
from asced_analysis.realism.self_consistency import (
    content_energy,
    content_slope,
    level_for,
    level_step,
    mean_residual,
    self_consistency,
)
from asced_stores.errors import InputError

SIDE = 16


def planted(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bright discs whose area varies fivefold; in a third of them a square of noise, anywhere."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    areas = rng.uniform(20, 100, count)
    images = np.full((count, 1, SIDE, SIDE), -1.0, np.float32)
    broken = rng.random(count) < 1 / 3
    for image, area, bad in zip(images[:, 0], areas, broken, strict=True):
        y, x = rng.uniform(6.5, 8.5, 2)
        away = np.hypot(rows - y, columns - x) - np.sqrt(area / np.pi)
        image[:] = -np.tanh(away)
        if bad:
            top, left = (int(value) for value in (y + rng.integers(-3, 1), x + rng.integers(-3, 1)))
            image[top : top + 3, left : left + 3] = rng.choice([-1.0, 1.0], (3, 3))
    return images, areas, broken


def smoother(sample: Any, alpha: float, sigma: float) -> Any:
    """A model whose discs are smooth: blurred, and pulled to the two levels."""
    field = torch.nn.functional.pad(sample / alpha, (2, 2, 2, 2), mode="replicate")
    return torch.tanh(2 * torch.nn.functional.avg_pool2d(field, 5, 1))


def test_the_level_is_the_schedules_nearest() -> None:
    assert level_step([-9.0, -3.0, -1.0, 0.0, 4.0]) == 3
    assert level_step([-np.inf, 5.0]) == 1
    with pytest.raises(InputError, match="at least 2 steps"):
        level_step([0.0])


def test_points_of_a_plane_are_judged_at_a_finer_level_than_pictures() -> None:
    """An exact truth: points of the Gaussian grid that lie between its modes."""
    from experiments.judges.self_consistency import on_grid

    level = level_for(2)
    assert level > 5 > level_for(3 * 64 * 64) == level_for(32 * 32)
    for row in on_grid(points=400, levels=(level,), draws=(4,)):
        assert row["auroc"] > 0.9


def test_self_consistency_sees_what_the_model_would_redraw() -> None:
    images, areas, broken = planted(300)

    def predict(noised: np.ndarray, which: np.ndarray) -> np.ndarray:
        return smoother(torch.from_numpy(noised), 0.8, 0.6).numpy()

    residual = mean_residual(images, predict, alpha=0.8, sigma=0.6, draws=4)
    energy = content_energy(images)
    slope = content_slope(residual.mean((1, 2)), energy)
    maps, scores = self_consistency(residual, energy, slope)
    assert auroc(scores, broken) > 0.95
    assert maps.shape == (300, SIDE, SIDE)
    assert abs(rank_correlations(scores, {"area": areas})["area"]) < 0.35
    again = mean_residual(images[7:9], predict, alpha=0.8, sigma=0.6, runs=np.array([7, 8]))
    np.testing.assert_allclose(again, residual[7:9], atol=1e-6)
    with pytest.raises(InputError, match="predicted x0 of shape"):
        mean_residual(images, lambda x, _: x[:, :, :4], alpha=1.0, sigma=1.0)
    with pytest.raises(InputError, match="not finite"):
        mean_residual(images, lambda x, _: x * np.nan, alpha=1.0, sigma=1.0)


@pytest.mark.parametrize("as_array", [np.asarray, torch.from_numpy])
def test_the_variant_sees_it_while_sampling(as_array: Any) -> None:
    images, _, broken = planted(300)
    sampler = Sampler((0.5, 0.8, 0.9), (0.9, 0.6, 0.4), (-1.2, 0.6, 1.6))

    def ask(sample: Any, step: int) -> Any:
        redrawn = smoother(torch.as_tensor(sample), sampler.alpha[step], sampler.sigma[step])
        return redrawn if as_array is torch.from_numpy else redrawn.numpy()

    given = variant.Parameters(log_snr=0.5, share=0.1)
    stream = variant.Stream(given, 0.0, 1.0, 0, 1, replace(sampler, lookahead=ask))
    state = stream.update(stream.start(images.shape), 0, x0=as_array(-images))
    state = stream.update(state, 1, x0=as_array(images))
    mask, score, flagged = (np.asarray(one) for one in stream.detect(state, -3.0))
    assert auroc(score, broken) > 0.95
    assert (mask.any((1, 2)) == flagged).all()
    assert mask[flagged].mean() == pytest.approx(0.1, abs=0.02)
    with pytest.raises(InputError, match="evaluates the model"):
        variant.Stream(given, 0.0, 1.0, 0, 1, sampler).update(state, 1, x0=as_array(images))


def test_what_content_explains_is_taken_off() -> None:
    images, areas, broken = planted(400)
    content = content_of(images)
    follows = np.log(areas) + 0.5 * broken
    share, predicted = explained_by(follows, content)
    assert share > 0.5
    rest = follows - predicted
    assert abs(rank_correlations(rest, {"area": areas})["area"]) < 0.2
    assert auroc(rest, broken) > 0.9 > auroc(follows, broken)
    noise = np.random.default_rng(0).standard_normal(400)
    assert explained_by(noise, content)[0] < 0.05, "nothing is explained by chance"
    assert explained_by(noise[:15], {k: v[:15] for k, v in content.items()})[0] == 0


def test_content_without_a_name_is_known_by_its_neighbours() -> None:
    rng = np.random.default_rng(0)
    kind, broken = rng.integers(0, 6, 400), rng.random(400) < 1 / 3
    score = kind + broken + 0.3 * rng.standard_normal(400)
    embedding = np.eye(6)[kind] + 0.2 * rng.standard_normal((400, 6))
    content = {"nearest": neighbour_means(score, embedding)}
    share, predicted = explained_by(score, content)
    assert share > 0.8
    assert auroc(score - predicted, broken) > 0.9 > 0.75 > auroc(score, broken)
    noise = rng.standard_normal(400)
    chance = {"nearest": neighbour_means(noise, rng.standard_normal((400, 20)))}
    assert explained_by(noise, chance)[0] < 0.05
    assert neighbour_means(noise[:1], embedding[:1]).shape == (1,)


def test_auroc_within_like_content() -> None:
    areas = np.random.default_rng(0).uniform(size=1000)
    broken = np.random.default_rng(1).random(1000) < areas
    assert auroc(areas, broken) > 0.75
    assert matched_auroc(areas, broken, {"area": areas}) == pytest.approx(0.5, abs=0.08)
    assert matched_auroc(areas, np.zeros(1000, bool), {}) is None


@pytest.mark.parametrize("runs", [24, 40, 100])
def test_of_few_runs_too_a_score_of_size_tells_nothing_within_like_size(runs: int) -> None:
    """Groups of 20 gave .85 of 21 runs and .71 of 40, "within like content"."""
    found = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        size = rng.uniform(size=runs)
        score, bad = size + 0.05 * rng.standard_normal((2, runs)) * [[1], [6]]
        broken = bad > np.quantile(bad, 0.75)
        found.append(matched_auroc(score, broken, {"area": size}))
    known = [value for value in found if value is not None]
    assert np.mean(known) == pytest.approx(0.5, abs=0.13)
    assert matched_auroc(score[:19], broken[:19], {"area": size[:19]}) is None, "nobody can tell"


def test_auroc_is_over_all_pairs() -> None:
    score = np.arange(400.0) % 200
    broken = np.arange(400) < 200
    assert auroc(score, broken) == pytest.approx(0.5)
    assert auroc(score + 1000 * broken, broken) == 1.0


@pytest.fixture(scope="module")
def recorded(make_tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 runs of a colour DDIM, from a folder whose place the store does not know."""
    from asced_recorders import record

    path = tmp_path_factory.mktemp("teachers") / "runs.zarr"
    pipe = make_tiny("DDIM", 3, timestep_spacing="trailing")
    record(pipe, path, runs=120, steps=8, batch_size=40, seed=5)
    return path


def test_the_model_itself_teaches_by_default(recorded: Path, make_tiny: Any) -> None:
    pipe = make_tiny("DDIM", 3, timestep_spacing="trailing")
    options: dict[str, Any] = {"method": "outcome", "false_alarm_rate": 0.2}
    found = calibrate(
        recorded,
        pipeline=pipe,
        outcome={"epochs": 1, "draws": 1, "content": "patches"},
        fractions=(2, 1, 1),
        **options,
    )
    taught = found.teacher
    assert taught is not None
    assert taught["name"] == "self-consistency"
    assert taught["reference"]["kind"] == "model"
    assert taught["runs"] == 60
    named = {"area", "contrast", "starting energy", "nearest in patches"}
    assert set(taught["content"]["outcome"]) >= named
    assert set(taught["measured"]["content"]) >= named
    assert taught["measured"]["runs"] == 30
    assert found.from_dict(found.to_dict()).teacher == taught
    with pytest.raises(InputError, match="not recorded") as refused:
        calibrate(recorded, **options)
    assert "network of your own" in "".join(refused.value.__notes__)


def test_the_recorded_pipelines_answer_is_its_networks(recorded: Path, make_tiny: Any) -> None:
    """Asked through the sampler, the model says what it says when it is called by hand."""
    pipe = make_tiny("DDIM", 3, timestep_spacing="trailing")
    source = open_source(recorded)
    everyone = np.ones(source.runs, bool)
    step = level_step(source.log_snr, level_for(3 * 16 * 16))
    timestep = float(source.dataset["timestep"].values[step])

    def by_hand(sample: Any, alpha: float, sigma: float) -> Any:
        velocity = pipe.unet(sample, timestep, return_dict=False)[0]
        return alpha * sample - sigma * velocity

    asked = choose_teacher(source, everyone, pipeline=pipe, draws=1)
    given = choose_teacher(source, everyone, network=by_hand, draws=1)
    rows = np.arange(45)
    for one, other in zip(*(t.outcomes(source, rows, (8, 8)) for t in (asked, given)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("scheduler", ["DDPM", "PNDM", "EulerAncestralDiscrete", "HeunDiscrete"])
def test_a_model_is_asked_whatever_its_sampler_remembers(
    scheduler: str, make_tiny: Any, tmp_path: Path
) -> None:
    """Asked about a recorded sample, it says what was recorded."""
    import diffusers

    from asced_analysis.replay.recorded_network import recorded_network
    from asced_recorders import record

    pipe = make_tiny("DDIM", 3)
    sampler = getattr(diffusers, f"{scheduler}Scheduler")(prediction_type="v_prediction")
    pipe.register_modules(scheduler=sampler)
    record(pipe, tmp_path / "runs.zarr", runs=4, steps=6, batch_size=4)
    at = open_runs(tmp_path / "runs.zarr").isel(step=3)
    x0, eps = (at[name].values.astype(np.float32) for name in ("x0", "eps"))
    sample = float(at["alpha"]) * x0 + float(at["sigma"]) * eps
    said = recorded_network(tmp_path / "runs.zarr", pipe, 3)(sample, at["run"].values)
    np.testing.assert_allclose(said, x0, atol=0.02)


def test_scores_and_masks_from_elsewhere_teach(recorded: Path, tmp_path: Path) -> None:
    ds = open_runs(recorded)
    wanted = ds["x0"].isel(step=4).values.astype(np.float32).mean((1, 2, 3))
    lines = [f"{run},{value}" for run, value in zip(ds["run"].values, wanted, strict=True)]
    file = tmp_path / "rewards.csv"
    file.write_text("\ufeffrun,score\n" + "\n".join(lines[:110]))
    options: dict[str, Any] = {"method": "outcome", "false_alarm_rate": 0.2}
    learning = {"epochs": 2, "within_content": False}  # what is wanted is brightness: content
    found = calibrate(recorded, outcomes=file, better="higher", outcome=learning, **options)
    assert found.teacher is not None
    assert found.teacher["reference"]["source"] == "scores from rewards.csv"
    assert found.teacher["measured"]["auroc"] > 0.7
    masks = {int(run): np.zeros((16, 16), bool) for run in ds["run"].values}
    for run in masks:
        masks[run][: 2 + run % 9] = True
    found = calibrate(recorded, masks=masks, outcome={"epochs": 1}, **options)
    assert found.teacher is not None
    assert found.teacher["name"] == "outcomes of given masks"
    assert found.teacher["reference"]["kind"] == "masks"
    content = found.teacher["measured"]["content"]
    assert set(content) <= set(found.teacher["content"]["outcome"])
    wrong = {run: np.zeros((8, 16), bool) for run in masks}
    wrong[1][2] = True
    with pytest.raises(InputError, match="run 0 in given masks is 8 x 16; expected one of 16 x 16"):
        calibrate(recorded, masks=wrong, outcome={"epochs": 1}, **options)


def test_the_energy_of_the_start_is_measured_and_stays() -> None:
    """It is no content of a picture, and what breaks runs of some models."""
    rng = np.random.default_rng(0)
    energy, area = rng.standard_normal((2, 200))
    content = {"area": area, "starting energy": energy}
    goal = (energy + 2 * area).astype(np.float32)
    maps = np.zeros((200, 1, 1), np.float32)
    examples = Examples(np.arange(200), maps[None], maps[:, 0], maps, maps, goal, content)
    learnable, said = within_matched_content(examples, GivenTeacher(Outcomes({})), None)
    assert said["content"]["taken_off"]
    assert abs(said["content"]["learnt_from"]["area"]) < 0.2
    assert said["content"]["learnt_from"]["starting energy"] > 0.9
    assert np.corrcoef(learnable.goal, energy)[0, 1] > 0.9


def test_what_was_learnt_in_vain_is_said_in_the_thresholds() -> None:
    figures: Any = {"runs": 26, "auroc": 0.4, "auroc_matched": 0.36, "content": {}}
    (note,) = learning_warnings(figures)
    assert "AUROC 0.36 on 26 runs" in note
    assert learning_warnings({**figures, "auroc_matched": 0.8}) == learning_warnings(None) == ()


def test_outcomes_that_cannot_teach(recorded: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"method": "outcome", "false_alarm_rate": 0.2}
    wide = calibrate(
        recorded,
        outcomes={run: 1e6 * run for run in range(120)},
        outcome={"epochs": 1},
        **options,
    )
    assert wide.teacher is not None, "scores on any scale: those of 0 to 100 overflowed"
    for wrong in ({"a": 1.0}, {1: None}, {1: "x"}, {1.5: 1.0}, [1.0]):
        with pytest.raises(InputError, match="expected a"):
            calibrate(recorded, outcomes=wrong, **options)
    with pytest.raises(InputError, match="not among the complete ones here, such as run 900"):
        calibrate(recorded, outcomes={0: 1.0, 900: 2.0}, **options)
    with pytest.raises(InputError, match=r"network <lambda> cannot be called.*expected network\("):
        calibrate(recorded, network=lambda sample, level: sample, **options)
    with pytest.raises(RuntimeError) as raised:
        calibrate(recorded, network=lambda x, alpha, sigma: x @ x[:, :, :5], **options)
    assert "raised by the network <lambda>, given samples of shape" in raised.value.__notes__[0]
    with pytest.raises(InputError, match="are the same"):
        calibrate(recorded, outcomes=dict.fromkeys(range(120), 1.0), **options)
    with pytest.raises(InputError, match=r"at least 40 runs.*given outcomes knows nothing of 70"):
        calibrate(recorded, outcomes={run: float(run) for run in range(50)}, **options)
    with pytest.raises(InputError, match="score of run 3 is nan"):
        calibrate(recorded, outcomes={3: float("nan")}, **options)
    with pytest.raises(InputError, match="teach by themselves"):
        calibrate(recorded, outcomes={0: 1.0}, teacher="patches", **options)
    with pytest.raises(InputError, match="real is for learning"):
        calibrate(recorded, real=tmp_path)
    with pytest.raises(InputError, match="no real images"):
        calibrate(recorded, real=tmp_path, teacher="self-consistency", **options)
    for text, said in {
        "a,b\n1,2": "expected 'run' and 'score'",
        "run,score\n1,x": "row 1: run '1' with score 'x'",
        "run,score\n0,1\n1,": "row 2: run '1' with score 'nan'",
        "run,score\n1.5,2": "whole number",
        "run,score\n": "no outcome",
        "run,score\n1,2\n1,3": "two different",
    }.items():
        (tmp_path / "o.csv").write_text(text)
        with pytest.raises(InputError, match=said):
            read_outcomes(tmp_path / "o.csv")
    with pytest.raises(InputError, match="can't be read"):
        read_outcomes(tmp_path / "nothing.parquet")
