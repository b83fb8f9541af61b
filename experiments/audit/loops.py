"""Pipelines around a UNet of pixels that sample rightly, or wrongly in one chosen way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from torch import Tensor, nn

Start = Callable[[Any, Tensor], Tensor]
"""``start(scheduler, noise)``: the sample that enters the first step."""


@dataclass(frozen=True)
class Way:
    """How a loop samples.

    Attributes
    ----------
    start : callable
        Makes the start of standard normal noise.
    scaled_input : bool
        Whether the network's input goes through the scheduler's ``scale_model_input``.
    schedule : callable or None
        Called with the scheduler once its timesteps are set, to change them.
    sigmas : callable or None
        ``sigmas(steps)``: levels handed to ``set_timesteps`` in place of the number of steps.
    """

    start: Start = lambda scheduler, noise: (
        noise * float(getattr(scheduler, "init_noise_sigma", 1.0))
    )
    scaled_input: bool = True
    schedule: Callable[[Any], None] | None = None
    sigmas: Callable[[int], Sequence[float]] | None = None


class Loop(DiffusionPipeline):
    """A sampling loop as people write it, in one `Way`."""

    def __init__(self, unet: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.way = Way()

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        generator: list[torch.Generator] | None = None,
        num_inference_steps: int = 25,
    ) -> Any:
        """Sample so many images."""
        scheduler, way = self.scheduler, self.way
        config = self.unet.config
        shape = (config.in_channels, config.sample_size, config.sample_size)
        noise = torch.stack([torch.randn(shape, generator=one) for one in generator or []])
        if way.sigmas is None:
            scheduler.set_timesteps(num_inference_steps)
        else:
            scheduler.set_timesteps(sigmas=way.sigmas(num_inference_steps))
        if way.schedule is not None:
            way.schedule(scheduler)
        sample = way.start(scheduler, noise)
        for timestep in scheduler.timesteps:
            entering = sample
            if way.scaled_input and hasattr(scheduler, "scale_model_input"):
                entering = scheduler.scale_model_input(sample, timestep)
            output = self.unet(entering, timestep, return_dict=False)[0]
            sample = scheduler.step(output, timestep, sample, return_dict=False)[0]
        return ImagePipelineOutput(images=sample)


class Velocity(nn.Module):
    """A network of noise or v on betas, as one of flow matching: the same network, other names.

    Parameters
    ----------
    network : torch.nn.Module
        Of ``epsilon`` or ``v_prediction``.
    scheduler : SchedulerMixin
        It was trained with; its ``alphas_cumprod`` are the levels that it knows.
    """

    def __init__(self, network: Any, scheduler: Any) -> None:
        super().__init__()
        self.network = network
        self.config = network.config
        self.predicts = str(scheduler.config.prediction_type)
        bar = scheduler.alphas_cumprod.double()
        self.ratios = ((1 - bar) / bar).sqrt().log().numpy()

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.network.parameters()).dtype

    def forward(self, sample: Tensor, timestep: Any, return_dict: bool = True) -> Any:
        """Velocity ``eps - x0`` at ``(1 - s) x0 + s eps``, s a thousandth of the timestep."""
        import numpy as np

        level = min(float(timestep) / 1000, 1 - 1e-6)
        alpha, sigma = 1 - level, level
        size = math.hypot(alpha, sigma)
        told = float(np.interp(math.log(sigma / alpha), self.ratios, np.arange(len(self.ratios))))
        output = self.network(sample / size, told, return_dict=False)[0]
        if self.predicts == "epsilon":
            eps, x0 = output, (sample - sigma * output) / alpha if alpha > 1e-2 else -output
        else:
            x0 = alpha / size * (sample / size) - sigma / size * output
            eps = sigma / size * (sample / size) + alpha / size * output
        return (eps - x0,)
