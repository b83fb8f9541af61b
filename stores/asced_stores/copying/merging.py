"""Merging stores of the same fingerprint: shards are linked, not read."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from asced_stores.backends.opening import check_apart
from asced_stores.errors import InputError
from asced_stores.format.compaction import load_markers
from asced_stores.format.markers import Marker
from asced_stores.format.observations import (
    has_observations,
    load_observations,
    observation_key,
    put_observations,
    read_observations,
)
from asced_stores.store import TrajectoryStore


def merge(
    sources: Sequence[TrajectoryStore],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> TrajectoryStore:
    """Join stores into a new one.

    On one file system shards are hard links, on one object storage they are copied there; nothing
    passes through memory. Batches get new numbers, whole ones before short ones; runs keep theirs
    unless two stores use the same, when all are numbered anew (seeds stay). Statistics of
    runs that `keep` left out go along.

    Parameters
    ----------
    sources : sequence of TrajectoryStore
        Two or more, of the same fingerprint, batch size and chunks.
    out : path or str
        Where the new store is made.
    overwrite : bool
        Replace a store that lies there.
    progress : callable, optional
        Called with the batches done and their number.
    storage_options : mapping, optional
        Of the backend that holds ``out``.

    Raises
    ------
    InputError
        If the stores do not fit together, or hold the same batch twice; if ``out`` is one of them,
        or lies in one.
    """
    check_apart(out, [source.backend for source in sources], storage_options=storage_options)
    first = sources[0]
    for other in sources[1:]:
        _check_fit(first, other)
    found = [(store, marker) for store in sources for marker in load_markers(store)]
    if not found:
        raise InputError("none of the stores holds a committed batch: there is nothing to merge")
    tokens = [marker.token for _, marker in found]
    if len(set(tokens)) < len(tokens):
        raise InputError("the same batch lies in more than one of the stores: give each store once")
    found.sort(key=lambda each: each[1].runs < first.batch_size)
    runs = np.concatenate([marker.scalars["run"] for _, marker in found])
    anew = len(np.unique(runs)) < len(runs)
    store = TrajectoryStore.create(
        out,
        first.spec,
        runs=len(runs),
        slots=len(found) * first.batch_size,
        batch_size=first.batch_size,
        inner={name: layout.inner for name, layout in first.layouts.items()},
        overwrite=overwrite,
        storage_options=storage_options,
    )
    start, shifts = 0, _shifts(sources)
    for batch, (source, marker) in enumerate(found):
        numbers = np.arange(start, start + marker.runs) if anew else marker.scalars["run"]
        if has_observations(source):
            numbers = marker.scalars["run"] + shifts[source.id]
            _take_observations(store, source, marker.batch, batch, shifts[source.id])
        _take_over(store, source, marker, batch, {**marker.scalars, "run": numbers})
        start += marker.runs
        if progress is not None:
            progress(batch + 1, len(found))
    return store


def _take_over(
    store: TrajectoryStore,
    source: TrajectoryStore,
    marker: Marker,
    batch: int,
    scalars: Mapping[str, Any],
) -> None:
    """Link the shards of a batch, then write its marker."""
    old, new = source.shard_keys(marker.batch), store.shard_keys(batch)
    for name, key in new.items():
        store.backend.copy_from(source.backend, old[name], key)
    store.backend.make_durable(new.values())
    taken = dataclasses.replace(marker, batch=batch, scalars=scalars)
    store.backend.create(f"commits/{batch}.json", [taken.to_bytes()])
    store.backend.make_durable([f"commits/{batch}.json"])


def _shifts(sources: Sequence[TrajectoryStore]) -> dict[str, int]:
    """What is added to the run numbers of each store, so that no two observed runs share one."""
    shifts = {source.id: 0 for source in sources}
    if not has_observations(sources[0]):
        return shifts
    none = np.empty(0, np.int64)
    observed = {
        source.id: np.concatenate([none, *(seen.runs for seen in read_observations(source))])
        for source in sources
    }
    together = np.concatenate(list(observed.values()))
    if len(np.unique(together)) == len(together):
        return shifts
    shift = 0
    for name, runs in observed.items():
        shifts[name] = shift
        shift += int(runs.max(initial=-1)) + 1
    return shifts


def _take_observations(
    store: TrajectoryStore, source: TrajectoryStore, old: int, new: int, shift: int
) -> None:
    if not shift:
        store.backend.copy_from(source.backend, observation_key(old), observation_key(new))
        store.backend.make_durable([observation_key(new)])
        return
    seen = load_observations(source, old)
    put_observations(store, new, dataclasses.replace(seen, runs=seen.runs + shift))


def _check_fit(first: TrajectoryStore, other: TrajectoryStore) -> None:
    if first.fingerprint != other.fingerprint:
        raise InputError(
            f"{other.path} has fingerprint {other.fingerprint}, {first.path} has "
            f"{first.fingerprint}: they differ in {_difference(first, other)}; only runs of the "
            "same model, sampler and shapes can be merged"
        )
    rules = [store.spec.attributes.get("keep", "all") for store in (first, other)]
    if rules[0] != rules[1]:
        raise InputError(
            f"{other.path} kept {rules[1]} of its runs in full, {first.path} {rules[0]}: only "
            "stores with the same --keep can be merged"
        )
    layouts = [{n: layout.inner for n, layout in s.layouts.items()} for s in (first, other)]
    if first.batch_size != other.batch_size or layouts[0] != layouts[1]:
        raise InputError(
            f"{other.path} has batches of {other.batch_size} runs or other chunks than "
            f"{first.path} with batches of {first.batch_size}: rewrite it with `asced repack "
            f"--batch-size {first.batch_size}` first"
        )


def _difference(first: TrajectoryStore, other: TrajectoryStore) -> str:
    from asced_stores.format.spec import FINGERPRINTED

    a, b = ({**s.spec.to_json(), **s.spec.attributes} for s in (first, other))
    names = [n for n in (*first.spec.to_json(), *FINGERPRINTED) if a.get(n) != b.get(n)]
    return ", ".join(names)
