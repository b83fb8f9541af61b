"""Where detectors look, and where the correction edits, on the steps of a schedule."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from asced_analysis.thresholds.document import Correction
from asced_analysis.thresholds.registries import NO_CORRECTION
from asced_stores.errors import InputError

LATEST_CORRECTION = 0.48
"""Last share of sampling at which a correction is useful, as the paper has it."""

FEWEST_STEPS = 2
WINDOW = (0.2, LATEST_CORRECTION)
"""First step and correction step, as shares of sampling: Mutation as the paper has it."""


class Schedule(Protocol):
    """Steps and their noise levels, of recorded runs or of a sampler."""

    @property
    def steps(self) -> int:
        """How many."""

    @property
    def log_snr(self) -> Any:
        """Of each step, noisy end first."""


def window_and_correction(
    schedule: Schedule, window: tuple[float, float], strategy: str
) -> tuple[tuple[int, int], Correction]:
    """Steps of the window, and where the correction edits: the step right after it.

    Two steps are looked at together, and nothing is corrected: no step is left for it.

    Parameters
    ----------
    schedule : Schedule
        Of recorded runs, or of a sampler.
    window : (float, float)
        First step and correction step, as shares of sampling.
    strategy : str
        Of the correction.

    Returns
    -------
    (int, int), Correction
        First and last step of the window.

    Raises
    ------
    InputError
        Where the shares do not rise inside 0 to 1.
    """
    start, edit = window
    steps = schedule.steps
    if not 0 <= start < edit < 1:
        raise InputError(f"the window is {window}; expected two rising shares of sampling")
    if steps == FEWEST_STEPS:
        return (0, 1), Correction(NO_CORRECTION, float(schedule.log_snr[1]), 0.5)
    edit_step = min(max(round(edit * steps), 2), steps - 1)
    first = min(round(start * steps), edit_step - 2)
    while not np.isfinite(schedule.log_snr[first]) and first < edit_step - 2:
        first += 1
    return (first, edit_step - 1), Correction(
        strategy, float(schedule.log_snr[edit_step]), edit_step / steps
    )
