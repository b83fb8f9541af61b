"""What a solver remembers of earlier steps, renewed where a sample was edited.

Multistep solvers mix what the network said before into a step, and after an edit that would bring
the old noise back in: with everything renewed at step 12 of 25, the noise predicted in the steps
that follow has a root mean square of 0.8 to 0.9 in place of 1. So a solver is made to remember, in
edited places, what the network says of the edited sample: it goes on there as after a start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asced_stores.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from asced_recorders.tap.events import StepEvent

HISTORIES = ("derivatives", "ets", "model_outputs")
"""Lists of what the network said, latest last."""

NOT_MIXED = frozenset({"cur_model_output", "cur_sample", "last_noise", "last_sample", "sample"})
"""Kept inside a step of several evaluations, or for a corrector that edited places go without."""


def renew_history(event: StepEvent, edited: Tensor) -> None:
    """Make a solver remember, in edited places, what the network says of the edited sample.

    To be called before the scheduler takes the step that the edited sample enters.

    Parameters
    ----------
    event : StepEvent
        Of that step.
    edited : Tensor, bool, of the sample's shape
        Where the sample was edited.

    Raises
    ------
    InputError
        For a scheduler that remembers something else of earlier steps.
    """
    scheduler = event.scheduler
    for name, value in vars(scheduler).items():
        if name in NOT_MIXED or (name in HISTORIES and isinstance(value, list)):
            continue
        items = value if isinstance(value, (list, tuple)) else [value]
        if any(getattr(one, "shape", None) == event.sample.shape for one in items):
            raise InputError(
                f"{type(scheduler).__name__} remembers {name} of the steps before, which would mix "
                "the old noise into the edited sample, and how to renew it is not known: choose "
                "another scheduler for corrections"
            )
    for name in HISTORIES:
        past = getattr(scheduler, name, None)
        if past and any(one is not None for one in past):
            said = _said(event)
            renewed = [one if one is None else said.to(one).where(edited, one) for one in past]
            setattr(scheduler, name, renewed)


def _said(event: StepEvent) -> Tensor:
    """What the network says of this step, in the form in which the solver remembers it."""
    scheduler = event.scheduler
    if hasattr(scheduler, "convert_model_output"):  # DPM-Solver, DEIS, UniPC, SASolver: eps or x0
        said: Tensor = scheduler.convert_model_output(event.model_output, sample=event.sample)
        return said
    return event.eps  # PNDM, IPNDM, LMS
