"""What a task reads: small Dask graphs of a few shards each, cut from those of whole arrays.

Reading inside the task that counts, and not in a task before it, keeps one shard in memory at a
time, and no shard ever travels from one worker to another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Blocks: TypeAlias = Iterator[dict[str, npt.NDArray[Any]]]
"""Arrays of one shard after another."""


class Reading:
    """How to read some shards inside a task, one after another: a small graph of its own.

    (Not a dataclass: Dask looks into those and would take the graph for its own.)
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


class Shards:
    """Cuts the graphs of chunked arrays into small graphs of a few chunks.

    Data nodes (the description of an opened array) are shared by all chunks; they become
    dependencies of their own, so that a cluster sends them once to a worker.
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        from dask.utils import ensure_dict

        names = list(arrays)
        optimized = untyped_dask().optimize(*(arrays[name] for name in names))
        self._arrays = {
            name: (array.name, array.ndim) for name, array in zip(names, optimized, strict=True)
        }
        self._graph: dict[Any, Any] = {}
        for array in optimized:
            self._graph.update(ensure_dict(array.__dask_graph__()))
        self.common: dict[Any, Any] = {}

    def read(self, shards: range) -> Reading:
        """How to read some chunks of every array."""
        from dask._task_spec import DataNode

        dask = untyped_dask()
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
                    self.common[key] = dask.delayed(node.value, pure=False, traverse=False)
                common.add(key)
            else:
                tasks[key] = node
                waiting.extend(node.dependencies)
        return Reading(tasks, self._arrays, shards, frozenset(common))


class Work:
    """A task over shards that it reads one at a time.

    (Not a list and no dataclass: Dask looks into every item of those, half of the time that it
    took to build the graph.)
    """

    def __init__(
        self,
        task: Callable[..., Any],
        reading: Reading,
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


def call_work(work: Work, common_keys: Sequence[Any], common_values: Sequence[Any]) -> Any:
    """Work with the data nodes that all tasks share."""
    return work(dict(zip(common_keys, common_values, strict=True)))


def untyped_dask() -> Any:
    """Dask, imported when it is used; its own types are incomplete."""
    import dask

    return dask
