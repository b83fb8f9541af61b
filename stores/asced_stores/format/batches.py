"""Reading committed batches: whole shards, or parts of them, into one array."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from asced_stores.backends.backend import Backend, Reader
from asced_stores.errors import DamagedBatchError, InputError
from asced_stores.format.index import RunIndex, Select
from asced_stores.format.layout import ArrayLayout
from asced_stores.format.memory import empty
from asced_stores.format.shards import ABSENT, check_chunk, read_index

if TYPE_CHECKING:
    from asced_stores.format.opened import OpenedStore

T = TypeVar("T")
_WORTH_A_THREAD = 4  # groups of 1 MB


def read_shard(
    backend: Backend,
    layout: ArrayLayout,
    batch: int,
    *,
    runs: slice | None = None,
    steps: slice | None = None,
    out: NDArray[Any] | None = None,
    threads: int = 1,
) -> NDArray[Any]:
    """Read the part of a shard that some runs and steps lie in, and check it.

    Every inner chunk is read straight to where it belongs where it is contiguous there.

    Parameters
    ----------
    backend, layout, batch
        Where the store lies, how the array is laid out, which batch.
    runs : slice, optional
        Slots within the batch, without a step.
    steps : slice, optional
        Along the variable's first own dimension, without a step.
    out : ndarray, shape (runs, steps, ...), optional
        Where the values go.
    threads : int
        At work on it, where it is large.

    Returns
    -------
    ndarray, shape (runs, steps, ...)

    Raises
    ------
    DamagedBatchError
        If the shard is absent, truncated, or fails a checksum.
    """
    key = layout.key(batch)
    where = f"batch {batch} of {backend.url} ({key})"
    try:
        with backend.reader(key) as reader:
            return _read_part(reader, layout, where, runs, steps, out, threads)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamagedBatchError(f"{where} is missing. {remedy(backend.url)}") from error
    except EOFError as error:
        raise DamagedBatchError(f"{where} is truncated. {remedy(backend.url)}") from error
    except DamagedBatchError as error:
        error.add_note(remedy(backend.url))
        raise


def _read_part(
    reader: Reader,
    layout: ArrayLayout,
    where: str,
    runs: slice | None,
    steps: slice | None,
    out: NDArray[Any] | None,
    threads: int,
) -> NDArray[Any]:
    length = layout.variable.shape[0]
    wanted_rows, rows = _cover(runs, layout.batch_size, layout.inner[0])
    wanted_columns, columns = _cover(steps, length, layout.inner[1])
    shape = (rows.stop - rows.start, columns.stop - columns.start, *layout.variable.shape[1:])
    whole = (rows, columns) == (wanted_rows, wanted_columns)
    data = out if out is not None and whole else empty(shape, layout.dtype)
    tail = bytearray(layout.index_nbytes)
    reader.read_into([(-len(tail), [tail])])
    index = read_index(bytes(tail), layout, where)
    (each_run, each_step), own = layout.inner[:2], layout.inner[2:]
    grid = (shape[0] // each_run, shape[1] // each_step)
    in_order = each_run == 1 or grid[1] == 1  # chunks lie in memory as they do in the file
    memory = data if in_order else empty((*grid, *layout.inner), layout.dtype)
    part = index[rows.start // each_run :, columns.start // each_step :, 0]
    offsets = part[: grid[0], : grid[1]].reshape(-1).tolist()
    reader.expect(_ranges(offsets, layout.chunk_nbytes + 4))
    _read_chunks(reader, memory, offsets, layout, where, threads)
    if not in_order:
        cells = data.reshape(grid[0], each_run, grid[1], each_step, *own)
        cells[...] = memory.swapaxes(1, 2)
    if data is out:
        return data
    cut: NDArray[Any] = data[
        wanted_rows.start - rows.start : wanted_rows.stop - rows.start,
        wanted_columns.start - columns.start : wanted_columns.stop - columns.start,
    ]
    if out is None:
        return cut
    out[...] = cut
    return out


def _ranges(chunks: list[int], length: int) -> Iterator[tuple[int, int]]:
    """Offsets and lengths of chunks, those that lie side by side as one."""
    offsets = np.asarray([offset for offset in chunks if offset != ABSENT], np.int64)
    starts = np.flatnonzero(np.diff(offsets, prepend=-length - 1) != length)
    counts = np.diff(starts, append=len(offsets))
    for start, count in zip(starts, counts, strict=True):
        yield int(offsets[start]), int(count) * length


def _read_chunks(
    reader: Reader,
    memory: NDArray[Any],
    offsets: list[int],
    layout: ArrayLayout,
    where: str,
    threads: int,
) -> None:
    """Read chunks one behind the other into memory, and check them."""
    nbytes, flat = layout.chunk_nbytes, memory.reshape(-1).view(np.uint8)
    present = []
    for number, offset in enumerate(offsets):
        chunk = flat[number * nbytes : (number + 1) * nbytes]
        if offset == ABSENT:
            chunk.view(layout.dtype)[...] = np.nan if layout.dtype.kind == "f" else 0
        else:
            present.append((offset, chunk, bytearray(4)))
    size = -(-reader.group // nbytes)
    groups = [present[at : at + size] for at in range(0, len(present), size)]

    def read(group: list[tuple[int, NDArray[Any], bytearray]]) -> None:
        requests: list[tuple[int, list[Any]]] = []
        end = -1
        for offset, chunk, checksum in group:
            if offset == end:  # chunks that lie side by side are read at once
                requests[-1][1].extend((chunk, checksum))
            else:
                requests.append((offset, [chunk, checksum]))
            end = offset + nbytes + 4
        reader.read_into(requests)
        for _, chunk, checksum in group:  # they are in the processor's cache still
            check_chunk(chunk, checksum, where)

    in_threads(read, groups, threads if len(groups) >= _WORTH_A_THREAD else 1)


@functools.cache
def _helpers() -> ThreadPoolExecutor:
    """Threads that stay, since to start one costs as much as to read a megabyte."""
    return ThreadPoolExecutor(os.cpu_count() or 4, thread_name_prefix="asced-read")


def in_threads(work: Callable[[T], object], items: Sequence[T], threads: int) -> None:
    """Work for each item, in this thread and ``threads - 1`` more; the first error ends it.

    This thread takes what no other takes, so that helpers who are busy, or were left behind by a
    fork, are not waited for.
    """
    queue = iter(items)

    def drain() -> None:
        try:
            for item in queue:
                work(item)
        except BaseException:
            for _ in queue:
                pass
            raise

    helpers = min(threads, len(items)) - 1
    jobs = [_helpers().submit(drain) for _ in range(helpers)]
    try:
        drain()
    finally:
        begun = [job for job in jobs if not job.cancel()]
        wait(begun)
    for job in begun:
        job.result()


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


def read(
    store: OpenedStore,
    index: RunIndex,
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
    store : OpenedStore
        Sealed or not.
    index : RunIndex
        Its runs.
    name : str
        Which variable.
    runs
        Which runs, as in `RunIndex.select`.
    steps : slice or int, optional
        Along the variable's first own dimension; an integer takes that dimension away.
    statuses : sequence of str
        ``complete``, ``failed``.
    threads : int
        At work on different batches, or on the parts of a single one.

    Returns
    -------
    ndarray, shape (run, step, ...)
    """
    if name not in store.layouts:
        raise InputError(f"{store.path} has no {name!r}: it has {[*store.layouts]}")
    index = index.with_status(statuses).select(runs)
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
    backend = store.backend
    data = read_rows(backend, layout, index["batch"], index["slot"], bounds, threads=threads)
    return data[:, 0] if isinstance(steps, int) else data


def read_slots(
    backend: Backend,
    layout: ArrayLayout,
    batch: int,
    slots: NDArray[Any],
    steps: slice | None = None,
    out: NDArray[Any] | None = None,
    *,
    threads: int = 1,
) -> NDArray[Any]:
    """Read chosen slots of a shard; a hole-less range comes without a copy."""
    first, last = int(slots[0]), int(slots[-1]) + 1
    if len(slots) == last - first and (np.diff(slots) == 1).all():
        part = slice(first, last)
        return read_shard(backend, layout, batch, runs=part, steps=steps, out=out, threads=threads)
    first, last = int(slots.min()), int(slots.max()) + 1
    part = slice(first, last)
    whole = read_shard(backend, layout, batch, runs=part, steps=steps, threads=threads)
    data: NDArray[Any] = whole[slots - first]
    if out is None:
        return data
    out[...] = data
    return out


def read_rows(
    backend: Backend,
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
    backend, layout
        Where the store lies, and how the array is laid out.
    batches, slots : ndarray of int, shape (n,)
        Where each run lies.
    steps : slice, optional
        Along the variable's first own dimension, without a step.
    threads : int
        At work on different batches, or on the parts of a single one.

    Returns
    -------
    ndarray, shape (n, steps, ...)
    """
    wanted, _ = _cover(steps, layout.variable.shape[0], 1)
    shape = (len(slots), wanted.stop - wanted.start, *layout.variable.shape[1:])
    edges = [*np.flatnonzero(np.diff(batches, prepend=-1)).tolist(), len(slots)]
    parts = [slice(a, b) for a, b in itertools.pairwise(edges)]
    if len(parts) == 1:
        return read_slots(backend, layout, int(batches[0]), slots, steps, threads=threads)
    out = empty(shape, layout.dtype)

    def read(part: slice) -> None:
        read_slots(backend, layout, int(batches[part.start]), slots[part], steps, out[part])

    in_threads(read, parts, threads)
    return out
