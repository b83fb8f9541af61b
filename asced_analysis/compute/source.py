"""Runs as a stream of batches, whatever they were given as; memory stays flat."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from asced_analysis.compute.shard_graphs import held_by_cluster
from asced_analysis.compute.stepped import Stepped, SteppedFrames, is_large
from asced_analysis.signals.dimensions import with_images
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Batch:
    """Some runs' arrays.

    Attributes
    ----------
    rows : array of int
        Their places along the dataset's run dimension.
    first_step : int
        Step at which the arrays begin.
    arrays : dict of str to array, shape (run, step, channel, y, x) or (run, step, activation)
        For video ``(run * frame, step, channel, y, x)``, runs outermost. Of large runs `Stepped`,
        one run a batch: take ``values[:, k]`` of them.
    frames : int
        Frames a run; 1 for images.
    """

    rows: npt.NDArray[np.intp]
    first_step: int
    arrays: dict[str, npt.NDArray[Any]]
    frames: int


@dataclass(frozen=True)
class Source:
    """A dataset of runs with its noise levels.

    Attributes
    ----------
    dataset : xarray.Dataset
        As `open_runs` gives it.
    alpha, sigma, log_snr : tuple of float
        By step.
    lookahead : callable, optional
        Asks the model, for thresholds that look ahead (see `asced_analysis.correction.lookahead`).
    """

    dataset: xr.Dataset
    alpha: tuple[float, ...]
    sigma: tuple[float, ...]
    log_snr: tuple[float, ...]
    lookahead: Callable[[Any, int], Any] | None = None

    @property
    def runs(self) -> int:
        """Number of runs."""
        return int(self.dataset.sizes["run"])

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.log_snr)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """``(channel, y, x)``, with ``frame`` in front for video."""
        variable = self.dataset["x0"] if "x0" in self.dataset else self.dataset["eps"]
        sizes = dict(zip(variable.dims, variable.shape, strict=True))
        return tuple(int(sizes[d]) for d in ("frame", "channel", "y", "x") if d in sizes)

    @property
    def dtype(self) -> Literal["float16", "float32"]:
        """Precision in which eps and x0 were recorded."""
        variable = self.dataset["x0"] if "x0" in self.dataset else self.dataset["eps"]
        return "float32" if str(variable.dtype) == "float32" else "float16"

    def batches(
        self,
        variables: Iterable[str],
        *,
        steps: tuple[int, int] | None = None,
        only: npt.NDArray[np.bool_] | None = None,
    ) -> Iterator[Batch]:
        """Read shard by shard, the next one while this one is worked on.

        Parameters
        ----------
        variables : iterable of str
        steps : (int, int), optional
            First and last step to read, both included.
        only : array of bool, shape (run,), optional
            Runs wanted; shards without any are not read.
        """
        names = tuple(variables)
        first, last = steps if steps is not None else (0, self.steps - 1)
        wanted = np.ones(self.runs, dtype=bool) if only is None else only
        chunks = self.dataset.chunksizes.get("run", (self.runs,)) if self.runs else ()
        held = held_by_cluster({name: self.dataset[name] for name in names})
        if is_large(self.dataset, names):
            chunks = (1,) * self.runs
        edges = np.concatenate([[0], np.cumsum(chunks)]).astype(int)
        pieces = [
            rows
            for start, stop in itertools.pairwise(edges)
            if (rows := start + np.flatnonzero(wanted[start:stop])).size
        ]
        with ThreadPoolExecutor(1) as reader:
            coming = None
            for rows in pieces:
                ready, coming = (
                    coming,
                    reader.submit(self._read, names, rows, first, last, held=held),
                )
                if ready is not None:
                    yield ready.result()
            if coming is not None:
                yield coming.result()

    def _read(
        self,
        names: tuple[str, ...],
        rows: npt.NDArray[np.intp],
        first: int,
        last: int,
        *,
        held: bool,
    ) -> Batch:
        """One batch; `held` by a cluster."""
        whole = slice(int(rows[0]), int(rows[-1]) + 1)
        inside = rows - rows[0]
        large = is_large(self.dataset, names) and not held
        arrays: dict[str, Any] = {}
        frames = 1
        for name in names:
            part = self.dataset[name].isel(run=whole, step=slice(first, last + 1))
            frames = max(frames, int(part.sizes.get("frame", 1)))
            if large and part.chunks is not None:
                ordered = part.transpose("run", "step", ...).data
                arrays[name] = (SteppedFrames if "frame" in part.dims else Stepped)(ordered)
                continue
            pictures = "channel" in part.dims
            core = ("channel", "y", "x") if pictures else ("activation",)
            part = part.transpose("run", ..., "step", *core)
            # what a cluster holds is taken from it; all else is read in this thread
            scheduler = None if held else "synchronous"
            values = np.asarray(
                part.data.compute(scheduler=scheduler) if part.chunks is not None else part.data
            )
            if inside.size < values.shape[0]:
                values = values[inside]
            arrays[name] = values.reshape(-1, *values.shape[-4:]) if pictures else values
        return Batch(rows, first, arrays, frames)


def open_source(runs: Any) -> Source:
    """Take a path, a `TrajectoryStore`, a dataset or a source.

    Raises
    ------
    InputError
        Where the runs hold neither eps nor x0, or none is complete.
    """
    if isinstance(runs, Source):
        return runs
    import xarray as xr

    if not isinstance(runs, xr.Dataset):
        from asced_stores import open_runs

        path = runs if isinstance(runs, (str, PathLike)) else runs.path
        runs = open_runs(path)
    if not {"eps", "x0"} & set(runs.data_vars):
        raise InputError(
            "these runs hold neither eps nor x0 by step; record them with asced record"
        )
    runs = with_images(runs)
    if runs.sizes["run"] == 0:
        raise InputError("the store holds no complete run; record some first")
    alpha, sigma, log_snr = (
        tuple(float(value) for value in runs[name].values) for name in ("alpha", "sigma", "log_snr")
    )
    return Source(runs, alpha, sigma, log_snr)
