"""One task a shard, results merged in a tree: how everything here scales beyond memory.

The graph is built from the chunks of a lazily opened Dataset and runs on threads by default, or
unchanged on any `distributed.Client`. Tasks are pure: a shard whose worker is lost is counted
again from the store, and its first result is dropped with the worker, so nothing counts twice.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.compute.shard_graphs import (
    Shards,
    Work,
    call_work,
    held_by_cluster,
    untyped_dask,
)
from asced_analysis.compute.stepped import SteppedReading, is_large
from asced_stores.errors import InputError

T = TypeVar("T")
Graph: TypeAlias = Any
"""A dask.delayed.Delayed."""

TASK_BYTES = 64 * 2**20
"""Small shards share a task up to this size: 50 runs of 32x32 pixels are only 2.5 MB.

A task reads them one at a time, so this costs no memory; it saves merging.
"""

MERGED_BYTES = (16 * 2**20, 2**30)
"""Least and most that a task reads whose result is merged: making, sending and adding up tables of
counts takes as long as counting 16 MB, so such tasks are as large as keeps every thread busy."""

BLOCK_BYTES = 256 * 2**20
"""A shard larger than this is read a few runs at a time, at least one."""

LEAST_TASKS = 8
"""As many tasks as there may be, so that a small store too keeps a few workers busy."""

TASKS_A_THREAD = 4
"""Of those whose results are merged, so that none waits long for the last one."""

_UNKNOWN_THREADS = 64  # while no worker has come: many tasks cost less than idle workers

FAN_IN = 8
"""Results merged at once."""


def shard_tasks(
    ds: xr.Dataset,
    variables: Sequence[str],
    task: Callable[..., T],
    *,
    per_run: Mapping[str, npt.NDArray[Any]] | None = None,
    task_bytes: int = TASK_BYTES,
    merged: bool = False,
    stepwise: bool = False,
    large: bool | None = None,
    **options: Any,
) -> list[Graph]:
    """Delayed calls ``task(blocks, **options)``, one for each shard or group of small shards.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them.
    variables : sequence of str
        Recorded variables that a task reads, all with a leading run dimension.
    task : callable
        Pure function of an iterator over blocks: dicts of arrays with a leading run dimension,
        in the order of the runs, read one shard at a time.
    per_run : mapping of str to numpy.ndarray, shape (run, ...), optional
        Arrays in memory that are cut like the runs and given with each block.
    task_bytes : int, optional
        Size up to which neighbouring shards share a task.
    merged : bool, optional
        Whether results are tables that will be merged: tasks then have the size that suits the
        threads at hand, within `MERGED_BYTES`.
    stepwise : bool, optional
        Whether the task takes `Stepped` arrays, of one run a call, where a run is larger than
        `LARGE_RUN_BYTES`.
    large : bool, optional
        Whether it is, where more than these variables decides.
    **options
        Passed to every call.

    Raises
    ------
    InputError
        When a variable is missing or there are no runs.
    """
    dask = untyped_dask()
    missing = [name for name in variables if name not in ds.data_vars]
    if missing:
        raise InputError(
            f"the runs hold no {', '.join(missing)}; found {', '.join(map(str, ds.data_vars))}"
        )
    runs = ds.sizes.get("run", 0)
    if not runs:
        raise InputError("no complete runs; record some first, or choose other statuses")
    arrays = {name: _whole_runs(ds[name], task_bytes) for name in variables}
    chunks = next(iter(arrays.values())).chunks[0]
    bounds = np.concatenate([[0], np.cumsum(chunks)])
    run_bytes = sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in arrays.values())
    call = dask.delayed(call_work, pure=False, traverse=False)
    tasks = []
    run_bytes = max(1, run_bytes)
    if stepwise and (is_large(ds, variables) if large is None else large):
        # step by step from the store; what lies in memory, here or on a cluster, is there anyway
        whole = {name: _ordered(ds[name]) for name in variables}
        if all(array.chunks is not None for array in whole.values()) and not held_by_cluster(whole):
            for run in range(runs):
                only = slice(run, run + 1)
                one = {name: array[only].data for name, array in whole.items()}
                beside = {name: values[only] for name, values in (per_run or {}).items()}
                tasks.append(call(Work(task, SteppedReading(one), beside, options), []))
            return tasks
    few = max(1, BLOCK_BYTES // run_bytes)
    if max(chunks) > few:
        # A graph of its own for each piece: then its runs alone are read, and not the shard.
        for left, right in itertools.pairwise(bounds.tolist()):
            for start in range(left, right, few):
                piece = slice(start, min(start + few, right))
                shards = Shards({name: a[piece].rechunk({0: -1}) for name, a in arrays.items()})
                beside = {name: values[piece] for name, values in (per_run or {}).items()}
                reading = shards.read(range(1))
                work = Work(task, reading, beside, options)
                tasks.append(call(work, [shards.common[key] for key in reading.outside()]))
        return tasks
    shards = Shards({name: array.rechunk({0: chunks}) for name, array in arrays.items()})
    if merged:
        most = merged_task_bytes(runs * run_bytes, _threads()) // run_bytes
    else:
        most = min(task_bytes // run_bytes, -(-runs // LEAST_TASKS))
    for first, last in _group(bounds, max(1, most)):
        reading = shards.read(range(first, last))
        runs_of = slice(bounds[first], bounds[last])
        beside = {name: values[runs_of] for name, values in (per_run or {}).items()}
        work = Work(task, reading, beside, options)
        tasks.append(call(work, [shards.common[key] for key in reading.outside()]))
    return tasks


def merged_task_bytes(total: int, threads: int) -> int:
    """Bytes that a task reads whose result is merged: several tasks a thread, none too small.

    Parameters
    ----------
    total : int
        Bytes of all runs.
    threads : int
        At work on them.
    """
    least, most = MERGED_BYTES
    tasks = max(LEAST_TASKS, TASKS_A_THREAD * threads)
    return min(most, max(least, -(-total // tasks)))


def tree_merge(parts: Sequence[Graph], merge: Callable[[Sequence[T]], T]) -> Graph:
    """Merge delayed results in a tree, so that no task ever holds more than a few of them.

    Parameters
    ----------
    parts : sequence of dask.delayed.Delayed
        At least one.
    merge : callable
        Pure and associative.
    """
    dask = untyped_dask()
    level, merged = list(parts), dask.delayed(merge, pure=False)
    while len(level) > 1:
        level = [merged(level[at : at + FAN_IN]) for at in range(0, len(level), FAN_IN)]
    return level[0]


def concatenate(
    tasks: Sequence[Graph], *, progress: bool = False, label: str = ""
) -> npt.NDArray[Any]:
    """Rows by run of every task, in order; they lie in memory once, not twice.

    Parameters
    ----------
    tasks : sequence of dask.delayed.Delayed
        Each gives an array with a leading run dimension.
    progress, label
        As in `compute`.

    Returns
    -------
    numpy.ndarray, shape (run, ...)
    """
    parts = compute(tasks, progress=progress, label=label)
    first = parts[0]
    whole = np.empty((sum(map(len, parts)), *first.shape[1:]), first.dtype)
    at = 0
    while parts:
        part = parts.pop(0)
        whole[at : at + len(part)] = part
        at += len(part)
    return whole


def compute(graph: Any, *, progress: bool = False, label: str = "") -> Any:
    """Run a graph on the active `distributed.Client`, or else on threads.

    Interrupting (Ctrl-C, or the stop button of a notebook) cancels what has not started; nothing
    is left behind, because tasks write nothing.

    Parameters
    ----------
    graph : Delayed or a collection of them
        What to compute.
    progress : bool, optional
        Show a progress bar on standard error.
    label : str, optional
        What the bar is called; said once before it.

    Returns
    -------
    Any
        The result.
    """
    dask = untyped_dask()
    if not progress:
        return dask.compute(graph)[0]
    if label:
        print(label, file=sys.stderr)
    client = _active_client()
    if client is not None:
        from distributed import progress as progress_bar

        futures = client.compute(graph)
        try:
            progress_bar(futures, notebook=False)  # type: ignore[no-untyped-call]
            return client.gather(futures)
        finally:
            client.cancel(futures)
    from dask.diagnostics.progress import ProgressBar

    with ProgressBar(out=sys.stderr):  # type: ignore[no-untyped-call]
        return dask.compute(graph)[0]


def _threads() -> int:
    """How many threads there are to work: those of the active client, or of this machine.

    Of a client, those are counted that its cluster has asked for but that have not come yet, as
    where a queue starts them; with none known, as many as make tasks small.
    """
    client = _active_client()
    if client is None or client.asynchronous:
        from dask.system import CPU_COUNT

        return int(CPU_COUNT)
    here = client.nthreads()
    coming = len(getattr(client.cluster, "plan", ())) - len(here)
    each = max(here.values(), default=1)
    return sum(here.values()) + max(0, coming) * each or _UNKNOWN_THREADS


def _active_client() -> Any:
    """The client that dask.compute would use, if distributed is in use at all."""
    if "distributed" not in sys.modules:
        return None
    from distributed import get_client

    try:
        return get_client()
    except ValueError:
        return None


def _whole_runs(array: xr.DataArray, task_bytes: int) -> Any:
    """A Dask array in the order (run, step, ...), chunked along runs only."""
    ordered = _ordered(array)
    if ordered.chunks is None:
        run_bytes = max(1, ordered.dtype.itemsize * ordered[:1].size)
        ordered = ordered.chunk({"run": max(1, task_bytes // run_bytes)})
    return ordered.data.rechunk(dict.fromkeys(range(1, ordered.ndim), -1))


def _ordered(array: xr.DataArray) -> xr.DataArray:
    """Runs first, then steps."""
    leading = [dim for dim in ("run", "step") if dim in array.dims]
    return array.transpose(*leading, ...)


def _group(bounds: npt.NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Ranges of neighbouring chunks that together hold at most so many runs."""
    first = 0
    for index in range(1, len(bounds) - 1):
        if bounds[index + 1] - bounds[first] > most:
            yield first, index
            first = index
    yield first, len(bounds) - 1
