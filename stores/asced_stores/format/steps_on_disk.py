"""Arrays of runs too large for memory: steps go to a file as they come, then into a shard."""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def scratch_folder() -> str:
    """Where such files lie: ``TMPDIR``, or else ``/var/tmp``, since ``/tmp`` may be memory."""
    if "TMPDIR" not in os.environ and os.access("/var/tmp", os.W_OK):
        return "/var/tmp"
    return tempfile.gettempdir()


class StepsOnDisk:
    """An array (run, step, ...) in a file without a name, which goes when the process does.

    It is written step by step, and read where it is indexed.

    Parameters
    ----------
    shape : tuple of int
        Runs, steps, then the sample's own.
    dtype : str
    """

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)
        self._step = math.prod(shape[2:]) * self.dtype.itemsize
        self._file = tempfile.TemporaryFile(dir=scratch_folder())  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Of the whole array."""
        return self.shape[0] * self.shape[1] * self._step

    def put(self, step: int, values: NDArray[Any]) -> None:
        """Write a step of every run.

        Parameters
        ----------
        step : int
        values : ndarray, shape (run, ...)
            Of this dtype, C-contiguous.
        """
        for run, value in enumerate(values):
            self._write(run, step, value)

    def _write(self, run: int, step: int, value: NDArray[Any]) -> None:
        """A step of one run."""
        place, data = self._place(run, step), value.data.cast("B")
        try:
            while data:
                done = os.pwrite(self._file.fileno(), data, place)
                place, data = place + done, data[done:]
        except OSError as error:
            error.add_note(
                f"runs of this size go through a file of {self.nbytes / 1e6:,.0f} MB in "
                f"{scratch_folder()}; set TMPDIR to a folder that has room for it"
            )
            raise

    def blocks(self) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Run, step and values, one step of one run at a time."""
        for run in range(self.shape[0]):
            for step in range(self.shape[1]):
                yield run, step, self.read(run, slice(step, step + 1))[0]

    def read(self, run: int, steps: slice) -> NDArray[Any]:
        """Neighbouring steps of a run."""
        values = np.empty((steps.stop - steps.start, *self.shape[2:]), self.dtype)
        rest, place = values.data.cast("B"), self._place(run, steps.start)
        while rest:
            done = os.preadv(self._file.fileno(), [rest], place)
            if not done:
                rest[:] = bytes(len(rest))  # a step that was never written
                break
            rest, place = rest[done:], place + done
        return values

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        """Neighbouring runs and steps of them, as Dask asks for its chunks."""
        runs, steps, *rest = key
        wanted = slice(*steps.indices(self.shape[1])[:2])
        found = np.stack([self.read(run, wanted) for run in range(*runs.indices(len(self)))])
        return found[(slice(None), slice(None), *rest)]

    def add(self, other: StepsOnDisk, runs: Iterable[int]) -> None:
        """Append some runs of another such array.

        Parameters
        ----------
        other : StepsOnDisk
            With the same steps of the same shape.
        runs : iterable of int
        """
        for run in runs:
            place, self.shape = self.shape[0], (self.shape[0] + 1, *self.shape[1:])
            for step in range(self.shape[1]):
                self._write(place, step, other.read(run, slice(step, step + 1)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole = np.stack([self.read(run, slice(0, self.shape[1])) for run in range(len(self))])
        return whole if dtype is None else whole.astype(dtype)

    def _place(self, run: int, step: int) -> int:
        return (run * self.shape[1] + step) * self._step
