"""What `asced info` shows of a store."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from asced_stores.format.compaction import load_markers
from asced_stores.format.index import STATUSES
from asced_stores.format.observations import has_observations, read_observations
from asced_stores.maintenance.verifying import find_leftovers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from asced_stores.store import TrajectoryStore


def summarise(store: TrajectoryStore) -> dict[str, Any]:
    """Runs, size, completeness and writers of a store, as plain values.

    Returns
    -------
    dict
        ``path, format_version, fingerprint, sealed, steps, sample_shape, variables, batch_size,
        planned_runs, runs`` (by status), ``faults`` (values of eps and x0 that overflowed, and in
        how many runs; runs with a step of NaN or infinity, and the first such step), ``observed``
        (runs whose statistics `keep` left; None without it), ``batches`` (committed,
        planned, missing), ``bytes``, ``leftovers``, ``writers`` (by rank: batches, runs, first and
        last time), ``attributes``.
    """
    markers = load_markers(store)
    status = np.concatenate([np.empty(0, np.uint8), *(m.scalars["status"] for m in markers)])
    planned = None if store.planned_runs is None else store.batches
    done = {marker.batch for marker in markers}
    writers: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for marker in markers:
        writers[marker.rank, marker.world_size].append(marker)
    return {
        "path": store.path,
        "format_version": store.attributes["format_version"],
        "fingerprint": store.fingerprint,
        "sealed": None if store.sealed is None else store.sealed["time"],
        "steps": store.spec.steps,
        "kept_steps": store.spec.attributes.get("kept_steps"),
        "steps_told": store.spec.steps_told,
        "sample_shape": list(store.spec.sample_shape),
        "variables": {
            name: {"dtype": layout.variable.dtype, "shape": list(layout.variable.shape)}
            for name, layout in store.layouts.items()
        },
        "batch_size": store.batch_size,
        "planned_runs": store.planned_runs,
        "runs": {name: int((status == code).sum()) for name, code in STATUSES.items()},
        "faults": _faults([dict(marker.scalars) for marker in markers]),
        "observed": _observed(store),
        "batches": {
            "committed": len(markers),
            "planned": planned,
            "missing": [] if planned is None else sorted(set(range(planned)) - done),
        },
        "bytes": sum(marker.nbytes for marker in markers),
        "leftovers": sum(1 for _ in find_leftovers(store)),
        "writers": [
            {
                "rank": rank,
                "world_size": world_size,
                "batches": len(own),
                "runs": sum(marker.runs for marker in own),
                "first": min(marker.time for marker in own),
                "last": max(marker.time for marker in own),
            }
            for (rank, world_size), own in sorted(writers.items())
        ],
        "attributes": store.attributes,
    }


def _faults(markers: list[dict[str, Any]]) -> dict[str, Any]:
    """What is not finite in the recorded values, over all batches."""

    def all_of(name: str) -> NDArray[np.int64]:
        found = [np.asarray(scalars[name], np.int64) for scalars in markers if name in scalars]
        return np.concatenate([np.empty(0, np.int64), *found])

    beyond, first = all_of("overflows"), all_of("first_bad_step")
    bad = first[first >= 0]
    return {
        "overflows": int(beyond.sum()),
        "overflowing_runs": int((beyond > 0).sum()),
        "bad_runs": len(bad),
        "first_bad_step": int(bad.min()) if len(bad) else None,
    }


def _observed(store: TrajectoryStore) -> int | None:
    if not has_observations(store):
        return None
    return sum(len(seen.runs) for seen in read_observations(store))
