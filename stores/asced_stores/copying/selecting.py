"""Copying runs to a new store: chosen ones, or all of them in another layout or precision."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.backends.opening import check_apart
from asced_stores.errors import InputError
from asced_stores.format.batches import read_rows
from asced_stores.format.index import RunIndex, Select, load_index
from asced_stores.format.observations import (
    Observations,
    has_observations,
    put_observations,
    read_observations,
)
from asced_stores.format.spec import TrajectorySpec
from asced_stores.store import TrajectoryStore

Path = str | os.PathLike[str]
Progress = Callable[[int, int], None]


def select_runs(
    source: TrajectoryStore,
    out: Path,
    select: Select | None = None,
    *,
    statuses: Sequence[str] = ("complete", "failed"),
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> TrajectoryStore:
    """Copy chosen runs to a new store; they keep their numbers, seeds and statuses.

    Statistics that `keep` left are of all runs, and stay behind.

    Parameters
    ----------
    source : TrajectoryStore
        Sealed or not.
    out : path or str
        Where the new store is made.
    select
        Which runs, as in `RunIndex.select`.
    statuses : sequence of str
        Of these, which.
    overwrite, resume : bool
        Replace what lies there, or go on with an interrupted copy of the same runs.
    progress : callable, optional
        Called with the batches done and their number.
    storage_options : mapping, optional
        Of the backend that holds ``out``.

    Raises
    ------
    InputError
        If no run is chosen, or one is not there; if ``out`` is the source, or lies in it.
    """
    index = load_index(source).with_status(statuses).select(select)
    spec = source.spec
    if has_observations(source):
        attributes = {k: v for k, v in spec.attributes.items() if k != "keep"}
        attributes["selected_from"] = f"runs recorded with --keep {spec.attributes['keep']}"
        spec = dataclasses.replace(spec, attributes=attributes)
    return _copy(
        source,
        out,
        index,
        spec,
        source.batch_size,
        overwrite=overwrite,
        resume=resume,
        progress=progress,
        storage_options=storage_options,
    )


def repack(
    source: TrajectoryStore,
    out: Path,
    *,
    dtype: str | None = None,
    batch_size: int | None = None,
    chunk_bytes: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> TrajectoryStore:
    """Rewrite a store to another layout or precision.

    The source is only read. Killed at any moment, the new store holds whole batches, shows that
    others are missing, and ``resume`` goes on with it.

    Parameters
    ----------
    source : TrajectoryStore
        Sealed or not.
    out : path or str
        Where the new store is made.
    dtype : {"float16", "float32"}, optional
        Of ``eps`` and ``x0``.
    batch_size : int, optional
        Runs in a shard.
    chunk_bytes : int, optional
        Limit of the inner chunks.
    overwrite, resume, progress, storage_options
        As in `select_runs`.

    Raises
    ------
    InputError
        If ``out`` is the source, or lies in it.
    """
    spec = source.spec
    if dtype is not None and dtype != spec.dtype:
        history = [*spec.attributes.get("repacked", []), {"from": spec.dtype, "to": dtype}]
        attributes = {**spec.attributes, "repacked": history}
        spec = dataclasses.replace(spec, dtype=dtype, attributes=attributes)
    return _copy(
        source,
        out,
        load_index(source),
        spec,
        batch_size or source.batch_size,
        chunk_bytes=chunk_bytes,
        overwrite=overwrite,
        resume=resume,
        progress=progress,
        storage_options=storage_options,
    )


def _copy(
    source: TrajectoryStore,
    out: Path,
    index: RunIndex,
    spec: TrajectorySpec,
    batch_size: int,
    *,
    chunk_bytes: int | None = None,
    overwrite: bool,
    resume: bool,
    progress: Progress | None,
    storage_options: Mapping[str, Any] | None,
) -> TrajectoryStore:
    if not len(index):
        raise InputError(f"no run of {source.path} is chosen: there is nothing to copy")
    check_apart(out, [source.backend], storage_options=storage_options)
    if resume:
        store = TrajectoryStore.open(out, storage_options=storage_options)
        wanted = (spec.fingerprint, batch_size, len(index))
        found = (store.fingerprint, store.batch_size, store.planned_runs)
        if wanted != found:
            raise InputError(
                f"{store.path} is another copy: its fingerprint, batch size and number of runs "
                f"are {found}, expected {wanted}"
            )
    else:
        store = TrajectoryStore.create(
            out,
            spec,
            runs=len(index),
            batch_size=batch_size,
            chunk_bytes=chunk_bytes,
            overwrite=overwrite,
            storage_options=storage_options,
        )
    scalars = [name for name in store.scalar_dtypes if name != "run"]
    observed = has_observations(store)
    with store.writer(0, 1) as writer:
        for batch in writer.pending_batches():
            rows = np.arange(len(index))[batch * batch_size : (batch + 1) * batch_size]
            part = index.take(rows)
            with np.errstate(over="ignore"):
                arrays = {
                    name: read_rows(source.backend, layout, part["batch"], part["slot"])
                    for name, layout in source.layouts.items()
                }
            if observed:  # all of them with the first batch: counts cannot be told apart again
                put_observations(store, batch, _observed(source, batch))
            writer.write_batch(batch, arrays, part["run"], {name: part[name] for name in scalars})
            if progress is not None:
                progress(batch + 1, store.batches)
    return store


def _observed(source: TrajectoryStore, batch: int) -> Observations:
    total = Observations(np.empty(0, np.int64))
    if batch == 0:
        for seen in read_observations(source):
            total = total + seen
    return total


def parse_runs(text: str) -> NDArray[np.int64]:
    """Run numbers out of ``0-9,12,20-``; an open end is refused.

    Raises
    ------
    InputError
        If the text is of another form.
    """
    return np.array([run for each in text.split(",") for run in _range(each)], np.int64)


def _range(text: str) -> Iterator[int]:
    first, dash, last = text.strip().partition("-")
    try:
        start, stop = int(first), int(last if dash else first)
    except ValueError as error:
        raise InputError(f"{text!r} is no run or range of runs: expected 7 or 0-9") from error
    if stop < start or stop - start > 100_000_000:
        raise InputError(f"{text!r} is no range of runs: expected one like 0-9")
    yield from range(start, stop + 1)
