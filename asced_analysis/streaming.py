"""One task a shard, results merged in a tree: how everything here scales beyond memory.

The graph is built from the chunks of a lazily opened Dataset and runs on threads by default, or
unchanged on any `distributed.Client`. Tasks are pure: a shard whose worker is lost is counted
again from the store, and its first result is dropped with the worker, so nothing counts twice.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_stores.errors import InputError

T = TypeVar("T")
Blocks: TypeAlias = Iterator[dict[str, npt.NDArray[Any]]]
Graph: TypeAlias = Any
"""A dask.delayed.Delayed."""

TASK_BYTES = 64 * 2**20
"""Small shards share a task up to this size: 50 runs of 32x32 pixels are only 2.5 MB.

A task reads them one at a time, so this costs no memory; it saves merging.
"""

MERGED_BYTES = (16 * 2**20, 2**30)
"""Least and most that a task reads whose result is merged: making, sending and adding up tables of
counts takes as long as counting 16 MB, so such tasks are as large as keeps every thread busy."""

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
    **options
        Passed to every call.

    Returns
    -------
    list of dask.delayed.Delayed

    Raises
    ------
    InputError
        When a variable is missing or there are no runs.
    """
    dask = _dask()
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
    shards = _Shards({name: array.rechunk({0: chunks}) for name, array in arrays.items()})
    bounds = np.concatenate([[0], np.cumsum(chunks)])
    run_bytes = sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in arrays.values())
    call = dask.delayed(_call, pure=False, traverse=False)
    tasks = []
    run_bytes = max(1, run_bytes)
    if merged:
        most = merged_task_bytes(runs * run_bytes, _threads()) // run_bytes
    else:
        most = min(task_bytes // run_bytes, -(-runs // LEAST_TASKS))
    for first, last in _group(bounds, max(1, most)):
        reading = shards.read(range(first, last))
        runs_of = slice(bounds[first], bounds[last])
        beside = {name: values[runs_of] for name, values in (per_run or {}).items()}
        common = {key: shards.common[key] for key in reading.common}
        work = _Work(task, reading, beside, options)
        tasks.append(call(work, list(common), list(common.values())))
    return tasks


def merged_task_bytes(total: int, threads: int) -> int:
    """Bytes that a task reads whose result is merged: several tasks a thread, none too small.

    Parameters
    ----------
    total : int
        Bytes of all runs.
    threads : int
        At work on them.

    Returns
    -------
    int
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

    Returns
    -------
    dask.delayed.Delayed
    """
    dask = _dask()
    level, join = list(parts), dask.delayed(merge, pure=False)
    while len(level) > 1:
        level = [join(level[at : at + FAN_IN]) for at in range(0, len(level), FAN_IN)]
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
    dask = _dask()
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


def _dask() -> Any:
    """Dask, imported when it is used; its own types are incomplete."""
    import dask

    return dask


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


class _Reading:
    """How to read some shards inside a task, one after another: a small graph of its own.

    Reading inside the task that counts, and not in a task before it, keeps one shard in memory at
    a time, and no shard ever travels from one worker to another. (Not a dataclass: Dask looks into
    those and would take the graph for its own.)
    """

    def __init__(
        self,
        tasks: Mapping[Any, Any],
        arrays: Mapping[str, tuple[str, int]],
        shards: range,
        common: frozenset[Any],
    ) -> None:
        self.tasks, self.arrays, self.shards, self.common = tasks, arrays, shards, common

    def __call__(self, common: Mapping[Any, Any]) -> Blocks:
        """Arrays of each shard."""
        for shard in self.shards:
            yield self._block(shard, common)

    def _block(self, shard: int, common: Mapping[Any, Any]) -> dict[str, npt.NDArray[Any]]:
        """Arrays of a shard; whatever else was computed on the way goes with this call."""
        known = {key: common[key] for key in self.common}
        return {
            name: np.asarray(self._value(_chunk(array, shard, ndim), known))
            for name, (array, ndim) in self.arrays.items()
        }

    def _value(self, key: Any, known: dict[Any, Any]) -> Any:
        """Result of one task; `dask.get` would take 0.3 ms a shard to order a chain of two."""
        if key not in known:
            task = self.tasks[key]
            for other in task.dependencies:
                self._value(other, known)
            known[key] = task(known)
        return known[key]


def _chunk(array: str, index: int, ndim: int) -> tuple[Any, ...]:
    """Key of a chunk of whole runs."""
    return (array, index, *([0] * (ndim - 1)))


class _Shards:
    """Cuts the graphs of chunked arrays into small graphs of a few chunks.

    Data nodes (the description of an opened array) are shared by all chunks; they become
    dependencies of their own, so that a cluster sends them once to a worker.
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        from dask.utils import ensure_dict

        names = list(arrays)
        optimized = _dask().optimize(*(arrays[name] for name in names))
        self._arrays = {
            name: (array.name, array.ndim) for name, array in zip(names, optimized, strict=True)
        }
        self._graph: dict[Any, Any] = {}
        for array in optimized:
            self._graph.update(ensure_dict(array.__dask_graph__()))
        self.common: dict[Any, Any] = {}

    def read(self, shards: range) -> _Reading:
        """How to read some chunks of every array."""
        from dask._task_spec import DataNode

        tasks: dict[Any, Any] = {}
        common: set[Any] = set()
        waiting: list[Any] = [
            _chunk(array, shard, ndim) for shard in shards for array, ndim in self._arrays.values()
        ]
        while waiting:
            key = waiting.pop()
            if key in tasks or key in common:
                continue
            node = self._graph[key]
            if isinstance(node, DataNode):
                if key not in self.common:
                    self.common[key] = _dask().delayed(node.value, pure=False, traverse=False)
                common.add(key)
            else:
                tasks[key] = node
                waiting.extend(node.dependencies)
        return _Reading(tasks, self._arrays, shards, frozenset(common))


class _Work:
    """A task over shards that it reads one at a time.

    (Not a list and no dataclass: Dask looks into every item of those, half of the time that it
    took to build the graph.)
    """

    def __init__(
        self,
        task: Callable[..., Any],
        reading: _Reading,
        beside: Mapping[str, npt.NDArray[Any]],
        options: Mapping[str, Any],
    ) -> None:
        self.task, self.reading, self.beside, self.options = task, reading, beside, options

    def __call__(self, common: Mapping[Any, Any]) -> Any:
        """What the task makes of the shards."""
        return self.task(self._blocks(common), **self.options)

    def _blocks(self, common: Mapping[Any, Any]) -> Blocks:
        """Each shard, with what belongs to its runs."""
        first = 0
        for block in self.reading(common):
            runs = slice(first, first := first + len(next(iter(block.values()))))
            yield block | {name: values[runs] for name, values in self.beside.items()}
            del block  # before the next one is read, into the same memory


def _call(work: _Work, common_keys: Sequence[Any], common_values: Sequence[Any]) -> Any:
    """Work with the data nodes that all tasks share."""
    return work(dict(zip(common_keys, common_values, strict=True)))


def _whole_runs(array: xr.DataArray, task_bytes: int) -> Any:
    """A Dask array in the order (run, step, ...), chunked along runs only."""
    leading = [dim for dim in ("run", "step") if dim in array.dims]
    ordered = array.transpose(*leading, ...)
    if ordered.chunks is None:
        run_bytes = max(1, ordered.dtype.itemsize * ordered[:1].size)
        ordered = ordered.chunk({"run": max(1, task_bytes // run_bytes)})
    return ordered.data.rechunk(dict.fromkeys(range(1, ordered.ndim), -1))


def _group(bounds: npt.NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Ranges of neighbouring chunks that together hold at most so many runs."""
    first = 0
    for index in range(1, len(bounds) - 1):
        if bounds[index + 1] - bounds[first] > most:
            yield first, index
            first = index
    yield first, len(bounds) - 1
