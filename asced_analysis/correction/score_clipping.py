"""Score clipping: hold back a sudden change of the weighted score inside the mask."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from asced_analysis.correction.strategy import LoopState, Strategy, blend
from asced_stores.errors import InputError
from asced_stores.format.noise_levels import model_output_from_eps, weighted_score

if TYPE_CHECKING:
    from asced_recorders.tap.tap import StepEvent


@dataclass(frozen=True)
class ScoreClipping(Strategy):
    """``W'_k = W_{k-1} + clip(D_k, -tau, tau)`` before the scheduler's step, up to ``T_c``.

    Attributes
    ----------
    mad_scale : float
        tau is this many robust standard deviations (1.4826 MAD) of the step's own ``D_k`` in that
        image.
    """

    name = "score_clipping"
    streams_masks = True
    from_checkpoint = False

    mad_scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the parameters."""
        if not 0 < self.mad_scale < math.inf:
            raise InputError(f"mad_scale must be positive, not {self.mad_scale}")

    def before_step(self, event: StepEvent, state: LoopState) -> Tensor | None:
        """Clip the change of the weighted score where the mask is."""
        if event.alpha == 0 or event.sigma == 0 or event.step >= state.correction_step:
            return None
        current = weighted_score(event.eps, event.alpha, event.sigma)
        previous, state.previous_score = state.previous_score, current
        if previous is None or state.mask is None or event.step < state.window[0]:
            return None
        dynamics = current - previous
        flat = dynamics.flatten(1)
        spread = _median((flat - _median(flat)[:, None]).abs())
        tau = (self.mad_scale * 1.4826 * spread).reshape(-1, *[1] * (dynamics.ndim - 1))
        clipped = previous + torch.minimum(torch.maximum(dynamics, -tau), tau)
        state.previous_score = blend(current, clipped, state.mask)
        eps = state.previous_score * (-event.alpha / event.sigma)
        output = model_output_from_eps(
            eps,
            event.sample.to(eps.dtype),
            alpha=event.alpha,
            sigma=event.sigma,
            prediction_type=event.prediction_type,
            sigma_data=event.sigma_data,
        )
        touched = (state.mask > 0).to(state.mask)  # the weights of soft edges are in the score
        return blend(event.model_output, output, touched)


def _median(rows: Tensor) -> Tensor:
    """Median of each row: the mean of the middle two of an even number (torch takes the lower)."""
    ordered = rows.sort(1).values
    count = rows.shape[1]
    return (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2


STRATEGY = ScoreClipping
