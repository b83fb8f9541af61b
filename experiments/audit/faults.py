"""Nine faults that people have reported, planted into real sampling loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch
from torch import Tensor

from experiments.audit.loops import Loop, Velocity, Way

SHIFT = 3.0


@dataclass(frozen=True)
class Fault:
    """One way to sample wrongly.

    Attributes
    ----------
    name : str
        As in the table.
    expected : tuple of str
        Names of findings of which one has to be among those found.
    pipeline : callable
        ``pipeline(pipe)``: from a sound pipeline to one that samples wrongly.
    """

    name: str
    expected: tuple[str, ...]
    pipeline: Callable[[Any], Any]


def loop(
    pipe: Any, scheduler: str, way: Way | None = None, unet: Any = None, **options: Any
) -> Any:
    """A loop with another scheduler of the same configuration."""
    made = getattr(diffusers, f"{scheduler}Scheduler").from_config(pipe.scheduler.config, **options)
    found = Loop(pipe.unet if unet is None else unet, made)
    found.way = way or Way()
    found.set_progress_bar_config(disable=True)
    return found


def flow(pipe: Any, way: Way | None = None, shift: float = SHIFT) -> Any:
    """The model in flow matching."""
    found = Loop(
        Velocity(pipe.unet, pipe.scheduler),
        diffusers.FlowMatchEulerDiscreteScheduler(shift=shift),
    )
    found.way = way or Way()
    return found


def _image_to_image(pipe: Any) -> Any:
    """Images noised with 57 % of what the first timestep claims."""

    def later(scheduler: Any) -> None:
        scheduler.timesteps = scheduler.timesteps[len(scheduler.timesteps) // 3 :]

    def start(scheduler: Any, noise: Tensor) -> Tensor:
        bar = scheduler.alphas_cumprod[int(scheduler.timesteps[0])]
        images = _images(pipe, len(noise))
        return bar.sqrt() * images + 0.57 * (1 - bar).sqrt() * noise

    return loop(pipe, "DDIM", Way(start=start, schedule=later))


def _images(pipe: Any, count: int) -> Tensor:
    """Images of the model's own, to begin with."""
    sound = loop(pipe, "DDIM")
    generators = [torch.Generator().manual_seed(9000 + run) for run in range(count)]
    found: Tensor = sound(count, generators, 10).images
    return found


def _one_more(scheduler: Any, noise: Tensor) -> Tensor:
    """Noise of sqrt(1 + sigma^2)."""
    return noise * float(np.hypot(1, float(scheduler.sigmas.max())))


def _shifted(steps: int) -> list[float]:
    """Levels that were shifted already."""
    even = np.linspace(1, 1 / steps, steps)
    return [float(level) for level in SHIFT * even / (1 + (SHIFT - 1) * even)]


def _replaced(scheduler: Any) -> None:
    """Other timesteps, of which the levels know nothing."""
    steps = len(scheduler.timesteps)
    chosen = 999 * np.linspace(1, 0, steps + 1)[:-1] ** 1.5
    scheduler.timesteps = torch.tensor(chosen.round()).to(scheduler.timesteps.dtype)


def _other_type(pipe: Any) -> str:
    return "v_prediction" if pipe.scheduler.config.prediction_type == "epsilon" else "epsilon"


def _ddpm_pipeline(pipe: Any) -> Any:
    scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    found = diffusers.DDPMPipeline(pipe.unet, scheduler)
    found.set_progress_bar_config(disable=True)
    return found


def _other_betas(pipe: Any) -> Any:
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    return loop(pipe, "DDIM", timestep_spacing="trailing", **betas)


def _overflowing(pipe: Any) -> Any:
    """One layer in float16, whose outputs the next normalisation scales back: too large for it."""
    unet = type(pipe.unet).from_config(pipe.unet.config)
    unet.load_state_dict(pipe.unet.state_dict())
    layer = unet.mid_block.resnets[0].conv1
    with torch.no_grad():
        layer.weight *= 3e4
        layer.bias *= 3e4
    layer.register_forward_hook(lambda module, given, said: said.half().float())
    return loop(pipe, "DDIM", unet=unet)


FAULTS = (
    Fault("57 % of the noise that the timestep claims", ("start",), _image_to_image),
    Fault(
        "start at sqrt(1 + sigma^2)",
        ("start",),
        lambda pipe: loop(pipe, "EulerDiscrete", Way(start=_one_more), timestep_spacing="trailing"),
    ),
    Fault(
        "sigmas shifted twice", ("shifted_twice",), lambda pipe: flow(pipe, Way(sigmas=_shifted))
    ),
    Fault(
        "timesteps replaced, levels not (Euler)",
        ("timestep",),
        lambda pipe: loop(pipe, "EulerDiscrete", Way(schedule=_replaced)),
    ),
    Fault(
        "timesteps replaced, steps not (DDIM)",
        ("next_level",),
        lambda pipe: loop(pipe, "DDIM", Way(schedule=_replaced)),
    ),
    Fault(
        "wrong prediction type",
        ("path",),
        lambda pipe: loop(pipe, "DDIM", prediction_type=_other_type(pipe)),
    ),
    Fault(
        "scale_model_input forgotten",
        ("path",),
        lambda pipe: loop(pipe, "EulerDiscrete", Way(scaled_input=False)),
    ),
    Fault("DDPM pipeline with an Euler scheduler", ("start",), _ddpm_pipeline),
    Fault("terminal SNR not zero, trailing", ("terminal_snr",), _other_betas),
    Fault("float16 overflow", ("not_finite",), _overflowing),
)
