"""Runs too large to hold: arrays of which a task reads one step after another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

LARGE_RUN_BYTES = 64 * 2**20
"""A run larger than this is read step by step, where a task can."""

STEPS_HELD = 3
"""Of a run that is read so, at most so many steps' bytes lie in memory (`bench_step_memory`)."""

PROGRAM_BYTES, THREAD_BYTES = 300e6, 64e6
"""What the imports take, and what a thread keeps: tables of counts, memory to read into."""


class Stepped:
    """An array of runs, or of one run, that is read where it is indexed, step by step.

    ``array[:, k]`` of runs and ``array[k]`` of a run give arrays in memory; iterating over runs, or
    taking one or some of them, reads nothing. (Not a Dask array: Dask would compute it before a
    task begins.)

    Parameters
    ----------
    array : dask.array.Array, shape (run, step, ...)
    single : bool
        Whether its one run is meant, without the dimension.
    """

    def __init__(self, array: Any, *, single: bool = False) -> None:
        self.array, self.single = array, single
        self.shape = array.shape[1:] if single else array.shape
        self.dtype, self.ndim = array.dtype, len(self.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Any]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        if self.single:
            return _read(self.array[:, key])[0]
        if isinstance(key, tuple):
            return _read(self.array[key])
        if isinstance(key, slice):
            return Stepped(self.array[key])
        return Stepped(self.array[key : key + 1], single=True)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        values = _read(self.array)[0] if self.single else _read(self.array)
        return values if dtype is None else values.astype(dtype)


def _read(array: Any) -> npt.NDArray[Any]:
    """A selection of a Dask array, in memory; not to be written to.

    What Dask's ``compute`` gives of one chunk is a copy: twice the memory.
    """
    if array.npartitions > 1:
        return np.asarray(array.compute(scheduler="synchronous"))
    import dask

    untyped: Any = dask
    (chosen,) = untyped.optimize(array)  # of its graph, what it needs
    key = (chosen.name, *(0,) * chosen.ndim)
    return np.asarray(untyped.get(dict(chosen.__dask_graph__()), key))


class SteppedReading:
    """Hands a task some runs as `Stepped` arrays (see `shard_graphs.Reading`)."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays = arrays

    def outside(self) -> list[Any]:
        """Nothing is handed in from outside."""
        return []

    def __call__(self, common: Mapping[Any, Any]) -> Iterator[dict[str, Any]]:
        """The runs, one block."""
        yield {name: Stepped(array) for name, array in self.arrays.items()}


class SteppedFrames(Stepped):
    """The same of video, of which every frame is a row of its own, runs outermost.

    Parameters
    ----------
    array : dask.array.Array, shape (run, step, frame, ...)
    """

    def __init__(self, array: Any) -> None:
        super().__init__(array)
        runs, steps, frames, *rest = array.shape
        self.shape, self.ndim = (runs * frames, steps, *rest), array.ndim - 1

    def __getitem__(self, key: Any) -> Any:
        values = _read(self.array[key])
        return values.reshape(-1, *values.shape[2:])


def run_bytes(ds: Any, variables: Iterable[str]) -> int:
    """Bytes of what is read of one run."""
    sizes = [(ds[name].dtype.itemsize, *ds[name].sizes.items()) for name in variables]
    return sum(
        itemsize * math.prod(size for dim, size in dims if dim != "run")
        for itemsize, *dims in sizes
    )


def is_large(ds: Any, variables: Iterable[str]) -> bool:
    """Whether runs are read step by step.

    Parameters
    ----------
    ds, variables
        As in `run_bytes`.
    """
    return run_bytes(ds, variables) > LARGE_RUN_BYTES


def memory_note(ds: Any, variables: list[str], *, held: int = STEPS_HELD) -> str:
    """What large runs will take, to be said before the work; nothing where runs are small.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them.
    variables : list of str
        What is read.
    held : int
        Steps of a run, as they are stored, that lie in memory at once.
    """
    if not (need := memory_need(ds, variables, held=held)):
        return ""
    total = run_bytes(ds, variables)
    return f" of {total / 1e6:,.0f} MB each, step by step in about {need / 1e6:,.0f} MB of memory"


def memory_need(ds: Any, variables: list[str], *, held: int = STEPS_HELD) -> float:
    """Bytes that `memory_note` speaks of; 0 where runs are small."""
    if not is_large(ds, variables):
        return 0.0
    from dask.system import CPU_COUNT

    step = run_bytes(ds, variables) / max(1, ds.sizes.get("step", 1))
    need: float = PROGRAM_BYTES + CPU_COUNT * (held * step + THREAD_BYTES)
    return need
