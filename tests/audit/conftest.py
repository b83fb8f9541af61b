"""Sampling loops over a network that knows the exact score of a Gaussian."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import xarray as xr

from asced_recorders import Recorder
from asced_recorders.writing.session import RecordingWarning
from asced_stores import open_runs

SHAPE = (3, 12, 10)  # latents: three channels, not square
SPREAD = 0.8


def data_mean() -> torch.Tensor:
    """The mean image: a gradient, so that a start without an image shows."""
    rows, columns = torch.meshgrid(
        torch.linspace(-1, 1, SHAPE[1]), torch.linspace(-1, 1, SHAPE[2]), indexing="ij"
    )
    return torch.stack([rows, columns, -rows])


class Exact(torch.nn.Module):
    """Noise, v, x0 or velocity of Gaussian data, exactly, at the level that a timestep means."""

    def __init__(self, kind: str = "epsilon", betas: Any = None) -> None:
        super().__init__()
        self.kind = kind
        self.weight = torch.nn.Parameter(torch.zeros(1))
        scheduler = diffusers.DDPMScheduler() if betas is None else betas
        bar = scheduler.alphas_cumprod.double().numpy().clip(1e-8)
        self.ratios = np.log(np.sqrt((1 - bar) / bar))

    def level(self, timestep: float) -> tuple[float, float]:
        """Alpha and sigma of the network's own input."""
        if self.kind == "flow_prediction":
            return 1 - timestep / 1000, timestep / 1000
        ratio = math.exp(float(np.interp(timestep, np.arange(len(self.ratios)), self.ratios)))
        return 1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio)

    def forward(self, z: torch.Tensor, timestep: Any) -> torch.Tensor:
        """What the network says of its input."""
        alpha, sigma = self.level(float(timestep))
        mean = data_mean()
        gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
        x0 = mean + gain * (z - alpha * mean)
        eps = (z - alpha * x0) / sigma
        return {
            "epsilon": eps,
            "sample": x0,
            "v_prediction": alpha * eps - sigma * x0,
            "flow_prediction": eps - x0,
        }[self.kind]


class LatentLoop(diffusers.DiffusionPipeline):
    """A pipeline of latents around the exact network; faults are switched on by attributes."""

    def __init__(self, network: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(network=network, scheduler=scheduler)
        self.scale: Callable[[Any], float] = lambda s: float(getattr(s, "init_noise_sigma", 1.0))
        self.scaled_input = True
        self.change: Callable[[Any], None] | None = None
        self.sigmas: list[float] | None = None
        self.images: torch.Tensor | None = None
        self.guidance = 1.0

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: Any = None,
        num_inference_steps: int = 10,
        guidance_scale: float = 1.0,
    ) -> Any:
        """Sample."""
        scheduler = self.scheduler
        if self.sigmas is None:
            scheduler.set_timesteps(num_inference_steps)
        else:
            scheduler.set_timesteps(sigmas=self.sigmas)
        if self.change is not None:
            self.change(scheduler)
        if isinstance(generator, list):
            noise = torch.stack([torch.randn(SHAPE, generator=one) for one in generator])
        else:
            noise = torch.randn((batch_size, *SHAPE), generator=generator)
        x = noise * self.scale(scheduler)
        if self.images is not None:
            bar = scheduler.alphas_cumprod[int(scheduler.timesteps[0])]
            x = bar.sqrt() * self.images[: len(x)] + self.scale(scheduler) * noise
        for timestep in scheduler.timesteps:
            entering = x
            if self.scaled_input and hasattr(scheduler, "scale_model_input"):
                entering = scheduler.scale_model_input(x, timestep)
            said = self.network(entering, timestep)
            if guidance_scale != 1:  # a condition that pulls towards more contrast
                said = said + (guidance_scale - 1) * 0.25 * (said - entering)
            x = scheduler.step(said, timestep, x, return_dict=False)[0]
        return diffusers.ImagePipelineOutput(images=x)


@pytest.fixture(scope="session")
def sampled() -> Callable[..., xr.Dataset]:
    """Record 64 runs of a loop and open them."""
    count = iter(range(10_000))

    def sample(
        pipe: Any, *, runs: int = 64, steps: int = 10, seeds: bool = True, **call: Any
    ) -> xr.Dataset:
        pipe.set_progress_bar_config(disable=True)
        with (
            warnings.catch_warnings(category=RecordingWarning, action="ignore"),  # faults overflow
            Recorder(pipe, f"memory://audited-{next(count)}", batch_size=32) as recorder,
        ):
            for first in range(0, runs, 32):
                size = min(32, runs - first)
                own = [torch.Generator().manual_seed(first + run) for run in range(size)]
                one = torch.Generator().manual_seed(first)
                pipe(
                    batch_size=size,
                    generator=own if seeds else one,
                    num_inference_steps=steps,
                    **call,
                )
        return open_runs(recorder.store, statuses=("complete", "failed"))

    return sample
