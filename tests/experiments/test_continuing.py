"""What the truth bench samples on is what the product's own branches give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from asced_analysis.correction.renoise import Renoise
from asced_analysis.correction.ttc import TargetedCorrection
from asced_analysis.replay import Branch, branch, replay
from asced_analysis.replay.recording import Recording
from asced_recorders.pipelines.environment import matching_pipeline
from asced_stores import open_runs
from experiments.correction.continuing import NormalisedAround, PartlyFresh, continued, local_energy

RUNS = np.array([3, 12])
MASKS = np.zeros((2, 16, 16), np.bool_)
MASKS[0, 4:9, 5:10] = MASKS[1, 2:12, 3:6] = True


def begin(tiny_runs: Path, tiny_pipeline: Any) -> tuple[Recording, Any]:
    recording = Recording(tiny_runs)
    return recording, matching_pipeline(recording.attributes, tiny_pipeline)


def test_edits_are_those_of_branches(tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path) -> None:
    recording, pipe = begin(tiny_runs, tiny_pipeline)
    branches = [
        Branch(step=6),
        Branch(step=4, strategy="renoise", seed=1, parameters={"renoise_steps": (7,)}),
        Branch(step=6, strategy="renoise", parameters={"where": "foreground"}),
    ]
    given = dict(zip(RUNS.tolist(), MASKS, strict=True))
    replayed = branch(tiny_runs, tmp_path / "b.zarr", branches, masks=given, pipeline=tiny_pipeline)
    expected = open_runs(replayed)["branch_sample"].values
    for number, (strategy, step, masks, seed) in enumerate(
        [
            (TargetedCorrection(), 6, MASKS, 0),
            (Renoise(renoise_steps=(7,)), 4, None, 1),
            (Renoise(where="foreground"), 6, None, 0),
        ]
    ):
        ends, _ = continued(recording, pipe, RUNS, strategy, step, masks, seed=seed)
        np.testing.assert_array_equal(ends, expected[:, number])


def test_draws_are_those_of_best_of(tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path) -> None:
    recording, pipe = begin(tiny_runs, tiny_pipeline)
    chosen = replay(
        tiny_runs,
        tmp_path / "best.zarr",
        strategy="best_of",
        where="everywhere",
        draws=2,
        choose=8,
        step=5,
        masks=dict(zip(RUNS.tolist(), MASKS, strict=True)),
        only_flagged=True,
        teacher="patches",
        pipeline=tiny_pipeline,
    )
    best = open_runs(chosen)["sample"].sel(run=RUNS).values
    draws = [continued(recording, pipe, RUNS, Renoise(), 5, seed=j, watch=(8,)) for j in (0, 1)]
    away = np.stack([np.abs(ends - best).max((1, 2, 3)) for ends, _ in draws])
    np.testing.assert_allclose(away.min(0), 0, atol=2e-5)
    assert (away.max(0) > 0.01).all()
    assert draws[0][1][8].shape == best.shape


def test_a_share_of_fresh_noise(tiny_runs: Path, tiny_pipeline: Any) -> None:
    recording, pipe = begin(tiny_runs, tiny_pipeline)

    def ends(strategy: Any) -> Any:
        return continued(recording, pipe, RUNS, strategy, 6, MASKS)[0]

    recorded = open_runs(tiny_runs)["sample"].sel(run=RUNS).values
    assert np.abs(ends(PartlyFresh(0.0)) - recorded).max() < 0.02
    np.testing.assert_allclose(ends(PartlyFresh(1.0)), ends(TargetedCorrection()), atol=1e-5)
    half = np.abs(ends(PartlyFresh(0.3)) - recorded).mean()
    assert 0.01 < half < np.abs(ends(PartlyFresh(1.0)) - recorded).mean()


def test_noise_is_normalised_around_each_place() -> None:
    import torch

    from asced_analysis.correction.strategy import LoopState

    class Event:
        step, next_alpha, next_sigma = 4, 0.8, 0.6

    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, 1, 16, 16)).astype(np.float32)
    noise[:, :, :8] *= 2
    x0 = torch.zeros(2, 1, 16, 16)
    state = LoopState(5, (0, 4), lambda like, _: like, torch.ones(2, 1, 16, 16), x0={4: x0})
    edited = NormalisedAround(blur=2.0).after_step(Event(), 0.6 * torch.from_numpy(noise), state)
    normalised = edited.numpy() / 0.6
    np.testing.assert_allclose((normalised**2).mean((1, 2, 3)), 1, rtol=1e-5)
    assert np.ptp(local_energy(noise, 2.0)) > 0.8
    assert np.ptp(local_energy(normalised, 2.0)) < 0.5
