"""Mergeable counts of bit patterns: quantiles of any population in constant memory.

A non-negative fp16 number is one of 32,768 patterns, so counting patterns gives *exact* quantiles
(kind ``"half"``). Derived signals are computed in float32 and counted by the upper 20 bits of the
pattern (kind ``"single"``): a bin is 2**-11 of its value wide, and a quantile interpolated inside
it is at most 4.9e-4 off. Counts add, so they merge over shards, machines and days.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import chain, pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from asced_analysis.counts.bit_patterns import SPAN, Kind, values_of
from asced_analysis.counts.medians import line_of, median_distances, weighted_median
from asced_stores.errors import InputError
from asced_stores.format.memory import empty

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]
Table: TypeAlias = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class Counts:
    """How often each bit pattern occurred, for one or many groups (steps, channels, ...).

    Attributes
    ----------
    kind : {"half", "single"}
        fp16 numbers counted exactly, or float32 numbers in bins.
    keys : numpy.ndarray, shape (key,), int64
        Sorted key of each column. Keys order the values; a negative key is a negative value.
    table : numpy.ndarray, shape (..., key), signed integers
        Counts by group and key, in as few bytes as hold them: add with ``dtype=numpy.int64``.
    nan, infinite : numpy.ndarray, shape (...), int64
        What no quantile can hold, counted apart.
    """

    kind: Kind
    keys: Integers
    table: Table
    nan: Integers
    infinite: Integers

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if self.kind not in SPAN:
            raise InputError(f"counts of kind {self.kind!r}; expected 'half' or 'single'")
        groups = self.table.shape[:-1]
        if groups != self.nan.shape or groups != self.infinite.shape:
            raise InputError(
                f"counts of shape {self.table.shape} do not fit NaN counts of {self.nan.shape} "
                f"and infinity counts of {self.infinite.shape}"
            )
        if self.table.shape[-1:] != self.keys.shape:
            raise InputError(f"counts of shape {self.table.shape} do not fit {self.keys.size} keys")

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as the smallest integers: mostly two bytes a count."""
        most = int(self.table.max(initial=0))
        kind = np.min_scalar_type(-1 - most)
        small = self.table
        if kind.itemsize < small.itemsize:  # in memory that a worker process gets fastest
            small = empty(small.shape, kind)
            small[...] = self.table
        first = self.keys[:1] - 1
        runs = np.diff(self.keys, prepend=first).astype(np.min_scalar_type(_widest(self.keys)))
        return _travelled, (self.kind, first, runs, small, self.nan, self.infinite)

    def __sizeof__(self) -> int:
        """Bytes of the arrays: what Dask's scheduler weighs transfers by."""
        return sum(part.nbytes for part in (self.keys, self.table, self.nan, self.infinite))

    @cached_property
    def cumulative(self) -> Integers:
        """Counts up to and with each key, shape (..., key)."""
        total = empty(self.table.shape, np.dtype(np.int64))
        return np.cumsum(self.table, axis=-1, dtype=np.int64, out=total)

    @classmethod
    def empty(cls, kind: Kind, groups: tuple[int, ...]) -> Counts:
        """Counts of nothing, for `groups` of this shape."""
        nothing = np.zeros(groups, np.int64)
        return cls(kind, np.zeros(0, np.int64), np.zeros((*groups, 0), np.int64), nothing, nothing)

    @property
    def groups(self) -> tuple[int, ...]:
        """Shape of the groups."""
        return self.nan.shape

    @cached_property
    def finite(self) -> Integers:
        """Number of finite values, shape (...)."""
        total: Integers = self.table.sum(axis=-1, dtype=np.int64)
        return total

    def __add__(self, other: Counts) -> Counts:
        """Counts of both populations; exact, associative and commutative."""
        return merge_counts([self, other])

    def select(self, *index: Any) -> Counts:
        """Counts of some groups, indexed as an array of groups is."""
        return Counts(
            self.kind, self.keys, self.table[index], self.nan[index], self.infinite[index]
        )

    def pooled(self, axis: int = -1) -> Counts:
        """Counts with one axis of the groups added up."""
        position = axis if axis >= 0 else axis + len(self.groups)
        return Counts(
            self.kind,
            self.keys,
            self.table.sum(axis=position, dtype=np.int64),
            self.nan.sum(axis=position),
            self.infinite.sum(axis=position),
        )

    def bounds(self) -> tuple[Floats, Floats]:
        """Lower and upper edge of each bin, shape (key,); both the value itself for ``"half"``."""
        return self._edges

    @cached_property
    def _edges(self) -> tuple[Floats, Floats]:
        if self.kind == "half":
            values = np.copysign(values_of(np.abs(self.keys), self.kind), self.keys)
            return values, values
        # a negative bin mirrors a positive one: its lower edge is the other's upper edge
        near, far = (values_of(np.abs(self.keys) + more, self.kind) for more in (0, 1))
        far = np.minimum(far, np.finfo(np.float32).max)
        far[self.keys == 0] = 0.0  # what is smaller than 6e-42 was zero
        negative = self.keys < 0
        return np.where(negative, -far, near), np.where(negative, -near, far)

    def quantile(self, probabilities: npt.ArrayLike) -> Floats:
        """Quantiles of the finite values, NumPy's default (linear) definition.

        Parameters
        ----------
        probabilities : float or sequence of float
            Between 0 and 1.

        Returns
        -------
        numpy.ndarray of float64, shape (probability, ...)
            NaN for a group without finite values; ``(...)`` for a single probability.
        """
        levels = np.atleast_1d(np.asarray(probabilities, np.float64))
        if np.any((levels < 0) | (levels > 1)) or np.any(np.isnan(levels)):
            raise InputError(f"quantiles {levels.tolist()} found; expected numbers from 0 to 1")
        result = np.full((levels.size, *self.groups), np.nan)
        for group in np.ndindex(self.groups):
            cumulative = self.cumulative[group]
            if not cumulative[-1:].any():
                continue
            position = levels * (cumulative[-1] - 1)
            lower = np.floor(position)
            fraction = position - lower
            below = self._order_statistics(self.table[group], cumulative, lower)
            above = self._order_statistics(self.table[group], cumulative, np.ceil(position))
            result[:, *group] = below + fraction * (above - below)
        return result if np.ndim(probabilities) else result[0]

    def median(self) -> Floats:
        """Median of the finite values, shape (...)."""
        return self.quantile(0.5)

    def mad(self, centre: npt.ArrayLike | None = None) -> Floats:
        """Median absolute deviation from the median (without the factor 1.4826).

        Parameters
        ----------
        centre : array, shape (...), optional
            The median, where it is known already.

        Returns
        -------
        numpy.ndarray of float64, shape (...)
        """
        centre = np.asarray(self.median() if centre is None else centre, np.float64)
        lower, upper = self.bounds()
        if self.kind == "single":
            shape = (centre.size, self.keys.size)
            table, cumulative = self.table.reshape(shape), self.cumulative.reshape(shape)
            found = median_distances(lower, upper, table, cumulative, centre.reshape(-1))
            return found.reshape(self.groups)
        result = np.full(self.groups, np.nan)
        for group in np.ndindex(self.groups):
            used = np.flatnonzero(self.table[group])
            if used.size:
                distances = np.abs(lower[used] - float(centre[group]))
                result[group] = weighted_median(distances, self.table[group][used])
        return result

    def share_above(self, threshold: npt.ArrayLike) -> Floats:
        """Share of the finite values above a threshold.

        Parameters
        ----------
        threshold : float or array, shape (...)
            One threshold for all groups, or one for each.

        Returns
        -------
        numpy.ndarray of float64, shape (...)
        """
        limits = np.broadcast_to(np.asarray(threshold, np.float64), self.groups)
        lower, upper = self.bounds()
        result = np.full(self.groups, np.nan)
        for group in np.ndindex(self.groups):
            counts, limit = self.table[group], float(limits[group])
            total = counts.sum()
            if not total:
                continue
            if self.kind == "half":
                above = counts[lower > limit].sum()
            else:
                above = total - np.interp(limit, *line_of(lower, upper, counts))
            result[group] = above / total
        return result

    def mean(self) -> Floats:
        """Mean of the finite values from the middle of their bins, shape (...)."""
        lower, upper = self.bounds()
        middle = (lower + upper) / 2
        sums = np.array([row @ middle for row in self.table.reshape(-1, middle.size)])
        with np.errstate(invalid="ignore"):
            average: Floats = sums.reshape(self.groups) / self.finite
        return average

    def _order_statistics(self, counts: Integers, cumulative: Integers, ranks: Floats) -> Floats:
        """Values of these ranks (from 0), interpolated inside a bin."""
        lower, upper = self.bounds()
        column = np.searchsorted(cumulative, ranks, side="right")
        inside = (ranks - (cumulative[column] - counts[column]) + 0.5) / counts[column]
        values: Floats = lower[column] + inside * (upper[column] - lower[column])
        return values


def _travelled(
    kind: Kind,
    first: Integers,
    runs: npt.NDArray[Any],
    table: Table,
    nan: Integers,
    infinite: Integers,
) -> Counts:
    """Counts as they were before `Counts.__reduce__`, the table in fewer bytes."""
    keys = first + np.cumsum(runs, dtype=np.int64) if runs.size else np.zeros(0, np.int64)
    return Counts(kind, keys, table, nan, infinite)


def _widest(keys: Integers) -> int:
    """Largest step from one key to the next."""
    return int(np.diff(keys).max(initial=1))


def merge_counts(parts: Iterable[Counts]) -> Counts:
    """Counts of several disjoint populations, added up without changing any of the parts.

    Parameters
    ----------
    parts : iterable of Counts
        At least one; all of one kind and with the same groups.

    Returns
    -------
    Counts

    Raises
    ------
    InputError
        When there is nothing to merge, or the parts do not fit.
    """
    counts = list(parts)
    if not counts:
        raise InputError("nothing to merge; expected at least one set of counts")
    first = counts[0]
    _check_kinds(counts)
    for other in counts[1:]:
        if other.groups != first.groups:
            raise InputError(
                f"counts of groups {other.groups} do not merge with groups {first.groups}"
            )
    keys, columns = _union(counts)
    small = all(part.table.itemsize <= 2 for part in counts) and len(counts) < 2**16
    table = empty((*first.groups, keys.size), np.dtype(np.int32 if small else np.int64))
    if keys is first.keys:
        table[...] = first.table
    else:
        table[...] = 0
        _add(table, first, columns[0])
    for part, places in zip(counts[1:], columns[1:], strict=True):
        _add(table, part, places)
    nan = reduce(np.add, (part.nan for part in counts))
    infinite = reduce(np.add, (part.infinite for part in counts))
    return Counts(first.kind, keys, table, nan, infinite)


def _check_kinds(parts: Sequence[Counts]) -> None:
    """Refuse counts of fp16 numbers among those of float32 numbers."""
    kinds = sorted({part.kind for part in parts})
    if len(kinds) > 1:
        raise InputError(f"counts of kinds {' and '.join(map(repr, kinds))} do not merge")


def _add(table: Table, part: Counts, places: list[tuple[slice, slice]]) -> None:
    """Add the counts of a part to the columns of a table."""
    for own, place in places:
        table[..., place] += part.table[..., own]


def join_counts(parts: Sequence[Counts], groups: tuple[int, ...]) -> Counts:
    """Counts of different groups in one, side by side.

    Parameters
    ----------
    parts : sequence of Counts
        At least one, all of one kind; their groups in the order of the result.
    groups : tuple of int
        Shape of the groups of the result.

    Returns
    -------
    Counts
    """
    _check_kinds(parts)
    keys, columns = _union(parts)
    tables = [part.table.reshape(part.nan.size, part.keys.size) for part in parts]
    table = tables[0]
    if len(tables) > 1:
        table = np.zeros((sum(map(len, tables)), keys.size), np.int64)
        rows = np.split(table, np.cumsum([len(each) for each in tables])[:-1])
        for whole, each, places in zip(rows, tables, columns, strict=True):
            for own, place in places:
                whole[:, place] = each[:, own]
    nan = np.concatenate([part.nan.reshape(-1) for part in parts]).reshape(groups)
    infinite = np.concatenate([part.infinite.reshape(-1) for part in parts]).reshape(groups)
    return Counts(parts[0].kind, keys, table.reshape(*groups, keys.size), nan, infinite)


def _union(parts: Sequence[Counts]) -> tuple[Integers, list[list[tuple[slice, slice]]]]:
    """Keys of all parts together; for each part, which of its columns lie where among them.

    Keys come in long runs of neighbours: finding the runs takes a tenth of the time of sorting
    the keys, and slices add four times as fast as chosen columns.
    """
    first = parts[0].keys
    if all(np.array_equal(part.keys, first) for part in parts[1:]):
        return first, [[(slice(None), slice(None))]] * len(parts)
    runs = [neighbours(part.keys) for part in parts]
    low = min(key.start for _, key in chain(*runs))
    used = np.zeros(max(key.stop for _, key in chain(*runs)) - low, bool)
    for _, key in chain(*runs):
        used[key.start - low : key.stop - low] = True
    keys = np.flatnonzero(used) + low
    starts = [np.searchsorted(keys, [key.start for _, key in own]).tolist() for own in runs]
    return keys, [
        [(own, slice(at, at + own.stop - own.start)) for (own, _), at in zip(*each, strict=True)]
        for each in zip(runs, starts, strict=True)
    ]


def neighbours(places: npt.NDArray[np.intp]) -> list[tuple[slice, slice]]:
    """Runs of successive numbers in an increasing array: where they stand, and what they are.

    Parameters
    ----------
    places : numpy.ndarray of int, shape (place,)

    Returns
    -------
    list of (slice, slice)
    """
    if not len(places):
        return []
    edges = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
    return [
        (slice(start, stop), slice(int(places[start]), int(places[start]) + stop - start))
        for start, stop in pairwise(edges)
    ]
