"""Post hoc noise and denoise (as SDEdit does, arXiv 2108.01073): one more pass after sampling."""

from __future__ import annotations

from dataclasses import dataclass

from asced_analysis.correction.strategy import Strategy


@dataclass(frozen=True)
class NoiseDenoise(Strategy):
    """The finished image of a flagged run is noised to ``T_c`` and denoised again.

    Inside the mask the further pass's result is taken, outside the finished image stays. Costs the
    steps from ``T_c`` on once more; only replay can do it.
    """

    name = "noise_denoise"
    in_loop = False


STRATEGY = NoiseDenoise
