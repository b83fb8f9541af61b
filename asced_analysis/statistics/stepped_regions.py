"""Abnormal regions of a run that is read step by step, of which no map is made as a whole.

Regions grow from step to step where abnormal pixels of two steps share a place; those that end too
small are dropped. A second reading takes means over each region's pixels, before and after it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from asced_analysis.counts import changes
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


class SteppedMap:
    """|D| of one step blurred in space, largest over channels and frames, by bands of rows.

    A third of a grey image's is kept, all of three channels' or more; the rest is made anew.

    Parameters
    ----------
    change : Change
        Of the step.
    shape : tuple of int
        Of the image.
    smooth : float
        As in `blurred`.
    """

    def __init__(self, change: changes.Change, shape: tuple[int, ...], smooth: float) -> None:
        self._change, self._shape, self._smooth = change, shape, smooth
        self._kept: list[Plane] = []
        self._left = change.stored(slice(None)).nbytes // 6  # values

    def parts(self) -> Iterator[Plane]:
        """All pixels in order, flat, so many at a time; not to be written to."""
        height, width = self._shape
        for place, rows in enumerate(changes.parts_of(height, max(1, changes.PART // width))):
            part = self._kept[place] if place < len(self._kept) else self._made(rows)
            if place == len(self._kept) and part.size <= self._left:
                self._kept.append(part)
                self._left -= part.size
            yield part

    def forget(self) -> None:
        """Let go of the step, of the one before and of what is kept: no part is asked for."""
        self._change.last = None  # of what goes on to the next step
        self._change, self._kept = changes.Change(), []

    def _made(self, rows: slice) -> Plane:
        """Of some rows."""
        height, width = self._shape
        reach = int(TRUNCATE * self._smooth + 0.5) if self._smooth > 0 else 0
        above, below = max(0, rows.start - reach), min(height, rows.stop + reach)
        inside = slice(rows.start - above, rows.stop - above)
        found: Plane | None = None
        for plane in range(0, self._change.size, height * width):
            part = self._change.part(slice(plane + above * width, plane + below * width))
            size = blurred(np.abs(part, out=part).reshape(-1, width), self._smooth)[inside]
            found = size.copy() if found is None else np.maximum(found, size, out=found)
        assert found is not None
        return found.reshape(-1)


def own_level(one: SteppedMap, cutoff: float) -> float:
    """Median of a step's map plus so many robust units; NaN where a number is not one."""
    size, squares = 0, 0.0
    for part in one.parts():
        size += part.size
        squares += float(np.square(part, dtype=np.float64).sum())
    if np.isnan(squares):
        return float("nan")
    median = median_of(one.parts, size)
    spread = 1.4826 * deviation_of(one.parts, size, median)
    # over a flat background the MAD may be zero
    return float(median + cutoff * np.maximum(spread, 1e-3 * np.sqrt(squares / size)))


@dataclass(frozen=True)
class Rows:
    """Stretches of rows of an image, in order: few numbers where pixels are many.

    Attributes
    ----------
    starts, stops : array of int
        First place in the flat image, and the one after the last.
    """

    starts: Places
    stops: Places

    def meeting(self, others: Rows) -> tuple[Places, Places]:
        """Pairs of one of these and one of others that share a place."""
        low = np.searchsorted(others.stops, self.starts, side="right")
        counts = np.searchsorted(others.starts, self.stops) - low
        own = np.repeat(np.arange(len(counts)), counts)
        return own, np.arange(len(own)) + np.repeat(low - (np.cumsum(counts) - counts), counts)

    def touching(self, width: int) -> Places:
        """Numbers of what touches from row to row, in the order of its first place."""
        below = Rows(self.starts + width, self.stops + width)
        return _joined(*below.meeting(self), len(self.starts))[1]

    def places(self) -> Places:
        """One by one."""
        lengths = self.stops - self.starts
        before = np.cumsum(lengths) - lengths
        found: Places = np.arange(lengths.sum()) + np.repeat(self.starts - before, lengths)
        return found


def abnormal(one: SteppedMap, level: float, width: int) -> tuple[Rows, Plane, bool]:
    """What lies beyond a level, its largest ratios to it, and whether all numbers are finite."""
    starts: list[Places] = []
    stops: list[Places] = []
    peaks: list[Plane] = []
    offset, finite = 0, True
    for part in one.parts():
        ratio = part / np.float32(level)
        places = np.flatnonzero(ratio > 1)
        breaks = (np.diff(places) > 1) | (places[1:] % width == 0)
        first = np.concatenate([[0], np.flatnonzero(breaks) + 1])[: len(places)]
        starts.append(places[first] + offset)
        stops.append(places[np.append(first[1:], len(places))[: len(first)] - 1] + offset + 1)
        peaks.append(np.maximum.reduceat(ratio[places], first) if len(first) else ratio[:0].copy())
        offset += part.size
        finite &= bool(np.isfinite(part).all())
    return Rows(np.concatenate(starts), np.concatenate(stops)), np.concatenate(peaks), finite


class _Growing:
    """Regions of the steps so far: those that have ended, and the rows of those that may go on.

    Parameters
    ----------
    shape : tuple of int
        Of the image.
    smallest : int
        Pixels below which a region is dropped.
    """

    def __init__(self, shape: tuple[int, ...], smallest: int) -> None:
        self._pixels, self._width = shape[0] * shape[1], shape[1]
        self._smallest = smallest
        self._ended: list[tuple[int, Region]] = []
        none: Places = np.zeros(0, np.int64)
        self._began = none  # of each region: its first step and place, as one number
        self._excess = np.zeros(0, np.float32)
        self._rows = Rows(none, none)  # at any step, places counted on from region to region
        self._last, self._owner = Rows(none, none), none  # of the last step, and their regions
        self._step = 0

    def add(self, rows: Rows, peaks: Plane) -> None:
        """Take in what is abnormal at one more step."""
        before, size = len(self._began), self._pixels
        parts = before + rows.touching(self._width)
        earlier, now = self._last.meeting(rows)
        total = int(parts.max(initial=before - 1)) + 1
        count, whole = _joined(self._owner[earlier], parts[now], total)
        owner = whole[parts]
        began = np.full(count, np.iinfo(np.int64).max)
        excess = np.zeros(count, np.float32)
        np.minimum.at(began, whole[:before], self._began)
        np.minimum.at(began, owner, self._step * size + rows.starts)
        np.maximum.at(excess, whole[:before], self._excess)
        np.maximum.at(excess, owner, peaks)
        self._began, self._excess = began, excess
        moved = (whole - np.arange(total))[self._rows.starts // size] * size
        self._rows = _union(
            Rows(self._rows.starts + moved, self._rows.stops + moved),
            Rows(rows.starts + owner * size, rows.stops + owner * size),
        )
        goes_on = np.zeros(count, bool)
        goes_on[owner] = True
        self._end(~goes_on)
        number = np.cumsum(goes_on) - 1
        self._began, self._excess = began[goes_on], excess[goes_on]
        of_row = self._rows.starts // size
        live = goes_on[of_row]
        moved = (number - np.arange(count))[of_row[live]] * size
        self._rows = Rows(self._rows.starts[live] + moved, self._rows.stops[live] + moved)
        self._last, self._owner = rows, number[owner]
        self._step += 1

    def finish(self) -> list[Region]:
        """All that are large enough, in the order of their first pixel."""
        self._end(np.ones(len(self._began), bool))
        return [region for _, region in sorted(self._ended, key=lambda one: one[0])]

    def _end(self, which: npt.NDArray[np.bool_]) -> None:
        """Note those of some regions that are large enough; the step before was their last."""
        size, starts, stops = self._pixels, self._rows.starts, self._rows.stops
        edges = np.searchsorted(starts, np.arange(len(which) + 1) * size)
        area = np.diff(np.concatenate([[0], np.cumsum(stops - starts)])[edges])
        for place in np.flatnonzero(which & (area >= self._smallest)):
            own = slice(edges[place], edges[place + 1])
            rows = Rows(starts[own] - place * size, stops[own] - place * size)
            began, excess = int(self._began[place]), float(self._excess[place])
            pixels = rows.places().astype(np.int32)
            self._ended.append((began, Region(began // size, self._step - 1, pixels, excess)))


def _union(some: Rows, others: Rows) -> Rows:
    """Rows that hold the places of either, each once."""
    starts = np.concatenate([some.starts, others.starts])
    stops = np.concatenate([some.stops, others.stops])
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.maximum.accumulate(stops[order])
    first = np.append(True, starts[1:] >= reach[:-1])[: len(starts)]
    return Rows(starts[first], reach[np.append(first[1:], True)[: len(starts)]])


def _joined(first: Places, second: Places, count: int) -> tuple[int, Places]:
    """How many components a graph of pairs has, and which each of its nodes is of."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not count:
        return 0, np.zeros(0, np.int64)
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    found, labels = connected_components(graph, directed=False)
    return int(found), labels.astype(np.int64)


def means(maps: Iterable[SteppedMap], regions: list[Region]) -> npt.NDArray[np.float64]:
    """Mean of every step's map over each region's pixels, shape (region, step)."""
    areas = np.array([len(each.pixels) for each in regions])
    pixels = np.concatenate([each.pixels for each in regions])
    order = np.argsort(pixels, kind="stable")
    pixels, owner = pixels[order], np.repeat(np.arange(len(areas), dtype=np.int32), areas)[order]
    del order
    rows = []
    for one in maps:
        sums, start = np.zeros(len(areas)), 0
        for part in one.parts():
            ends = np.array([start, start + part.size], pixels.dtype)  # of others, all are copied
            first, last = np.searchsorted(pixels, ends)
            values = part[pixels[first:last] - start]
            sums += np.bincount(owner[first:last], values, len(areas))
            start += part.size
        rows.append(sums / areas)
        one.forget()
    return np.array(rows).T


def row_of(
    region: Region,
    whole: npt.NDArray[np.float64],
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
    maps: Callable[[], Iterable[SteppedMap]],
    level_of: Callable[[int, SteppedMap], float],
    shape: tuple[int, ...],
    smallest: int,
) -> tuple[list[Region], npt.NDArray[np.float64], bool]:
    """Regions of one run, their means by step, and whether all its numbers are finite.

    Parameters
    ----------
    maps : callable
        Gives the maps, one a step, anew each time; none is kept.
    level_of : callable
        ``level_of(step, map)`` to the level of a step.
    shape : tuple of int
        Of the image.
    smallest : int
        Pixels below which a region is dropped.
    """
    growing = _Growing(shape, smallest)
    finite = True
    for step, one in enumerate(maps()):
        rows, peaks, fine = abnormal(one, level_of(step, one), shape[-1])
        one.forget()
        growing.add(rows, peaks)
        finite &= fine
    regions = growing.finish()
    del growing
    return regions, means(maps(), regions) if regions else np.zeros((0, 0)), finite
