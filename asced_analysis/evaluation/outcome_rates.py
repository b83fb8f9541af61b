"""How runs end, as a judge sees it: who leaves the worst quarter, and who falls into it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.evaluation.intervals import NOTHING, share_estimate, unpaired_estimate
from asced_analysis.realism.content import worst_level

WORST = 0.25  # of the recorded runs: these count as broken


def worst_bar(before: NDArray[np.float64]) -> float:
    """Mean local distance above which a recorded run is in the worst quarter.

    Where more than a quarter are equally bad, as with outcomes of 0 and 1, these are all in it.
    """
    return worst_level(before, WORST)


def outcome_rates(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    flagged: NDArray[np.bool_],
    bar: float,
) -> dict[str, Any]:
    """Shares of runs that a correction repairs and harms.

    Parameters
    ----------
    before, after : float64 arrays, shape (n,)
        Mean local distance of every run, lower is better.
    flagged : bool array, shape (n,)
    bar : float
        Above it a run is broken (`worst_bar`).

    Returns
    -------
    dict
        Numbers ``broken`` and ``good`` of flagged runs before, and estimates with exact (Blaker's)
        95 % intervals: ``repaired``, of the flagged broken runs the share that is not broken any
        more; ``good_after``, of all flagged runs; ``harmed_of_flagged_good`` and
        ``harmed_of_all_good``, the runs that break, as shares of those that were good.
    """
    was, now = before > bar, after > bar
    broken, good = flagged & was, flagged & ~was
    harmed = ~was & now
    return {
        "bar": bar,
        "broken": int(broken.sum()),
        "good": int(good.sum()),
        "repaired": share_estimate(~now[broken]).to_dict(),
        "good_after": share_estimate(~now[flagged]).to_dict(),
        "harmed_of_flagged_good": share_estimate(harmed[good]).to_dict(),
        "harmed_of_all_good": share_estimate(harmed[~was]).to_dict(),
    }


def unpaired_outcome_rates(
    before: NDArray[np.float64], after: NDArray[np.float64], bar: float
) -> dict[str, Any]:
    """The same of different runs: nobody leaves or falls, but shares can be compared.

    Returns
    -------
    dict
        The keys of `endings`, null where they need pairs, and ``beyond_bar``: shares ``before`` and
        ``after`` and their ``change``.
    """
    was, now = before > bar, after > bar
    return {
        "bar": bar,
        "broken": int(was.sum()),
        "good": int((~was).sum()),
        "repaired": NOTHING.to_dict(),
        "good_after": share_estimate(~now).to_dict(),
        "harmed_of_flagged_good": NOTHING.to_dict(),
        "harmed_of_all_good": NOTHING.to_dict(),
        "beyond_bar": {
            "before": share_estimate(was).to_dict(),
            "after": share_estimate(now).to_dict(),
            "change": unpaired_estimate(now, was).to_dict(),
        },
    }
