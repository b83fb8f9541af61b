"""Sealing: the store is cut to its runs, and one index of them is written.

A writer that commits while the store is being sealed is either in the index or is told that it is
not. This needs no lock: the mark ``commits/seal.json`` comes first, a writer looks for it after its
own marker, and the seal looks for markers once more after the index.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from asced_stores.errors import IncompleteStoreError
from asced_stores.format.archives import pack_arrays
from asced_stores.format.checksums import crc32c
from asced_stores.format.index import RunIndex, index_of
from asced_stores.format.layout import array_metadata
from asced_stores.format.sealed_index import SEAL_MARK, index_dtypes

if TYPE_CHECKING:
    from asced_stores.backends.backend import Backend
    from asced_stores.format.opened import OpenedStore

Opened = TypeVar("Opened", bound="OpenedStore")
_ABSENT: Mapping[str, Any] = {"run": -1, "seed": -1, "label": -1, "rank": -1, "batch": -1}


def seal(store: Opened, *, allow_gaps: bool = False) -> Opened:
    """Cut a store to its runs, and index them.

    Parameters
    ----------
    store : OpenedStore
        With at least one committed batch.
    allow_gaps : bool
        Seal although slots are empty before the last run. Plain readers must then go on filtering
        by ``status``; `open_runs` does so in any case.

    Returns
    -------
    OpenedStore
        The sealed store, as reopened.

    Raises
    ------
    IncompleteStoreError
        If no run is committed, or there are gaps and ``allow_gaps`` is not set.
    """
    from asced_stores.format.compaction import load_markers

    backend = store.backend
    index = index_of(load_markers(store), store.scalar_dtypes)
    _check_complete(store, index, allow_gaps)
    backend.sweep("replace-")  # of one that was killed while it did the same
    while True:
        backend.replace(SEAL_MARK, b'{"state":"sealing"}')
        markers = load_markers(store)
        index = index_of(markers, store.scalar_dtypes)
        try:
            _check_complete(store, index, allow_gaps)
        except IncompleteStoreError:
            backend.delete(SEAL_MARK)
            raise
        _write(store, index, len(markers))
        backend.replace(SEAL_MARK, b'{"state":"sealed"}')
        if len(store.committed_batches()) == len(markers):
            return store.reload()


def reopen(store: Opened) -> Opened:
    """Undo a seal, finished or not, so that writers may go on.

    Returns
    -------
    OpenedStore
        The store, as reopened.
    """
    from asced_stores.format.metadata import encode, run_arrays

    backend, current = store.backend, store.reload()
    arrays = run_arrays(store.layouts, store.batch_size, store.capacity)
    for name, metadata in arrays.items():
        backend.replace(f"{name}/zarr.json", encode(metadata))
    _write_root(current, arrays, None)
    for name in _coordinates(store):
        backend.delete(f"{name}/zarr.json")
        backend.delete(f"{name}/c/0")
    for name in backend.names("commits"):
        if name.startswith("index-"):
            backend.delete(f"commits/{name}")
    backend.delete(SEAL_MARK)
    return store.reload()


def _coordinates(store: OpenedStore) -> dict[str, str]:
    """Arrays that exist in a sealed store only."""
    return {k: v for k, v in index_dtypes(store).items() if k not in ("status", "slot")}


def _check_complete(store: OpenedStore, index: RunIndex, allow_gaps: bool) -> None:
    if not len(index):
        raise IncompleteStoreError(
            f"{store.path} holds no committed run: record some before sealing it"
        )
    slots = _slots(store, index)
    gaps = int(slots.max()) + 1 - len(slots)
    if gaps and not allow_gaps:
        missing = sorted(set(range(int(index["batch"].max()))) - set(index["batch"].tolist()))
        what = f"batches {missing[:8]} are missing" if missing else "a batch in the middle is short"
        raise IncompleteStoreError(
            f"{store.path} has {gaps} empty slots before its last run ({what}): "
            "record them with --resume, copy the runs to a new store with `asced select`, or "
            "seal with --allow-gaps, where plain Zarr readers must filter by status"
        )


def _slots(store: OpenedStore, index: RunIndex) -> NDArray[np.int64]:
    slots: NDArray[np.int64] = index["batch"] * store.batch_size + index["slot"]
    return slots


def _write(store: OpenedStore, index: RunIndex, batches: int) -> None:
    """Index, coordinates, array metadata, and the root last."""
    from asced_stores.format.metadata import encode, plain_chunk, run_arrays

    backend = store.backend
    slots = _slots(store, index)
    length = int(slots.max()) + 1
    data = pack_arrays(index.columns)
    name = f"index-{uuid.uuid4().hex}.npz"
    backend.create(f"commits/{name}", [data])
    backend.make_durable([f"commits/{name}"])
    arrays = run_arrays(store.layouts, store.batch_size, length)
    coordinates = _coordinates(store)
    for column, dtype in coordinates.items():
        values = np.full(length, _absent(column, dtype), object if dtype == "str" else dtype)
        values[slots] = index[column]
        arrays[column] = array_metadata(
            shape=(length,), chunk_shape=(length,), dtype=dtype, dims=("run",)
        )
        backend.replace(f"{column}/c/0", plain_chunk(values))
    for column, metadata in arrays.items():
        backend.replace(f"{column}/zarr.json", encode(metadata))
    backend.make_durable(f"{column}/c/0" for column in coordinates)
    facts = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "index": name,
        "crc32c": crc32c(data),
        "runs": len(index),
        "slots": length,
        "batches": batches,
    }
    _write_root(store.reload(), arrays, facts)
    _remove_old_indices(backend, name)


def _write_root(
    store: OpenedStore, arrays: Mapping[str, Any], facts: Mapping[str, Any] | None
) -> None:
    from asced_stores.format.metadata import encode, group_metadata, step_arrays

    attributes = store.root_attributes()
    attributes["asced"] = {**attributes["asced"], "sealed": facts}
    fixed = {name: metadata for name, (metadata, _) in step_arrays(store.spec).items()}
    metadata = group_metadata(attributes, {**arrays, **fixed})
    store.backend.replace("zarr.json", encode(metadata))


def _remove_old_indices(backend: Backend, current: str) -> None:
    for name in backend.names("commits"):
        if name.startswith("index-") and name != current:
            backend.delete(f"commits/{name}")


def _absent(column: str, dtype: str) -> Any:
    if column in _ABSENT:
        return _ABSENT[column]
    return "" if dtype == "str" else np.nan if dtype.startswith("float") else 0
