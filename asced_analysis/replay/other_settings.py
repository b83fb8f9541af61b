"""Recorded runs drawn anew under other settings: seeds, steps, sampler, guidance, a listener."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asced_analysis.correction.corrector import Corrector
from asced_analysis.correction.halting import counting
from asced_analysis.replay.calls import call_again
from asced_analysis.replay.recording import Batch, Recording
from asced_analysis.replay.sampling import class_labels
from asced_recorders.pipelines.networks import copied_pipeline
from asced_recorders.pipelines.sampling import (
    initial_noise,
    is_unconditional,
    run_generators,
    sample_unconditional,
)
from asced_recorders.pipelines.scheduler_names import make_scheduler
from asced_stores.errors import InputError

AT_ONCE = 32
SCHEDULES = ("timesteps", "sigmas")  # of a call: they name its steps one by one


@dataclass(frozen=True)
class Drawn:
    """Finished runs.

    Attributes
    ----------
    ends : float32 array, shape (n, [frame,] channel, y, x)
    rows : float, optional
        Evaluated rows of the networks, a delivered run: guidance doubles them.
    evaluations : float, optional
        A delivered run's, where they are known already.
    paired : bool
        Whether they began with the same noise as plain runs of the same seeds.
    """

    ends: NDArray[np.float32]
    rows: float | None = None
    evaluations: float | None = None
    paired: bool = True


def draw_runs(
    recording: Recording,
    pipe: Any,
    runs: NDArray[np.int64],
    seeds: NDArray[np.int64],
    *,
    steps: int,
    guidance: float = 1.0,
    corrector: Corrector | None = None,
    options: Mapping[str, Any] | None = None,
) -> Drawn:
    """Draw runs with the prompts, classes and options of recorded ones.

    Parameters
    ----------
    recording : Recording
    pipe : DiffusionPipeline
        With the scheduler to sample by.
    runs, seeds : int64 arrays, shape (n,)
        Recorded runs whose conditions are taken, and the seeds to draw from.
    steps : int
    guidance : float
        Factor of the recorded guidance scale.
    corrector : Corrector, optional
    options : mapping, optional
        Arguments of the call that the store does not hold.

    Returns
    -------
    Drawn
        In the order of `runs`.
    """
    ends: list[Any] = [None] * len(runs)
    rows = 0
    for places in recording.calls_of(runs, AT_ONCE):
        batch = replace(recording.select(runs[places]), seeds=seeds[places])
        if corrector is not None:
            corrector.assign(seeds[places], groups=batch.groups(corrector.thresholds))
        with counting(pipe) as count:
            found = _draw(recording, pipe, batch, steps, guidance, corrector, options or {})
        rows += count[0]
        for place, end in zip(places, found, strict=True):
            ends[place] = end
    return Drawn(np.stack(ends), rows / len(runs))


def revised(
    pipe: Any, arguments: dict[str, Any], *, steps: int, guidance: float = 1.0
) -> dict[str, Any]:
    """Arguments of a recorded call with other steps and guidance."""
    arguments = {name: value for name, value in arguments.items() if name not in SCHEDULES}
    arguments["num_inference_steps"] = steps
    if guidance != 1.0:
        arguments["guidance_scale"] = guidance * guidance_scale(pipe, arguments)
    return arguments


def guidance_scale(pipe: Any, arguments: dict[str, Any]) -> float:
    """That a call has, by itself or by default; 0 where there is none to set."""
    known = inspect.signature(type(pipe).__call__).parameters.get("guidance_scale")
    found = arguments.get("guidance_scale", None if known is None else known.default)
    return float(found) if isinstance(found, (int, float)) else 0.0


def is_called(pipe: Any) -> bool:
    """Whether runs of a pipeline are its own calls, not our loop over its network."""
    return not is_unconditional(pipe)


def with_sampler(pipe: Any, name: str, options: Mapping[str, Any]) -> Any | None:
    """The pipeline with another scheduler; None where its model was not trained for that.

    Parameters
    ----------
    pipe : DiffusionPipeline
    name : str
        Short name, or a class of diffusers.
    options : mapping
        Entries of the configuration.

    Raises
    ------
    InputError
        Where a cache of its networks holds the pipeline itself.
    """
    other = copied_pipeline(pipe, "scheduler")
    try:
        other.scheduler = make_scheduler(name, pipe.scheduler, options)
    except InputError:
        return None
    return other


def _draw(
    recording: Recording,
    pipe: Any,
    batch: Batch,
    steps: int,
    guidance: float,
    corrector: Corrector | None,
    options: Mapping[str, Any],
) -> NDArray[np.float32]:
    """One batch."""
    if not is_unconditional(pipe):
        asked = copy.copy(recording)
        asked.call, asked.call_options = None, options
        revise = partial(revised, pipe, steps=steps, guidance=guidance)
        called = call_again(asked, batch, pipe, corrector, anew=True, revise=revise)
        recording.own_decoding |= asked.own_decoding
        return called
    pipe.scheduler.set_timesteps(steps)
    generators = run_generators(batch.seeds.tolist())
    with torch.no_grad():
        ends = sample_unconditional(
            pipe,
            x_init=initial_noise(pipe, generators),
            steps=steps,
            generators=generators,
            listener=corrector,
            labels=class_labels(batch),
        )
    return np.asarray(ends.float().cpu().numpy(), np.float32)
