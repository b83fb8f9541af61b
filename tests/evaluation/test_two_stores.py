"""Any two stores: paired where runs began alike, unpaired otherwise; latents; scores; refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from asced_analysis import calibrate, open_runs
from asced_analysis.evaluation import evaluate, quality, try_remedies, tune
from asced_analysis.evaluation.effects import damaged_locations
from asced_analysis.evaluation.matching import pair_runs
from asced_analysis.realism import load_embedded
from asced_analysis.realism.real_images import read_real
from asced_analysis.replay import replay
from asced_analysis.report import write_report
from asced_recorders import Recorder, record
from asced_recorders.pipelines.sampling import run_generators
from asced_stores.errors import InputError


@pytest.fixture(scope="module")
def others(tiny_pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny runs once more, runs of other seeds, and of the same seeds in more steps."""
    folder = tmp_path_factory.mktemp("stores")
    paths = {}
    for name, given in {
        "again": {"seed": 7, "steps": 10},
        "fresh": {"seed": 900, "steps": 10},
        "finer": {"seed": 7, "steps": 14},
    }.items():
        paths[name] = folder / f"{name}.zarr"
        record(tiny_pipeline, paths[name], runs=20, batch_size=8, **given)
    return paths


def test_the_same_runs_are_pairs_and_do_not_change(
    tiny_runs: Path, others: dict[str, Path]
) -> None:
    result = evaluate(tiny_runs, others["again"])
    data = result.to_dict()
    assert data["paired"]
    assert data["pairs"] == "20 runs paired by number and start"
    assert data["flagged_runs"]["effect"]["all"]["value"] == 0
    assert data["flagged_runs"]["inside_mask"]["value"] is None
    assert data["flagged_runs"]["endings"]["repaired"]["value"] == 0
    assert data["controls"] == {}
    assert data["strategy"] is None
    assert result.summary()
    assert "real" not in " ".join(f"{name} {value}" for name, value in result.table())


def test_pairs_may_be_sampled_otherwise(tiny_runs: Path, others: dict[str, Path]) -> None:
    data = evaluate(tiny_runs, others["finer"]).data
    assert data["paired"]
    assert data["flagged_runs"]["effect"]["all"]["value"] != 0


def test_other_seeds_are_compared_unpaired(tiny_runs: Path, others: dict[str, Path]) -> None:
    result = evaluate(tiny_runs, others["fresh"])
    data = result.to_dict()
    assert not data["paired"]
    assert "0 of 20 runs began alike" in data["pairs"]
    effect = data["flagged_runs"]["effect"]["all"]
    assert effect["low"] <= 0 <= effect["high"], "both are of one law"
    assert effect["high"] > effect["low"]
    ends = data["flagged_runs"]["endings"]
    assert ends["repaired"]["value"] is None
    assert ends["worst_quarter"]["before"]["value"] == 0.25
    assert ends["worst_quarter"]["change"]["low"] <= 0 <= ends["worst_quarter"]["change"]["high"]
    assert data["by_run"] == []
    assert result.summary()
    assert any("least typical" in name for name, _ in result.table())
    shown, _, folded = result._repr_html_().partition("<details>")
    assert len(shown) < 1500
    assert all(name in folded for name, _ in result.table() if "'" not in name)


def test_against_real_images_distances_of_sets_return(
    tiny_runs: Path, others: dict[str, Path]
) -> None:
    real = open_runs(others["fresh"])["sample"].values
    real = np.clip(np.concatenate([real, -real, real[:, :, ::-1]]), -1, 1)
    images = read_real(real, real.shape[1:])
    judges, teachers = (len(images.half(role)[0]) for role in ("judge", "teacher"))
    assert judges + teachers == len(real)
    for second in ("again", "fresh"):
        data = evaluate(tiny_runs, others[second], real=real).to_dict()
        assert set(data["quality"]) == {
            "frechet_distance",
            "precision",
            "recall",
            "local_realism",
        }
        assert data["judge"]["reference"]["kind"] == "real"
        assert data["judge"]["reference"]["images"] == judges
        for name, figure in data["quality"].items():
            change = figure["change"]
            if second == "again" and name in ("frechet_distance", "local_realism"):
                assert change == {"value": 0, "low": None, "high": None}, "all alike"
            else:
                assert change["low"] <= change["value"] <= change["high"]
                assert change["low"] < change["high"]
    alone = quality(tiny_runs, real=real)
    assert alone["recall"]["value"] is not None
    with pytest.raises(InputError, match="has a reference already"):
        evaluate(tiny_runs, others["again"], judge=load_embedded("judge"), real=real)


def test_ranges_that_two_recordings_measured_do_not_tell_them_apart(
    tiny_runs: Path, others: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from asced_analysis.evaluation import comparison

    def opened(path: Any) -> Any:
        runs = open_runs(path)
        if str(path) == str(others["again"]):
            runs.attrs["value_range"] = [-4.0, 3.0]
        return runs

    monkeypatch.setattr(comparison, "open_runs", opened)
    data = evaluate(tiny_runs, others["again"]).data
    assert data["flagged_runs"]["effect"]["all"]["value"] == 0
    assert "in the first one's range" in data["notes"][0]


def test_a_recall_that_no_run_changes_has_an_interval(tiny_runs: Path) -> None:
    real = np.random.default_rng(0).choice([-1.0, 1.0], (12, 1, 16, 16)).astype(np.float32)
    recall = quality(tiny_runs, judge="patches", real=real)["recall"]
    assert recall["value"] == recall["low"] == 0
    assert recall["high"] == pytest.approx(0.42, abs=0.05), "of six images in the judge's half"


def test_a_run_without_a_seed_is_paired_by_its_start(tiny_runs: Path) -> None:
    ds = open_runs(tiny_runs)
    nobody = ds.assign_coords(seed=("run", np.full(20, -1)))
    assert pair_runs(nobody, nobody).paired
    elsewhere = nobody.assign(x_init=nobody["x_init"] + 1)
    assert not pair_runs(nobody, elsewhere).paired
    assert not pair_runs(nobody.drop_vars("x_init"), nobody.drop_vars("x_init")).paired
    half = pair_runs(ds, ds.isel(run=slice(4, 20)))
    assert half.paired
    assert "4 have no pair" in half.why


def test_scores_from_elsewhere_judge(tiny_runs: Path, others: dict[str, Path]) -> None:
    before = {run: float(run) for run in range(20)}
    after = {run: float(run) - (3 if run > 14 else 0) for run in range(20)}
    result = evaluate(tiny_runs, others["again"], outcomes=(before, after))
    data = result.to_dict()
    assert data["flagged_runs"]["effect"]["all"]["value"] == pytest.approx(-0.75)
    assert data["flagged_runs"]["endings"]["repaired"]["value"] == pytest.approx(0.6)
    names = " ".join(name for name, _ in result.table())
    assert "given score" in names
    assert "damaged" not in names, "one score a run has no places"
    assert data["flagged_runs"]["effect"]["damaged"]["value"] is None
    higher = evaluate(tiny_runs, others["again"], outcomes=(before, after), better="higher")
    assert higher.data["flagged_runs"]["effect"]["all"]["value"] == pytest.approx(0.75)
    with pytest.raises(InputError, match="no outcome for run 19"):
        evaluate(tiny_runs, others["again"], outcomes=(dict(list(before.items())[:19]), after))
    with pytest.raises(InputError, match="are two"):
        evaluate(tiny_runs, others["again"], outcomes=before)


def test_masks_from_elsewhere_judge(
    tiny_runs: Path, others: dict[str, Path], tmp_path: Path
) -> None:
    """A detector's masks: of the second store half as much is marked, of one run nothing more."""
    folders = []
    for name, height in (("before", 8), ("after", 4)):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        for run in range(20):
            mask = np.zeros((16, 16), np.uint8)
            mask[: height if run % 2 else 2] = 255
            if name == "after" and run == 19:
                mask[:] = 0
            Image.fromarray(mask).save(folders[-1] / f"{run}.png")
    result = evaluate(tiny_runs, others["again"], outcomes=folders)
    flagged = result.data["flagged_runs"]
    assert flagged["effect"]["all"]["value"] == pytest.approx(-(9 * 0.25 + 0.5) / 20)
    assert flagged["effect"]["damaged"]["value"] == pytest.approx(-0.44), "of what was marked"
    assert flagged["effect"]["undamaged"]["value"] == 0
    assert flagged["effect"]["undamaged"]["low"] == pytest.approx(0.025**0.05 - 1), "of 20 alike"
    assert result.data["judge"]["reference"]["kind"] == "masks"
    words = " ".join(name for name, _ in result.table())
    assert "marked share of the image" in words
    assert "real" not in words
    scores = {run: float(run) for run in range(20)}
    with pytest.raises(InputError, match="are not alike"):
        evaluate(tiny_runs, others["again"], outcomes=(folders[0], scores))
    small = {run: np.eye(8, dtype=bool) for run in range(20)}
    with pytest.raises(InputError, match="give both alike"):
        evaluate(tiny_runs, others["again"], outcomes=(folders[0], small))


def test_the_damaged_tenth_is_compared_with_chance(
    tiny_runs: Path, others: dict[str, Path]
) -> None:
    """Masks drawn anew: nothing was corrected, what was marked looks better, as chance does."""
    rng = np.random.default_rng(0)
    first, second = (dict(enumerate(rng.random((20, 16, 16)) < 0.1)) for _ in range(2))
    result = evaluate(tiny_runs, others["again"], outcomes=(first, second))
    effect, anew = result.flagged_runs.effect, result.flagged_runs.chance
    assert effect.damaged.high < -0.8
    assert effect.undamaged.low > 0.05
    for found, chance in ((effect.damaged, anew.damaged), (effect.undamaged, anew.undamaged)):
        assert found.low < chance < found.high
    assert anew.all == pytest.approx(0), "all runs are flagged: they are the population"
    rows = dict(result.table())
    assert rows["  in the damaged tenth"].endswith(f"of runs drawn anew {anew.damaged:+.3g}")


def test_judges_of_locations_have_no_damaged_tenth_where_all_are_alike() -> None:
    nothing = np.zeros((5, 4, 4), np.float32)
    assert not damaged_locations(nothing).any()
    marked = nothing.copy()
    marked[:, 0] = 1
    assert (damaged_locations(marked) == marked).all(), "more than a tenth: all that is marked"


def elsewhere(path: Path) -> None:
    """Make a recording one of another torch: a replay here is one under other conditions."""
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["versions"]["torch"] = "1.0.0"
    (path / "zarr.json").write_text(json.dumps(content))


HALF = {3: np.ones((8, 8), bool), 5: np.ones((8, 8), bool)}
WHOLE: dict[str, Any] = {"strategy": "renoise", "step": 2, "where": "everywhere", "masks": HALF}


@pytest.mark.parametrize("kind", ["latents", "loop"])
def test_a_replay_that_did_not_come_back_is_refused(kind: str, tmp_path: Path) -> None:
    """Under the recording's conditions at once; under others where no effect can be told."""
    runs, loudness, only = tmp_path / "runs.zarr", [1.0], {"only_flagged": True}
    options: dict[str, Any] = {}
    if kind == "latents":
        from tiny_pipelines import stable_diffusion

        torch.manual_seed(0)  # another random network may hardly hear its prompt
        pipe = stable_diffusion()
        record(pipe, runs, runs=8, steps=4, batch_size=8, prompts=[f"a {i}" for i in "abcdefgh"])

        def call(pipe: Any, batch: Any) -> Any:
            return pipe(
                batch.scalars["prompt"].tolist(),
                num_inference_steps=4,
                guidance_scale=7.5 * loudness[0],
                generator=run_generators(batch.seeds.tolist()),
                output_type="np",
            )

        options |= {"pipeline": pipe, "call": call}
    else:

        def loop(x: Any, step: Any) -> Any:
            for sigma, following in ((0.9, 0.6), (0.6, 0.3), (0.3, 0.1), (0.1, 0.0)):
                x0 = torch.tanh(loudness[0] * x)
                eps = (x - (1 - sigma) * x0) / sigma
                levels = {"alpha": 1 - sigma, "sigma": sigma}
                level = {"next_alpha": 1 - following, "next_sigma": following}
                then = (1 - following) * x0 + following * eps
                x = step(sample=x, model_output=eps, next_sample=then, **levels, **level)
            return x

        with Recorder.custom(runs, (1, 8, 8), 4, batch_size=8) as recorder:
            loop(torch.randn((8, 1, 8, 8), generator=torch.manual_seed(1)), recorder.step)
        options["loop"] = loop
    replay(runs, tmp_path / "good.zarr", **WHOLE, **options)
    assert evaluate(runs, tmp_path / "good.zarr", controls=False).data["notes"] == []
    replay(runs, tmp_path / "only.zarr", **WHOLE, **options, **only)
    notes = evaluate(runs, tmp_path / "only.zarr", controls=False).data["notes"]
    assert "6 uncorrected runs were copied, not sampled" in notes[0]
    loudness[0] = 100.0 if kind == "latents" else 3.0  # another draw, on any processor
    with pytest.raises(InputError, match="does not reproduce"):
        replay(runs, tmp_path / "broken.zarr", **WHOLE, **options)
    with pytest.raises(InputError, match="although all known conditions are the same"):
        evaluate(runs, tmp_path / "broken.zarr", controls=False)
    elsewhere(runs)
    replay(runs, tmp_path / "elsewhere.zarr", **WHOLE, **options)
    with pytest.raises(InputError, match="cannot show an effect") as caught:
        evaluate(runs, tmp_path / "elsewhere.zarr", controls=False)
    assert "instead of 1.0.0" in str(caught.value)
    loudness[0] = 1.0 if kind == "latents" else 1.05  # a little away, as another device is
    replay(runs, tmp_path / "near.zarr", **WHOLE, **options)
    notes = evaluate(runs, tmp_path / "near.zarr", controls=False).data["notes"]
    assert len(notes) == (kind == "loop")


def test_stores_that_cannot_be_compared(
    tiny_runs: Path, make_tiny: Any, tmp_path: Path, others: dict[str, Path]
) -> None:
    colour = tmp_path / "colour.zarr"
    record(make_tiny("DDIM", 3), colour, runs=5, steps=4, batch_size=5)
    with pytest.raises(InputError, match="have shape"):
        evaluate(tiny_runs, colour)
    few = tmp_path / "few.zarr"
    record(make_tiny("DDIM", 3), few, runs=3, steps=4, batch_size=3)
    with pytest.raises(InputError, match="more than 3"):
        evaluate(few, few)


def test_bad_references_are_refused_before_any_work(
    tiny_runs: Path, others: dict[str, Path], tmp_path: Path
) -> None:
    """Each call has a second fault that only work would meet, such as a missing pipeline."""
    empty, one = tmp_path / "empty", np.zeros((1, 16, 16), np.uint8)
    empty.mkdir()
    thresholds = calibrate(tiny_runs, "calibrated", false_alarm_rate=0.3)
    learn: dict[str, Any] = {"method": "outcome", "false_alarm_rate": 0.3}
    learn["outcome"] = {"lookahead": 0.2}
    constant, unknown = dict.fromkeys(range(20), 1.0), {run: float(run) for run in range(9, 29)}
    good = {run: float(run) for run in range(20)}
    small = {run: np.tri(8, k=run % 7, dtype=bool) for run in range(20)}
    for real, message in ((empty, "no image in"), (one, "holds 1 image")):
        for work in (
            lambda real=real: evaluate(tiny_runs, tiny_runs, real=real),
            lambda real=real: tune(tiny_runs, thresholds, real=real),
            lambda real=real: try_remedies(tiny_runs, runs=1, real=real),
            lambda real=real: calibrate(tiny_runs, real=real, **learn),
            lambda real=real: write_report(
                tiny_runs, tmp_path / "r.md", replay=others["again"], real=real
            ),
        ):
            with pytest.raises(InputError, match=message):
                work()
    for given, message in (
        (constant, "are the same"),
        (unknown, "such as run 20"),
        ({**good, 3: float("nan")}, "score of run 3 is nan"),
        (small, "mask of run 0 .* is 8 x 8"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(tiny_runs, tiny_runs, outcomes=(given, given))
        with pytest.raises(InputError, match=message):
            calibrate(tiny_runs, outcomes=given, **learn)


def test_the_quality_of_few_runs_is_printed_without_an_interval() -> None:
    from asced_cli.commands.evaluate import rows_of

    few = {"judge": "patches", "local_realism": {"value": 1.5, "low": None, "high": None}}
    said = dict(rows_of(few))["local realism"]
    assert said == "1.5 (no interval: under 5 runs, or all alike)"


def test_custom_loops_are_compared(tmp_path: Path) -> None:
    paths = []
    for name, shrink in (("plain", 0.0), ("smoother", 0.2)):
        paths.append(tmp_path / f"{name}.zarr")
        generator = torch.Generator().manual_seed(3)
        with Recorder.custom(paths[-1], (1, 12, 12), 4) as recorder:
            x = torch.randn((16, 1, 12, 12), generator=generator)
            for step in range(4):
                sigma = 0.8 - 0.25 * step
                x0 = torch.tanh(x) * (1 - shrink)
                eps = (x - (1 - sigma) * x0) / sigma
                recorder.step(
                    sample=x,
                    model_output=eps,
                    alpha=1 - sigma,
                    sigma=sigma,
                    prediction_type="epsilon",
                )
                last = max(sigma - 0.25, 0.0)
                x = (1 - last) * x0 + last * eps
            recorder.end(x)
    data = evaluate(*paths).to_dict()
    assert data["paired"]
    assert data["runs"] == 16
    assert data["flagged_runs"]["effect"]["all"]["value"] is not None
