"""Abnormal regions of a run that is read step by step: no map is kept but that of the step.

Of every step the abnormal pixels are kept, and regions are joined from step to step where two such
share a pixel. A second reading takes means over each region's pixels, before and after it too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from asced_analysis.counts.changes import PART, Change, parts_of
from asced_analysis.counts.selection import deviation_of, median_of

Plane: TypeAlias = npt.NDArray[np.float32]
Places: TypeAlias = npt.NDArray[np.integer]
TRUNCATE = 4.0
"""Standard deviations that a blur reaches, as in `scipy.ndimage`."""


@dataclass(frozen=True)
class Region:
    """Pixels that are abnormal together.

    Attributes
    ----------
    first, last : int
        Places of its first and last step.
    pixels : array of int
        Places in the flat image that are abnormal at any step, in order.
    excess : float
        Largest ratio of a pixel to the level at its step.
    """

    first: int
    last: int
    pixels: Places
    excess: float


def blurred(size: Plane, smooth: float) -> Plane:
    """Images blurred, shape (..., y, x); themselves where `smooth` is 0."""
    from scipy.ndimage import gaussian_filter

    if not smooth > 0:
        return size
    sigma = (0,) * (size.ndim - 2) + (smooth, smooth)
    found: Plane = gaussian_filter(size, sigma, mode="reflect", truncate=TRUNCATE)
    return found


def largest(change: Change, shape: tuple[int, ...], smooth: float) -> Plane:
    """|D| of one step blurred in space, largest over channels and frames, shape (y, x)."""
    height, width = shape
    reach = int(TRUNCATE * smooth + 0.5) if smooth > 0 else 0
    planes = range(0, change.size, height * width)
    found = np.empty((height, width), np.float32)
    for rows in parts_of(height, max(1, PART // width)):
        above, below = max(0, rows.start - reach), min(height, rows.stop + reach)
        inside = slice(rows.start - above, rows.stop - above)
        for plane in planes:
            part = change.part(slice(plane + above * width, plane + below * width))
            size = blurred(np.abs(part, out=part).reshape(-1, width), smooth)[inside]
            found[rows] = np.maximum(found[rows], size) if plane else size
    return found


def own_level(size: Plane, cutoff: float) -> float:
    """Median of a step's map plus so many robust units; NaN where a number is not one."""
    flat = size.reshape(-1)

    def parts() -> Iterator[Plane]:
        return (flat[part] for part in parts_of(flat.size))

    if any(np.isnan(part).any() for part in parts()):
        return float("nan")

    median = median_of(parts, flat.size)
    spread = 1.4826 * deviation_of(parts, flat.size, median)
    # over a flat background the MAD may be zero
    squares = sum(float(np.square(one, dtype=np.float64).sum()) for one in parts())
    floor = 1e-3 * np.sqrt(squares / flat.size)
    return float(median + cutoff * np.maximum(spread, floor))


def abnormal(size: Plane, level: float) -> tuple[Places, Plane]:
    """Places in the flat image beyond a level, and their ratios to it."""
    flat = size.reshape(-1)
    places, ratios = [], []
    for part in parts_of(flat.size):
        ratio = flat[part] / np.float32(level)
        beyond = np.flatnonzero(ratio > 1)
        places.append((beyond + part.start).astype(np.int32))
        ratios.append(ratio[beyond])
    return np.concatenate(places), np.concatenate(ratios)


def regions_of(
    found: list[tuple[Places, Plane]], shape: tuple[int, ...], smallest: int
) -> list[Region]:
    """Regions, in the order of their first pixel.

    Parameters
    ----------
    found : list of (array of int, array)
        What `abnormal` gives of every step.
    shape : tuple of int
        Of the image.
    smallest : int
        Pixels below which a region is dropped.
    """
    from scipy.ndimage import label
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    labels: list[Places] = []
    pairs: list[Places] = []
    total = 0
    for step, (places, _) in enumerate(found):
        mask = np.zeros(shape, bool)
        mask.reshape(-1)[places] = True
        flat, count = label(mask)
        labels.append(flat.reshape(-1)[places].astype(np.int64) + (total - 1))
        total += count
        if step:
            _, before, now = np.intersect1d(
                found[step - 1][0], places, assume_unique=True, return_indices=True
            )
            pairs.append(np.stack([labels[-2][before], labels[-1][now]]))
    if not total:
        return []
    joined = np.concatenate([*pairs, np.zeros((2, 0), np.int64)], axis=1)
    graph = coo_array((np.ones(joined.shape[1], np.int8), tuple(joined)), shape=(total, total))
    count, of_part = connected_components(graph, directed=False)
    owner = [of_part[one] for one in labels]
    every = np.concatenate(owner)
    order = np.argsort(every, kind="stable")
    pixels = np.concatenate([places for places, _ in found])[order]
    ratios = np.concatenate([ratio for _, ratio in found])[order]
    steps = np.repeat(np.arange(len(found)), [len(one) for one in owner])[order]
    edges = np.searchsorted(every[order], np.arange(count + 1))
    kept = []
    for start, stop in itertools.pairwise(edges):
        footprint = np.unique(pixels[start:stop])
        if footprint.size >= smallest:
            excess = float(ratios[start:stop].max())
            kept.append(Region(int(steps[start]), int(steps[stop - 1]), footprint, excess))
    return kept


def means(planes: Iterable[Plane], regions: list[Region]) -> npt.NDArray[np.float32]:
    """Mean of every step's map over each region's pixels, shape (region, step)."""
    rows = []
    for plane in planes:
        rows.append([plane.reshape(-1)[each.pixels].mean() for each in regions])
        del plane  # before the next is made
    return np.array(rows, np.float32).T


def row_of(
    region: Region,
    whole: npt.NDArray[np.float32],
    shape: tuple[int, ...],
    steps: npt.NDArray[np.int64],
) -> tuple[Any, ...]:
    """A region's excess, and then its columns from the onset on, but for the excess.

    Parameters
    ----------
    region : Region
    whole : array, shape (step,)
        Means over its pixels.
    shape : tuple of int
        Of the image.
    steps : array of int, shape (step,)
        What the places of steps are called.
    """
    along = slice(region.first, region.last + 1)
    faster = np.concatenate([[np.nan], np.diff(whole)])  # nothing lies before the first
    rise = faster[along]
    peak = along.start + (0 if np.isnan(rise).all() else int(np.nanargmax(rise)))
    y, x = np.divmod(region.pixels, shape[-1])
    top, left = int(y.min()), int(x.min())
    return (
        region.excess,
        int(steps[region.first]),
        int(steps[region.last]),
        along.stop - along.start,
        int(steps[peak]),
        float(faster[peak]),
        len(y),
        len(y) / (shape[-2] * shape[-1]),
        float(y.mean()),
        float(x.mean()),
        top,
        left,
        int(y.max()) + 1 - top,
        int(x.max()) + 1 - left,
    )


def find(
    planes: Callable[[], Iterable[Plane]],
    level_of: Callable[[int, Plane], float],
    shape: tuple[int, ...],
    smallest: int,
) -> tuple[list[Region], npt.NDArray[np.float32], bool]:
    """Regions of one run, their means by step, and whether all its numbers are finite.

    Parameters
    ----------
    planes : callable
        Gives the maps, one a step, anew each time; none is kept.
    level_of : callable
        ``level_of(step, plane)`` to the level of a step.
    shape : tuple of int
        Of the image.
    smallest : int
        Pixels below which a region is dropped.
    """
    found: list[tuple[Places, Plane]] = []
    finite = True
    for plane in planes():
        finite &= all(np.isfinite(plane[row]).all() for row in range(len(plane)))
        found.append(abnormal(plane, level_of(len(found), plane)))
        del plane  # before the next is made
    regions = regions_of(found, shape, smallest)
    del found
    return regions, means(planes(), regions) if regions else np.zeros((0, 0), np.float32), finite
