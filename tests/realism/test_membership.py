"""No image is judged against itself, nor against its corrected or uncorrected version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from asced_analysis import open_runs
from asced_analysis.evaluation.judges import AFTER, BEFORE, RealismJudge
from asced_analysis.evaluation.outcome_rates import worst_quarter_limit
from asced_analysis.realism import local_realism, patch_model
from asced_analysis.realism.claims import Reference
from asced_analysis.realism.judges import choose_judge
from asced_analysis.realism.local import nearest_distances
from asced_analysis.realism.membership import halves, stand_ins
from asced_analysis.realism.pictures import read_pictures
from asced_stores.errors import InputError


def smooth(count: int, seed: int, channels: int = 1, size: int = 16) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    field = np.random.default_rng(seed).standard_normal((count, channels, size, size))
    return np.clip(3 * gaussian_filter(field, (0, 0, 2, 2)), -1, 1).astype(np.float32)


def test_left_out_references_are_not_looked_at() -> None:
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((700, 6)).astype(np.float32)
    references = rng.standard_normal((4300, 6)).astype(np.float32)
    skips = [(slice(0, 300), slice(100, 2500)), (slice(500, 700), slice(0, 4100))]
    table = np.linalg.norm(queries[:, None] - references, axis=-1)
    for rows, columns in skips:
        table[rows, columns] = np.inf
    found = nearest_distances(queries, references, skips)
    np.testing.assert_allclose(found, table.min(1), atol=2e-3)


def test_an_image_of_the_reference_is_as_far_as_it_is_from_the_others() -> None:
    images = smooth(60, seed=1)
    model = patch_model(images, patches=10**6, of=Reference())
    found = local_realism(images[:5], model)
    assert found.mean() > 0.1
    local, _ = model.encode(images[:1])
    others = model.patches[model.members.begins[1] :]  # type: ignore[union-attr]
    flat = local.reshape(-1, local.shape[-1])
    assert found[0].ravel() == pytest.approx(nearest_distances(flat, others), abs=1e-5)


def test_a_paired_run_is_not_judged_against_its_run() -> None:
    images = smooth(60, seed=1)
    model = patch_model(images, patches=10**6, of=Reference(), runs=np.arange(100, 160))
    paired = images[:1].copy()
    paired[..., :8] = images[1:2, ..., :8]  # half of the picture is still the run's
    as_itself = local_realism(paired, model, runs=np.array([100]))
    as_nobody = local_realism(paired, model, runs=np.array([7]))  # leaves out another image
    assert as_nobody[0, :, 7:].max() < 1e-2
    assert as_itself[0, :, 7:].mean() > 0.1
    copy = np.concatenate([images, images[:1]])
    double = local_realism(copy[:1], patch_model(copy, patches=10**6, of=Reference()))
    assert double.mean() > 0.1, "a copy under another name is the image itself"


def test_a_reference_of_one_image_is_no_reference() -> None:
    image = smooth(1, seed=0)
    with pytest.raises(InputError, match="nothing but the judged image itself"):
        local_realism(image, patch_model(np.concatenate([image, image])))


def test_halves_share_nothing_whatever_the_order() -> None:
    images = smooth(41, seed=2)
    first, second = halves(images)
    assert abs(len(first) - len(second)) <= 1
    assert sorted([*first, *second]) == list(range(41))
    order = np.random.default_rng(0).permutation(41)
    again, _ = halves(np.concatenate([images[order], images[order[:7]]]))
    assert {int(order[i]) for i in again if i < 41} == set(first.tolist())


def test_everybody_meets_as_many_references() -> None:
    """Noise ends nearly alike: one reference more or less would tell who is in the reference."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((60, 1, 16, 16)).astype(np.float32)
    model = patch_model(images[:20], patches=10**6, of=Reference(), runs=np.arange(20))
    assert model.members is not None
    for runs in (None, np.arange(60), np.full(60, -1)):
        left = model.members.left_out(images, runs)
        sizes = [sum(part.stop - part.start for part in one) for one in left]
        assert len(set(sizes)) == 1
    paired = model.members.left_out(-images[40:], np.arange(40, 60))
    assert paired == model.members.left_out(images[40:], np.arange(40, 60)), (
        "a run and its paired run"
    )


@pytest.mark.parametrize("kind", ["smooth", "noise"])
@pytest.mark.parametrize("channels", [1, 3])
def test_fresh_runs_are_beyond_the_worst_quarters_bar_as_often_as_they_should_be(
    channels: int, kind: str
) -> None:
    """240 fresh runs of 4 populations; the limit and the share are both drawn.

    Noise ends nearly alike, so that features fitted to the recorded runs alone would tell them.
    """
    shares = []
    for seed in range(4):
        images = smooth(180, seed, channels)
        if kind == "noise":
            images = np.random.default_rng(seed).standard_normal(images.shape).astype(np.float32)
        model = patch_model(images[:120])
        seen, fresh = (
            local_realism(part, model).mean((1, 2)) for part in (images[:120], images[120:])
        )
        shares.append(np.mean(fresh > np.quantile(seen, 0.75)))
    error = np.sqrt(0.25 * 0.75 / 240 + 0.25 * 0.75 / 480)
    assert abs(np.mean(shares) - 0.25) < 3 * error


def prompted(seed: int, prompts: int = 13, each: int = 3) -> tuple[xr.Dataset, xr.Dataset]:
    """Recorded and fresh runs of a model whose pictures follow their prompts."""
    count = prompts * each
    of = np.tile(np.arange(prompts), 2 * each)
    images = 0.9 * smooth(prompts, seed)[of] + 0.1 * smooth(2 * count, 1000 + seed)
    runs = xr.Dataset(
        {"sample": (("run", "channel", "y", "x"), images)},
        {"run": np.arange(2 * count), "prompt": ("run", [f"a {i}" for i in of])},
    )
    return runs.isel(run=slice(0, count)), runs.isel(run=slice(count, None))


def test_fresh_runs_of_few_prompts_meet_as_many_of_their_own_as_recorded_ones() -> None:
    """Without stand-ins of their own prompt .19 of them lie beyond the limit, not .25."""
    shares = []
    for seed in range(16):
        recorded, fresh = prompted(seed)
        assessor = RealismJudge(choose_judge("patches", recorded), recorded)
        every = np.arange(recorded.sizes["run"])
        was = assessor.assess(recorded, every, BEFORE, paired=True).distance
        now = assessor.assess(fresh, every, AFTER, paired=False).distance
        shares.append(np.mean(now > worst_quarter_limit(was)))
    assert 0.22 < np.mean(shares) < 0.29


def test_seats_are_of_the_own_prompt_and_shared_evenly() -> None:
    recorded = np.arange(10, 16)
    found = stand_ins(["a"] * 4 + ["b", "c"], ["a", "b"] * 3, recorded)
    assert sorted(found[:3]) == [10, 12, 14]
    assert found[3] == found[0]
    assert found[4] in (11, 13, 15)
    assert found[5] in recorded, "no recorded run has this prompt"


def test_teacher_and_judge_of_a_population_are_two(tiny_runs: Path) -> None:
    ds = open_runs(tiny_runs)
    teacher, judge = (choose_judge("patches", ds, role=role) for role in ("teacher", "judge"))
    assert teacher.reference.images + judge.reference.images == 20
    sets: list[set[bytes]] = []
    for model in (teacher, judge):
        for half in (model, model.other):
            assert half is not None
            assert half.members is not None
            sets.append(set(half.members.by_content))
    assert len(set.union(*sets)) == sum(map(len, sets)) == 20


@pytest.mark.parametrize("cut", [np.round, np.floor])
def test_pictures_of_the_judged_runs_are_no_real_images(tiny_runs: Path, cut: Any) -> None:
    """Good runs that were saved as files and given as real: untouched runs lay at distance .05."""
    ds = open_runs(tiny_runs)
    pictures = read_pictures(ds, slice(None)).clip(-1, 1)
    saved = cut((pictures + 1) * 127.5).astype(np.uint8)[:, 0]
    real = np.random.default_rng(0).integers(0, 255, (20, 16, 16), np.uint8)
    mixed = np.concatenate([saved[:12], real])
    first, others = ds.isel(run=slice(0, 6)), (ds.isel(run=slice(6, None)),)
    models = [
        choose_judge(None, first, real=mixed, role=role, others=others)
        for role in ("teacher", "judge")
    ]
    assert sum(model.reference.images for model in models) == 20
    assert "left out: pictures of the judged runs" in models[1].reference.source
    alone = choose_judge(None, first, real=real)
    assert alone.reference.images == 10
    assert "left out" not in alone.reference.source
    with pytest.raises(InputError, match="are pictures of the judged runs"):
        choose_judge(None, ds, real=saved)


def test_bad_judges(tiny_runs: Path) -> None:
    ds: Any = open_runs(tiny_runs)
    with pytest.raises(InputError, match="it teaches"):
        choose_judge("self-consistency", ds)
    with pytest.raises(InputError, match="cannot teach"):
        choose_judge("judge", ds, role="teacher")
    with pytest.raises(InputError, match="real images of its own"):
        choose_judge("judge", ds, real=np.zeros((9, 16, 16), np.uint8))
    with pytest.raises(InputError, match="at least 8"):
        choose_judge(None, ds.isel(run=slice(0, 3)))


def test_a_half_is_an_image_s_own_whatever_it_is_split_with() -> None:
    """Teacher and judge are built from different parts of a population, or of a folder."""
    images = np.random.default_rng(0).standard_normal((120, 1, 4, 4)).astype(np.float32)
    _, judge = halves(images)
    some = np.arange(0, 120, 2)
    teacher, _ = halves(images[some])
    assert not set(some[teacher].tolist()) & set(judge.tolist())
