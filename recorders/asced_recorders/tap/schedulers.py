"""Noise levels, read off diffusers' schedulers once a schedule is set.

`step_table` turns the state of a scheduler after ``set_timesteps`` into one row a noise level, in
the notation of `asced_stores.format.noise_levels`. A scheduler whose output cannot be read that way
is refused by name: nothing is recorded that would be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.errors import InputError
from asced_stores.format.noise_levels import canonical_prediction_type, log_snr

Float = NDArray[np.float64]

# Families: how ``x = alpha * x0 + sigma * eps`` is written in the scheduler's own coordinates.
VARIANCE_PRESERVING = frozenset(
    {
        "CogVideoXDDIMScheduler",
        "CogVideoXDPMScheduler",
        "DDIMParallelScheduler",
        "DDIMScheduler",
        "DDPMParallelScheduler",
        "DDPMScheduler",
        "LCMScheduler",
        "PNDMScheduler",
        "TCDScheduler",
        "UnCLIPScheduler",
    }
)
SIGMA_SPACE = frozenset(
    {
        "DPMSolverSDEScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "LMSDiscreteScheduler",
    }
)
EDM = frozenset(
    {"CosineDPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"}
)
SCALED_SIGMA = frozenset(
    {
        "DEISMultistepScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "SASolverScheduler",
        "UniPCMultistepScheduler",
    }
)
FLOW = frozenset(
    {
        "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "FlowMatchLCMScheduler",
        "LTXEulerAncestralRFScheduler",
    }
)
IPNDM = frozenset({"IPNDMScheduler"})

# Take steps on the schedule that they were built with, without set_timesteps.
STEPS_UNSET = frozenset(
    {
        "DDPMParallelScheduler",
        "DDPMScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "UnCLIPScheduler",
    }
)

# Known, and not recorded: the reason is shown to the user.
REFUSED = {
    "AmusedScheduler": "it samples discrete tokens, which have no score",
    "BlockRefinementScheduler": "it samples discrete tokens, which have no score",
    "CMStochasticIterativeScheduler": "a consistency model returns no score",
    "ConsistencyDecoderScheduler": "a consistency model returns no score",
    "DDIMInverseScheduler": "it runs from data to noise",
    "DDPMWuerstchenScheduler": "its noise level may differ from image to image",
    "DPMSolverMultistepInverseScheduler": "it runs from data to noise",
    "DiscreteDDIMScheduler": "it samples discrete tokens, which have no score",
    "EntropyBoundScheduler": "it samples discrete tokens, which have no score",
    "FlowMapEulerDiscreteScheduler": "a flow map's output is a jump, not a velocity",
    "HeliosDMDScheduler": "it changes the resolution while sampling",
    "HeliosScheduler": "it changes the resolution while sampling",
    "KarrasVeScheduler": "its step takes a noised sample of another level",
    "MiniMaxH3Scheduler": "its velocity points the other way and is not covered by tests",
    "PiflowScheduler": "its output is a policy, not a velocity",
    "RFD4ProteinaScheduler": "it samples protein structures, not images",
    "RePaintScheduler": "it walks back and forth between noise levels",
    "SCMScheduler": "a consistency model returns no score",
    "ScoreSdeVeScheduler": "it has predictor and corrector calls instead of steps",
    "ScoreSdeVpScheduler": "it has no steps of its own",
    "VQDiffusionScheduler": "it samples discrete tokens, which have no score",
}


@dataclass(frozen=True)
class StepTable:
    """The schedule that is about to be walked: one row a noise level, noisy end first.

    Attributes
    ----------
    timestep, alpha, sigma, log_snr : ndarray, shape (steps,), float64
        What the network is told, and the noise level of the sample that enters the step.
    prediction_type : str
        One of `asced_stores.format.noise_levels.PREDICTION_TYPES`.
    sigma_data : float
        Standard deviation of the data, for EDM's parametrisation; else 0.5 and without meaning.
    calls : ndarray, shape (calls,), int64
        For each call of ``scheduler.step``, the row it starts, or -1 for an additional evaluation
        of a second-order method.
    editable : ndarray, shape (steps,), bool
        Whether the sample that enters a step may be replaced without breaking the solver.
    resumable : bool
        Whether a run may start at any row from the sample alone: a deterministic scheduler of
        one step, that keeps neither history nor generator states.
    scheduler_class : str
        Class of the scheduler.
    begin : int
        Calls of the full schedule that were skipped before the first (img2img).
    """

    timestep: Float
    alpha: Float
    sigma: Float
    log_snr: Float
    prediction_type: str
    sigma_data: float
    calls: NDArray[np.int64]
    editable: NDArray[np.bool_]
    resumable: bool
    scheduler_class: str
    begin: int = 0

    @property
    def steps(self) -> int:
        """Number of noise levels."""
        return len(self.timestep)


def scheduler_class(scheduler: Any, /) -> str:
    """Name of the class of diffusers (or its nearest base) that a scheduler is an instance of.

    Raises
    ------
    InputError
        If it is refused or unknown, with the reason.
    """
    known = VARIANCE_PRESERVING | SIGMA_SPACE | EDM | SCALED_SIGMA | FLOW | IPNDM
    for base in type(scheduler).__mro__:
        if base.__name__ in REFUSED:
            raise InputError(
                f"{base.__name__} cannot be recorded: {REFUSED[base.__name__]}. "
                "Choose another scheduler (--scheduler), if the model allows one."
            )
        if base.__name__ in known:
            return base.__name__
    raise InputError(
        f"the scheduler {type(scheduler).__name__} is unknown: its noise levels cannot be read. "
        "Choose another (--scheduler), or record a loop of your own with Recorder.custom."
    )


def prediction_type_of(scheduler: Any, /) -> str:
    """Prediction type of a scheduler, in the project's names.

    Raises
    ------
    InputError
        If its configuration names one that is unknown.
    """
    name = scheduler_class(scheduler)
    if name in FLOW:
        return "epsilon" if _in_sigma_space(scheduler, name) else "flow_prediction"
    if name in IPNDM:
        return "v_prediction"
    declared = str(scheduler.config.get("prediction_type", "epsilon"))
    if name in EDM:
        return "edm_v" if declared == "v_prediction" else "edm"
    return canonical_prediction_type(declared)


def step_table(scheduler: Any, /, *, begin: int = 0) -> StepTable:
    """Read the noise levels of a scheduler after ``set_timesteps``.

    Parameters
    ----------
    scheduler : SchedulerMixin
        Of diffusers, with its timesteps set.
    begin : int
        First entry of ``scheduler.timesteps`` that is walked (image-to-image pipelines skip some).

    Returns
    -------
    StepTable

    Raises
    ------
    InputError
        If the scheduler is refused or unknown, has no timesteps yet, or cannot start at `begin`.
    """
    name = scheduler_class(scheduler)
    if getattr(scheduler, "timesteps", None) is None:
        raise InputError(f"{name} has no schedule yet: call set_timesteps first")
    if scheduler.config.get("invert_sigmas"):
        raise InputError(f"{name} with invert_sigmas runs from data to noise: it is not recorded")
    timesteps = _float64(scheduler.timesteps)
    alpha, sigma = _levels(scheduler, name, timesteps)
    rows = _first_order_calls(scheduler, name, len(timesteps), begin)
    rows = rows[sigma[rows] > 0]
    if getattr(scheduler, "num_inference_steps", None) is None:
        own = getattr(scheduler, "custom_timesteps", False) or name in STEPS_UNSET
        if not own or (np.diff(log_snr(alpha[rows], sigma[rows])) <= 0).any():
            raise InputError(f"{name} has no schedule yet: call set_timesteps first")
    calls = np.full(len(timesteps) - begin, -1, dtype=np.int64)
    calls[rows - begin] = np.arange(len(rows))
    alpha, sigma = alpha[rows], sigma[rows]
    sigma_data = float(scheduler.config.get("sigma_data", 0.5) or 0.5)
    return StepTable(
        timestep=timesteps[rows],
        alpha=alpha,
        sigma=sigma,
        log_snr=np.asarray(log_snr(alpha, sigma)),
        prediction_type=prediction_type_of(scheduler),
        sigma_data=sigma_data,
        calls=calls,
        editable=_editable(scheduler, name, rows),
        resumable=_resumable(scheduler, name),
        scheduler_class=type(scheduler).__name__,
        begin=begin,
    )


def same_levels(one: StepTable, other: StepTable) -> bool:
    """Whether two schedules are the same to rounding."""
    return one.steps == other.steps and all(
        np.allclose(getattr(one, name), getattr(other, name), rtol=1e-6, atol=1e-9)
        for name in ("timestep", "alpha", "sigma")
    )


def begin_index(scheduler: Any, timestep: Any, /) -> int:
    """Entry of ``scheduler.timesteps`` with which a pipeline starts, seen at its first step.

    Parameters
    ----------
    scheduler : SchedulerMixin
        With its timesteps set.
    timestep : int, float or scalar tensor
        What the first call of ``step`` was given.

    Raises
    ------
    InputError
        If the timestep is not in the schedule.
    """
    for attribute in ("_step_index", "_begin_index"):
        known = getattr(scheduler, attribute, None)
        if known is not None:
            return int(known)
    timesteps = _float64(scheduler.timesteps)
    first = float(timestep)
    # Once a run and not at every step: on CUDA, float() waits for the device.
    if first == timesteps[0]:
        return 0
    matches = np.flatnonzero(timesteps == first)
    if not len(matches):
        matches = np.flatnonzero(np.isclose(timesteps, first, rtol=1e-6, atol=0))
    if not len(matches):
        raise InputError(
            f"{type(scheduler).__name__}: the first step was called with timestep {first}, which "
            "is not in scheduler.timesteps. Record this loop with Recorder.custom."
        )
    return int(matches[1] if len(matches) > 1 else matches[0])


def _levels(scheduler: Any, name: str, timesteps: Float) -> tuple[Float, Float]:
    """``alpha`` and ``sigma`` for each entry of ``timesteps`` (table in `docs/recording.md`)."""
    if name in VARIANCE_PRESERVING:
        abar = _float64(scheduler.alphas_cumprod)[timesteps.astype(np.int64)]
        return np.sqrt(abar), np.sqrt(1 - abar)
    if name in IPNDM:
        n = len(timesteps)
        return _float64(scheduler.alphas)[:n], _float64(scheduler.betas)[:n]
    sigmas = _float64(scheduler.sigmas)[: len(timesteps)]
    if (name in FLOW and not _in_sigma_space(scheduler, name)) or scheduler.config.get(
        "use_flow_sigmas"
    ):
        return 1 - sigmas, sigmas
    if name in SCALED_SIGMA:
        alpha = 1 / np.sqrt(1 + sigmas**2)
        return alpha, sigmas * alpha
    return np.ones_like(sigmas), sigmas


def _in_sigma_space(scheduler: Any, name: str) -> bool:
    """Whether a flow scheduler is given levels of sigma space, and eps in place of the velocity.

    Cosmos 2 takes EDM's levels from 80 on: the Euler step along eps is the same.

    Raises
    ------
    InputError
        If its step needs levels from 0 to 1.
    """
    if _float64(scheduler.sigmas).max() <= 1 + 1e-6:
        return False
    if name != "FlowMatchEulerDiscreteScheduler" or scheduler.config.get("stochastic_sampling"):
        raise InputError(
            f"{name} has sigmas up to {float(scheduler.sigmas.max()):.3g}, and mixes sample and "
            "noise as if none were above 1: it is not recorded. Give it sigmas from 1 to 0, or "
            "another scheduler"
        )
    return True


def _first_order_calls(scheduler: Any, name: str, total: int, begin: int) -> NDArray[np.int64]:
    """Calls that evaluate the network at the sample of a new noise level."""
    calls = np.arange(begin, total)
    if name == "PNDMScheduler":
        if begin:
            raise InputError(
                "PNDMScheduler does not shorten its schedule correctly (image-to-image): its warm-"
                "up assumes the first timestep. Choose another scheduler, for example ddim."
            )
        if scheduler.config.skip_prk_steps:
            return np.asarray(calls[calls != 1])
        warm_up = len(scheduler.prk_timesteps)
        if total - warm_up < 1:
            raise InputError("PNDMScheduler with its Runge-Kutta warm-up needs at least 4 steps")
        return np.concatenate([calls[:warm_up:4], calls[warm_up:]])
    if getattr(scheduler, "order", 1) == 2:
        if begin % 2:
            raise InputError(
                f"{name} was started between two evaluations of one step; give the pipeline a "
                "strength that falls on a step"
            )
        return np.asarray(calls[::2])
    return calls


def _editable(scheduler: Any, name: str, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where the entering sample may be replaced (second-order sub-steps are not rows at all)."""
    if name == "DPMSolverSinglestepScheduler":
        order = np.asarray(scheduler.order_list)
        return np.asarray(order[rows] == 1)
    return np.full(len(rows), not _drifts(scheduler, name))


def _drifts(scheduler: Any, name: str) -> bool:
    """Whether a solver does not keep the noise that its levels name, so that no edit would last.

    Measured with exact scores over eight steps of 25: PNDM mixes velocities of several levels as
    if they were of one (3 %), the others stochastic steps into remembered eps (6 %, 70 %).
    """
    config = scheduler.config
    if name == "PNDMScheduler":
        return str(config.prediction_type) != "epsilon"
    return config.get("algorithm_type") in ("sde-dpmsolver", "noise_prediction")


def is_resumable(scheduler: Any, /) -> bool:
    """Whether runs of a scheduler may start at any of its samples (see `StepTable`)."""
    return _resumable(scheduler, scheduler_class(scheduler))


def _resumable(scheduler: Any, name: str) -> bool:
    """Whether the sample alone determines the rest of a run."""
    if name == "FlowMatchEulerDiscreteScheduler":
        return not scheduler.config.get("stochastic_sampling")
    return name in {
        "CogVideoXDDIMScheduler",
        "DDIMParallelScheduler",
        "DDIMScheduler",
        "EDMEulerScheduler",
        "EulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
    }


def _float64(values: Any) -> Float:
    """A tensor or array of the scheduler, as float64 on the host."""
    if hasattr(values, "detach"):
        values = values.detach().to("cpu").numpy()
    return np.asarray(values, dtype=np.float64)
