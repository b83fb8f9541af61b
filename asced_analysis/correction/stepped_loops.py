"""Steps of a loop of one's own, told to a listener as the tap tells those of a scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from torch import Tensor

from asced_analysis.correction.loop_step import (
    LoopStep,
    PartialStepTable,
    like,
    loop_table,
    rows,
    same_level,
)
from asced_analysis.correction.settings import correction_settings
from asced_analysis.detection.log_snr_grid import TOLERANCE
from asced_recorders.tap.events import TapListener
from asced_recorders.tap.schedulers import StepTable
from asced_stores.errors import InputError
from asced_stores.format.noise_levels import canonical_prediction_type, log_snr

if TYPE_CHECKING:
    import numpy as np

    from asced_analysis.correction.edit_settings import EditSettings


class ScheduledLoop:
    """Tells a listener the steps of a loop whose schedule is known.

    Parameters
    ----------
    listener : TapListener or None
        None: nothing is looked at, and every sample comes back as it is.
    table : StepTable
        The loop's schedule.
    scalars : mapping, optional
        What the runs are: ``seed``, ``prompt``, ``label``; a replay's loop may read them.
    runs : int array, optional
        Their numbers.
    """

    def __init__(
        self,
        listener: TapListener | None,
        table: StepTable,
        *,
        scalars: Mapping[str, Any] | None = None,
        runs: NDArray[np.int64] | None = None,
    ) -> None:
        self.listener, self.table = listener, table
        self.scalars: Mapping[str, Any] = scalars or {}
        self.runs = runs
        self.done = 0
        self.last: Any = None

    @property
    def seeds(self) -> Any:
        """Seed of each run; -1 where it is not known."""
        return self.scalars.get("seed")

    def __call__(self, **given: Any) -> Any:
        """Hand over a step; what comes back is to be sampled on. See `Corrector.step`."""
        return self.take(LoopStep(**given))

    def take(self, given: LoopStep) -> Any:
        """Take in a step."""
        here = float(log_snr(*given.level))
        begins = same_level(here, float(self.table.log_snr[0]))  # after a pass, or a broken one
        if begins or self.done == self.table.steps:
            self.done = 0
        expected = float(self.table.log_snr[self.done])
        if not same_level(here, expected):
            raise InputError(
                f"step {self.done} has log-SNR {here:.5g} where the schedule has "
                f"{expected:.5g}: hand every step over once, noisy end first, on the schedule that "
                "was given (or recorded)"
            )
        self.last = given.next_sample
        step, self.done = self.done, self.done + 1
        if self.listener is None:
            return self.last
        if step == 0:
            self.table = replace(
                self.table,
                prediction_type=canonical_prediction_type(given.prediction_type),
                sigma_data=given.sigma_data,
            )
            self.listener.begin(self.table)
        event = given.event(self.table, step)
        said = self.listener.before_step(event)
        if said is not None:
            self._go_on(given.moved(said, event), given)
            event = event.replaced(said)
        if self.last is not None:
            self._go_on(self.listener.after_step(event, rows(self.last)), given)
        return self.last

    def _go_on(self, sample: Tensor | None, given: LoopStep) -> None:
        """Sample on with another sample, in the loop's own form."""
        if sample is not None:
            self.last = like(sample, given.next_sample)

    def finish(self, end: Any) -> Any:
        """The end of the runs, once the loop has returned."""
        if self.done != self.table.steps:
            raise InputError(
                f"the loop handed over {self.done} of {self.table.steps} recorded steps: call step "
                "at every step, and sample on with what it returns"
            )
        end = self.last if end is None else end
        if end is None:
            raise InputError("the loop returned nothing, and step was not handed next_sample")
        return end


class UnscheduledLoop:
    """Steps of a loop whose schedule is not known beforehand, for a corrector.

    What the detector looks at is kept until the next noise level is that of ``T_c``; then the
    corrector is told all of it at once, and the sample that enters it is edited.

    Parameters
    ----------
    listener : TapListener
        The corrector.
    settings : EditSettings
        Of the corrector.
    """

    def __init__(self, listener: TapListener, settings: EditSettings) -> None:
        self.listener, self.settings = listener, settings
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.edited = False
        self.levels: list[tuple[float, float]] = []
        self.kept: list[tuple[Tensor, Tensor]] = []

    def __call__(self, **given: Any) -> Any:
        """Hand over a step; see `Corrector.step`."""
        return self.take(LoopStep(**given))

    def take(self, given: LoopStep) -> Any:
        """Take in a step."""
        here, following = given.level, given.next_level
        if following is None:
            raise InputError(
                "the noise level of the next step is not known: give next_alpha and next_sigma, or "
                "the whole schedule beforehand (Corrector(..., schedule=(alphas, sigmas)))"
            )
        if self.levels and log_snr(*here) <= log_snr(*self.levels[-1]):
            self.clear()
        if self.edited:
            self.levels.append(here)
            return given.next_sample
        levels = [*self.levels, here, following]
        kind = canonical_prediction_type(given.prediction_type)
        table = loop_table(
            [a for a, _ in levels],
            [s for _, s in levels],
            prediction_type=kind,
            kind=PartialStepTable,
            scheduler_class=self.settings.known_sampler,
        )
        event = given.event(table, len(self.levels))
        dtype = self.settings.recorded
        self.levels.append(here)
        self.kept.append((event.eps.to(dtype), event.x0.to(dtype)))
        if not self._is_due(len(self.levels), float(log_snr(*following))):
            if following[1] == 0:
                self._refuse_late(float(log_snr(*here)))
            return given.next_sample
        if given.next_sample is None:
            raise InputError("this step's next sample is to be edited: give next_sample")
        self.listener.begin(table)
        for step, (eps, x0) in enumerate(self.kept):
            past = type(event)(table, step, event.sample, eps, None)
            past._prediction = (eps.float(), x0.float())
            self.listener.before_step(past)
        changed = self.listener.after_step(past, rows(given.next_sample))
        self.kept = []
        return given.next_sample if changed is None else like(changed, given.next_sample)

    def _is_due(self, step: int, level: float) -> bool:
        """Whether the sample entering this step is the one to edit; steps come in order."""
        settings = self.settings
        given = settings.step_given
        if given is None and settings.thresholds is None:
            raise InputError("a corrector without thresholds needs step=..., where to edit")
        due = step == given if given is not None else level >= self._target - TOLERANCE
        if not due:
            return False
        strategy = settings.strategy
        if strategy.streams_masks or strategy.edited_steps(step, 10**6) != [step]:
            raise InputError(
                f"{strategy.title} acts at more steps than T_c, for which the whole schedule "
                "must be known: Corrector(..., schedule=(alphas, sigmas))"
            )
        self.edited = True
        return True

    @property
    def _target(self) -> float:
        """``T_c`` of the thresholds, as a log-SNR."""
        return float(correction_settings(self.settings.thresholds)["log_snr"])

    def _refuse_late(self, level: float) -> None:
        """Say that a loop ended before the step that was to be edited."""
        given = self.settings.step_given
        where = f"log-SNR {self._target:.3g}" if given is None else f"step {given}"
        raise InputError(
            f"the loop ended after {len(self.levels)} steps at log-SNR {level:.3g}, before the "
            f"correction at {where}: nothing was detected or corrected"
        )
