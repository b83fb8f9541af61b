"""A strategy: inside the mask, the predicted noise of the sample is scaled down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asced_analysis.correction.strategy import LoopState, Strategy, blend


@dataclass(frozen=True)
class Freeze(Strategy):
    """Scale the predicted noise of the sample entering ``T_c``.

    Attributes
    ----------
    scale : float
    """

    name = "freeze"

    scale: float = 0.5

    def edited_steps(self, correction_step: int, steps: int) -> list[int]:
        """``T_c``."""
        return [correction_step]

    def after_step(self, event: Any, sample: Any, state: LoopState) -> Any:
        """Edit the sample entering ``T_c``."""
        if event.step + 1 != state.correction_step or state.mask is None:
            return None
        x0 = event.x0.to(sample.dtype)
        edited = event.next_alpha * x0 + self.scale * event.next_sigma * event.eps.to(sample.dtype)
        return blend(sample, edited, state.mask)


STRATEGY = Freeze
