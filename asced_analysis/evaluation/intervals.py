"""Bootstrap intervals over runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
NUMBERS_AT_ONCE = 1 << 20  # of counts by resample and run: 8 MB
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; None where there is nothing to estimate it from."""

    value: float | None
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        """Value and interval."""
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return f"{self.value:.3g}"
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


NOTHING = Estimate(None, None, None)


def bootstrap(
    statistic: Callable[[Counts], float],
    runs: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Estimate:
    """Interval of a statistic of weighted runs.

    Parameters
    ----------
    statistic : callable
        From how often each run was drawn, an int array (runs,), to a number.
    runs : int
    resamples, seed : int
    bounds : (float, float)
        What the statistic can be: the interval is cut to it.

    Returns
    -------
    Estimate
        The value with every run once; the interval is the percentile interval, shifted by the
        distance of the resamples' median from the value, since distances between distributions
        grow when runs repeat.
    """
    value = statistic(np.ones(runs, np.int64))
    if runs < 2:
        return Estimate(float(value), None, None)
    rng = np.random.default_rng(seed)
    drawn = [
        statistic(np.bincount(rng.integers(0, runs, runs), minlength=runs))
        for _ in range(resamples)
    ]
    low, middle, high = np.quantile(drawn, [0.025, 0.5, 0.975])
    low, high = np.clip([low + value - middle, high + value - middle], *bounds)
    return Estimate(float(value), float(low), float(high))


def mean_estimate(
    values: NDArray[Any], weights: NDArray[Any] | None = None, *, seed: int = 0
) -> Estimate:
    """Mean of a value by run, or ratio of sums where each run has a weight; runs are resampled."""
    values = np.asarray(values, np.float64)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    if not len(values) or weights.sum() == 0:
        return NOTHING
    if len(values) < 2:
        return Estimate(float((values * weights).sum() / weights.sum()), None, None)
    rng = np.random.default_rng(seed)
    parts = [
        (counts @ (values * weights), counts @ weights)
        for counts in resample(rng, len(values), RESAMPLES)
    ]
    above, below = np.concatenate(parts, axis=1)
    drawn = above[below > 0] / below[below > 0]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float((values * weights).sum() / weights.sum()), float(low), float(high))


def share_estimate(hits: NDArray[np.bool_]) -> Estimate:
    """Share of runs, with the exact interval of Clopper and Pearson: it is never of no width."""
    from scipy.stats import beta

    n, k = len(hits), int(np.count_nonzero(hits))
    if not n:
        return NOTHING
    low = float(beta.ppf(0.025, k, n - k + 1)) if k else 0.0
    high = float(beta.ppf(0.975, k + 1, n - k)) if k < n else 1.0
    return Estimate(k / n, low, high)


def resample(rng: np.random.Generator, runs: int, resamples: int) -> Iterator[Counts]:
    """How often each run is drawn, blocks of shape (resample, run) that stay small.

    All resamples of 10,240 runs would be 82 MB.
    """
    size = max(1, NUMBERS_AT_ONCE // runs)
    for begin in range(0, resamples, size):
        yield rng.multinomial(runs, np.full(runs, 1 / runs), min(size, resamples - begin))
