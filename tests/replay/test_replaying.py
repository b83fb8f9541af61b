"""Replay: bit for bit without a correction, flagged runs only with one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import accelerate
import diffusers
import numpy as np
import pytest
import torch

from asced_analysis.correction import STRATEGIES
from asced_analysis.replay import Branch, branch, exactness, replay
from asced_recorders import record
from asced_recorders.pipelines.scheduler_names import SHORT_NAMES
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError

TARGET = 6
IN_LOOP = [
    name for name in STRATEGIES if STRATEGIES.get(name).in_loop and STRATEGIES.get(name).edits
]


def square(top: int = 4, left: int = 5, size: int = 5) -> np.ndarray:
    mask = np.zeros((16, 16), bool)
    mask[top : top + size, left : left + size] = True
    return mask


MASKS = {3: square(), 12: square(8, 2)}


def samples(store: TrajectoryStore) -> np.ndarray:
    return np.asarray(open_runs(store.path)["sample"].values)


def test_without_a_correction_every_bit_comes_back(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    before = tiny_pipeline.scheduler
    replayed = replay(tiny_runs, tmp_path / "none.zarr", strategy="none", pipeline=tiny_pipeline)
    agreement = exactness(replayed)
    assert agreement.bit_exact
    assert agreement.runs == 20
    assert (samples(replayed) == np.asarray(open_runs(tiny_runs)["sample"].values)).all()
    assert tiny_pipeline.scheduler is before
    assert type(before).__name__ == "DDIMScheduler"


@pytest.mark.parametrize("scheduler", SHORT_NAMES)
def test_every_scheduler_family_comes_back(
    scheduler: str, tiny_pipeline: Any, tmp_path: Path
) -> None:
    pipe = copy.copy(tiny_pipeline)
    kin = scheduler.startswith(("flow", "edm"))
    if kin:  # of another training than the tiny pipeline's: what it draws does not matter here
        pipe.scheduler = getattr(diffusers, SHORT_NAMES[scheduler])()
    name = None if kin else scheduler
    store = record(pipe, tmp_path / "r.zarr", runs=4, steps=6, batch_size=4, scheduler=name)
    replayed = replay(store, tmp_path / "none.zarr", strategy="none", pipeline=pipe)
    assert exactness(replayed).bit_exact


def test_a_corrected_replay_in_other_batches_is_close(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"masks": MASKS, "step": TARGET, "pipeline": tiny_pipeline}
    whole = replay(tiny_runs, tmp_path / "a.zarr", **options)
    other = replay(tiny_runs, tmp_path / "b.zarr", batch_size=3, **options)
    assert np.abs(samples(whole) - samples(other)).max() < 1e-3
    assert (open_runs(whole.path)["mask"].values == open_runs(other.path)["mask"].values).all()


@pytest.mark.parametrize("start", [3, 6])
def test_a_checkpoint_gives_the_same_bits(
    start: int, tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    replayed = replay(
        tiny_runs, tmp_path / "none.zarr", strategy="none", start=start, pipeline=tiny_pipeline
    )
    assert exactness(replayed).bit_exact
    assert set(open_runs(replayed.path)["evaluations"].values) == {10 - start}


def test_an_offloaded_model_goes_on_from_a_checkpoint_where_it_computes(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    pipe = copy.deepcopy(tiny_pipeline)
    accelerate.cpu_offload(pipe.unet, execution_device="cpu")
    assert pipe.device.type == "meta"
    options: dict[str, Any] = {"masks": MASKS, "step": TARGET, "start": 3}
    plain = replay(tiny_runs, tmp_path / "plain.zarr", pipeline=tiny_pipeline, **options)
    replayed = replay(tiny_runs, tmp_path / "offloaded.zarr", pipeline=pipe, **options)
    assert exactness(replayed).bit_exact
    assert exactness(replayed).conditions == []
    assert (samples(replayed) == samples(plain)).all()


@pytest.mark.parametrize("strategy", IN_LOOP)
def test_only_flagged_runs_differ(
    strategy: str, tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    replayed = replay(
        tiny_runs,
        tmp_path / "c.zarr",
        strategy=strategy,
        masks=MASKS,
        step=TARGET,
        pipeline=tiny_pipeline,
    )
    ds = open_runs(replayed.path)
    same = (ds["sample"].values == open_runs(tiny_runs)["sample"].values).all((1, 2, 3))
    flagged = ds["flagged"].values
    assert sorted(ds["run"].values[flagged]) == [3, 12]
    assert same[~flagged].all()
    assert not same[flagged].any()
    assert (ds["difference"].values[~flagged] == 0).all()
    area = ds["mask"].values.sum((1, 2))
    assert (area[~flagged] == 0).all()
    assert (area[flagged] == (256 if strategy in ("renoise", "noise_normalisation") else 25)).all()


@pytest.mark.parametrize("strategy", ["ttc", "renoise", "state_replacement"])
@pytest.mark.parametrize("start", [3, 6])
def test_a_correction_from_a_checkpoint_gives_the_same_bits(
    strategy: str, start: int, tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "strategy": strategy,
        "masks": MASKS,
        "step": TARGET,
        "pipeline": tiny_pipeline,
    }
    whole = replay(tiny_runs, tmp_path / "init.zarr", **options)
    part = replay(tiny_runs, tmp_path / "part.zarr", start=start, **options)
    assert (samples(whole) == samples(part)).all()


def test_flagged_runs_alone_differ_in_last_bits_only(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"masks": MASKS, "step": TARGET, "pipeline": tiny_pipeline}
    whole = samples(replay(tiny_runs, tmp_path / "a.zarr", **options))
    alone = samples(replay(tiny_runs, tmp_path / "b.zarr", only_flagged=True, **options))
    assert np.abs(whole - alone).max() < 1e-4
    assert np.abs(whole - np.asarray(open_runs(tiny_runs)["sample"].values)).max() > 0.1


def test_noise_and_denoise_stays_inside_the_mask(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    replayed = replay(
        tiny_runs,
        tmp_path / "c.zarr",
        strategy="noise_denoise",
        masks=MASKS,
        step=TARGET,
        pipeline=tiny_pipeline,
    )
    ds = open_runs(replayed.path)
    away = np.abs(ds["sample"].values - open_runs(tiny_runs)["sample"].values).max(1)
    assert (away[ds["mask"].values == 0] == 0).all()
    assert (away[3][MASKS[3]] > 0).mean() > 0.9
    assert ds["evaluations"].values.max() == 10 - TARGET


@pytest.mark.parametrize("control", ["shuffled", "foreground", "everywhere"])
def test_controls_correct_the_same_runs_elsewhere(
    control: Any, tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    masks = {3: square(), 12: square(8, 2), 7: square(0, 0, 4)}
    replayed = replay(
        tiny_runs,
        tmp_path / "c.zarr",
        masks=masks,
        control=control,
        step=TARGET,
        pipeline=tiny_pipeline,
        only_flagged=True,
    )
    ds = open_runs(replayed.path)
    used = {
        int(r): m.astype(bool) for r, m in zip(ds["run"].values, ds["mask"].values, strict=True)
    }
    assert sorted(run for run, mask in used.items() if mask.any()) == [3, 7, 12]
    if control == "everywhere":
        assert all(used[run].all() for run in masks)
    elif control == "shuffled":
        assert all((used[run] != masks[run]).any() for run in masks)
        assert sum(used[run].sum() for run in masks) == sum(m.sum() for m in masks.values())
    else:
        assert all(used[run].sum() == masks[run].sum() for run in masks)
    assert replayed.attributes["control"] == control


def test_common_random_numbers(tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path) -> None:
    """A run's correction does not depend on which others are corrected, nor on their number."""
    options: dict[str, Any] = {"step": TARGET, "pipeline": tiny_pipeline}
    one = samples(replay(tiny_runs, tmp_path / "a.zarr", masks={3: MASKS[3]}, **options))
    two = samples(replay(tiny_runs, tmp_path / "b.zarr", masks=MASKS, **options))
    other = samples(replay(tiny_runs, tmp_path / "c.zarr", masks=MASKS, seed=1, **options))
    assert (one[3] == two[3]).all()
    assert (other[3] != two[3]).any()


def test_the_replayed_store_says_what_it_is(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    replayed = replay(
        tiny_runs, tmp_path / "c.zarr", masks=MASKS, step=TARGET, pipeline=tiny_pipeline
    )
    recording = TrajectoryStore.open(tiny_runs)
    reopened = TrajectoryStore.open(replayed.path)
    assert reopened.attributes["replay_of"] == recording.fingerprint
    assert reopened.attributes["strategy"] == "ttc"
    assert reopened.attributes["correction_step"] == TARGET
    assert reopened.committed_batches() == recording.committed_batches()
    assert reopened.verify().ok
    ds, original = open_runs(replayed.path), open_runs(tiny_runs)
    for name in ("run", "seed", "batch"):
        assert (ds[name].values == original[name].values).all()
    assert ds["image"].shape == original["image"].shape


class TestRefusals:
    def test_a_step_that_is_no_checkpoint(
        self, tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match="recorded: 3, 6"):
            replay(tiny_runs, tmp_path / "c.zarr", strategy="none", start=5, pipeline=tiny_pipeline)
        assert not (tmp_path / "c.zarr").exists()

    def test_solver_history(self, tiny_pipeline: Any, tmp_path: Path) -> None:
        store = record(
            tiny_pipeline,
            tmp_path / "r.zarr",
            runs=2,
            steps=6,
            batch_size=2,
            scheduler="unipc",
            checkpoints=(3,),
        )
        with pytest.raises(InputError, match=r"UniPC.*start at init"):
            replay(store, tmp_path / "c.zarr", strategy="none", start=3, pipeline=tiny_pipeline)

    def test_an_edit_before_the_start(
        self, tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match="before the start at 6"):
            replay(
                tiny_runs,
                tmp_path / "c.zarr",
                masks=MASKS,
                step=4,
                start=6,
                pipeline=tiny_pipeline,
            )

    def test_score_clipping_from_a_checkpoint(
        self, tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match="before T_c"):
            replay(
                tiny_runs,
                tmp_path / "c.zarr",
                strategy="score_clipping",
                masks=MASKS,
                step=6,
                start=6,
                pipeline=tiny_pipeline,
            )

    def test_another_model(self, tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path) -> None:
        other = copy.deepcopy(tiny_pipeline)
        with torch.no_grad():
            next(other.unet.parameters()).add_(1)
        with pytest.raises(InputError, match="another model"):
            replay(tiny_runs, tmp_path / "c.zarr", strategy="none", pipeline=other)

    def test_no_thresholds(self, tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="needs thresholds"):
            replay(tiny_runs, tmp_path / "c.zarr", pipeline=tiny_pipeline)

    def test_a_control_of_nothing(
        self, tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match="control needs a correction"):
            replay(
                tiny_runs,
                tmp_path / "c.zarr",
                strategy="none",
                control="shuffled",
                pipeline=tiny_pipeline,
            )

    def test_an_unknown_strategy(self, tiny_runs: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"unknown correction strategy 'magic'.*ttc"):
            replay(tiny_runs, tmp_path / "c.zarr", strategy="magic", masks=MASKS)

    def test_a_store_that_exists(self, tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path) -> None:
        out = tmp_path / "c.zarr"
        replay(tiny_runs, out, strategy="none", start=6, pipeline=tiny_pipeline)
        with pytest.raises(ValueError, match=r"c\.zarr"):
            replay(tiny_runs, out, strategy="none", start=6, pipeline=tiny_pipeline)

    @pytest.mark.parametrize(
        ("masks", "message"),
        [
            ({99: square()}, r"runs \[99\]"),
            ({3: np.ones((8, 8), bool)}, r"run 3 has shape \(8, 8\)"),
            (np.ones((2, 16, 16), bool), r"expected \(20, y, x\)"),
        ],
    )
    def test_masks_that_do_not_fit(
        self, masks: Any, message: str, tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError, match=message):
            replay(tiny_runs, tmp_path / "c.zarr", masks=masks, step=6, pipeline=tiny_pipeline)


def test_the_recording_is_never_replaced(
    tiny_pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.zarr"
    record(tiny_pipeline, path, runs=4, steps=6, batch_size=4)
    (tmp_path / "link.zarr").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    for out in (path, f"{path}/", "r.zarr", "link.zarr", path / "replayed.zarr"):
        with pytest.raises(InputError, match="the store that is read"):
            replay(path, out, strategy="none", pipeline=tiny_pipeline, overwrite=True)
        with pytest.raises(InputError, match="the store that is read"):
            branch(
                path,
                out,
                [Branch(step=2)],
                masks={1: square()},
                pipeline=tiny_pipeline,
                overwrite=True,
            )
    assert TrajectoryStore.open(path).verify().ok
    assert open_runs(path).sizes["run"] == 4
    replay("r.zarr", "replayed.zarr", strategy="none", pipeline=tiny_pipeline)
    again = replay(
        "r.zarr", "replayed.zarr", strategy="none", pipeline=tiny_pipeline, overwrite=True
    )
    assert exactness(again).bit_exact
