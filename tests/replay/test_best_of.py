"""The best of several renewals: which draw goes on, what it costs, and who chose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_analysis.correction import Corrector
from asced_analysis.correction.controls import foreground
from asced_analysis.evaluation import evaluate
from asced_analysis.realism import local_realism, patch_model
from asced_analysis.realism.judges import choose_judge
from asced_analysis.replay import replay
from asced_analysis.replay.decoding import Decoder
from asced_analysis.replay.recording import Recording
from asced_recorders import record
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError

STEP, CHOOSE = 6, 8
SQUARE = np.zeros((16, 16), bool)
SQUARE[4:9, 5:10] = True
MASKS = {3: SQUARE, 12: SQUARE.T}


@pytest.fixture(scope="module")
def options(tiny_pipeline: Any) -> dict[str, Any]:
    return {"masks": MASKS, "step": STEP, "pipeline": tiny_pipeline}


def samples(store: TrajectoryStore) -> np.ndarray:
    return np.asarray(open_runs(store.path)["sample"].sel(run=[3, 12]).values)


def edited(store: TrajectoryStore) -> np.ndarray:
    return np.asarray(open_runs(store.path)["mask"].sel(run=[3, 12]).values).astype(bool)


def expected_places(runs: Path) -> np.ndarray:
    x0 = open_runs(runs)["x0"].sel(run=[3, 12]).isel(step=STEP - 1).values
    return np.stack([foreground(one.astype(np.float32)) for one in x0])


def test_the_best_draw_goes_on(
    tiny_runs: Path, options: dict[str, Any], rounding: Callable[[Any], float], tmp_path: Path
) -> None:
    """Each run ends as that renewal of it whose predicted x0 the teacher found most realistic."""
    calls: list[int] = []
    hook = options["pipeline"].unet.register_forward_pre_hook(
        lambda _, inputs: calls.append(len(inputs[0]))
    )
    replayed = replay(
        tiny_runs, tmp_path / "best.zarr", strategy="best_of", draws=3, choose=CHOOSE, **options
    )
    hook.remove()
    ends = [
        samples(
            replay(
                tiny_runs,
                tmp_path / f"{seed}.zarr",
                strategy="renoise",
                where="foreground",
                seed=seed,
                only_flagged=True,
                **options,
            )
        )
        for seed in range(3)
    ]
    recording = Recording(tiny_runs)
    teacher = choose_judge(None, recording.dataset, role="teacher")
    assert replayed.attributes["teacher"] == teacher.name
    runs = np.array(list(MASKS))
    decoder = Decoder(recording, options["pipeline"])  # the teacher looks at pictures
    x0 = [decoder.pictures(predicted(recording, seed, options), runs) for seed in range(3)]
    scores = np.stack([local_realism(one, teacher, runs=runs).mean((1, 2)) for one in x0])
    best = scores.argmin(0)
    for row, draw in enumerate(best):
        bound = rounding(tiny_runs)
        np.testing.assert_allclose(samples(replayed)[row], ends[draw][row], rtol=0, atol=bound)
        others = [d for d in range(3) if d != draw]
        assert min(np.abs(samples(replayed)[row] - ends[d][row]).max() for d in others) > 10 * bound
    paid = np.asarray(open_runs(replayed.path)["evaluations"].sel(run=[3, 12]).values)
    assert (paid == STEP + 3 * (CHOOSE - STEP) + 10 - CHOOSE).all()
    assert sum(calls) == paid.sum()
    assert (edited(replayed) == expected_places(tiny_runs)).all()


def predicted(recording: Recording, seed: int, options: dict[str, Any]) -> np.ndarray:
    """Predicted x0 right before the choice, of one draw."""
    from asced_analysis.replay.best_of import KeptStep
    from asced_analysis.replay.sampling import resample
    from asced_recorders.tap.tap import ListenerChain

    batch = recording.select([3, 12])
    corrector = Corrector(None, strategy="renoise", where="foreground", step=STEP, seed=seed)
    corrector.assign(batch.runs, masks=np.stack([SQUARE, SQUARE.T]))
    look = KeptStep(CHOOSE, stop=False)
    resample(recording, batch, options["pipeline"], listener=ListenerChain(corrector, look))
    assert look.x0 is not None
    return np.asarray(look.x0.numpy())


def test_best_of_from_a_checkpoint_costs_less_and_gives_the_same(
    tiny_runs: Path, options: dict[str, Any], rounding: Callable[[Any], float], tmp_path: Path
) -> None:
    named: dict[str, Any] = {"strategy": "best_of", "choose": CHOOSE, "only_flagged": True}
    whole = replay(tiny_runs, tmp_path / "a.zarr", **named, **options)
    part = replay(tiny_runs, tmp_path / "b.zarr", start=STEP, **named, **options)
    np.testing.assert_allclose(samples(whole), samples(part), rtol=0, atol=rounding(tiny_runs))
    paid = [open_runs(one.path)["evaluations"].values.max() for one in (whole, part)]
    assert paid == [STEP + 2 * 2 + 2, 2 * 2 + 2]
    one = replay(tiny_runs, tmp_path / "c.zarr", draws=1, start=STEP, **named, **options)
    plain = replay(
        tiny_runs,
        tmp_path / "d.zarr",
        strategy="renoise",
        where="foreground",
        start=STEP,
        only_flagged=True,
        **options,
    )
    assert (samples(one) == samples(plain)).all()
    last = replay(tiny_runs, tmp_path / "e.zarr", start=STEP, **{**named, "choose": 10}, **options)
    assert open_runs(last.path)["evaluations"].values.max() == 2 * 4


@pytest.mark.parametrize("scheduler", ["unipc", "ddpm"])
def test_best_of_where_nothing_can_begin_in_the_middle(
    scheduler: str, tiny_pipeline: Any, rounding: Callable[[Any], float], tmp_path: Path
) -> None:
    """Solver history, or noise of the sampler's own: every draw is a whole replay."""
    store = record(  # the teacher of a population needs eight runs
        tiny_pipeline, tmp_path / "r.zarr", runs=8, steps=8, batch_size=4, scheduler=scheduler
    )
    given: dict[str, Any] = {"masks": {1: SQUARE}, "step": 4, "pipeline": tiny_pipeline}
    replayed = replay(store, tmp_path / "best.zarr", strategy="best_of", choose=6, **given)
    ds = open_runs(replayed.path)
    assert ds["evaluations"].values.tolist() == [0, 16, *[0] * 6]
    ends = [
        open_runs(
            replay(
                store,
                tmp_path / f"{seed}.zarr",
                strategy="renoise",
                where="foreground",
                seed=seed,
                only_flagged=True,
                **given,
            ).path
        )["sample"].values[1]
        for seed in range(2)
    ]
    away = [np.abs(ds["sample"].values[1] - end).max() for end in ends]
    bound = rounding(store)
    assert min(away) < bound
    assert max(away) > 10 * bound


def test_an_interrupted_best_of_goes_on(
    tiny_runs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    named: dict[str, Any] = {"strategy": "best_of", "choose": CHOOSE, **options}
    whole = replay(tiny_runs, tmp_path / "a.zarr", **named)

    def stop(done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replay(tiny_runs, tmp_path / "b.zarr", progress=stop, **named)
    with pytest.raises(InputError, match="strategy parameters"):
        replay(tiny_runs, tmp_path / "b.zarr", resume=True, draws=3, **named)
    mine = patch_model(open_runs(tiny_runs)["sample"].values, name="mine")
    with pytest.raises(InputError, match="teacher patches"):
        replay(tiny_runs, tmp_path / "b.zarr", resume=True, teacher=mine, **named)
    again = replay(tiny_runs, tmp_path / "b.zarr", resume=True, **named)
    assert (samples(again) == samples(whole)).all()


def test_the_evaluation_has_its_controls_and_says_who_chose(
    tiny_runs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    replayed = replay(tiny_runs, tmp_path / "a.zarr", strategy="best_of", choose=CHOOSE, **options)
    result = evaluate(tiny_runs, replayed, pipeline=options["pipeline"])
    data = result.to_dict()
    assert set(data["controls"]) == {"shuffled", "everywhere"}
    assert data["controls"]["everywhere"]["mask_area"] == 1
    assert data["correction"] == "best of 2 (renoise, foreground)"
    assert data["judge"]["chose"]  # patches of the population both chose and judge
    assert "too kind" in dict(result.table())["judge"]
    ends = data["flagged_runs"]["endings"]
    assert ends["broken"] + ends["good"] == 2
    assert data["flagged_runs"]["evaluations"] == STEP + 2 * 2 + 2
    mine = patch_model(open_runs(tiny_runs)["sample"].values, name="mine")
    replayed = replay(
        tiny_runs, tmp_path / "b.zarr", strategy="best_of", choose=CHOOSE, teacher=mine, **options
    )
    with pytest.raises(InputError, match="chosen by mine, which is not at hand"):
        evaluate(tiny_runs, replayed, pipeline=options["pipeline"])
    assert not evaluate(tiny_runs, replayed, controls=False).data["judge"]["chose"]
