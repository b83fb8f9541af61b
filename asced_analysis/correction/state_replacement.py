"""State replacement: return to what the model predicted before anything looked wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from asced_analysis.correction.strategy import LoopState, Strategy, blend

if TYPE_CHECKING:
    from asced_recorders.tap.tap import StepEvent


@dataclass(frozen=True)
class StateReplacement(Strategy):
    """At ``T_c``, noise the predicted x0 of the last step before the first flagged one.

    Where the first flagged step is not known (a mask from outside), it is the window's first.
    """

    name = "state_replacement"
    streams_masks = True

    @property
    def history(self) -> int | None:
        """Every step of the window, and the one before it."""
        return None

    def edited_steps(self, correction_step: int, steps: int) -> list[int]:
        """``T_c``."""
        return [correction_step]

    def after_step(self, event: StepEvent, sample: Tensor, state: LoopState) -> Tensor | None:
        """Edit the sample entering ``T_c``."""
        if event.step + 1 != state.correction_step or state.mask is None:
            return None
        earliest = min(state.x0)
        x0 = torch.empty_like(sample)
        for run in range(len(sample)):
            first = state.window[0]
            if state.first_flagged is not None and int(state.first_flagged[run]) >= 0:
                first = int(state.first_flagged[run])
            x0[run] = state.x0[max(earliest, first - 1)][run].to(sample.dtype)
        edited = event.next_alpha * x0 + event.next_sigma * state.noise(sample, 0)
        return blend(sample, edited, state.mask)


STRATEGY = StateReplacement
