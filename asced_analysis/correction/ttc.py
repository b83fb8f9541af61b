"""Trajectory-aware targeted correction (ASCED, arXiv 2503.16218, Sec. 3.3 and Eq. 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from asced_analysis.correction.strategy import LoopState, Strategy, blend, stochastic_step
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_recorders.tap import StepEvent


@dataclass(frozen=True)
class TargetedCorrection(Strategy):
    """Noise the predicted x0 afresh inside the mask, once, at ``T_c``.

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
    """

    name = "ttc"

    perturbation: Literal["additive", "multiplicative"] = "additive"
    reverse_step: int = 1
    noise_scale: float = 0.0
    eta: float = 0.0

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
        if not 0 <= self.eta <= 1:
            raise InputError(f"eta lies in 0..1, not {self.eta}")

    @property
    def history(self) -> int | None:
        """Predicted x0 of `reverse_step` steps before ``T_c``."""
        return self.reverse_step

    def after_step(self, event: StepEvent, sample: Tensor, state: LoopState) -> Tensor | None:
        """Edit the sample entering ``T_c``; with eta, also the one step from there."""
        if self.eta and event.step == state.correction_step and state.mask is not None:
            drawn = stochastic_step(event, state.noise(sample, 2), self.eta)
            return None if drawn is None else blend(sample, drawn, state.mask)
        if event.step + 1 != state.correction_step or state.mask is None:
            return None
        source = max(0, state.correction_step - self.reverse_step)
        x0 = state.x0[source].to(sample.dtype)
        noise = state.noise(sample, 0)
        alpha, sigma = event.next_alpha, event.next_sigma
        if self.noise_scale and self.perturbation == "additive":
            x0 = x0 + self.noise_scale * state.noise(sample, 1)
        edited = alpha * x0 + sigma * noise  # x <- alpha x0' + sigma z
        if self.noise_scale and self.perturbation == "multiplicative":
            edited = edited * (1 + self.noise_scale * state.noise(sample, 1))
        return blend(sample, edited, state.mask)
