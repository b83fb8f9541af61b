"""Re-noise: the whole of a flagged run starts again from its predicted x0 at ``T_c``."""

from __future__ import annotations

from dataclasses import dataclass

from asced_analysis.correction.ttc import TargetedCorrection


@dataclass(frozen=True)
class Renoise(TargetedCorrection):
    """Targeted correction whose mask is the whole image of a flagged run."""

    name = "renoise"
    whole_run = True
