"""What is shown of the runs, read when it is shown and kept while there is room."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.compute.shard_graphs import held_by_cluster
from asced_analysis.viewer import pictures
from asced_stores.errors import InputError

ROOM = 256 * 2**20
"""Bytes of trajectories that are kept."""

WHOLE_RUN = 8 * 2**20
"""A run up to this size is read at once, a larger one by the steps that are shown."""

ANSWER = 2**20
"""Size of the pictures that are sent at once, if a step is not larger."""


class RecentResults:
    """The latest results of slow calls, up to a number of bytes."""

    def __init__(self, room: int) -> None:
        self._room, self._used = room, 0
        self._found: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """A kept result, or a new one with its size."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key][0]
        made, size = make()
        with self._lock:
            if key not in self._found:
                self._found[key] = (made, size)
                self._used += size
            while self._used > self._room and len(self._found) > 1:
                _, (_, freed) = self._found.popitem(last=False)
                self._used -= freed
        return made


class Trajectories:
    """Runs by their position (row) in the dataset.

    Raises
    ------
    InputError
        Where there is no run, or neither eps nor x0 by step.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self.ds = ds
        self.fields = [name for name in ("eps", "x0") if name in ds]
        if "step" not in ds.dims or not self.fields:
            name = Path(str(ds.encoding.get("source", ""))).name or "this dataset"
            raise InputError(
                f"{name} is a replay, which keeps the ends of its runs and no steps: open the runs "
                f"that it was made of, with {name} as their replay"
                if "replay_of" in ds.attrs
                else f"{name} holds neither eps nor x0 by step, so there is nothing to step "
                "through; record runs with `asced record`"
            )
        if not ds.sizes.get("run"):
            raise InputError("the store holds no complete run; record some with `asced record`")
        self.runs = np.asarray(ds["run"].values, np.int64)
        sizes = ds[self.fields[0]].sizes
        self.steps, self.channels = int(sizes["step"]), int(sizes["channel"])
        self.height, self.width = int(sizes["y"]), int(sizes["x"])
        self.frames = int(sizes.get("frame", 1))
        self._kept = RecentResults(ROOM)
        self._small = RecentResults(ROOM // 8)

    @cached_property
    def run_bytes(self) -> int:
        """Size of one run's trajectory."""
        return sum(self.ds[name].nbytes for name in self.fields) // len(self.runs)

    @property
    def latent(self) -> bool:
        """Whether samples are no pictures by themselves."""
        return self.channels not in (1, 3)

    @cached_property
    def steps_at_once(self) -> int:
        """Number of steps whose pictures are sent together."""
        colours = 1 if self.channels == 1 else 3
        step = (2 * colours + 2) * self.height * self.width
        return max(1, min(self.steps, ANSWER // step))

    def part(self, row: int, first: int, stop: int, frame: int = 0) -> xr.Dataset:
        """Some steps of a run in memory, with the step before where there is one.

        Parameters
        ----------
        row : int
            Position of the run.
        first, stop : int
            Steps.
        frame : int

        Returns
        -------
        xarray.Dataset
            One run, dims (run, step, channel, y, x); ``attrs["first"]`` says where it begins.
        """
        begin = max(0, first - 1)
        if self.run_bytes <= WHOLE_RUN:
            whole = self._read(row, 0, self.steps)
            one = whole.isel(step=slice(begin, stop))
        else:
            one = self._read(row, begin, stop)
        if "frame" in one.dims:
            one = one.isel(frame=frame)
        return one.assign_attrs(first=begin)

    def whole(self, row: int, frame: int = 0) -> xr.Dataset:
        """All steps of a run."""
        return self.part(row, 0, self.steps, frame)

    def _read(self, row: int, first: int, stop: int) -> xr.Dataset:
        def make() -> tuple[xr.Dataset, int]:
            part = self.ds[self.fields].isel(run=slice(row, row + 1), step=slice(first, stop))
            # xarray carries every coordinate through every operation: a third of a step's time
            told = [name for name in part.coords if "step" not in part[name].dims]
            where = _scheduler(part, "synchronous")
            loaded = part.drop_vars(told).compute(scheduler=where)
            return loaded, loaded.nbytes

        found: xr.Dataset = self._kept.get((row, first, stop), make)
        return found

    def projection(self, row: int, frame: int = 0) -> pictures.Projection | None:
        """How a latent becomes colours; None where samples are pictures."""
        if not self.latent:
            return None

        def make() -> tuple[pictures.Projection, int]:
            name = "x0" if "x0" in self.fields else "eps"
            last = self.part(row, self.steps - 1, self.steps, frame)[name]
            return pictures.false_colours(last.values[0, -1]), 4096

        found: pictures.Projection = self._small.get(("projection", row, frame), make)
        return found

    def image(self, row: int) -> pictures.Bytes:
        """The picture that a person looks at, uint8, shape (row, column, colour)."""
        return self._images([row])[0]

    def thumbnails(self, rows: list[int], side: int) -> list[pictures.Bytes]:
        """Small pictures of some runs; only those that are not kept are read."""
        small: dict[int, pictures.Bytes] = {}
        missing: list[int] = []
        for row in rows:
            try:
                small[row] = self._small.get(("thumbnail", row, side), _absent)
            except KeyError:
                missing.append(row)
        for row, image in zip(missing, self._images(missing), strict=True):
            made = pictures.thumbnail(image, side)
            small[row] = self._small.get(("thumbnail", row, side), partial(_sized, made))
        return [small[row] for row in rows]

    @staticmethod
    def large(image: pictures.Bytes, side: int) -> pictures.Bytes:
        """A picture at its own size, up to a limit."""
        return pictures.thumbnail(image, side)

    def _images(self, rows: list[int]) -> list[pictures.Bytes]:
        """Recorded pictures, else the final samples as pictures."""
        if "image" in self.ds:
            return self._of_runs(self.ds["image"], rows)
        return [self._pictured(values, values) for values in self._last(rows)]

    @staticmethod
    def _of_runs(array: xr.DataArray, rows: list[int]) -> list[npt.NDArray[Any]]:
        """Some runs of an array, in memory: neighbours together, and none in between."""
        from dask.base import compute

        known = np.unique(rows)
        near = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1)
        turned = array.transpose("run", ...)
        slices = [turned[own[0] : own[-1] + 1].data for own in near if own.size]
        where = _scheduler({"": array}, "threads")
        parts = compute(*slices, scheduler=where)  # type: ignore[no-untyped-call]
        found = dict(zip(known.tolist(), itertools.chain.from_iterable(parts), strict=True))
        return [np.asarray(found[row]) for row in rows]

    def corrected(self, row: int, corrected: xr.Dataset) -> pictures.Bytes | None:
        """The picture of a run's corrected version; of latents in the colours of the run's own."""
        if "image" in corrected:
            return np.asarray(corrected["image"].values)
        if "sample" not in corrected:
            return None
        values = np.asarray(corrected["sample"].values)
        return self._pictured(values[0] if values.ndim == 4 else values, self._last([row])[0])

    def _last(self, rows: list[int]) -> list[npt.NDArray[Any]]:
        """The final samples, or the last predicted x0 (first frame)."""
        if "sample" in self.ds:
            ends = self.ds["sample"]
        else:
            ends = self.ds["x0" if "x0" in self.fields else "eps"].isel(step=-1)
        return self._of_runs(ends.isel(frame=0, missing_dims="ignore"), rows)

    def _pictured(self, values: npt.NDArray[Any], own: npt.NDArray[Any]) -> pictures.Bytes:
        """A sample as a picture; a latent in the false colours of another one."""
        return picture(values, pictures.false_colours(own) if self.latent else None)


def _scheduler(arrays: Mapping[str, Any] | xr.Dataset, usual: str) -> str | None:
    """The usual scheduler of Dask; that of a cluster for what it holds in its memory."""
    return None if held_by_cluster({str(name): one for name, one in arrays.items()}) else usual


def picture(values: npt.NDArray[Any], projection: pictures.Projection | None) -> pictures.Bytes:
    """A sample (channel, y, x) as a uint8 picture (y, x, colour)."""
    reach = 1.0
    if projection is not None:
        values, reach = projection.colours(values), projection.reach
    return pictures.eight_bit(pictures.pixels_of(values), -reach, reach)


def _sized(array: pictures.Bytes) -> tuple[pictures.Bytes, int]:
    return array, array.nbytes


def _absent() -> tuple[Any, int]:
    raise KeyError
