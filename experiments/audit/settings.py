"""Forty sound settings: whatever an audit finds there is a false alarm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from experiments.audit.faults import flow, loop

SCHEDULERS = (
    "DDIM",
    "DDPM",
    "EulerDiscrete",
    "EulerAncestralDiscrete",
    "HeunDiscrete",
    "LMSDiscrete",
    "PNDM",
    "DPMSolverMultistep",
    "DPMSolverSinglestep",
    "UniPCMultistep",
    "DEISMultistep",
)


@dataclass(frozen=True)
class Setting:
    """A sound way to sample a model.

    Attributes
    ----------
    name : str
    steps : int
    pipeline : callable
        ``pipeline(pipe)``: from the model's pipeline to the one that samples.
    """

    name: str
    steps: int
    pipeline: Callable[[Any], Any]


def _with(scheduler: str, **options: Any) -> Callable[[Any], Any]:
    return lambda pipe: loop(pipe, scheduler, **options)


def settings(prediction_type: str) -> list[Setting]:
    """Twenty for a model: every scheduler with 10 steps; some with 5 and 25, and other options.

    A network of noise knows no image at the pure noise that flow matching begins with, so that only
    one of v is sound there.
    """
    others = [
        Setting("flow matching, shift 3", 10, flow),
        Setting("flow matching, shift 1", 10, lambda pipe: flow(pipe, shift=1.0)),
    ]
    if prediction_type != "v_prediction":
        others = [
            Setting("KDPM2Discrete", 10, _with("KDPM2Discrete")),
            Setting("SASolver", 10, _with("SASolver")),
        ]
    return [
        *(Setting(name, 10, _with(name)) for name in SCHEDULERS),
        Setting("DDIM", 25, _with("DDIM")),
        Setting("DPMSolverMultistep", 25, _with("DPMSolverMultistep")),
        Setting("EulerDiscrete, Karras", 10, _with("EulerDiscrete", use_karras_sigmas=True)),
        Setting("EulerDiscrete, leading", 10, _with("EulerDiscrete", timestep_spacing="leading")),
        Setting("DDIM, leading", 10, _with("DDIM", timestep_spacing="leading")),
        Setting("DPMSolverMultistep", 5, _with("DPMSolverMultistep")),
        Setting("DDIM", 5, _with("DDIM")),
        *others,
    ]
