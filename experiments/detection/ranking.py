"""Every detector on the same runs, judged by what it cannot see.

Pixels are ranked by the map that a detector thresholds: `calibrated` and `outcome` have one. The
masks of the others are nested in the level, so the largest level of a ladder at which a pixel is
in the mask ranks it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from asced_analysis.compute.source import open_source
from asced_analysis.detection.scoring import detector_for
from asced_analysis.realism.local import upsample
from asced_analysis.thresholds.document import Thresholds
from asced_stores.errors import InputError

RUNGS = 24
RESAMPLES = 500
PIXEL_BINS = 1000


@dataclass(frozen=True)
class Ranked:
    """Scores (n,) and level maps (n, y, x) of runs."""

    scores: NDArray[np.float64]
    maps: NDArray[np.float32]


def rank(runs: Any, thresholds: Thresholds) -> Ranked:
    """Score and level map of every run."""
    source = open_source(runs)
    detector = detector_for(source, thresholds)
    states = list(_states(source, detector))
    scores = np.concatenate([np.asarray(detector.result(s).score, np.float64) for s in states])
    shape = source.sample_shape[-2], source.sample_shape[-1]
    if hasattr(states[0].stream, "predict"):
        maps = [np.asarray(s.stream.predict(s.inner)[0], np.float32) for s in states]
    elif hasattr(states[0].stream, "statistic"):
        maps = [np.asarray(s.stream.statistic(s.inner), np.float32) for s in states]
    else:
        maps = list(_climb(states, scores[np.isfinite(scores)]))
    return Ranked(scores, upsample(np.concatenate(maps), shape))


def _climb(states: Sequence[Any], scores: NDArray[Any]) -> Iterator[NDArray[np.float32]]:
    """Highest rung of a ladder of levels at which each pixel is in the mask."""
    ladder = np.unique(np.quantile(scores, np.linspace(0.0, 0.99, RUNGS)))
    low = scores.min() - np.ptp(scores) * np.linspace(0.5, 0.05, 8)
    for state in states:
        found: NDArray[np.float32] | None = None
        for rung, level in enumerate((*low, *ladder), start=1):
            mask = np.asarray(state.stream.detect(state.inner, float(level))[0])
            found = np.zeros(mask.shape, np.float32) if found is None else found
            found[mask] = rung
        assert found is not None
        yield found


def _states(source: Any, detector: Any) -> Iterator[Any]:
    """Final state of the detector for each batch."""
    for batch in source.batches(detector.needs(), steps=(detector.first_step, detector.last_step)):
        some = next(iter(batch.arrays.values()))
        state = detector.start((some.shape[0], *some.shape[2:]))
        for offset in range(some.shape[1]):
            given = {name: values[:, offset] for name, values in batch.arrays.items()}
            state = detector.update(state, batch.first_step + offset, **given)
        yield state


def image_auroc(scores: NDArray[Any], labels: NDArray[np.bool_]) -> float:
    """Area under the curve of a run score; NaN where one class is missing."""
    bad = int(labels.sum())
    if bad in (0, len(labels)):
        return float("nan")
    ranks = stats.rankdata(np.nan_to_num(scores, neginf=-1e9, posinf=1e9))
    return float((ranks[labels].sum() - bad * (bad + 1) / 2) / (bad * (len(labels) - bad)))


def balanced_accuracy(scores: NDArray[Any], labels: NDArray[np.bool_], seed: int = 0) -> float:
    """Accuracy at equal numbers: the paper's protocol, without its choice on the same runs.

    The threshold that is best on one half of the runs is used on the other, and the other way
    round; the mean of both is returned.
    """
    rng = np.random.default_rng(seed)
    few = int(min(labels.sum(), (~labels).sum()))
    if few < 2:
        return float("nan")
    good, bad = np.flatnonzero(~labels), np.flatnonzero(labels)
    pairs = np.stack([rng.permutation(good)[:few], rng.permutation(bad)[:few]], axis=1)
    halves = [pairs[::2].ravel(), pairs[1::2].ravel()]
    found = []
    for chosen, other in (halves, halves[::-1]):
        level = best_level(scores[chosen], labels[chosen])
        found.append(float(((scores[other] > level) == labels[other]).mean()))
    return float(np.mean(found))


def best_level(scores: NDArray[Any], labels: NDArray[np.bool_]) -> float:
    """Level of the highest accuracy."""
    order = np.argsort(scores, kind="stable")
    ordered, truth = scores[order], labels[order]
    right = np.cumsum(~truth) + truth.sum() - np.cumsum(truth)  # all up to here are called good
    return float(ordered[int(np.argmax(right))])


def risk_coverage(
    scores: NDArray[Any], labels: NDArray[np.bool_], points: int = 20
) -> tuple[list[float], float]:
    """Share of broken runs among those kept when the highest scores are turned away.

    Returns
    -------
    risk : list of float
        At coverages 1/points, 2/points, ..., 1.
    area : float
        Mean risk over all coverages (lower is better).
    """
    ordered = labels[np.argsort(scores, kind="stable")]
    risk = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    at = [risk[max(0, round(len(risk) * k / points) - 1)] for k in range(1, points + 1)]
    return [float(value) for value in at], float(risk.mean())


def best_overlap(maps: NDArray[Any], truth: NDArray[np.bool_]) -> float:
    """Intersection over union of all pixels, with the level of one half used on the other."""
    everybody = np.ones(len(maps), np.bool_)
    return group_overlaps(maps, truth, {"all": everybody})["all"]


def group_overlaps(
    maps: NDArray[Any], truth: NDArray[np.bool_], groups: Mapping[str, NDArray[np.bool_]]
) -> dict[str, float]:
    """Intersection over union of the pixels of each group of runs, at one level for all groups.

    The level that is best for all runs of one half is used on the other, and the other way round;
    the mean of both is returned.
    """
    halves = [np.arange(len(maps)) % 2 == half for half in (0, 1)]
    found: dict[str, list[float]] = {name: [] for name in groups}
    for chosen, other in (halves, halves[::-1]):
        levels = np.unique(np.quantile(maps[chosen], np.linspace(0.5, 0.995, 60)))
        overlaps = [_overlap(maps[chosen] > v, truth[chosen]) for v in levels]
        mask = maps > levels[int(np.argmax(overlaps))]
        for name, one in groups.items():
            found[name].append(_overlap(mask[other & one], truth[other & one]))
    return {name: float(np.mean(both)) for name, both in found.items()}


def _overlap(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((found & truth).sum() / max(1, (found | truth).sum()))


@dataclass(frozen=True)
class PixelCounts:
    """Pixels and true pixels of each run by bin of the map's value, highest bin first.

    Attributes
    ----------
    every, true : float64 arrays, shape (n, bins)
    """

    every: NDArray[np.float64]
    true: NDArray[np.float64]

    def precision(self, times: NDArray[Any] | None = None) -> float:
        """Average precision, with each run so many times; pixels of one bin are ties."""
        weights = np.ones(len(self.every)) if times is None else times
        every, true = np.cumsum(weights @ self.every), np.cumsum(weights @ self.true)
        gained = np.diff(true, prepend=0.0)
        return float((gained * true / np.maximum(every, 1)).sum() / max(1.0, true[-1]))


def count_pixels(
    maps: NDArray[Any], truth: NDArray[np.bool_], bins: int = PIXEL_BINS
) -> PixelCounts:
    """Count once what every bootstrap resample of the average precision needs."""
    edges = np.unique(np.quantile(maps, np.linspace(0, 1, bins + 1)[1:-1]))
    place = len(edges) - np.searchsorted(edges, maps.reshape(len(maps), -1))
    size = len(edges) + 1
    flat = (place + size * np.arange(len(maps))[:, None]).ravel()
    every = np.bincount(flat, minlength=size * len(maps)).reshape(len(maps), size)
    true = np.bincount(flat, truth.ravel(), minlength=size * len(maps)).reshape(every.shape)
    return PixelCounts(every.astype(np.float64), true)


def pixel_precision(maps: NDArray[Any], truth: NDArray[np.bool_]) -> float:
    """Average precision over all pixels of all runs."""
    return count_pixels(maps, truth).precision()


def foreground_correlation(
    maps: NDArray[Any], distance: NDArray[Any], inside: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Rank correlation of map and local distance inside the foreground, by run."""
    found = [
        stats.spearmanr(m[w], d[w]).statistic if np.ptp(m[w]) > 0 else 0.0
        for m, d, w in zip(maps, distance, inside, strict=True)
    ]
    return np.asarray(found, np.float64)


def interval(statistic: Any, runs: int, seed: int = 0, resamples: int = RESAMPLES) -> list[float]:
    """Percentile interval of a statistic of chosen runs."""
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(0, runs, runs)) for _ in range(resamples)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return [float(low), float(high)]


def first_flags(runs: Any, thresholds: Thresholds) -> NDArray[np.int64]:
    """First step after which each run is flagged; -1 where never.

    A variant that only answers when its window is complete does so at the window's last step.
    """
    source = open_source(runs)
    detector = detector_for(source, thresholds)
    out = []
    for batch in source.batches(detector.needs(), steps=(detector.first_step, detector.last_step)):
        some = next(iter(batch.arrays.values()))
        state = detector.start((some.shape[0], *some.shape[2:]))
        first = np.full(len(some), -1)
        for offset in range(some.shape[1]):
            given = {name: values[:, offset] for name, values in batch.arrays.items()}
            state = detector.update(state, batch.first_step + offset, **given)
            try:
                flagged = np.asarray(detector.result(state).flagged)
            except (InputError, TypeError, IndexError, ValueError):
                continue  # the window is not complete yet
            first[flagged & (first < 0)] = batch.first_step + offset
        out.append(first)
    return np.concatenate(out)
