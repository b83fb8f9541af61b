"""Flagged runs drawn again: several renewals of the foreground, or new starts from a pool.

`best_of` and `restart` of the product do one of these at a time. Here numbers of draws, steps of
the choice, numbers of tries and levels are compared, so draws are sampled once and chosen from, and
runs recorded under other seeds stand for new draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.correction.renoise import Renoise
from asced_analysis.realism import local_realism
from experiments.correction.stages import FLAGGED, WINDOW, Stage
from experiments.datasets.committee import committee
from experiments.datasets.sets import STEPS, mean_distance
from experiments.detection.detectors import MAIN


def draws(stage: Stage, step: int, count: int, watch: Sequence[int]) -> Any:
    """Several renewals of the foreground: ends (k, n, ...), the teachers' view on the way."""
    teacher = committee()
    ends, seen = [], {at: [] for at in watch}
    for seed in range(count):
        one, x0 = stage.sample(
            f"drawn-{step}", Renoise(where="foreground"), step, seed=seed, watch=watch
        )
        ends.append(one)
        for at in watch:
            seen[at].append(mean_distance(local_realism(x0[at], teacher)))
    views = {at: np.stack(values) for at, values in seen.items()}
    views[STEPS] = np.stack([mean_distance(local_realism(one, teacher)) for one in ends])
    return np.stack(ends), views


WATCHED = (16, 20)


def pick(ends: NDArray[Any], view: NDArray[Any]) -> NDArray[np.float32]:
    """The draw of each run that looks best."""
    best = view.argmin(0)
    return np.asarray(ends[best, np.arange(len(best))])


@dataclass(frozen=True)
class Pool:
    """Recorded runs that serve as new draws: what restarting them would give, already sampled."""

    scores: NDArray[np.float64]
    samples: NDArray[np.float32]
    level: float


def pool_of(bench: Any) -> Pool:
    """New draws with their scores at step 12, and the level below which one is kept."""
    pool, tune = bench.sets["pool"], bench.sets["tune"]
    detectors = bench.detectors()
    ranked, _ = detectors.ranked(MAIN, WINDOW, pool.dataset, "pool")
    reference, _ = detectors.ranked(MAIN, WINDOW, tune.dataset, "tune")
    return Pool(
        ranked.scores,
        pool.samples,
        float(np.quantile(reference.scores, 1 - FLAGGED)),
    )


def restarted(
    stage: Stage, pool: Pool, tries: int, *, level: float | None = None, seed: int = 0
) -> tuple[NDArray[np.float32], float]:
    """Ends of flagged runs drawn anew until one is predicted good, and the mean cost of each.

    Of a run whose every try is flagged, the try of the lowest score is finished. The steps of the
    abandoned run and of every abandoned try are paid; what is finished pays to its end.
    """
    level = pool.level if level is None else level
    rng = np.random.default_rng([seed, 3])
    order = iter(rng.permutation(len(pool.scores)))
    ends, paid = [], 0
    for _ in stage.chosen:
        tried: list[int] = []
        while len(tried) < tries:
            tried.append(int(next(order)))
            if pool.scores[tried[-1]] <= level:
                break
        best = min(tried, key=lambda i: pool.scores[i])
        ends.append(pool.samples[best])
        paid += 12 * len(tried) + STEPS - 12
    return np.stack(ends), paid / len(stage.chosen)
