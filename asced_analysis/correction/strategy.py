"""What a strategy is: a frozen dataclass with two hooks, and the state it is handed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.regions import Region
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_recorders.tap.schedulers import StepTable
    from asced_recorders.tap.tap import StepEvent

RECORDED = torch.float16
"""Precision of a recording, unless it says another."""

Passes: TypeAlias = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]
"""Samples (n, channel, y, x), what was edited (n, y, x), and evaluations of the denoiser (n,)."""


@dataclass
class LoopState:
    """What is known about the images of one call while they are sampled.

    Attributes
    ----------
    correction_step : int
        ``T_c``: the sample entering this step is edited.
    window : tuple of int
        First and last step that detection looks at.
    mask : Tensor or None
        Where to edit, float in 0..1, shape (n, 1, ..., y, x); zero in runs that are not flagged.
        None until it is known.
    noise : callable
        ``noise(like, draw)``: standard normal numbers of the shape of `like`, the same for a run
        whatever the batch, strategy or ``T_c``; `draw` tells streams apart.
    x0 : dict
        Predicted x0 by step, as far back as a strategy asks for, in the recorded dtype.
    first_flagged : Tensor or None
        First flagged step of each run, shape (n,); -1 where none.
    recorded : torch.dtype
        Precision in which runs are recorded: predicted x0 is rounded so before it is used, so that
        a recorded one gives the same bits.
    """

    correction_step: int
    window: tuple[int, int]
    noise: Callable[[Tensor, int], Tensor]
    mask: Tensor | None = None
    first_flagged: Tensor | None = None
    x0: dict[int, Tensor] = field(default_factory=dict)
    previous_score: Tensor | None = None
    recorded: torch.dtype = RECORDED


@dataclass(frozen=True)
class Strategy:
    """A correction; subclasses override the hooks they need.

    Attributes
    ----------
    name : str
        Under which thresholds, stores and commands know it.
    edits : bool
        False for what leaves every run as it is.
    in_loop : bool
        False for what needs more than one pass of sampling: only replay can do it, by
        `sample_again`.
    streams_masks : bool
        Asks for the mask after every step of the window, not only at ``T_c``.
    from_checkpoint : bool
        False for what acts before ``T_c``.
    judges_draws : bool
        Whether it needs the detector itself, not masks alone.
    chooses : bool
        Whether a teacher chooses among several draws of a run.
    strength : str or None
        Which parameter the strength in thresholds sets.
    """

    name: ClassVar[str] = "unnamed"
    edits: ClassVar[bool] = True
    in_loop: ClassVar[bool] = True
    judges_draws: ClassVar[bool] = False
    chooses: ClassVar[bool] = False
    strength: ClassVar[str | None] = None
    streams_masks: ClassVar[bool] = False
    from_checkpoint: ClassVar[bool] = True

    @property
    def region(self) -> Region:
        """Where a flagged run is edited: in its mask, everywhere, or where its x0 says."""
        return "mask"

    @property
    def title(self) -> str:
        """For people: the name, and what sets it apart from others of the name."""
        return self.name

    @property
    def history(self) -> int | None:
        """How many steps before ``T_c`` predicted x0 is needed; None for the whole window."""
        return 0

    def edited_steps(self, correction_step: int, steps: int) -> list[int]:
        """Steps whose entering sample is edited."""
        return []

    def check(self, table: StepTable, correction_step: int) -> None:
        """Refuse, before anything is sampled, what can't be done on this sampler's steps.

        Raises
        ------
        InputError
            Where the sampler does not allow a sample to be changed.
        """
        for step in self.edited_steps(correction_step, table.steps):
            if 0 < step < table.steps and not table.editable[step]:
                first = 0 if step == correction_step else correction_step
                allowed = [int(k) for k in table.editable.nonzero()[0] if k > first]
                raise InputError(
                    f"{table.scheduler_class} does not allow the sample entering step {step} to be "
                    f"changed; it allows it at steps {allowed}"
                )

    def before_step(self, event: StepEvent, state: LoopState) -> Tensor | None:
        """Return another model output for this step, or None to leave it."""
        return None

    def after_step(self, event: StepEvent, sample: Tensor, state: LoopState) -> Tensor | None:
        """Return another sample entering the next step, or None to leave it."""
        return None

    def sample_again(self, job: Any, batch: Any, masks: NDArray[np.bool_]) -> Passes:
        """Sample flagged runs again, where one pass is not enough (``in_loop = False``).

        Parameters
        ----------
        job : asced_analysis.replay.jobs.Job
            The replay: pipeline, recording, ``T_c``, thresholds.
        batch : asced_analysis.replay.recording.Batch
            Flagged runs alone.
        masks : bool array, shape (n, y, x)

        Returns
        -------
        samples : float32 array, shape (n, channel, y, x)
        edited : bool array, shape (n, y, x)
        evaluations : float64 array, shape (n,)
            Of the denoiser.

        Raises
        ------
        InputError
            Where the strategy does not say how.
        """
        raise InputError(
            f"strategy {self.name} samples a run more than once, and does not say how: give it a "
            "method sample_again, or set in_loop = True"
        )


@dataclass(frozen=True)
class UnregisteredStrategy(Strategy):
    """A strategy of which a store holds the name, and nobody here the code.

    Attributes
    ----------
    called : str
        The name.
    """

    called: str = ""

    @property
    def title(self) -> str:
        """The name."""
        return self.called


def step_of(when: float, steps: int) -> int:
    """A step from a step, or from a share of sampling below 1."""
    return round(when * steps) if when < 1 else int(when)


def check_when(name: str, when: float) -> None:
    """Refuse what is neither a step nor a share of sampling.

    Raises
    ------
    InputError
    """
    whole = isinstance(when, int) or (isinstance(when, float) and when.is_integer())
    if isinstance(when, bool) or not isinstance(when, (int, float)) or not when > 0:
        raise InputError(f"{name} is {when!r}; expected a step, or a share of sampling below 1")
    if when >= 1 and not whole:
        raise InputError(f"{name} is {when}; expected a whole step, or a share below 1")


def blend(sample: Tensor, edited: Tensor, mask: Tensor) -> Tensor:
    """Put the edited sample where the mask is, by its weight; outside not a bit changes."""
    edited = edited.to(sample.dtype)
    weight = mask.to(sample.dtype)
    mixed = torch.where(weight >= 1, edited, sample + weight * (edited - sample))
    return torch.where(weight > 0, mixed, sample)


def stochastic_step(event: StepEvent, noise: Tensor, eta: float = 1.0) -> Tensor | None:
    """The sample entering the next step, by a DDIM step with this eta (1: DDPM).

    Eq. 16 of arXiv 2010.02502, written in ``kappa = sigma / alpha`` so that it holds in every
    parametrisation. None where a noise level is singular.
    """
    if event.alpha == 0 or event.next_alpha == 0 or event.next_sigma == 0:
        return None
    kappa = event.sigma / event.alpha
    following = event.next_sigma / event.next_alpha
    up = eta * following * max(0.0, 1 - (following / kappa) ** 2) ** 0.5
    down = max(0.0, following**2 - up**2) ** 0.5
    sample: Tensor = event.next_alpha * (event.x0 + down * event.eps + up * noise)
    return sample
