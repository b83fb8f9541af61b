"""Split conformal calibration: what is promised, exactly.

With n exchangeable calibration scores the level is the ``l``-th largest, ``l = floor((n+1)*a)``.
A new run lies above it with probability ``l/(n+1)``, in ``[a - 1/(n+1), a]``. Given one
calibration, the rate is Beta(l, n+1-l), so among m new runs the count is
BetaBinomial(m, l, n+1-l), not binomial.
"""

from __future__ import annotations

from math import ceil, floor, log1p
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_stores.errors import InputError

Floats = npt.NDArray[np.float64]

ROUNDING = 1e-3
"""Relative room above the run whose score is the level; half way to the next run at most."""


class TooFewRunsError(InputError):
    """The promised rate needs more calibration runs."""


def runs_needed(rate: float, *, confidence: float | None = None) -> int:
    """Fewest calibration runs with which a rate can be promised at all.

    Parameters
    ----------
    rate : float
        In (0, 1).
    confidence : float, optional
        Of the training-conditional form.
    """
    check_rate(rate)
    if confidence is not None:
        check_confidence(confidence)
    if confidence is None:
        return ceil(1 / rate - 1 - 1e-9)
    return ceil(log1p(-confidence) / log1p(-rate) - 1e-9)


def order_statistic(count: int, rate: float, *, confidence: float | None = None) -> int:
    """Rank from the top of the calibration score that is the level.

    Parameters
    ----------
    count : int
        Calibration scores.
    rate : float
        Promised false-alarm rate.
    confidence : float, optional
        None: the rate is kept on average over calibrations. Otherwise the rate of this very
        calibration is kept with this confidence: the largest l with
        ``P(Beta(l, n+1-l) <= rate) >= confidence``.

    Raises
    ------
    TooFewRunsError
        Naming how many runs the rate needs.
    """
    needed = runs_needed(rate, confidence=confidence)
    if count < needed:
        raise TooFewRunsError(
            f"a false-alarm rate of {rate:g} needs at least {needed} runs to calibrate on"
            + (f" at confidence {confidence:g}" if confidence is not None else "")
            + f", there are {count}: record {needed - count} more for this, or promise a larger "
            "rate"
        )
    if confidence is None:
        return floor((count + 1) * rate + 1e-9)
    from scipy import stats

    ranks = np.arange(1, count + 1)
    kept = stats.beta.cdf(rate, ranks, count + 1 - ranks) >= confidence
    return int(ranks[kept].max())


def conformal_level(
    scores: npt.ArrayLike, rate: float, *, confidence: float | None = None
) -> tuple[float, int]:
    """Level above which a new run is flagged with at most the promised rate.

    Parameters
    ----------
    scores : array, shape (n,) or (..., n)
        Calibration scores, larger for more suspicious; -inf where nothing is ever flagged.
    rate, confidence
        See `order_statistic`.

    Returns
    -------
    level : float (array, shape (...), for stacked draws)
    rank : int
        From the top.
    """
    values = np.asarray(scores, dtype=np.float64)
    if np.isnan(values).any():
        raise InputError("a calibration score is NaN; failed runs must be left out")
    rank = order_statistic(values.shape[-1], rate, confidence=confidence)
    place = values.shape[-1] - rank
    ordered = np.sort(values, axis=-1)
    level: Any = ordered[..., place]
    # The level is one run's very score. Rounding in the loop must not flag that run, nor another.
    room = ordered[..., min(place + 1, values.shape[-1] - 1)] - level
    room = np.where(np.isfinite(room) & (rank > 1), room / 2, np.inf)
    level = level + np.minimum(room, ROUNDING * np.maximum(1.0, np.abs(level)))
    return (float(level) if values.ndim == 1 else level), rank


def expected_band(
    count: int, rank: int, new_runs: int, *, coverage: float = 0.99
) -> tuple[int, int]:
    """Interval in which the number of flagged runs among new ones lies.

    Parameters
    ----------
    count, rank : int
        Calibration scores, and the level's rank from the top.
    new_runs : int
    coverage : float

    Returns
    -------
    (int, int)
        Central interval of BetaBinomial(new_runs, rank, count + 1 - rank).
    """
    from scipy import stats

    law = stats.betabinom(new_runs, rank, count + 1 - rank)
    tail = (1 - coverage) / 2
    return int(law.ppf(tail)), int(law.ppf(1 - tail))


def rate_interval(flagged: int, runs: int, *, coverage: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of a rate."""
    from scipy import stats

    tail = (1 - coverage) / 2
    low = 0.0 if flagged == 0 else float(stats.beta.ppf(tail, flagged, runs - flagged + 1))
    high = 1.0 if flagged == runs else float(stats.beta.ppf(1 - tail, flagged + 1, runs - flagged))
    return low, high


def check_confidence(confidence: float) -> None:
    """Refuse confidences outside (0, 1)."""
    if not 0 < confidence < 1:
        raise InputError(f"the confidence is {confidence}; expected a number between 0 and 1")


def check_rate(rate: float) -> None:
    """Refuse rates outside (0, 1)."""
    if not 0 < rate < 1:
        raise InputError(f"the false-alarm rate is {rate}; expected a number between 0 and 1")
