"""A level for contaminated calibration sets; it declares that it has no finite-sample guarantee.

Where up to a fifth of the calibration runs are broken, they sit at the top of the scores and push
the conformal level up, so that detection goes blind. Here only the lower part of the scores is
believed: a shifted and scaled reference shape is fitted to its quantiles, together with the share
of contamination that makes them fit best, and the clean upper quantile is read off that shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.thresholds.conformal import check_rate
from asced_stores.errors import InputError

MOST_CONTAMINATION = 0.2
BELIEVED = (0.05, 0.7)
FEWEST = 30


def robust_level(
    scores: npt.ArrayLike, rate: float, *, most_contamination: float = MOST_CONTAMINATION
) -> tuple[float, float]:
    """Level whose false-alarm rate among the clean runs is about the promised one.

    Parameters
    ----------
    scores : array, shape (n,)
        Contaminated runs are assumed to lie above the clean bulk.
    rate : float
        Wanted false-alarm rate among clean runs.
    most_contamination : float
        Largest share of broken runs that is considered.

    Returns
    -------
    level : float
    contamination : float
        Share of contamination that fitted best.

    Notes
    -----
    With a share c on top, the p-quantile of the mixture is the ``p / (1 - c)`` quantile of the
    clean scores, for p well below ``1 - c``. For each c on a grid and each of three shapes (normal,
    Gumbel, and the half-way between), a line is fitted through the quantile plot over p in
    `BELIEVED`; the best line wins.
    """
    check_rate(rate)
    values = np.asarray(scores, dtype=np.float64)
    values = np.sort(values[np.isfinite(values)])
    if values.size < FEWEST:
        raise InputError(
            f"the robust level needs at least {FEWEST} scores, there are {values.size}"
        )
    from scipy import stats

    probability = np.linspace(*BELIEVED, 60)
    found = np.quantile(values, probability)
    best: tuple[float, float, float] | None = None
    for shape in (stats.norm.ppf, stats.gumbel_r.ppf, _between):
        for share in np.linspace(0, most_contamination, 41):
            expected = shape(probability / (1 - share))
            centred = expected - expected.mean()
            slope = float(centred @ found / (centred @ centred))
            shift = float(found.mean() - slope * expected.mean())
            # a little is asked of contamination, or noise alone would always claim some
            error = float(np.mean((found - slope * expected - shift) ** 2)) * (1 + share)
            if best is None or error < best[0]:
                best = (error, shift + slope * float(shape(1 - rate)), float(share))
    assert best is not None
    return best[1], best[2]


def _between(probability: Any) -> Any:
    """Quantiles half-way between the normal and Gumbel shapes."""
    from scipy import stats

    return (stats.norm.ppf(probability) + stats.gumbel_r.ppf(probability)) / 2
