"""No correction: the recorded runs, once more."""

from __future__ import annotations

from dataclasses import dataclass

from asced_analysis.correction.strategy import Strategy


@dataclass(frozen=True)
class NoCorrection(Strategy):
    """Edits nothing; replay uses it to prove that it reproduces a recording."""

    name = "none"
    edits = False


STRATEGY = NoCorrection
