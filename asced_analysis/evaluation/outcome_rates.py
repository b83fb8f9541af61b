"""How runs end, as a judge sees it: who leaves the worst quarter, and who falls into it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asced_analysis.evaluation.intervals import (
    NOTHING,
    Change,
    Estimate,
    change_of_share,
    share_estimate,
    unpaired_estimate,
)
from asced_analysis.realism.content import worst_level

WORST = 0.25  # of the recorded runs: these count as broken


@dataclass(frozen=True)
class OutcomeRates:
    """Shares of runs that a correction repairs and harms, with exact (Blaker's) 95 % intervals.

    Attributes
    ----------
    bar : float
        Mean local distance above which a run counts as broken.
    broken, good : int
        Numbers of flagged runs before.
    repaired : Estimate
        Of the flagged broken runs the share that is not broken any more.
    good_after : Estimate
        Of all flagged runs.
    harmed_of_flagged_good, harmed_of_all_good : Estimate
        The runs that break, as shares of those that were good.
    worst_quarter : Change
        Shares of broken ones among the flagged runs, of different runs among all; the change holds
        0 where as many break as are repaired.
    chance : float
        What chance alone would break: the share of the recorded runs in the worst quarter, which
        fresh draws would have too.
    """

    bar: float
    broken: int
    good: int
    repaired: Estimate
    good_after: Estimate
    harmed_of_flagged_good: Estimate
    harmed_of_all_good: Estimate
    worst_quarter: Change
    chance: float


def worst_quarter_limit(before: NDArray[np.float64]) -> float:
    """Mean local distance above which a recorded run is in the worst quarter.

    Where more than a quarter are equally bad, as with outcomes of 0 and 1, these are all in it.
    """
    return worst_level(before, WORST)


def outcome_rates(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    flagged: NDArray[np.bool_],
    limit: float,
) -> OutcomeRates:
    """Shares of runs that a correction repairs and harms.

    Parameters
    ----------
    before, after : float64 arrays, shape (n,)
        Mean local distance of every run, lower is better.
    flagged : bool array, shape (n,)
    limit : float
        Above it a run is broken (`worst_quarter_limit`).
    """
    was, now = before > limit, after > limit
    broken, good = flagged & was, flagged & ~was
    harmed = ~was & now
    return OutcomeRates(
        bar=limit,
        broken=int(broken.sum()),
        good=int(good.sum()),
        repaired=share_estimate(~now[broken]),
        good_after=share_estimate(~now[flagged]),
        harmed_of_flagged_good=share_estimate(harmed[good]),
        harmed_of_all_good=share_estimate(harmed[~was]),
        worst_quarter=Change(
            share_estimate(was[flagged]),
            share_estimate(now[flagged]),
            change_of_share(was[flagged], now[flagged]),
        ),
        chance=float(was.mean()),
    )


def unpaired_outcome_rates(
    before: NDArray[np.float64], after: NDArray[np.float64], limit: float
) -> OutcomeRates:
    """The same of different runs: nobody leaves or falls, but shares can be compared."""
    was, now = before > limit, after > limit
    shares = Change(share_estimate(was), share_estimate(now), unpaired_estimate(now, was))
    return OutcomeRates(
        bar=limit,
        broken=int(was.sum()),
        good=int((~was).sum()),
        repaired=NOTHING,
        good_after=share_estimate(~now),
        harmed_of_flagged_good=NOTHING,
        harmed_of_all_good=NOTHING,
        worst_quarter=shares,
        chance=float(was.mean()),
    )
