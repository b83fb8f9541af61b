"""No correction: the recorded runs, once more."""

from __future__ import annotations

from dataclasses import dataclass

from asced_analysis.correction.strategy import Strategy
from asced_analysis.thresholds.registries import NO_CORRECTION


@dataclass(frozen=True)
class NoCorrection(Strategy):
    """Edits nothing; replay uses it to prove that it reproduces a recording."""

    name = NO_CORRECTION
    edits = False


STRATEGY = NoCorrection
