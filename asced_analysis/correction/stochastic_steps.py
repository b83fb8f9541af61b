"""A few stochastic steps inside the mask, in the place of deterministic ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from asced_analysis.correction.strategy import LoopState, Strategy, blend, stochastic_step
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_recorders.tap.tap import StepEvent


@dataclass(frozen=True)
class StochasticSteps(Strategy):
    """Ancestral (DDPM) steps inside the mask, the first of them into ``T_c``.

    Attributes
    ----------
    count : int
        How many steps.
    """

    name = "stochastic_steps"

    count: int = 3

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.count < 1:
            raise InputError(f"count must be at least 1, not {self.count}")

    def edited_steps(self, correction_step: int, steps: int) -> list[int]:
        """Those that the stochastic steps lead to."""
        return list(range(correction_step, min(correction_step + self.count, steps)))

    def after_step(self, event: StepEvent, sample: Tensor, state: LoopState) -> Tensor | None:
        """Replace the deterministic step where the mask is."""
        offset = event.step + 1 - state.correction_step
        if not 0 <= offset < self.count or state.mask is None:
            return None
        edited = stochastic_step(event, state.noise(sample, 2 + offset))
        return None if edited is None else blend(sample, edited, state.mask)


STRATEGY = StochasticSteps
