"""Reading many markers at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from asced_stores.markers import Marker

if TYPE_CHECKING:
    from asced_stores.store import TrajectoryStore


def load_markers(store: TrajectoryStore) -> list[Marker]:
    """Markers of all committed batches."""
    batches = store.committed_batches()
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(store.marker, batches))
