"""NoiseNormalisation: the noise keeps its pattern and gets the schedule's energy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from asced_analysis.correction import make_strategy, normalise_noise, normalised_noise
from asced_analysis.correction.strategy import LoopState
from asced_analysis.replay import replay
from asced_recorders.tap.schedulers import step_table
from asced_recorders.tap.tap import StepEvent
from asced_stores import open_runs
from asced_stores.errors import InputError


@given(scale=st.floats(0.2, 5), target=st.floats(0.5, 2), seed=st.integers(0, 2**31))
def test_only_the_size_of_the_noise_changes(scale: float, target: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    noise = scale * torch.randn(3, 2, 4, 5, generator=generator)
    found = normalise_noise(noise, target=target)
    torch.testing.assert_close(found.square().mean((1, 2, 3)).sqrt(), torch.full((3,), target))
    cosine = torch.cosine_similarity(found.flatten(1), noise.flatten(1))
    torch.testing.assert_close(cosine, torch.ones(3))


def test_a_run_without_noise_stays_as_it_is() -> None:
    noise = torch.zeros(2, 1, 3, 3)
    noise[1] = 2.0
    found = normalise_noise(noise)
    assert (found[0] == 0).all()
    assert (found[1] == 1).all()


def test_an_odd_target_is_refused() -> None:
    with pytest.raises(InputError, match="root mean square of about 1, not 0"):
        make_strategy("noise_normalisation", target=0.0)


def test_the_sample_entering_the_step_is_normalised_in_flagged_runs() -> None:
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(10)
    table = step_table(scheduler)
    x0, eps, noise = torch.randn(3, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    alpha, sigma = float(table.alpha[5]), float(table.sigma[5])
    sample = alpha * x0 + sigma * 1.2 * noise
    event = StepEvent(table, 4, sample, eps, None)
    flagged = torch.tensor([1.0, 0.0])[:, None, None, None]
    state = LoopState(5, (1, 4), noise=torch.zeros_like, mask=flagged, x0={4: x0})
    found = make_strategy("noise_normalisation").after_step(event, sample, state)
    assert found is not None
    energy = ((found - alpha * x0) / sigma).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(energy[0], torch.tensor(1.0))
    assert (found[1] == sample[1]).all()


def test_in_a_replay_the_flagged_runs_enter_the_step_normalised(
    tiny_runs: Path, tiny_pipeline: Any, tmp_path: Path
) -> None:
    masks = {3: np.zeros((16, 16), np.bool_)}
    masks[3][4:6, 4:6] = True
    replayed = replay(
        tiny_runs,
        tmp_path / "normalised.zarr",
        strategy="noise_normalisation",
        masks=masks,
        step=6,
        pipeline=tiny_pipeline,
    )
    before, after = open_runs(tiny_runs), open_runs(replayed.path)
    change = np.abs(after["sample"].values - before["sample"].values).max((1, 2, 3))
    flagged = after["flagged"].values
    assert flagged.sum() == 1
    assert (change[~flagged] == 0).all()
    assert change[flagged] > 0


@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler]
)
def test_a_louder_start_ends_about_where_a_quieter_one_does(
    scheduler: Any,
) -> None:
    from asced_recorders import load_pipeline

    pipe = load_pipeline("fashion")
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    start = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(1))

    def end(energy: float) -> torch.Tensor:
        pipe.scheduler.set_timesteps(10)
        sample = normalise_noise(start, target=energy) * pipe.scheduler.init_noise_sigma
        with torch.no_grad():
            for t in pipe.scheduler.timesteps:
                eps = pipe.unet(pipe.scheduler.scale_model_input(sample, t), t).sample
                sample = pipe.scheduler.step(eps, t, sample)[0]
        return sample

    def apart() -> float:
        return float((end(1.04) - end(0.96)).abs().mean())

    plain = apart()
    with normalised_noise(pipe):
        assert apart() < 0.7 * plain
    assert apart() == plain
