"""A sampling loop of our own for unconditional models, with any scheduler.

diffusers' ``DDPMPipeline`` and ``DDIMPipeline`` neither scale the initial noise nor the network's
input, so that Euler, Heun and the like give garbage with them. This loop does both.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from asced_recorders.pipelines.networks import bare
from asced_recorders.pipelines.provenance import execution_device
from asced_recorders.tap.schedulers import step_table
from asced_recorders.tap.stream import step_arguments
from asced_recorders.tap.tap import Tap, TapListener
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def is_unconditional(pipe: Any, /) -> bool:
    """Whether a pipeline is nothing but a UNet of pixels and a scheduler: our own loop fits it.

    A pipeline class from elsewhere, or one that takes classes, is called as it is: what it does
    between network and scheduler is its own affair.
    """
    names = {name for name, part in pipe.components.items() if part is not None}
    if names != {"unet", "scheduler"} or type(bare(pipe.unet)).__name__ != "UNet2DModel":
        return False
    takes = inspect.signature(type(pipe).__call__).parameters
    return type(pipe).__module__.startswith("diffusers.") and "class_labels" not in takes


def sample_shape(pipe: Any, /) -> tuple[int, int, int]:
    """Shape (channel, y, x) of the samples of an unconditional pipeline."""
    config = pipe.unet.config
    size = config.sample_size
    if size is None:
        raise InputError("the model's configuration has no sample_size: give the shape explicitly")
    height, width = (size, size) if isinstance(size, int) else size
    return int(config.in_channels), int(height), int(width)


def run_generators(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator a run, on the host, seeded with the run's own seed."""
    import torch

    return [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]


def call_generator(
    generators: Sequence[torch.Generator],
) -> torch.Generator | list[torch.Generator]:
    """What a call is given for its runs: one alone where there is one run; some take no list."""
    return generators[0] if len(generators) == 1 else list(generators)


def initial_noise(pipe: Any, seeds: Sequence[int] | Sequence[torch.Generator]) -> Tensor:
    """Start of each run: the tensor that enters step 0, scaled by ``init_noise_sigma``.

    What a run gets does not depend on the batch it is in.

    Parameters
    ----------
    pipe : DiffusionPipeline
        Of an unconditional model. Its scheduler's timesteps must be set: the scale depends on them.
    seeds : sequence of int, or of torch.Generator
        One a run. Generators are moved on by the draw; a stochastic scheduler goes on with them.

    Returns
    -------
    Tensor, shape (run, channel, y, x), float32
    """
    import torch

    given = [one for one in seeds if isinstance(one, torch.Generator)]
    generators = given or run_generators([int(seed) for seed in seeds])  # type: ignore[arg-type]
    shape = sample_shape(pipe)
    rows = [torch.randn(shape, generator=one, dtype=torch.float32) for one in generators]
    scale = float(getattr(pipe.scheduler, "init_noise_sigma", 1.0))
    return torch.stack(rows).to(_device(pipe)) * scale


def sample_unconditional(
    pipe: Any,
    *,
    x_init: Tensor | None,
    steps: int,
    generators: Sequence[torch.Generator] | None = None,
    listener: TapListener | None = None,
    start: int = 0,
    x_start: Tensor | None = None,
    labels: Tensor | None = None,
    once: bool = False,
) -> Tensor:
    """Sample an unconditional model with its scheduler, whichever that is.

    Parameters
    ----------
    pipe : DiffusionPipeline
        A UNet2DModel and a scheduler.
    x_init : Tensor, shape (run, channel, y, x), optional
        Sample that enters step 0 (`initial_noise`); not needed with `x_start`.
    steps : int
        Number of noise levels.
    generators : sequence of torch.Generator, optional
        One a run, for schedulers that add noise.
    listener : TapListener, optional
        Is told of every step.
    start : int
        Noise level at which to begin; needs `x_start` and a scheduler without memory.
    x_start : Tensor, shape (run, channel, y, x), optional
        Sample that enters step `start`.
    labels : Tensor, shape (run,), optional
        Classes, for a class-conditional network.
    once : bool
        Nothing after the network's answer at `start` is wanted (the listener stops there), so that
        solver history and noise of the scheduler's own do not matter.

    Returns
    -------
    Tensor, shape (run, channel, y, x), float32

    Raises
    ------
    InputError
        If `start` lies outside the schedule, or the scheduler cannot begin there.
    """
    import torch

    scheduler, unet = pipe.scheduler, pipe.unet
    sample = x_init if x_start is None else x_start
    if sample is None or (start > 0 and x_start is None):
        raise InputError("a start is missing: give x_init, or x_start with start")
    device = _device(pipe)
    scheduler.set_timesteps(steps, device=device)
    timesteps = scheduler.timesteps
    if start:
        first = _first_call(scheduler, start, once)
        timesteps = timesteps[first:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
    sample = sample.to(device=device, dtype=unet.dtype)
    extra: dict[str, Any] = {}
    if generators is not None and "generator" in step_arguments(type(scheduler)):
        extra["generator"] = list(generators)
    scale = getattr(scheduler, "scale_model_input", lambda x, _: x)  # flow matching has none
    condition = {} if labels is None else {"class_labels": labels.to(device)}
    tap = (
        nullcontext() if listener is None else Tap(scheduler, listener, whole_schedule=bool(start))
    )
    with torch.no_grad(), tap:
        for timestep in timesteps:
            entering = scale(sample, timestep)
            output = unet(entering, timestep, **condition, return_dict=False)[0]
            sample = scheduler.step(output, timestep, sample, **extra, return_dict=False)[0]
    return sample.float()


def _first_call(scheduler: Any, start: int, once: bool) -> int:
    """Entry of ``timesteps`` at which a noise level is first evaluated."""
    table = step_table(scheduler)
    if not 0 <= start < table.steps:
        raise InputError(f"step {start} is outside the schedule of {table.steps} steps")
    if not (once or table.resumable):
        raise InputError(
            f"{table.scheduler_class} keeps solver history or draws noise, which a checkpoint does "
            "not hold: begin at the initial noise instead (start='init')"
        )
    return int((table.calls == start).nonzero()[0][0])


def _device(pipe: Any) -> torch.device:
    """Where the network computes: while it is offloaded, its weights lie on another, or on none."""
    return execution_device(pipe, next(pipe.unet.parameters()).device)
