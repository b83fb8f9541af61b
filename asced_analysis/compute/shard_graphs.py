"""What a task reads: small Dask graphs of a few shards each, cut from those of whole arrays.

Reading inside the task that counts, and not in a task before it, keeps one shard in memory at a
time, and no shard ever travels from one worker to another.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from asced_analysis.compute.stepped import SteppedReading

Blocks: TypeAlias = Iterator[dict[str, npt.NDArray[Any]]]
"""Arrays of one shard after another."""


class Reading:
    """How to read some shards inside a task, one after another: a small graph of its own.

    (Not a dataclass: Dask looks into those and would take the graph for its own.)
    """

    def __init__(
        self,
        tasks: Mapping[int, Mapping[Any, Any]],
        arrays: Mapping[str, tuple[str, int]],
        common: Mapping[int, Sequence[Any]],
    ) -> None:
        self.tasks, self.arrays, self.common = tasks, arrays, common

    def outside(self) -> list[Any]:
        """What is handed in from outside, each once."""
        return list(dict.fromkeys(key for own in self.common.values() for key in own))

    def __call__(self, common: Mapping[Any, Any]) -> Blocks:
        """Arrays of each shard."""
        for shard in self.tasks:
            yield self._block(shard, common)

    def _block(self, shard: int, common: Mapping[Any, Any]) -> dict[str, npt.NDArray[Any]]:
        """Arrays of a shard; whatever else was computed on the way goes with this call."""
        keys = [_chunk(array, shard, ndim) for array, ndim in self.arrays.values()]
        known = {key: common[key] for key in self.common[shard]}
        if all(key in known for key in keys):
            values = [known[key] for key in keys]
        else:
            values = untyped_dask().get({**self.tasks[shard], **known}, keys)
        return {name: np.asarray(v) for name, v in zip(self.arrays, values, strict=True)}


def _chunk(array: str, index: int, ndim: int) -> tuple[Any, ...]:
    """Key of a chunk of whole runs."""
    return (array, index, *([0] * (ndim - 1)))


class Shards:
    """Cuts the graphs of chunked arrays into small graphs of a few chunks.

    What has no dependencies and is shared by chunks (the description of an opened array) stays a
    task of its own, so that a cluster sends it once to a worker; so does what a cluster holds
    already, as after ``persist()``.
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        from dask.optimization import cull

        names = list(arrays)
        held_by_cluster = _futures(list(arrays.values()))
        # of what a cluster holds, Dask's own optimization leaves an empty graph
        chosen = (
            list(arrays.values())
            if held_by_cluster
            else untyped_dask().optimize(*(arrays[name] for name in names))
        )
        self._arrays = {
            name: (array.name, array.ndim) for name, array in zip(names, chosen, strict=True)
        }
        whole: dict[Any, Any] = {}
        for array in chosen:
            whole.update(dict(array.__dask_graph__()))
        ends = [
            _chunk(array.name, shard, array.ndim)
            for array in chosen
            for shard in range(len(array.chunks[0]))
        ]
        self._graph, self._needs = cull(whole, ends)  # type: ignore[no-untyped-call]
        users = Counter(key for needs in self._needs.values() for key in needs)
        self._shared: dict[Any, Any] = {
            key: held_by_cluster.get(key) or _delayed(key, self._graph[key])
            for key, needs in self._needs.items()
            if key in held_by_cluster or (not needs and users[key] > 1)
        }
        self.common: dict[Any, Any] = {}

    def read(self, shards: range) -> Reading:
        """How to read some chunks of every array."""
        tasks: dict[int, dict[Any, Any]] = {}
        common: dict[int, list[Any]] = {}
        for shard in shards:
            own, beside = tasks.setdefault(shard, {}), common.setdefault(shard, [])
            waiting = [_chunk(array, shard, ndim) for array, ndim in self._arrays.values()]
            while waiting:
                key = waiting.pop()
                if key in own or key in beside:
                    continue
                if key in self._shared:
                    self.common[key] = self._shared[key]
                    beside.append(key)
                else:
                    own[key] = self._graph[key]
                    waiting.extend(self._needs[key])
        return Reading(tasks, self._arrays, common)


def held_by_cluster(arrays: Mapping[str, Any]) -> bool:
    """Whether a cluster holds some of these DataArrays already."""
    return bool(_futures([one.data for one in arrays.values() if one.chunks is not None]))


def _futures(arrays: Sequence[Any]) -> dict[Any, Any]:
    """What a cluster holds of some arrays already, by key."""
    if "distributed" not in sys.modules:
        return {}
    from distributed import client

    return {future.key: future for future in client.futures_of(arrays)}  # type: ignore[no-untyped-call]


def _delayed(key: Any, node: Any) -> Any:
    """One node of a graph as a Delayed."""
    from dask.delayed import Delayed

    return Delayed(key, {key: node})  # type: ignore[no-untyped-call]


class Work:
    """A task over shards that it reads one at a time.

    (Not a list and no dataclass: Dask looks into every item of those, half of the time that it
    took to build the graph.)
    """

    def __init__(
        self,
        task: Callable[..., Any],
        reading: Reading | SteppedReading,
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


def call_work(work: Work, values: Sequence[Any]) -> Any:
    """Work with what other tasks, or the cluster, hand in."""
    return work(dict(zip(work.reading.outside(), values, strict=True)))


def untyped_dask() -> Any:
    """Dask, imported when it is used; its own types are incomplete."""
    import dask

    return dask
