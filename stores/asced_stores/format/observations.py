"""What was observed of every run of a batch, also of those that are not kept in full.

A recording with `keep` has few trajectories and the statistics of all. Features (one number a
run) and counts (which add up over batches, stored sparsely) of a batch lie in
``observations/<batch>.npz`` of its store, written before the batch's marker: they count once that
exists.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.errors import DamagedBatchError, InputError
from asced_stores.format.archives import pack_arrays, unpack_arrays

if TYPE_CHECKING:
    from asced_stores.format.opened import OpenedStore

LIMIT = 1 << 30


@dataclass(frozen=True)
class SparseCounts:
    """How often each key occurred, by group.

    Attributes
    ----------
    keys : ndarray, shape (key,), int64
        Rising.
    table : ndarray, shape (..., key), int64
        Counts by group and key.
    """

    keys: NDArray[np.int64]
    table: NDArray[np.int64]

    def __add__(self, other: SparseCounts) -> SparseCounts:
        """Counts of both."""
        keys = np.union1d(self.keys, other.keys)
        table = np.zeros((*self.table.shape[:-1], len(keys)), np.int64)
        for part in (self, other):
            table[..., np.searchsorted(keys, part.keys)] += part.table
        return SparseCounts(keys, table)


@dataclass(frozen=True)
class Observations:
    """What was seen of some runs.

    Attributes
    ----------
    runs : ndarray, shape (run,), int64
        Their numbers.
    features : mapping of str to ndarray, shape (run,)
        One number a run.
    counts : mapping of str to SparseCounts
        Of all these runs together.
    """

    runs: NDArray[np.int64]
    features: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    counts: Mapping[str, SparseCounts] = field(default_factory=dict)

    def __add__(self, other: Observations) -> Observations:
        """Observations of both sets of runs: what was observed of all of them."""
        if not len(self.runs) or not len(other.runs):
            return self if len(self.runs) else other
        return Observations(
            np.concatenate([self.runs, other.runs]),
            {
                name: np.concatenate([values, other.features[name]])
                for name, values in self.features.items()
                if name in other.features
            },
            {
                name: counts + other.counts[name]
                for name, counts in self.counts.items()
                if name in other.counts
            },
        )

    def to_bytes(self) -> bytes:
        """Compressed NumPy archive, without pickles."""
        arrays: dict[str, NDArray[Any]] = {"runs": self.runs}
        arrays |= {f"feature:{name}": values for name, values in self.features.items()}
        for name, counts in self.counts.items():
            arrays[f"keys:{name}"] = np.diff(counts.keys, prepend=0)  # small numbers compress
            arrays[f"table:{name}"] = _narrow(counts.table)
        return pack_arrays(arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Observations:
        """Inverse of `to_bytes`."""
        arrays = unpack_arrays(data, limit=LIMIT)
        features, counts = {}, {}
        for name, array in arrays.items():
            kind, _, rest = name.partition(":")
            if kind == "feature":
                features[rest] = array
            elif kind == "keys":
                table = arrays[f"table:{rest}"].astype(np.int64)
                counts[rest] = SparseCounts(np.cumsum(array), table)
        found = cls(arrays["runs"], features, counts)
        _check(found)
        return found


def observation_key(batch: int) -> str:
    """Where the observations of a batch lie in its store."""
    return f"observations/{batch}.npz"


def has_observations(store: OpenedStore) -> bool:
    """Whether observers looked at all runs, be they kept in full or not."""
    return bool(store.spec.attributes.get("keep", "all") != "all")


def put_observations(store: OpenedStore, batch: int, seen: Observations) -> int:
    """Write the observations of a batch, instead of those of a writer that died; their bytes."""
    key, data = observation_key(batch), seen.to_bytes()
    store.backend.replace(key, data)
    store.backend.make_durable([key])
    return len(data)


def load_observations(store: OpenedStore, batch: int) -> Observations:
    """Observations of one batch.

    Raises
    ------
    DamagedBatchError
        If they are missing or unreadable.
    """
    key = observation_key(batch)
    try:
        return Observations.from_bytes(store.backend.read(key, limit=LIMIT))
    except Exception as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else f"damaged ({error})"
        raise DamagedBatchError(
            f"{key} of {store.path} is {reason}: take batch {batch} out with `asced verify --drop "
            f"{store.path}`, then record it again with --resume"
        ) from error


def read_observations(store: OpenedStore) -> Iterator[Observations]:
    """Observations of each committed batch of a store.

    Raises
    ------
    InputError
        If the store was not made with ``asced record --keep``.
    DamagedBatchError
        If those of a committed batch are missing or unreadable.
    """
    if not has_observations(store):
        raise InputError(f"{store.path} has all runs in full, and no observations: read the runs")
    for batch in store.committed_batches():
        yield load_observations(store, batch)


def _check(seen: Observations) -> None:
    """Raise a ValueError where the parts do not belong together."""
    count = len(seen.runs)
    whole = seen.runs.ndim == 1 and seen.runs.dtype == np.int64
    if not whole or any(values.shape != (count,) for values in seen.features.values()):
        raise ValueError("features and runs are not of one length")
    for name, counts in seen.counts.items():
        if counts.keys.ndim != 1 or counts.table.shape[-1:] != counts.keys.shape:
            raise ValueError(f"counts of {name} do not fit their keys")


def _narrow(table: NDArray[np.int64]) -> NDArray[Any]:
    """The smallest unsigned type that holds the counts."""
    most = int(table.max(initial=0))
    return table.astype(np.min_scalar_type(most))
