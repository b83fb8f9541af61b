"""Reading many markers at once, and packing them now and then so that this stays fast.

A pack holds copies of markers, each with its own checksum. The markers themselves stay, since their
existence is what commits a batch: a pack only saves reading them one by one.
"""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from asced_stores.errors import DamagedStoreError
from asced_stores.format.markers import Marker, batch_of, open_text, seal_text

if TYPE_CHECKING:
    from asced_stores.format.opened import OpenedStore

PACK_EVERY = 256
"""A writer packs markers each time it has committed so many batches."""
_LIMIT = 256 << 20


def load_markers(store: OpenedStore) -> list[Marker]:
    """Markers of all committed batches, from packs where there are any.

    Raises
    ------
    DamagedBatchError
        If one is truncated or altered.
    """
    names = store.backend.names("commits")
    batches = sorted(
        batch for batch in map(batch_of, names) if batch is not None and batch < store.batches
    )
    packed = _load_packs(store, names)

    def load(batch: int) -> Marker:
        data = packed.get(batch)
        return store.marker(batch) if data is None else store.parse_marker(batch, data)

    if not set(batches) - set(packed):
        return [load(batch) for batch in batches]
    with ThreadPoolExecutor(4, thread_name_prefix="asced-markers") as pool:
        return list(pool.map(load, batches))


def compact(store: OpenedStore) -> int:
    """Pack the markers that no pack holds yet.

    Returns
    -------
    int
        How many were packed.
    """
    names = store.backend.names("commits")
    packed = _load_packs(store, names)
    loose = [b for b in map(batch_of, names) if b is not None and b not in packed]
    texts = {}
    for batch in loose:
        try:
            texts[str(batch)] = store.backend.read(f"commits/{batch}.json").decode()
        except FileNotFoundError:  # withdrawn since
            continue
    if texts:
        body = json.dumps({"format": "asced-pack", "format_version": 1, "markers": texts})
        store.backend.create(f"commits/pack-{uuid.uuid4().hex}.json", [seal_text(body)])
    return len(texts)


def forget_packs(store: OpenedStore) -> None:
    """Remove the packs, before a marker is taken out."""
    for name in store.backend.names("commits"):
        if name.startswith("pack-"):
            store.backend.delete(f"commits/{name}")


def _load_packs(store: OpenedStore, names: list[str]) -> dict[int, bytes]:
    """Bytes of the packed markers; a damaged pack is passed over, since the markers are there."""
    found: dict[int, bytes] = {}
    for name in names:
        if not name.startswith("pack-"):
            continue
        try:
            value = open_text(store.backend.read(f"commits/{name}", limit=_LIMIT), name)
            texts = {int(batch): str(text).encode() for batch, text in value["markers"].items()}
        except (DamagedStoreError, FileNotFoundError, KeyError, ValueError, AttributeError):
            continue
        found |= texts
    return found
