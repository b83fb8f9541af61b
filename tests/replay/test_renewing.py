"""Renewal of what is drawn in a run, and at several steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace as replace_field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asced_analysis.correction import Corrector, make_strategy
from asced_analysis.correction.controls import foreground
from asced_analysis.evaluation import evaluate
from asced_analysis.replay import Branch, branch, replay
from asced_analysis.replay.recording import Recording
from asced_analysis.replay.sampling import table_of
from asced_recorders import record
from asced_recorders.pipelines.environment import matching_pipeline
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError

STEP, LATER = 6, 8
SQUARE = np.zeros((16, 16), bool)
SQUARE[4:9, 5:10] = True
MASKS = {3: SQUARE, 12: SQUARE.T}


def top(x0: np.ndarray) -> np.ndarray:
    """A place of one's own: the upper half."""
    assert x0.shape == (1, 16, 16)
    mask = np.zeros(x0.shape[-2:], bool)
    mask[:8] = True
    return mask


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


def test_the_foreground_of_predicted_x0_is_renewed(
    tiny_runs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    whole = replay(tiny_runs, tmp_path / "a.zarr", strategy="renoise", **options)
    named: dict[str, Any] = {"strategy": "renoise", "where": "foreground"}
    replayed = replay(tiny_runs, tmp_path / "b.zarr", **named, **options)
    places = expected_places(tiny_runs)
    assert (edited(replayed) == places).all()
    assert 0.01 < places.mean() < 1
    assert (samples(replayed) != samples(whole)).any()
    part = replay(tiny_runs, tmp_path / "c.zarr", start=STEP, **named, **options)
    assert (samples(part) == samples(replayed)).all()
    assert (edited(part) == places).all()
    by_hand = replay(
        tiny_runs,
        tmp_path / "d.zarr",
        **{**options, "masks": dict(zip((3, 12), places, strict=True))},
    )
    assert (samples(by_hand) == samples(replayed)).all()  # ttc in that mask
    untouched = np.asarray(open_runs(replayed.path)["difference"].values)
    assert (np.flatnonzero(untouched) == [3, 12]).all()


def test_a_place_of_one_s_own(tiny_runs: Path, options: dict[str, Any], tmp_path: Path) -> None:
    replayed = replay(tiny_runs, tmp_path / "a.zarr", strategy="renoise", where=top, **options)
    assert (edited(replayed) == top(np.zeros((1, 16, 16)))).all()
    assert replayed.attributes["strategy_parameters"]["where"] == "top"
    data = evaluate(tiny_runs, replayed, pipeline=options["pipeline"]).to_dict()
    assert set(data["controls"]) == {"shuffled", "everywhere"}
    with pytest.raises(InputError, match="gave a mask of shape"):
        replay(
            tiny_runs,
            tmp_path / "b.zarr",
            strategy="renoise",
            where=lambda x0: x0[0, :3] > 0,
            **options,
        )


@pytest.mark.parametrize("strategy", ["ttc", "renoise"])
def test_a_further_step_is_renewed_in_the_same_place(
    strategy: str, tiny_runs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    once = replay(tiny_runs, tmp_path / "a.zarr", strategy=strategy, **options)
    twice = replay(
        tiny_runs, tmp_path / "b.zarr", strategy=strategy, renoise_steps=LATER, **options
    )
    assert (samples(once) != samples(twice)).any()
    assert (edited(once) == edited(twice)).all()
    share = replay(
        tiny_runs, tmp_path / "c.zarr", strategy=strategy, renoise_steps=(LATER / 10,), **options
    )
    assert (samples(share) == samples(twice)).all()
    part = replay(
        tiny_runs,
        tmp_path / "d.zarr",
        strategy=strategy,
        renoise_steps=LATER,
        start=STEP,
        **options,
    )
    assert (samples(part) == samples(twice)).all()
    assert open_runs(twice.path)["evaluations"].values.max() == 10  # no more than once


def test_the_further_edit_is_alpha_x0_and_fresh_noise(tiny_runs: Path, tiny_pipeline: Any) -> None:
    """At the further step as at T_c: inside the mask alone, with noise of its own."""
    from asced_analysis.replay.sampling import resample
    from asced_recorders.tap.tap import StepEvent

    seen: dict[int, Any] = {}

    class Spy(Corrector):
        def after_step(self, event: StepEvent, next_sample: Any) -> Any:
            out = super().after_step(event, next_sample)
            if out is not None:
                x0 = event.x0.half().float()
                noise = (out - event.next_alpha * x0) / event.next_sigma
                seen[event.step + 1] = (out == next_sample, noise)
            return out

    recording = Recording(tiny_runs)
    batch = recording.select([3, 12])
    corrector = Spy(None, step=STEP, renoise_steps=(LATER,))
    corrector.assign(batch.runs, masks=np.stack([SQUARE, SQUARE.T]))
    resample(recording, batch, tiny_pipeline, corrector=corrector)
    inside = np.stack([SQUARE, SQUARE.T])[:, None]
    assert sorted(seen) == [STEP, LATER]
    drawn = []
    for same, noise in seen.values():
        assert same.numpy()[~inside].all()
        drawn.append(noise.numpy()[inside])
        assert 0.6 < drawn[-1].std() < 1.4
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.6
    assert np.abs(drawn[0] - drawn[1]).min() > 0


def test_common_random_numbers_hold_for_places_and_further_steps(
    tiny_runs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    named: dict[str, Any] = {
        "strategy": "renoise",
        "where": "foreground",
        "renoise_steps": (LATER,),
    }
    both = replay(tiny_runs, tmp_path / "a.zarr", **named, **options)
    alone = replay(tiny_runs, tmp_path / "b.zarr", **named, **{**options, "masks": {3: SQUARE}})
    assert (samples(both)[0] == samples(alone)[0]).all()
    other = replay(tiny_runs, tmp_path / "c.zarr", seed=1, **named, **options)
    assert (samples(both) != samples(other)).any()


def test_controls_of_what_finds_its_own_place(
    tiny_runs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    named: dict[str, Any] = {"strategy": "renoise", "where": "foreground", **options}
    places = expected_places(tiny_runs)
    replayed = replay(tiny_runs, tmp_path / "a.zarr", control="shuffled", **named)
    assert (edited(replayed) == places[::-1]).all()
    everywhere = replay(tiny_runs, tmp_path / "b.zarr", control="everywhere", **named)
    whole = replay(tiny_runs, tmp_path / "c.zarr", strategy="renoise", **options)
    assert (samples(everywhere) == samples(whole)).all()
    with pytest.raises(InputError, match="the same place"):
        replay(tiny_runs, tmp_path / "d.zarr", control="foreground", **named)
    with pytest.raises(InputError, match="whole runs"):
        replay(tiny_runs, tmp_path / "d.zarr", strategy="renoise", control="foreground", **options)


def test_branches_renew_the_foreground(
    tiny_runs: Path, options: dict[str, Any], rounding: Callable[[Any], float], tmp_path: Path
) -> None:
    parameters = {"where": "foreground", "renoise_steps": (LATER,)}
    given = {name: options[name] for name in ("masks", "pipeline")}
    replayed = branch(
        tiny_runs,
        tmp_path / "b.zarr",
        [
            Branch(step=STEP, strategy="renoise", parameters=parameters),
            Branch(step=STEP, strategy="renoise", parameters={"where": top}),
        ],
        **given,
    )
    alone = replay(
        tiny_runs,
        tmp_path / "a.zarr",
        strategy="renoise",
        only_flagged=True,
        **parameters,
        **options,
    )
    ds = open_runs(replayed.path)
    bound = rounding(tiny_runs)
    found = ds["branch_sample"].values
    np.testing.assert_allclose(found[:, 0], samples(alone), rtol=0, atol=bound)
    assert (np.abs(found[:, 0] - found[:, 1]).max((1, 2, 3)) > 10 * bound).all()
    assert (ds["branch_mask"].values[:, 0] == expected_places(tiny_runs)).all()
    assert replayed.attributes["branches"][1]["parameters"] == {"where": "top"}
    with pytest.raises(InputError, match="in one pass"):
        branch(tiny_runs, tmp_path / "c.zarr", [Branch(step=STEP, strategy="best_of")], **given)


@pytest.mark.parametrize(
    ("strategy", "parameters", "message"),
    [
        ("renoise", {"where": "nowhere"}, "one of mask, everywhere, foreground"),
        ("ttc", {"renoise_steps": 0}, "a step, or a share"),
        ("ttc", {"renoise_steps": (7.5,)}, "a whole step"),
        ("ttc", {"noise_scale": "much", "eta": "x"}, "makes no sense"),
        ("best_of", {"draws": 0}, "at least 1"),
        ("best_of", {"choose": -1}, "a step, or a share"),
    ],
)
def test_wrong_parameters_are_named(
    strategy: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_strategy(strategy, **parameters)


def test_steps_that_cannot_be_are_refused_before_anything_is_written(
    tiny_runs: Path, options: dict[str, Any], tiny_pipeline: Any, tmp_path: Path
) -> None:
    out = tmp_path / "c.zarr"
    for named, message in (
        ({"strategy": "ttc", "renoise_steps": STEP}, "one after T_c, which is step 6"),
        ({"strategy": "ttc", "renoise_steps": 10}, "before the end at 10"),
        ({"strategy": "best_of", "choose": STEP}, "one after the last edit"),
        ({"strategy": "best_of", "choose": LATER, "renoise_steps": LATER}, "entering step 8"),
    ):
        with pytest.raises(InputError, match=message):
            replay(tiny_runs, out, **named, **options)
    with pytest.raises(InputError, match="judge is for reporting, so it cannot teach"):
        replay(tiny_runs, out, strategy="best_of", teacher="judge", **options)
    assert not out.exists()
    with pytest.raises(InputError, match="asced replay"):
        Corrector(None, strategy="best_of")
    table = replace_field(table_of(tiny_pipeline, 10), editable=np.arange(10) != LATER)
    with pytest.raises(InputError, match=r"does not allow.*step 8.*\[7, 9\]"):
        make_strategy("ttc", renoise_steps=LATER).check(table, STEP)
    for strategy in (
        "ttc",
        "state_replacement",
        "noise_normalisation",
        "stochastic_steps",
        "best_of",
    ):
        with pytest.raises(InputError, match=r"does not allow.*step 8.*\[1, .*7, 9\]"):
            make_strategy(strategy).check(table, LATER)
    with pytest.raises(InputError, match=r"does not allow.*step 8.*\[9\]"):
        make_strategy("ttc", eta=1.0).check(table, LATER - 1)
    make_strategy("score_clipping").check(table, LATER)  # edits no sample


def test_a_step_inside_a_group_is_refused_before_anything_is_written(
    tiny_pipeline: Any, tmp_path: Path
) -> None:
    store = record(
        tiny_pipeline, tmp_path / "r.zarr", runs=2, steps=6, batch_size=2, scheduler="dpm++2s"
    )
    options: dict[str, Any] = {"masks": {1: SQUARE}, "pipeline": tiny_pipeline}
    editable = table_of(matching_pipeline(store.attributes, tiny_pipeline), 6).editable
    assert 0 < editable[1:].sum() < 5
    for step in range(1, 6):
        out = tmp_path / f"{step}.zarr"
        if editable[step]:
            replay(store, out, step=step, **options)
            continue
        with pytest.raises(InputError, match="DPMSolverSinglestepScheduler does not allow"):
            replay(store, out, step=step, **options)
        assert not out.exists()


def test_stored_parameters_are_json(
    tiny_runs: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    replayed = replay(
        tiny_runs,
        tmp_path / "a.zarr",
        strategy="renoise",
        renoise_steps=(LATER,),
        where=top,
        **options,
    )
    stored = TrajectoryStore.open(replayed.path).attributes["strategy_parameters"]
    assert json.loads(json.dumps(stored))["renoise_steps"] == [LATER]
