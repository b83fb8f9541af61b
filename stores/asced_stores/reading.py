"""Reading committed batches: whole shards, parts of them, and a stream with bounded memory."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.errors import DamagedBatchError, InputError
from asced_stores.index import RunIndex, Select, load_index
from asced_stores.layout import ArrayLayout
from asced_stores.places import Place, Reader
from asced_stores.shards import ABSENT, check_chunk, read_index
from asced_stores.store import TrajectoryStore


def read_shard(
    place: Place,
    layout: ArrayLayout,
    batch: int,
    *,
    runs: slice | None = None,
    steps: slice | None = None,
    out: NDArray[Any] | None = None,
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
    out : ndarray, shape (runs, steps, ...), optional
        Where the values go.

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
    try:
        with place.reader(key) as reader:
            return _read_part(reader, layout, where, runs, steps, out)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamagedBatchError(f"{where} is missing. {remedy(place.url)}") from error
    except EOFError as error:
        raise DamagedBatchError(f"{where} is truncated. {remedy(place.url)}") from error
    except DamagedBatchError as error:
        error.add_note(remedy(place.url))
        raise


def _read_part(
    reader: Reader,
    layout: ArrayLayout,
    where: str,
    runs: slice | None,
    steps: slice | None,
    out: NDArray[Any] | None,
) -> NDArray[Any]:
    length = layout.variable.shape[0]
    wanted_rows, rows = _cover(runs, layout.batch_size, layout.inner[0])
    wanted_columns, columns = _cover(steps, length, layout.inner[1])
    shape = (rows.stop - rows.start, columns.stop - columns.start, *layout.variable.shape[1:])
    whole = (rows, columns) == (wanted_rows, wanted_columns)
    data = out if out is not None and whole else np.empty(shape, layout.dtype)
    tail = bytearray(layout.index_nbytes)
    reader.read_into([(-len(tail), [tail])])
    index = read_index(bytes(tail), layout, where)
    if (index[..., 0][index[..., 0] != ABSENT] > 1 << 62).any():
        raise DamagedBatchError(f"the index of {where} names a place beyond its end")
    reader.expect(_ranges(index, layout, rows, columns))
    pending = _Pending(reader, where)
    for row in range(rows.start, rows.stop, layout.inner[0]):
        for column in range(columns.start, columns.stop, layout.inner[1]):
            a, b = row - rows.start, column - columns.start
            target = data[a : a + layout.inner[0], b : b + layout.inner[1]]
            offset = int(index[row // layout.inner[0], column // layout.inner[1], 0])
            if offset == ABSENT:
                target[...] = np.nan if layout.dtype.kind == "f" else 0
            else:
                pending.add(offset, target)
    pending.flush()
    if data is out:
        return data
    part: NDArray[Any] = data[
        wanted_rows.start - rows.start : wanted_rows.stop - rows.start,
        wanted_columns.start - columns.start : wanted_columns.stop - columns.start,
    ]
    if out is None:
        return part
    out[...] = part
    return out


def _ranges(
    index: NDArray[np.uint64], layout: ArrayLayout, rows: slice, columns: slice
) -> list[tuple[int, int]]:
    """Offsets and lengths of the chunks of a part, those that lie side by side as one."""
    (runs, steps), length = layout.inner[:2], layout.chunk_nbytes + 4
    part = index[rows.start // runs : rows.stop // runs, columns.start // steps :]
    offsets = part[:, : columns.stop // steps - columns.start // steps, 0].reshape(-1)
    offsets = offsets[offsets != ABSENT].astype(np.int64)
    starts = np.flatnonzero(np.diff(offsets, prepend=-length - 1) != length)
    counts = np.diff(starts, append=len(offsets))
    return [(int(offsets[s]), int(n) * length) for s, n in zip(starts, counts, strict=True)]


class _Pending:
    """Chunks to be read, in groups small enough that checksums find them in the cache."""

    def __init__(self, reader: Reader, where: str) -> None:
        self._reader = reader
        self._where = where
        self._requests: list[tuple[int, list[Any]]] = []
        self._chunks: list[tuple[NDArray[Any], bytearray, NDArray[Any], NDArray[Any]]] = []
        self._end = -1
        self._size = 0

    def add(self, offset: int, target: NDArray[Any]) -> None:
        """Read one chunk to its place, through a buffer where it is not contiguous there."""
        chunk = target if target.flags.c_contiguous else np.empty_like(target, order="C")
        checksum, flat = bytearray(4), chunk.reshape(-1).view(np.uint8)
        if offset == self._end:  # chunks that lie side by side are read at once
            self._requests[-1][1].extend((flat, checksum))
        else:
            self._requests.append((offset, [flat, checksum]))
        self._end = offset + flat.nbytes + 4
        self._chunks.append((flat, checksum, chunk, target))
        self._size += flat.nbytes
        if self._size >= self._reader.group:
            self.flush()

    def flush(self) -> None:
        """Read what is pending, and check it."""
        self._reader.read_into(self._requests)
        for flat, checksum, chunk, target in self._chunks:
            check_chunk(flat, checksum, self._where)
            if chunk is not target:
                target[...] = chunk
        self._requests, self._chunks, self._end, self._size = [], [], -1, 0


def remedy(url: str) -> str:
    """What to do about a damaged batch."""
    return (
        f"Drop what is damaged with `asced verify --drop {url}`, then record it again with --resume"
    )


def _cover(part: slice | None, length: int, inner: int) -> tuple[slice, slice]:
    """Normalise a slice without a step, and find the whole inner chunks around it."""
    start = 0 if part is None or part.start is None else part.start
    stop = length if part is None or part.stop is None else part.stop
    return slice(start, stop), slice(start // inner * inner, -(-stop // inner) * inner)


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
                    if len(pending) >= self.threads:
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


def read(
    store: TrajectoryStore,
    name: str,
    *,
    runs: Select | None = None,
    steps: slice | int | None = None,
    statuses: Sequence[str] = ("complete",),
    threads: int = 2,
) -> NDArray[Any]:
    """Read a part of one variable into one array, without Dask.

    Parameters
    ----------
    store : TrajectoryStore
        Sealed or not.
    name : str
        Which variable.
    runs
        Which runs, as in `RunIndex.select`.
    steps : slice or int, optional
        Along the variable's first own dimension; an integer takes that dimension away.
    statuses : sequence of str
        ``complete``, ``failed``.
    threads : int
        Batches read at once.

    Returns
    -------
    ndarray, shape (run, step, ...)
    """
    if name not in store.layouts:
        raise InputError(f"{store.path} has no {name!r}: it has {[*store.layouts]}")
    index = store.index.with_status(statuses).select(runs)
    layout = store.layouts[name]
    length = layout.variable.shape[0]
    if isinstance(steps, int):
        if not -length <= steps < length:
            raise InputError(f"step is {steps}: {name} has {length}")
        bounds = slice(steps % length, steps % length + 1)
    else:
        start, stop, stride = slice(steps and steps.start, steps and steps.stop).indices(length)
        if stride != 1 or (steps is not None and steps.step not in (None, 1)):
            raise InputError("steps must be a slice without a stride, or an integer")
        bounds = slice(start, max(start, stop))
    place = store.place
    data = read_rows(place, layout, index["batch"], index["slot"], bounds, threads=threads)
    return data[:, 0] if isinstance(steps, int) else data


def read_slots(
    place: Place,
    layout: ArrayLayout,
    batch: int,
    slots: NDArray[Any],
    steps: slice | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Read chosen slots of a shard; a hole-less range comes without a copy."""
    first, last = int(slots[0]), int(slots[-1]) + 1
    if len(slots) == last - first and (np.diff(slots) == 1).all():
        return read_shard(place, layout, batch, runs=slice(first, last), steps=steps, out=out)
    first, last = int(slots.min()), int(slots.max()) + 1
    whole = read_shard(place, layout, batch, runs=slice(first, last), steps=steps)
    data: NDArray[Any] = whole[slots - first]
    if out is None:
        return data
    out[...] = data
    return out


def read_rows(
    place: Place,
    layout: ArrayLayout,
    batches: NDArray[Any],
    slots: NDArray[Any],
    steps: slice | None = None,
    *,
    threads: int = 1,
) -> NDArray[Any]:
    """Read runs that may lie in several batches into one array.

    Parameters
    ----------
    place, layout
        Where the store lies, and how the array is laid out.
    batches, slots : ndarray of int, shape (n,)
        Where each run lies.
    steps : slice, optional
        Along the variable's first own dimension, without a step.
    threads : int
        Batches read at once.

    Returns
    -------
    ndarray, shape (n, steps, ...)
    """
    wanted, _ = _cover(steps, layout.variable.shape[0], 1)
    shape = (len(slots), wanted.stop - wanted.start, *layout.variable.shape[1:])
    edges = [*np.flatnonzero(np.diff(batches, prepend=-1)).tolist(), len(slots)]
    parts = [slice(a, b) for a, b in itertools.pairwise(edges)]
    if len(parts) == 1:
        return read_slots(place, layout, int(batches[0]), slots, steps)
    out = np.empty(shape, layout.dtype)

    def read(part: slice) -> None:
        read_slots(place, layout, int(batches[part.start]), slots[part], steps, out[part])

    if threads == 1:
        for part in parts:
            read(part)
    else:
        with ThreadPoolExecutor(threads, thread_name_prefix="asced-read") as pool:
            list(pool.map(read, parts))
    return out
