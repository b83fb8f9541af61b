"""What is known at a step, and who may listen: the vocabulary of the tap."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from asced_recorders.tap.schedulers import StepTable
from asced_stores.format.noise_levels import eps_and_x0

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(eq=False, slots=True)
class StepEvent:
    """What is known when ``scheduler.step`` is called at a new noise level.

    Attributes
    ----------
    step, steps : int
        Index of the noise level, counted from 0 at the noisy end, and their number.
    alpha, sigma : float
        Noise level of `sample`.
    next_alpha, next_sigma : float
        Noise level of the next step; 1 and 0 after the last.
    sample : Tensor, shape (batch, channel, ...)
        The sample that enters the step, in the scheduler's coordinates.
    model_output : Tensor, of the shape of `sample`
        After guidance; a learned variance has been cut off.
    prediction_type : str
    sigma_data : float
    scheduler : SchedulerMixin
    first_order : bool
        Whether the step is finished by this one evaluation.
    table : StepTable
    changed : bool or Tensor
        Whether the sample is another than the step before returned; a tensor where the device
        has not said it yet.
    """

    table: StepTable
    step: int
    sample: Tensor
    model_output: Tensor
    scheduler: Any
    first_order: bool = True
    changed: bool | Tensor = False
    _prediction: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False)

    @property
    def steps(self) -> int:
        """Number of noise levels of the run."""
        return self.table.steps

    @property
    def alpha(self) -> float:
        """Signal level of `sample`."""
        return float(self.table.alpha[self.step])

    @property
    def sigma(self) -> float:
        """Noise level of `sample`."""
        return float(self.table.sigma[self.step])

    @property
    def next_alpha(self) -> float:
        """Signal level of the next step's sample; 1 after the last."""
        return 1.0 if self.step + 1 >= self.steps else float(self.table.alpha[self.step + 1])

    @property
    def next_sigma(self) -> float:
        """Noise level of the next step's sample; 0 after the last."""
        return 0.0 if self.step + 1 >= self.steps else float(self.table.sigma[self.step + 1])

    @property
    def prediction_type(self) -> str:
        """How `model_output` is to be read."""
        return self.table.prediction_type

    @property
    def sigma_data(self) -> float:
        """Standard deviation of the data (EDM only)."""
        return self.table.sigma_data

    @property
    def eps(self) -> Tensor:
        """Predicted noise, float32, computed when first asked for."""
        return self._predict()[0]

    @property
    def x0(self) -> Tensor:
        """Predicted clean sample, float32, neither clipped nor thresholded."""
        return self._predict()[1]

    def replaced(self, model_output: Tensor) -> StepEvent:
        """Return the same event with another model output."""
        return replace(self, model_output=model_output)

    def _predict(self) -> tuple[Tensor, Tensor]:
        if self._prediction is None:
            self._prediction = eps_and_x0(
                self.sample.float(),
                self.model_output.float(),
                alpha=self.alpha,
                sigma=self.sigma,
                prediction_type=self.table.prediction_type,
                sigma_data=self.table.sigma_data,
            )
        return self._prediction


class TapListener:
    """What watches a run, and may change it. Override what is needed."""

    def scheduled(self, scheduler: Any) -> None:
        """Be told that a schedule was set, before anything is sampled; refuse it by raising."""

    def begin(self, table: StepTable) -> None:
        """Be told the schedule, right before the first step of a run."""

    def calling(self, inside: bool) -> None:
        """Be told when a call of ``scheduler.step`` begins, and when it is over.

        Every call is told, also of further evaluations of a second-order step. What networks
        compute inside is asked by listeners, and not by the pipeline.
        """

    def before_step(self, event: StepEvent) -> Tensor | None:
        """See a step before the scheduler takes it; return another model output, or None."""
        return None

    def after_step(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        """See the sample that enters the next step; return another, or None.

        For a second-order scheduler this comes after its last evaluation of the step.
        """
        return None

    def correction(self) -> dict[str, Any] | None:
        """Say how it corrects runs, for the store of a recorder beside it; None: not at all."""
        return None

    def corrected(self) -> dict[str, Any]:
        """Say what it found in each run of the last call, and edited.

        Returns
        -------
        dict
            ``flagged`` (n,), ``score`` (n,) and ``mask`` (n, y, x).
        """
        return {}


class ListenerChain(TapListener):
    """Several listeners, asked in turn; each sees what the ones before it changed."""

    def __init__(self, *listeners: TapListener) -> None:
        self.listeners = listeners

    def scheduled(self, scheduler: Any) -> None:
        """Tell every listener."""
        for listener in self.listeners:
            listener.scheduled(scheduler)

    def begin(self, table: StepTable) -> None:
        """Tell every listener."""
        for listener in self.listeners:
            listener.begin(table)

    def calling(self, inside: bool) -> None:
        """Tell every listener."""
        for listener in self.listeners:
            listener.calling(inside)

    def before_step(self, event: StepEvent) -> Tensor | None:
        """Ask every listener; the last replacement counts."""
        changed = None
        for listener in self.listeners:
            answer = listener.before_step(event)
            if answer is not None:
                changed = answer
                event = event.replaced(answer)
        return changed

    def after_step(self, event: StepEvent, next_sample: Tensor) -> Tensor | None:
        """Ask every listener; the last replacement counts."""
        changed = None
        for listener in self.listeners:
            answer = listener.after_step(event, next_sample if changed is None else changed)
            if answer is not None:
                changed = answer
        return changed
