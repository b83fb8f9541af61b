"""Planted faults are found for what they are, and sound sampling gives no alarm."""

from __future__ import annotations

import math
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import asced_analysis as aa
from asced_analysis.audit.starting_noise import seeded_noise
from asced_recorders import Recorder
from asced_stores import open_runs
from asced_stores.errors import InputError

from .conftest import SHAPE, SPREAD, Exact, LatentLoop, data_mean

TRAILING = {"timestep_spacing": "trailing"}
UNCLIPPED = {"clip_sample": False, **TRAILING}


def names(audit: Any) -> list[str]:
    return [one.name for one in audit.findings]


SOUND = [
    ("DDIM", "epsilon", UNCLIPPED, 10),
    ("DDIM", "v_prediction", UNCLIPPED, 10),
    ("DDIM", "sample", UNCLIPPED, 10),
    ("DDIM", "epsilon", {"clip_sample": False}, 10),  # leading
    ("DDPM", "epsilon", UNCLIPPED, 10),
    ("EulerDiscrete", "epsilon", TRAILING, 10),
    ("EulerDiscrete", "epsilon", {"use_karras_sigmas": True}, 10),
    ("EulerDiscrete", "v_prediction", {"timestep_spacing": "leading"}, 10),
    ("EulerAncestralDiscrete", "epsilon", TRAILING, 10),
    ("HeunDiscrete", "epsilon", TRAILING, 8),
    ("LMSDiscrete", "epsilon", TRAILING, 10),
    ("KDPM2Discrete", "epsilon", TRAILING, 10),
    ("PNDM", "epsilon", {"skip_prk_steps": True, **TRAILING}, 10),
    ("DPMSolverMultistep", "epsilon", TRAILING, 5),
    ("DPMSolverMultistep", "v_prediction", TRAILING, 20),
    ("DPMSolverSinglestep", "epsilon", {}, 10),
    ("UniPCMultistep", "epsilon", TRAILING, 6),
    ("DEISMultistep", "epsilon", TRAILING, 10),
    ("SASolver", "epsilon", TRAILING, 10),
]


@pytest.mark.parametrize(("name", "kind", "options", "steps"), SOUND)
def test_sound_sampling_gives_no_finding(sampled, name, kind, options, steps):
    scheduler = getattr(diffusers, f"{name}Scheduler")(prediction_type=kind, **options)
    audit = aa.audit(sampled(LatentLoop(Exact(kind), scheduler), steps=steps))
    assert audit.sound, str(audit)
    assert audit.finite == 64


def test_zero_terminal_snr_is_sound(sampled):
    scheduler = diffusers.DDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, **UNCLIPPED
    )
    audit = aa.audit(sampled(LatentLoop(Exact("v_prediction", scheduler), scheduler)))
    assert audit.sound, str(audit)


@pytest.mark.parametrize("shift", [1.0, 3.0, 7.0])
def test_flow_matching_is_sound_and_its_start_has_no_signal(sampled, shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    ds = sampled(LatentLoop(Exact("flow_prediction"), scheduler), steps=8)
    assert float(ds["alpha"][0]) == 0
    assert aa.audit(ds).sound


def test_edm_is_sound(sampled):
    scheduler = diffusers.EDMEulerScheduler(sigma_max=80.0)

    class Preconditioned(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, z: torch.Tensor, t: Any) -> torch.Tensor:
            sigma = math.exp(4 * float(t))
            total = math.hypot(sigma, 0.5)
            x = z * total
            mean = data_mean()
            x0 = mean + SPREAD**2 / (SPREAD**2 + sigma**2) * (x - mean)
            return (x0 - 0.25 / total**2 * x) / (sigma * 0.5 / total)

    audit = aa.audit(sampled(LatentLoop(Preconditioned(), scheduler), steps=12))
    assert audit.sound, str(audit)


def test_image_to_image_with_the_right_noise_is_sound_and_with_57_percent_is_not(sampled):
    images = data_mean() + SPREAD * torch.randn(
        (64, *SHAPE), generator=torch.Generator().manual_seed(5)
    )
    for share, expected in ((1.0, []), (0.57, ["start"])):
        pipe = LatentLoop(Exact(), diffusers.DDIMScheduler(**UNCLIPPED))
        pipe.images = images
        pipe.change = lambda s: setattr(s, "timesteps", s.timesteps[4:])

        def noise(s: Any, share: float = share) -> float:
            bar = float(s.alphas_cumprod[int(s.timesteps[0])])
            return share * math.sqrt(1 - bar)

        pipe.scale = noise
        audit = aa.audit(sampled(pipe))
        assert names(audit) == expected, str(audit)
    assert "57" in audit.findings[0].what or "58%" in audit.findings[0].what
    assert "image" in audit.findings[0].cause


def test_one_more_than_sigma_is_found_exactly_where_seeds_are_known(sampled):
    for seeds in (True, False):
        pipe = LatentLoop(Exact(), diffusers.EulerDiscreteScheduler(**TRAILING))
        pipe.scale = lambda s: math.hypot(1, float(s.sigmas.max()))
        audit = aa.audit(sampled(pipe, seeds=seeds))
        assert names(audit) == (["start"] if seeds else [])  # 2e-5: no energy tells that
    assert "157.4" in aa.audit(sampled(pipe)).findings[0].what


def test_one_more_than_a_small_sigma_is_found_by_its_energy():
    """A loop of one's own, data of little variance, no seeds; sigma 2, and sqrt(1 + 4)."""
    rng = np.random.default_rng(0)
    spread, sigmas = 0.3, np.geomspace(2.0, 0.05, 12)
    for start, expected in ((2.0, []), (math.sqrt(5), ["start"])):
        x = start * rng.standard_normal((64, 1, 16, 16))
        with Recorder.custom(f"memory://own-{start}", shape=(1, 16, 16), steps=12) as recorder:
            for k, sigma in enumerate(sigmas):
                x0 = spread**2 / (spread**2 + sigma**2) * x
                eps = (x - x0) / sigma
                recorder.step(sample=x, model_output=eps, alpha=1.0, sigma=float(sigma))
                x = x0 + (sigmas[k + 1] if k + 1 < len(sigmas) else 0.0) * eps
            recorder.end(x)
        found = names(aa.audit(open_runs(recorder.store)))
        assert [name for name in found if name == "start"] == expected


def test_levels_that_were_shifted_twice(sampled):
    even = np.linspace(1, 0.1, 10)
    pipe = LatentLoop(
        Exact("flow_prediction"), diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    )
    pipe.sigmas = (3 * even / (1 + 2 * even)).tolist()
    audit = aa.audit(sampled(pipe))
    assert names(audit) == ["shifted_twice"]
    assert "its square is 9" in audit.findings[0].what
    pipe.sigmas = even.tolist()
    assert aa.audit(sampled(pipe)).sound


def test_timesteps_that_were_replaced_under_the_levels(sampled):
    pipe = LatentLoop(Exact(), diffusers.EulerDiscreteScheduler(**TRAILING))
    pipe.change = lambda s: setattr(s, "timesteps", torch.linspace(999, 1, 10).round())
    audit = aa.audit(sampled(pipe))
    assert names(audit) == ["timestep"]
    assert "timesteps=" in audit.findings[0].cause


def test_timesteps_that_the_sampler_does_not_step_to(sampled):
    pipe = LatentLoop(Exact(), diffusers.DDIMScheduler(**UNCLIPPED))
    pipe.change = lambda s: setattr(s, "timesteps", (s.timesteps.float() ** 2 / 999).long())
    audit = aa.audit(sampled(pipe))
    assert "next_level" in names(audit)
    assert audit.findings[0].step < 8


@pytest.mark.parametrize(
    ("kind", "read_as", "guess"),
    [
        ("epsilon", "v_prediction", "epsilon"),
        ("epsilon", "sample", "epsilon"),
        ("v_prediction", "epsilon", "v_prediction"),
        ("sample", "epsilon", "sample"),
    ],
)
def test_a_wrong_prediction_type_is_named(sampled, kind, read_as, guess):
    scheduler = diffusers.DDIMScheduler(prediction_type=read_as, **UNCLIPPED)
    audit = aa.audit(sampled(LatentLoop(Exact(kind), scheduler)))
    assert names(audit) == ["path"], str(audit)
    assert "prediction_type is wrong" in audit.findings[0].cause
    assert guess in audit.findings[0].cause


def test_a_forgotten_scale_model_input(sampled):
    pipe = LatentLoop(Exact(), diffusers.EulerDiscreteScheduler(**TRAILING))
    pipe.scaled_input = False
    audit = aa.audit(sampled(pipe))
    assert names(audit)[-1] == "path", str(audit)
    assert "scale_model_input" in audit.findings[-1].cause


def test_a_ddpm_pipeline_with_an_euler_scheduler(sampled):
    pipe = LatentLoop(Exact(), diffusers.EulerDiscreteScheduler(**TRAILING))
    pipe.scaled_input = False
    pipe.scale = lambda s: 1.0
    audit = aa.audit(sampled(pipe))
    assert "start" in names(audit)
    found = next(one for one in audit.findings if one.name == "start")
    assert "init_noise_sigma" in found.cause


def test_a_terminal_snr_that_is_not_zero(sampled):
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    for seeds in (True, False):
        scheduler = diffusers.DDIMScheduler(**betas, **UNCLIPPED)
        pipe = LatentLoop(Exact("epsilon", scheduler), scheduler)
        audit = aa.audit(sampled(pipe, seeds=seeds))
        assert names(audit) == ["terminal_snr"], str(audit)


def test_nan_and_infinity_are_counted_with_their_first_step(sampled):
    class Overflowing(Exact):
        def forward(self, z: torch.Tensor, timestep: Any) -> torch.Tensor:
            said = super().forward(z, timestep)
            if float(timestep) < 500:  # of the first three runs
                said[:3] = (said[:3] * 1e5).half().float()
            return said

    ds = sampled(LatentLoop(Overflowing(), diffusers.DDIMScheduler(**UNCLIPPED)), runs=32)
    audit = aa.audit(ds)
    assert "not_finite" in names(audit)
    first = int(np.flatnonzero(ds["timestep"].values < 500)[0])
    assert audit.findings[0].step == first
    assert audit.finite == 29
    assert audit.runs == 32


def test_guidance_that_adds_energy_is_named_as_the_cause(sampled):
    pipe = LatentLoop(Exact(), diffusers.DDIMScheduler(**UNCLIPPED))
    assert aa.audit(sampled(pipe, guidance_scale=1.1)).sound
    audit = aa.audit(sampled(pipe, guidance_scale=9.0))
    assert names(audit) == ["path"], str(audit)
    assert "guidance" in audit.findings[0].cause


def test_the_result_does_not_depend_on_how_the_runs_are_cut(sampled):
    ds = sampled(LatentLoop(Exact(), diffusers.DDIMScheduler(**UNCLIPPED)), runs=64)
    whole = aa.audit(ds)
    cut = aa.audit(ds.chunk(run=7))
    for name in ("energy", "noise", "next_noise", "energy_low"):
        np.testing.assert_allclose(whole.steps[name], cut.steps[name], rtol=1e-6)
    assert whole.to_dict()["sound"]
    assert "nothing found in 64 runs" in str(whole)


def test_intervals_cover_what_half_of_the_runs_say(sampled):
    ds = sampled(LatentLoop(Exact(), diffusers.DDIMScheduler(**UNCLIPPED)), runs=64)
    half, rest = (
        aa.audit(ds.isel(run=slice(*part)), confidence=0.99).steps for part in ((32,), (32, None))
    )
    assert (half["energy_low"] < half["energy"]).all()
    assert (half["energy_low"] < rest["energy_high"]).all()
    assert (rest["energy_low"] < half["energy_high"]).all()


def test_one_run_has_no_interval_and_no_statistical_finding(sampled):
    ds = sampled(LatentLoop(Exact(), diffusers.DDIMScheduler(**UNCLIPPED)), runs=1)
    audit = aa.audit(ds)
    assert audit.sound
    assert np.isinf(audit.steps["energy_high"]).all()


def test_what_was_not_recorded_is_named(sampled):
    ds = sampled(LatentLoop(Exact(), diffusers.DDIMScheduler(**UNCLIPPED)), runs=2)
    with pytest.raises(InputError, match="no eps"):
        aa.audit(ds.drop_vars("eps"))
    with pytest.raises(InputError, match="confidence"):
        aa.audit(ds, confidence=2)


@pytest.mark.parametrize("shape", [(1, 32, 32), (4, 5, 3), (2, 33), (16,)])
@pytest.mark.parametrize("seed", [0, 7, 2**31 + 5, 2**40 + 3])
def test_noise_of_a_seed_is_what_torch_draws(shape, seed):
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).numpy()
    np.testing.assert_allclose(seeded_noise(seed, shape), drawn, atol=2e-6)
