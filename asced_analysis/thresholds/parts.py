"""The parts of thresholds: levels, window, clean-up, correction, guarantee, other samplers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Levels:
    """The level and what it is measured in.

    Attributes
    ----------
    log_snr : tuple of float
        Rising grid; n + 1 points make n cells. For variants without a grid, the window's ends.
    location, scale : nested tuples of float
        The population's, by cell (and place), or of the run score.
    level : float
        In robust units; a run whose score lies above it is flagged.
    whitening : nested tuples of float or None
        Of `diffpath` alone.
    """

    log_snr: tuple[float, ...]
    location: tuple[Any, ...]
    scale: tuple[Any, ...]
    level: float
    whitening: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class Window:
    """The part of sampling that is looked at, in three units.

    Attributes
    ----------
    log_snr, normalised_time : (float, float)
        First and last; time runs from 0 (noise) to 1.
    steps : (int, int)
        First and last step of the calibrating sampler, both included.
    of_steps : int
        Number of that sampler's steps.
    """

    log_snr: tuple[float, float]
    normalised_time: tuple[float, float]
    steps: tuple[int, int]
    of_steps: int


@dataclass(frozen=True)
class Cleanup:
    """What a flagged region must measure, as fractions of the image's area and shorter side.

    Attributes
    ----------
    kind : str
        `opening`, `components` or `none`.
    min_area, min_width : float
        Fractions; rounded up to pixels (or map cells), at least 3 and 2 where not 0.
    """

    kind: str
    min_area: float = 0.0
    min_width: float = 0.0

    def pixels(self, height: int, width: int) -> tuple[int, int]:
        """Least area and least width for an image (or map) of this size."""
        area = max(3, math.ceil(self.min_area * height * width - 1e-9)) if self.min_area else 0
        side = max(2, math.ceil(self.min_width * min(height, width) - 1e-9))
        return area, side if self.min_width else 1


@dataclass(frozen=True)
class Correction:
    """How flagged runs are corrected by default.

    Attributes
    ----------
    strategy : str
        A name of `asced_analysis.correction`.
    log_snr, normalised_time : float
        Of the step whose entering sample is edited.
    strength : float
        Noise scale of the perturbation of predicted x0.
    seed : int
        Of the correction's own noise.
    grow : float
        Growth of the mask before the edit, as a fraction of the shorter side.
    parameters : mapping
        Of the strategy, by name (see `asced_analysis.correction.STRATEGIES`).
    """

    strategy: str
    log_snr: float
    normalised_time: float
    strength: float = 0.0
    seed: int = 0
    grow: float = 0.0
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """For people: ``renoise, where foreground, at 0.48 of sampling``."""
        parameters = "".join(f", {name} {value}" for name, value in self.parameters.items())
        return f"{self.strategy}{parameters}, at {self.normalised_time:.2f} of sampling"


@dataclass(frozen=True)
class Guarantee:
    """What is promised about false alarms, to whom, and what was measured.

    Attributes
    ----------
    method : str
        How the level was found.
    promised : float
        False-alarm rate (or share of the image, for risk control) that is promised.
    finite_sample : bool
        Whether the promise holds at every sample size (robust levels have none).
    confidence : float or None
        Of a training-conditional promise; None where the promise is on average over calibrations.
    unit : str
        The exchangeable unit: `run` or `prompt`.
    population : str
        Of which runs the promise speaks.
    fit, calibrate, report : int
        Sizes of the three disjoint sets, in units.
    order_statistic : int or None
        The level is this largest of the calibration scores.
    measured, interval : float or None, (float, float) or None
        Rate on the report set, and its 95 % Clopper-Pearson interval.
    needed : mapping of str to int
        Calibration units needed for tighter rates.
    notes : tuple of str
        Anything a reader must know.
    """

    method: str
    promised: float
    finite_sample: bool
    confidence: float | None
    unit: str
    population: str
    fit: int
    calibrate: int
    report: int
    order_statistic: int | None
    measured: float | None
    interval: tuple[float, float] | None
    needed: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def band(self, coverage: float = 0.99) -> tuple[int, int] | None:
        """Interval in which the number of flagged runs of the report set was to be expected.

        Parameters
        ----------
        coverage : float
            Of the central interval of the beta-binomial law (see `calibration.conformal`).

        Returns
        -------
        (int, int) or None
            None where the level is no order statistic, or nothing was measured.
        """
        if self.order_statistic is None or not self.report:
            return None
        from asced_analysis.thresholds.conformal import expected_band

        return expected_band(self.calibrate, self.order_statistic, self.report, coverage=coverage)


@dataclass(frozen=True)
class Recheck:
    """The level for another sampler, from runs of that sampler.

    Attributes
    ----------
    scheduler_class : str
    steps : int
    runs : int
    realised : float
        False-alarm rate there under the original level.
    factor : float
        `realised` over the promise.
    level : float
        The level that keeps the promise there.
    """

    scheduler_class: str
    steps: int
    runs: int
    realised: float
    factor: float
    level: float
