"""Trajectory-aware targeted correction (ASCED, arXiv 2503.16218, Sec. 3.3 and Eq. 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from asced_analysis.correction.strategy import (
    LoopState,
    Strategy,
    blend,
    check_when,
    step_of,
    stochastic_step,
)
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_recorders.tap.schedulers import StepTable
    from asced_recorders.tap.tap import StepEvent

AGAIN = 1000  # streams of noise from here on belong to further steps


@dataclass(frozen=True)
class TargetedCorrection(Strategy):
    """Noise the predicted x0 afresh inside the mask, at ``T_c`` and, if wanted, once more later.

    Attributes
    ----------
    perturbation : {"additive", "multiplicative"}
        ``x0 + noise_scale * xi`` (the released code), or Eq. 6, which multiplies the renewed sample
        by ``gamma * xi``; written here as ``1 + noise_scale * xi`` so that 0 is no perturbation.
    reverse_step : int
        Use the predicted x0 of this many steps before ``T_c``; 1 is the latest.
    noise_scale : float
        Strength of the perturbation.
    eta : float
        Stochasticity (DDIM's eta) of the one step from ``T_c``, inside the mask.
    renoise_steps : tuple of float
        Further steps whose entering sample is edited in the same mask, from the latest predicted
        x0: steps, or shares of sampling below 1 (which hold for any number of steps).
    """

    name = "ttc"
    strength = "noise_scale"

    perturbation: Literal["additive", "multiplicative"] = "additive"
    reverse_step: int = 1
    noise_scale: float = 0.0
    eta: float = 0.0
    renoise_steps: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.perturbation not in ("additive", "multiplicative"):
            raise InputError(
                f"perturbation must be additive or multiplicative, not {self.perturbation!r}"
            )
        if self.reverse_step < 1:
            raise InputError(
                f"reverse_step counts back from T_c and is at least 1, not {self.reverse_step}"
            )
        if not 0 <= self.noise_scale < math.inf:
            raise InputError(f"noise_scale is a size of at least 0, not {self.noise_scale}")
        if not 0 <= self.eta <= 1:
            raise InputError(f"eta lies in 0..1, not {self.eta}")
        given = self.renoise_steps
        steps = tuple(given) if isinstance(given, (list, tuple)) else (given,)  # JSON knows lists
        object.__setattr__(self, "renoise_steps", steps)
        for when in self.renoise_steps:
            check_when("renoise_steps", when)

    @property
    def title(self) -> str:
        """The name, and the further steps."""
        more = ", ".join(f"{when:g}" for when in self.renoise_steps)
        return f"{self.name}, again at {more}" if more else self.name

    def edited_steps(self, correction_step: int, steps: int) -> list[int]:
        """``T_c``, with eta the step after it, and further ones."""
        following = [correction_step + 1] if self.eta else []
        return [correction_step, *following, *(step_of(when, steps) for when in self.renoise_steps)]

    def check(self, table: StepTable, correction_step: int) -> None:
        """Refuse further steps that do not come after ``T_c``, or can't be edited."""
        for when in self.renoise_steps:
            step = step_of(when, table.steps)
            if not correction_step < step < table.steps:
                raise InputError(
                    f"renoise_steps asks for step {step}; expected one after T_c, which is step "
                    f"{correction_step}, and before the end at {table.steps}"
                )
        super().check(table, correction_step)

    @property
    def history(self) -> int | None:
        """Predicted x0 of `reverse_step` steps before ``T_c``."""
        return self.reverse_step

    def after_step(self, event: StepEvent, sample: Tensor, state: LoopState) -> Tensor | None:
        """Edit the sample entering ``T_c`` and further steps; with eta, the step from ``T_c``."""
        if state.mask is None:
            return None
        entering = event.step + 1
        if entering == state.correction_step:
            source = max(0, state.correction_step - self.reverse_step)
            return self._renewed(event, sample, state, state.x0[source], 0)
        drawn = None
        if self.eta and event.step == state.correction_step:
            drawn = stochastic_step(event, state.noise(sample, 2), self.eta)
            if drawn is not None:
                sample = drawn = blend(sample, drawn, state.mask)
        if entering in {step_of(when, event.steps) for when in self.renoise_steps}:
            return self._renewed(
                event, sample, state, event.x0.to(state.recorded), AGAIN + 2 * entering
            )
        return drawn

    def _renewed(
        self, event: StepEvent, sample: Tensor, state: LoopState, clean: Tensor, draw: int
    ) -> Tensor:
        """The sample entering the next step, made of predicted x0 and fresh noise in the mask."""
        assert state.mask is not None
        x0 = clean.to(sample.dtype)
        noise = state.noise(sample, draw)
        alpha, sigma = event.next_alpha, event.next_sigma
        if self.noise_scale and self.perturbation == "additive":
            x0 = x0 + self.noise_scale * state.noise(sample, draw + 1)
        edited = alpha * x0 + sigma * noise  # x <- alpha x0' + sigma z
        if self.noise_scale and self.perturbation == "multiplicative":
            edited = edited * (1 + self.noise_scale * state.noise(sample, draw + 1))
        return blend(sample, edited, state.mask)


STRATEGY = TargetedCorrection
