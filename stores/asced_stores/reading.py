"""Reading committed batches: whole shards, parts of them, and a stream with bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.errors import DamagedBatchError, InputError
from asced_stores.index import RunIndex, Select, load_index
from asced_stores.layout import ArrayLayout
from asced_stores.places import Place
from asced_stores.shards import ABSENT, check_chunk, read_index
from asced_stores.store import TrajectoryStore


def read_shard(
    place: Place,
    layout: ArrayLayout,
    batch: int,
    *,
    runs: slice | None = None,
    steps: slice | None = None,
) -> NDArray[Any]:
    """Read the part of a shard that some runs and steps lie in, and check it.

    Every inner chunk is read straight to its place where it is contiguous there.

    Parameters
    ----------
    place, layout, batch
        Where the store lies, how the array is laid out, which batch.
    runs : slice, optional
        Slots within the batch, without a step.
    steps : slice, optional
        Along the variable's first own dimension, without a step.

    Returns
    -------
    ndarray, shape (runs, steps, ...)

    Raises
    ------
    DamagedBatchError
        If the shard is absent, truncated, or fails a checksum.
    """
    key = layout.key(batch)
    where = f"batch {batch} of {place.url} ({key})"
    tail = bytearray(layout.index_nbytes)
    row = _cover(runs, layout.batch_size, layout.inner[0])
    column = _cover(steps, layout.variable.shape[0], layout.inner[1])
    grid_rows = range(row.start // layout.inner[0], row.stop // layout.inner[0])
    grid_columns = range(column.start // layout.inner[1], column.stop // layout.inner[1])
    shape = (row.stop - row.start, column.stop - column.start, *layout.variable.shape[1:])
    out = np.empty(shape, layout.dtype)
    try:
        place.read_into(key, [(-len(tail), [tail])])
        index = read_index(bytes(tail), layout, where)
        requests: list[tuple[int, list[Any]]] = []
        checks: list[tuple[NDArray[Any], bytearray, NDArray[Any], NDArray[Any]]] = []
        end = -1
        for i in grid_rows:
            for j in grid_columns:
                a, b = i * layout.inner[0] - row.start, j * layout.inner[1] - column.start
                target = out[a : a + layout.inner[0], b : b + layout.inner[1]]
                offset = int(index[i, j, 0])
                if offset == ABSENT:
                    target[...] = np.nan if layout.dtype.kind == "f" else 0
                    continue
                whole = target if target.flags.c_contiguous else np.empty_like(target, order="C")
                checksum = bytearray(4)
                buffers = [whole.reshape(-1).view(np.uint8), checksum]
                if offset == end:
                    requests[-1][1].extend(buffers)
                else:
                    requests.append((offset, buffers))
                end = offset + layout.chunk_nbytes + 4
                checks.append((buffers[0], checksum, whole, target))  # type: ignore[arg-type]
        place.read_into(key, requests)
        for data, checksum, whole, target in checks:
            check_chunk(data, bytes(checksum), where)
            if whole is not target:
                target[...] = whole
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamagedBatchError(f"{where} is missing. {remedy(place.url)}") from error
    except (EOFError, OverflowError, ValueError, OSError) as error:
        if isinstance(error, DamagedBatchError):
            error.add_note(remedy(place.url))
            raise
        if isinstance(error, OSError):
            raise
        raise DamagedBatchError(f"{where} is truncated. {remedy(place.url)}") from error
    start, first = (runs.start or 0) if runs else 0, (steps.start or 0) if steps else 0
    stop = runs.stop if runs and runs.stop is not None else layout.batch_size
    last = steps.stop if steps and steps.stop is not None else layout.variable.shape[0]
    part: NDArray[Any] = out[
        start - row.start : stop - row.start, first - column.start : last - column.start
    ]
    return part


def remedy(url: str) -> str:
    """What to do about a damaged batch."""
    return (
        f"Drop what is damaged with `asced verify --drop {url}`, then record it again with --resume"
    )


def _cover(part: slice | None, length: int, inner: int) -> slice:
    """Smallest range of whole inner chunks around a slice."""
    start = 0 if part is None or part.start is None else part.start
    stop = length if part is None or part.stop is None else part.stop
    return slice(start // inner * inner, -(-stop // inner) * inner)


class RunReader:
    """Stream of committed batches, read ahead in threads, with bounded memory.

    Parameters
    ----------
    path : path, str or TrajectoryStore
        Where the store lies, sealed or not.
    variables : sequence of str
        Which arrays.
    threads : int
        Batches read at once; at most ``threads + 1`` lie in memory.
    statuses : sequence of str
        Which runs: ``complete``, ``failed``.
    select
        Which runs, as in `RunIndex.select`.

    Raises
    ------
    InputError
        If the store has no such variable.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | TrajectoryStore,
        variables: Sequence[str] = ("eps", "x0"),
        threads: int = 2,
        statuses: Sequence[str] = ("complete",),
        *,
        select: Select | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(path, TrajectoryStore):
            self.store = path
        else:
            self.store = TrajectoryStore.open(path, storage_options=storage_options)
        self.variables = tuple(variables)
        unknown = [name for name in self.variables if name not in self.store.layouts]
        if unknown:
            raise InputError(f"{self.store.path} has no {unknown}: it has {[*self.store.layouts]}")
        if threads < 1:
            raise InputError(f"threads is {threads}: expected at least 1")
        self.threads = threads
        self.index: RunIndex = load_index(self.store).with_status(statuses).select(select)

    def __len__(self) -> int:
        return len(self.index.groups())

    def batches(self) -> Iterator[tuple[int, NDArray[np.int64], dict[str, NDArray[Any]]]]:
        """Yield batch number, run numbers and arrays of shape (runs, ...), batch by batch."""
        groups = iter(self.index.groups())
        with ThreadPoolExecutor(self.threads, thread_name_prefix="asced-read") as pool:
            pending: list[Any] = []
            try:
                for batch, rows in groups:
                    pending.append((batch, rows, pool.submit(self._read, batch, rows)))
                    if len(pending) > self.threads:
                        yield self._finish(*pending.pop(0))
                while pending:
                    yield self._finish(*pending.pop(0))
            finally:
                for _, _, job in pending:
                    job.cancel()

    def _finish(
        self, batch: int, rows: NDArray[Any], job: Any
    ) -> tuple[int, NDArray[np.int64], dict[str, NDArray[Any]]]:
        return batch, self.index["run"][rows], job.result()

    def _read(self, batch: int, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        slots = self.index["slot"][rows]
        found = {}
        for name in self.variables:
            found[name] = read_slots(self.store.place, self.store.layouts[name], batch, slots)
        return found


def read_slots(
    place: Place,
    layout: ArrayLayout,
    batch: int,
    slots: NDArray[Any],
    steps: slice | None = None,
) -> NDArray[Any]:
    """Read chosen slots of a shard; a hole-less range comes without a copy."""
    first, last = int(slots.min()), int(slots.max()) + 1
    data = read_shard(place, layout, batch, runs=slice(first, last), steps=steps)
    if len(slots) == last - first and (np.diff(slots) == 1).all():
        return data
    return data[slots - first]
