"""Levelling: the noise of a flagged run is brought to the energy that the schedule names.

A deterministic sampler carries the energy of its starting noise to the end. Where a sample has few
values that energy differs from run to run (2.2 % for 1 x 32 x 32), and runs that have much of it
break far more often (docs/truth.md). Levelling draws nothing and changes no noise but its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from asced_analysis.correction.places import Place
from asced_analysis.correction.strategy import LoopState, Strategy, blend
from asced_stores.errors import InputError

if TYPE_CHECKING:
    from asced_recorders.tap import StepEvent


def level_noise(noise: Tensor, *, target: float = 1.0) -> Tensor:
    """Scale each run's noise to one root mean square.

    For starts: pass the result as a pipeline's ``latents``, and no run begins with more noise than
    its schedule says.

    Parameters
    ----------
    noise : Tensor, shape (run, ...)
        In units of sigma.
    target : float
        Root mean square asked for.

    Returns
    -------
    Tensor of the same shape
        A run without any noise is left as it is.

    Examples
    --------
    >>> import torch
    >>> from asced_analysis.correction import level_noise
    >>> start = level_noise(torch.randn(2, 1, 32, 32))
    >>> start.square().mean((1, 2, 3)).round(decimals=4)
    tensor([1., 1.])
    """
    energy = noise.float().square().mean(tuple(range(1, noise.ndim)), keepdim=True).sqrt()
    factor = (target / energy).where(energy > 0, energy.new_ones(()))
    return (noise * factor).to(noise.dtype)


@dataclass(frozen=True)
class Levelling(Strategy):
    """Bring the noise of a flagged run to the schedule's energy, once, at ``T_c``.

    Attributes
    ----------
    target : float
        Root mean square of the noise afterwards, in units of sigma. Below 1 images come out
        smoother, above 1 busier.
    """

    name = "levelling"

    target: float = 1.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        if not 0.5 <= self.target <= 2:
            raise InputError(f"target is a root mean square of about 1, not {self.target}")

    @property
    def place(self) -> Place:
        """The energy is that of the whole run."""
        return "everywhere"

    @property
    def history(self) -> int | None:
        """Predicted x0 of the step before ``T_c``, as it is recorded."""
        return 1

    def after_step(self, event: StepEvent, sample: Tensor, state: LoopState) -> Tensor | None:
        """Scale what of the sample entering ``T_c`` is not predicted x0."""
        if event.step + 1 != state.correction_step or state.mask is None:
            return None
        if event.next_sigma == 0:
            return None
        signal = event.next_alpha * state.x0[event.step].to(sample.dtype)
        noise = (sample - signal) / event.next_sigma
        edited = signal + event.next_sigma * level_noise(noise, target=self.target)
        return blend(sample, edited, state.mask)
