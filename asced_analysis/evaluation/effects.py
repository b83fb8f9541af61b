"""Effect of a correction on local realism, and how it compares with controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from asced_analysis.evaluation.intervals import (
    NOTHING,
    UNBOUNDED,
    Estimate,
    change_estimate,
    mean_estimate,
    paired_estimate,
    ratio_parts,
    unpaired_estimate,
)
from asced_analysis.realism.local import upsample

DAMAGED = 0.1
CHANGED = 2 / 255
OF_LOCATIONS = ("all", "damaged", "undamaged")
Maps = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class ByLocation(Generic[T]):
    """A figure over the locations of the flagged runs.

    Attributes
    ----------
    all : T
    damaged, undamaged : T
        The tenth of all locations that is least realistic before, and the others.
    per_changed_pixel : T
        Sum over all locations, over the number of pixels that changed visibly.
    """

    all: T
    damaged: T
    undamaged: T
    per_changed_pixel: T

    def items(self) -> Iterator[tuple[str, T]]:
        """Name and figure of each group of locations."""
        return ((one.name, getattr(self, one.name)) for one in fields(ByLocation))


WHERE = tuple(one.name for one in fields(ByLocation))


@dataclass(frozen=True)
class EffectFigures(ByLocation[Estimate]):
    """Change of local distance: lower is better, so a negative change is a repair.

    Attributes
    ----------
    improved : Estimate
        Share of runs whose mean distance fell.
    """

    improved: Estimate


@dataclass(frozen=True)
class AgainstControls(Estimate):
    """Effect minus that of the best control, paired by run; negative: the mask repairs more.

    The best control is chosen on the same runs, which makes the difference look smaller, never
    larger.

    Attributes
    ----------
    best_control : str or None
        The best one of equal area.
    against : mapping of str to Estimate
        The difference to every control, ``everywhere`` among them, which is not of equal area.
    """

    best_control: str | None
    against: Mapping[str, Estimate]


@dataclass(frozen=True)
class Effect:
    """Change of local distance by run, as sums and numbers of locations.

    Lower distance is better, so a negative change is a repair.

    Attributes
    ----------
    sums, counts : dict of str to float64 array, shape (n,)
        By place: ``all``, ``damaged`` (the tenth of all locations of the flagged runs that is least
        realistic before), ``undamaged``, and per changed pixel (sum over all locations, in units
        of pixels, over the number of pixels that changed visibly). Where a judge gives one score a
        run there are no places: the worst tenth would be the worst *runs*, which look repaired by
        any new score, so that only ``all`` counts.
    bounds : (float, float)
        What the mean change over locations can be: -1 to 1 where every location is 0 or 1.
    """

    sums: Mapping[str, NDArray[np.float64]]
    counts: Mapping[str, NDArray[np.float64]]
    bounds: tuple[float, float] = UNBOUNDED

    def estimate(self, where: str) -> Estimate:
        """Mean change with its interval over runs."""
        bounds = self.bounds if where in OF_LOCATIONS else UNBOUNDED
        return change_estimate(self._values(where), self.counts[where], bounds=bounds)

    def parts(self, where: str) -> NDArray[np.float64]:
        """Numbers by run whose mean is that change (`ratio_parts`)."""
        return ratio_parts(self._values(where), self.counts[where])

    def _values(self, where: str) -> NDArray[np.float64]:
        counts = self.counts[where]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(counts > 0, self.sums[where] / counts, 0.0)

    def figures(self) -> EffectFigures:
        """Estimates at every place, and the share of runs whose mean distance fell."""
        return EffectFigures(
            **{where: self.estimate(where) for where in WHERE},
            improved=mean_estimate(self.sums["all"] < 0),
        )


def damaged_locations(before: Maps, among: Maps | None = None) -> NDArray[np.bool_]:
    """The least realistic tenth of all locations of these runs; by the limit of others, if given.

    None where all locations are alike. Of masks, which know only 0 and 1, all that is marked.
    """
    among = before if among is None else among
    if not len(before) or np.ptp(among) == 0:
        return np.zeros(before.shape, np.bool_)
    limit = np.quantile(among, 1 - DAMAGED)
    return np.asarray(before > limit if limit < among.max() else before >= limit)


def change_by_chance(
    population: Maps, before: Maps, damaged: NDArray[np.bool_]
) -> ByLocation[float | None]:
    """Change that runs drawn anew would show, which no correction is needed for.

    The damaged tenth was chosen by the very figure that is compared, so that any other draw looks
    better there and worse elsewhere (regression to the mean). Expected of a fresh draw is the mean
    of the other recorded runs at the same location.

    Parameters
    ----------
    population : float32 array, shape (m, rows, columns)
        Local distances of all recorded runs, those of ``before`` among them.
    before : float32 array, shape (n, rows, columns)
    damaged : bool array, shape (n, rows, columns)

    Returns
    -------
    ByLocation
        Of locations; None where there are none, and per changed pixel.
    """
    if len(population) < 2 or before[:1].size <= 1:
        return ByLocation(None, None, None, None)
    own = len(population) / (len(population) - 1)  # the mean holds the run itself
    change = own * (population.mean(0, dtype=np.float64) - before)
    mean, inside, outside = (
        float(change[places].mean()) if places.any() else None
        for places in (np.ones_like(damaged), damaged, ~damaged)
    )
    return ByLocation(mean, inside, outside, None)


def effect_of(
    before: Maps,
    after: Maps,
    samples_before: NDArray[Any],
    samples_after: NDArray[Any],
    damaged: NDArray[np.bool_],
) -> Effect:
    """Effect on paired runs.

    Parameters
    ----------
    before, after : float32 arrays, shape (n, rows, columns)
        Local distances.
    samples_before, samples_after : arrays, shape (n, channel, y, x)
    damaged : bool array, shape (n, rows, columns)
    """
    change = (after - before).astype(np.float64)
    pixels = np.abs(samples_after - samples_before).max(1) > CHANGED
    locations = change[0].size if len(change) else 1
    scale = pixels[0].size / locations if len(pixels) else 1.0
    everything = np.ones_like(damaged)
    sums = {
        name: (change * place).sum((1, 2))
        for name, place in (("all", everything), ("damaged", damaged), ("undamaged", ~damaged))
    }
    counts = {
        name: place.sum((1, 2)).astype(np.float64)
        for name, place in (("all", everything), ("damaged", damaged), ("undamaged", ~damaged))
    }
    sums["per_changed_pixel"] = sums["all"] * scale
    counts["per_changed_pixel"] = pixels.sum((1, 2)).astype(np.float64)
    if locations == 1:
        counts |= {name: np.zeros(len(change)) for name in counts if name != "all"}
    known = all(np.isin(maps, (0, 1)).all() for maps in (before, after))
    return Effect(sums, counts, (-1.0, 1.0) if known else UNBOUNDED)


def unpaired_effect(before: NDArray[np.float64], after: NDArray[np.float64]) -> EffectFigures:
    """The effect of different runs: only the change of the mean is known."""
    return EffectFigures(unpaired_estimate(after, before), NOTHING, NOTHING, NOTHING, NOTHING)


def against_controls(
    correction: Effect, controls: Mapping[str, Effect]
) -> ByLocation[AgainstControls]:
    """Effect minus that of the best control, paired by run."""
    return ByLocation(**{where: _against(correction, controls, where) for where in WHERE})


def _against(correction: Effect, controls: Mapping[str, Effect], where: str) -> AgainstControls:
    means = {
        name: value
        for name, effect in controls.items()
        if (value := effect.estimate(where).value) is not None
    }
    if not means:
        return AgainstControls(None, None, None, None, {})
    equal = [name for name in means if name != "everywhere"] or list(means)
    best = min(equal, key=lambda name: means[name])
    own = correction.parts(where)
    against = {name: paired_estimate(own, controls[name].parts(where)) for name in means}
    return AgainstControls(**vars(against[best]), best_control=best, against=against)


def against_other_runs(correction: Effect, others: Effect) -> ByLocation[Estimate]:
    """Effect on the flagged runs minus that on as many others.

    Negative means that flagged runs gain more. The runs are not the same: each group has its own
    error.
    """
    return ByLocation(
        **{
            where: unpaired_estimate(correction.parts(where), others.parts(where))
            for where in WHERE
        }
    )


def pixel_change(
    samples_before: NDArray[Any], samples_after: NDArray[Any], masks: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean absolute change of the pixels inside and outside each run's mask, in -1..1.

    Parameters
    ----------
    samples_before, samples_after : arrays, shape (n, channel, y, x)
    masks : array, shape (n, y, x)

    Returns
    -------
    inside, outside : float64 arrays, shape (n,)
        NaN where a mask is empty, or everything.
    """
    away = np.abs(samples_after - samples_before).mean(1, dtype=np.float64)
    inside = np.asarray(masks, np.bool_)
    if inside.shape[1:] != away.shape[1:]:
        inside = upsample(inside, (away.shape[1], away.shape[2]))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (
            (away * inside).sum((1, 2)) / inside.sum((1, 2)),
            (away * ~inside).sum((1, 2)) / (~inside).sum((1, 2)),
        )
