"""Conformal risk control (arXiv:2208.02814) of the flagged share of the image.

The flagged share falls as the level rises and lies in 0..1, so the smallest level with
``(sum of shares + 1) / (n + 1) <= promised`` keeps the expected share of a new run below the
promise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.thresholds.conformal import TooFewRunsError, check_rate
from asced_stores.errors import InputError

Floats = npt.NDArray[np.float64]

LEVELS = 512


@dataclass(frozen=True)
class RiskCurve:
    """Sum over runs of the flagged share at rising levels; constant memory in the number of runs.

    Attributes
    ----------
    levels : array, shape (level,)
        Rising.
    total : array, shape (level,)
        Sum of the shares.
    runs : int
    """

    levels: Floats
    total: Floats
    runs: int

    def add(self, shares: Floats) -> RiskCurve:
        """With more runs, shape (run, level)."""
        return RiskCurve(self.levels, self.total + shares.sum(axis=0), self.runs + len(shares))


def risk_level(curve: RiskCurve, promised: float) -> float:
    """Smallest level that keeps the expected flagged share below the promise.

    Raises
    ------
    TooFewRunsError
        Where even an empty mask can't be promised with so few runs.
    InputError
        Where no level of the curve does.
    """
    check_rate(promised)
    if curve.runs + 1 < 1 / promised:
        raise TooFewRunsError(
            f"a flagged share of {promised:g} needs at least {ceil(1 / promised - 1 - 1e-9)} "
            f"calibration runs, there are {curve.runs}"
        )
    bound = (curve.total + 1) / (curve.runs + 1)
    kept = np.flatnonzero(bound <= promised)
    if kept.size == 0:
        raise InputError(
            "no level of the grid keeps the promised share; this is a fault of the toolkit: "
            "please report it"
        )
    return float(curve.levels[kept[0]])


def shares_above(statistic: Any, levels: Floats) -> Floats:
    """Share of the image above each level, shape (run, level).

    Parameters
    ----------
    statistic : array, shape (run, y, x)
        Already cleaned up (see `asced_analysis.detection.opening`).
    levels : array, shape (level,), rising
    """
    flat = np.asarray(statistic, dtype=np.float64).reshape(len(statistic), -1)
    bins = np.searchsorted(levels, flat, side="left")  # how many levels lie below each place
    counts = np.zeros((len(flat), levels.size + 1))
    np.add.at(counts, (np.arange(len(flat))[:, None], bins), 1.0)
    above = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1][:, 1:]
    return above / flat.shape[1]


def risk_curve(statistics: Iterable[Any], lowest: float, highest: float) -> RiskCurve:
    """Curve over batches of cleaned-up statistics."""
    levels = np.linspace(lowest, highest, LEVELS)
    curve = RiskCurve(levels, np.zeros(LEVELS), 0)
    for statistic in statistics:
        curve = curve.add(shares_above(statistic, levels))
    return curve
