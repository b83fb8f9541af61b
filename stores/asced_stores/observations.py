"""What was observed of every run of a batch, also of those that are not kept in full.

A flight recorder keeps few trajectories and the statistics of all. Features (one number a run) and
counts (which add up over batches, stored sparsely) of a batch lie in ``observations/<batch>.npz``
of its store, written before the batch's marker: they count once that exists.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.errors import DamagedBatchError

if TYPE_CHECKING:
    from asced_stores.store import TrajectoryStore

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
        """Observations of both sets of runs."""
        names = [name for name in self.features if name in other.features]
        counts = dict(self.counts)
        for name, more in other.counts.items():
            counts[name] = counts[name] + more if name in counts else more
        return Observations(
            np.concatenate([self.runs, other.runs]),
            {n: np.concatenate([self.features[n], other.features[n]]) for n in names},
            counts,
        )

    def to_bytes(self) -> bytes:
        """Compressed NumPy archive, without pickles."""
        arrays: dict[str, NDArray[Any]] = {"runs": self.runs}
        arrays |= {f"feature:{name}": values for name, values in self.features.items()}
        for name, counts in self.counts.items():
            arrays[f"keys:{name}"] = np.diff(counts.keys, prepend=0)  # small numbers compress
            arrays[f"table:{name}"] = _narrow(counts.table)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Observations:
        """Inverse of `to_bytes`."""
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        features, counts = {}, {}
        for name, array in arrays.items():
            kind, _, rest = name.partition(":")
            if kind == "feature":
                features[rest] = array
            elif kind == "keys":
                table = arrays[f"table:{rest}"].astype(np.int64)
                counts[rest] = SparseCounts(np.cumsum(array), table)
        return cls(arrays["runs"], features, counts)


def observation_key(batch: int) -> str:
    """Where the observations of a batch lie in its store."""
    return f"observations/{batch}.npz"


def read_observations(store: TrajectoryStore) -> Iterator[Observations]:
    """Observations of each committed batch of a store.

    Raises
    ------
    DamagedBatchError
        If those of a committed batch are missing or unreadable.
    """
    for batch in store.committed_batches():
        key = observation_key(batch)
        try:
            yield Observations.from_bytes(store.place.read(key, limit=LIMIT))
        except Exception as error:
            raise DamagedBatchError(
                f"{key} of {store.path} is missing or damaged ({error}): the store was not made "
                "with `asced record --keep`, or batch "
                f"{batch} must be recorded again (delete commits/{batch}.json, then --resume)"
            ) from error


def _narrow(table: NDArray[np.int64]) -> NDArray[Any]:
    """The smallest unsigned type that holds the counts."""
    most = int(table.max(initial=0))
    return table.astype(np.min_scalar_type(most))
