"""The index of runs: which run lies in which slot of which batch, and what it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.errors import DamagedStoreError, InputError
from asced_stores.format.markers import Marker

if TYPE_CHECKING:
    from asced_stores.format.opened import OpenedStore

STATUSES: Mapping[str, int] = {"complete": 1, "failed": 2}
_PATIENCE = 5
Select = Sequence[int] | NDArray[Any] | slice | Callable[["RunIndex"], Any]


@dataclass(frozen=True)
class RunIndex:
    """Committed runs, in the order of batch and slot.

    Parameters
    ----------
    columns : mapping of str to ndarray, shape (run,)
        ``run``, ``seed``, ``prompt``, ``label``, ``guidance_scale``, ``rank``, ``batch``,
        ``status``, ``slot`` (backend within the batch) and the store's own numbers by run.
    commits : str
        Differs between two states of a store, also where a batch was recorded again.

    Examples
    --------
    >>> from asced_stores import RunReader
    >>> index = RunReader("runs.zarr").index
    >>> len(index), index["seed"][:3].tolist()
    (48, [0, 1, 2])
    """

    columns: Mapping[str, NDArray[Any]]
    commits: str = ""

    def __len__(self) -> int:
        return len(self.columns["run"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def take(self, rows: NDArray[Any]) -> RunIndex:
        """Some of the runs, by position or by a mask."""
        columns = {name: values[rows] for name, values in self.columns.items()}
        return RunIndex(columns, self.commits)

    def with_status(self, statuses: Sequence[str]) -> RunIndex:
        """Runs with one of the statuses ``complete`` and ``failed``.

        Raises
        ------
        InputError
            For another status.
        """
        statuses = (statuses,) if isinstance(statuses, str) else tuple(statuses)
        unknown = sorted(set(statuses) - set(STATUSES))
        if unknown or not statuses:
            raise InputError(f"statuses are {statuses}: expected some of {tuple(STATUSES)}")
        wanted = np.zeros(256, bool)
        wanted[[STATUSES[name] for name in statuses]] = True
        rows = wanted[self["status"]]
        return self if rows.all() else self.take(rows)

    def select(self, wanted: Select | None) -> RunIndex:
        """Runs by number, by a slice of positions, by a mask, or by a function of the index.

        Raises
        ------
        InputError
            If a run is not there.
        """
        if wanted is None:
            return self
        if callable(wanted):
            wanted = np.asarray(wanted(self))
        if isinstance(wanted, slice):
            return self.take(np.arange(len(self))[wanted])
        chosen = np.asarray(wanted)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise InputError(f"the mask has shape {chosen.shape}: expected ({len(self)},)")
            return self.take(chosen)
        if chosen.ndim != 1 or (len(chosen) and chosen.dtype.kind not in "iu"):
            raise InputError("select takes run numbers, a mask, a slice, or a function")
        wanted, runs = np.unique(chosen), self["run"]
        rows = np.searchsorted(runs, wanted)
        rising = bool((rows < len(runs)).all()) and bool((np.diff(rows) > 0).all())
        if rising and (runs[rows] == wanted).all():
            return self.take(rows)  # as in nearly every store, where numbers rise
        missing = np.setdiff1d(wanted, runs)
        if len(missing):
            raise InputError(
                f"{len(missing)} of the {len(chosen)} selected runs are not in the store, "
                f"for example run {missing[0]}"
            )
        return self.take(np.isin(runs, wanted))

    def groups(self) -> list[tuple[int, NDArray[Any]]]:
        """Batches in order, each with its rows."""
        starts = np.flatnonzero(np.diff(self["batch"], prepend=-1))
        rows = np.split(np.arange(len(self)), starts[1:])
        return [(int(self["batch"][start]), own) for start, own in zip(starts, rows, strict=False)]


def index_of(markers: Sequence[Marker], dtypes: Mapping[str, str]) -> RunIndex:
    """Index of the runs of some markers.

    Parameters
    ----------
    markers : sequence of Marker
        In any order.
    dtypes : mapping of str to str
        Of the numbers by run in each.
    """
    markers = sorted(markers, key=lambda marker: marker.batch)
    counts = [marker.runs for marker in markers]
    columns: dict[str, NDArray[Any]] = {}
    for name, dtype in dtypes.items():
        empty = np.empty(0, object if dtype == "str" else dtype)
        columns[name] = np.concatenate([empty, *(m.scalars[name] for m in markers)])
    for name in ("rank", "batch"):
        values = np.array([getattr(marker, name) for marker in markers], np.int64)
        columns[name] = np.repeat(values, counts)
    columns["slot"] = np.concatenate([np.empty(0, np.int64), *map(np.arange, counts)])
    written = [(m.batch, m.token, m.time, *sorted(m.shards.items())) for m in markers]
    return RunIndex(columns, hashlib.sha256(repr(written).encode()).hexdigest())


def load_index(store: OpenedStore) -> RunIndex:
    """Index of all committed runs: one read where the store is sealed, else its markers."""
    from asced_stores.format.compaction import load_markers
    from asced_stores.format.sealed_index import read_columns

    for _ in range(_PATIENCE):
        if store.sealed is None:
            return index_of(load_markers(store), store.scalar_dtypes)
        try:
            return RunIndex(read_columns(store), repr(sorted(store.sealed.items())))
        except DamagedStoreError:  # or sealed anew, or opened, since the root was read
            current = store.reload()
            if current.sealed == store.sealed:
                raise
            store = current
    return index_of(load_markers(store), store.scalar_dtypes)
