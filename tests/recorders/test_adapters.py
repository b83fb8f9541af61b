"""Each adapter runs on a loop like the one that it is for, with an exact Gaussian model."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asced_recorders import Recorder
from asced_recorders.custom.adapters.edm import edm_sampler
from asced_recorders.custom.adapters.guided_diffusion import record_progressive
from asced_recorders.custom.adapters.k_diffusion import recording_callback
from asced_recorders.custom.adapters.score_sde import record_score
from asced_stores import open_runs

MEAN, SPREAD = 0.4, 0.3
SHAPE = (1, 4, 4)


def denoise(x: Any, alpha: Any, sigma: Any) -> Any:
    gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
    return MEAN + gain * (x - alpha * MEAN)


def check(path: Path, end: Any, steps: int, runs: int = 3) -> None:
    """What is recorded is the exact posterior at the recorded noise levels."""
    ds = open_runs(path)
    assert (ds.sizes["run"], ds.sizes["step"]) == (runs, steps)
    x = ds["alpha"] * ds["x0"].astype("f8") + ds["sigma"] * ds["eps"].astype("f8")
    expected = denoise(x, ds["alpha"], ds["sigma"])
    np.testing.assert_allclose(ds["x0"].transpose(*expected.dims), expected, atol=2e-3, rtol=1e-3)
    np.testing.assert_allclose(ds["sample"], np.asarray(end), atol=1e-6)
    assert np.all(np.diff(ds["log_snr"]) > 0)


def noise(scale: float = 1.0) -> torch.Tensor:
    return torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0)) * scale


class GuidedDiffusion:
    """What guided-diffusion's class looks like from outside."""

    def __init__(self, steps: int) -> None:
        self.num_timesteps = steps
        self.alphas_cumprod = np.cumprod(1 - np.linspace(1e-3, 0.3, steps))

    def ddim_sample_loop_progressive(self, x: torch.Tensor) -> Iterator[dict[str, torch.Tensor]]:
        for t in reversed(range(self.num_timesteps)):
            abar = self.alphas_cumprod[t]
            before = self.alphas_cumprod[t - 1] if t else 1.0
            x0 = denoise(x, abar**0.5, (1 - abar) ** 0.5)
            eps = (x - abar**0.5 * x0) / (1 - abar) ** 0.5
            x = before**0.5 * x0 + (1 - before) ** 0.5 * eps
            yield {"sample": x, "pred_xstart": x0}


def test_guided_diffusion(tmp_path: Path) -> None:
    diffusion = GuidedDiffusion(12)
    start = noise()
    with Recorder.custom(tmp_path / "runs.zarr", SHAPE, diffusion.num_timesteps) as recorder:
        outputs = diffusion.ddim_sample_loop_progressive(start)
        end = record_progressive(recorder, diffusion, outputs, start)
    check(tmp_path / "runs.zarr", end, 12)
    assert open_runs(tmp_path / "runs.zarr")["timestep"].values.tolist() == list(range(11, -1, -1))


def sample_euler(model: Any, x: torch.Tensor, sigmas: torch.Tensor, callback: Any) -> Any:
    """As k-diffusion has it, with churn."""
    generator = torch.Generator().manual_seed(1)
    for i in range(len(sigmas) - 1):
        sigma_hat = sigmas[i] * 1.1
        fresh = torch.randn(x.shape, generator=generator)
        x = x + fresh * (sigma_hat**2 - sigmas[i] ** 2) ** 0.5
        denoised = model(x, sigma_hat)
        facts = {"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigma_hat, "denoised": denoised}
        callback(facts)
        x = x + (x - denoised) / sigma_hat * (sigmas[i + 1] - sigma_hat)
    return x


def test_k_diffusion(tmp_path: Path) -> None:
    sigmas = torch.cat([torch.logspace(1, -1.5, 10), torch.zeros(1)])
    seen: list[int] = []
    with Recorder.custom(tmp_path / "runs.zarr", SHAPE, 10) as recorder:
        callback = recording_callback(recorder, also=lambda facts: seen.append(facts["i"]))
        end = sample_euler(lambda x, s: denoise(x, 1.0, s), noise(10.0), sigmas, callback)
        recorder.end(end)
    check(tmp_path / "runs.zarr", end, 10)
    assert seen == list(range(10))


class VarianceExploding:
    """An SDE with the marginals of arXiv:2011.13456, appendix C."""

    def marginal_prob(self, x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, 0.01 * (1000.0) ** t


def test_score_models(tmp_path: Path) -> None:
    sde, times = VarianceExploding(), torch.linspace(1, 0.05, 15)
    x = noise(10.0)
    with Recorder.custom(tmp_path / "runs.zarr", SHAPE, 15) as recorder:
        for i, t in enumerate(times):
            sigma = float(0.01 * 1000.0**t)
            score = -(x - denoise(x, 1.0, sigma)) / sigma**2
            record_score(recorder, sde, x, score, t)
            following = float(0.01 * 1000.0 ** times[i + 1]) if i < 14 else 0.0
            x = x + (following - sigma) * -sigma * score
        recorder.end(x)
    check(tmp_path / "runs.zarr", x, 15)
    assert open_runs(tmp_path / "runs.zarr").attrs["prediction_type"] == "score"


def test_edm(tmp_path: Path) -> None:
    with Recorder.custom(tmp_path / "runs.zarr", SHAPE, 18) as recorder:
        end = edm_sampler(lambda x, s: denoise(x, 1.0, s), noise(), recorder=recorder)
    check(tmp_path / "runs.zarr", end, 18)
    assert abs(float(end.mean()) - MEAN) < 0.2


class Denoiser(torch.nn.Module):
    """EDM's preconditioned network: the denoised sample."""

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, labels: Any = None) -> torch.Tensor:
        return denoise(x, 1.0, sigma)


def churning(net: Any, latents: torch.Tensor, steps: int = 18, churn: float = 80.0) -> torch.Tensor:
    """Algorithm 2 of arXiv:2206.00364 with noise added at every level, as NVlabs publish it."""
    generator = torch.Generator().manual_seed(2)
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    levels = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    levels = torch.cat([levels, torch.zeros(1, dtype=torch.float64)])
    x = latents.double() * levels[0]
    for i, (now, following) in enumerate(pairwise(levels)):
        raised = now * (1 + min(churn / steps, 2**0.5 - 1))
        fresh = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        x = x + (raised**2 - now**2).sqrt() * fresh
        slope = (x - net(x, raised, None).double()) / raised
        reached = x + (following - raised) * slope
        if i < steps - 1:
            second = (reached - net(reached, following, None).double()) / following
            reached = x + (following - raised) * (slope + second) / 2
        x = reached
    return x


def test_edm_with_churn_is_watched(tmp_path: Path) -> None:
    net = Denoiser()
    with Recorder.watch(
        net,
        tmp_path / "runs.zarr",
        levels=lambda x, sigma, *_: (1.0, sigma),
        prediction_type="sample",
    ) as recorder:
        end = churning(net, noise())
        recorder.end(end)
    check(tmp_path / "runs.zarr", end, 18)


class Score(torch.nn.Module):
    """A score model of a variance-exploding SDE, told the standard deviation of the noise."""

    def forward(self, x: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
        return -(x - denoise(x, 1.0, deviation[0])) / deviation[0] ** 2


def predictor_corrector(model: Any, x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Algorithm 2 of arXiv:2011.13456: Langevin's step, then one of the reverse SDE."""
    generator = torch.Generator().manual_seed(3)
    for now, following in pairwise(levels):
        told = now.expand(len(x))
        score = model(x, told)
        fresh = torch.randn(x.shape, generator=generator)
        size = 2 * (0.16 * fresh.norm() / score.norm()) ** 2
        x = x + size * score + (2 * size) ** 0.5 * fresh
        step = now**2 - following**2
        mean = x + step * model(x, told)
        x = mean + step**0.5 * torch.randn(x.shape, generator=generator)
    return mean


def test_score_sde_with_a_corrector_is_watched(tmp_path: Path) -> None:
    model = Score()
    levels = torch.cat([torch.logspace(1, -1.5, 12), torch.zeros(1)])
    with Recorder.watch(
        model,
        tmp_path / "runs.zarr",
        levels=lambda x, deviation: (1.0, deviation),
        prediction_type="score",
    ) as recorder:
        end = predictor_corrector(model, noise(10.0), levels)
        recorder.end(end)
    check(tmp_path / "runs.zarr", end, 12)
