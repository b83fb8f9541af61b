"""Apply thresholds to recorded runs, lazily, one task a shard."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asced_analysis.compute.shard_graphs import held_by_cluster
from asced_analysis.compute.source import open_source
from asced_analysis.compute.stepped import Stepped, SteppedFrames, is_large
from asced_analysis.detection.scoring import (
    detect_rows,
    detector_for,
    failed_flagged,
    with_lookahead,
)
from asced_analysis.detection.streaming import Detector, DetectorState
from asced_analysis.signals.dimensions import with_images

if TYPE_CHECKING:
    import xarray as xr

    from asced_analysis.thresholds.document import Thresholds


def detect(
    runs: xr.Dataset,
    thresholds: Thresholds,
    *,
    override: bool = False,
    pipeline: Any = None,
    network: Any = None,
) -> xr.Dataset:
    """Mask, score and flag of every run.

    Parameters
    ----------
    runs : xarray.Dataset
        As `asced_analysis.open_runs` gives it.
    thresholds : Thresholds
    override : bool
        Use thresholds that were calibrated on something else.
    pipeline : DiffusionPipeline, str or Path, optional
        For thresholds with a lookahead; by default the one that the store names.
    network : callable, optional
        ``network(sample, alpha, sigma)`` to predicted x0, asked instead of a pipeline.

    Returns
    -------
    xarray.Dataset
        ``mask`` (run, [frame,] y, x) bool, ``score`` (run) float64, ``flagged`` (run) bool; lazy
        where `runs` is. A video is flagged where any of its frames is. A run with numbers that
        are not finite in the window scores infinity and is flagged.

    Raises
    ------
    FingerprintMismatchError
        Where the thresholds were calibrated on something else.
    """
    import xarray as xr

    runs = with_images(runs)
    detector = bind(runs, thresholds, override=override, pipeline=pipeline, network=network)
    window = slice(detector.first_step, detector.last_step + 1)
    names = detector.needs()
    inputs = [runs[name].isel(step=window) for name in names]
    levels = levels_of(runs, thresholds, override=override)
    if levels is not None:
        inputs.append(xr.DataArray(levels, dims="run"))
    frame = ["frame"] if "frame" in inputs[0].dims else []
    core = ["step", *frame, "channel", "y", "x"]
    work = partial(_detect_block, detector=detector, names=names)
    held = held_by_cluster({name: runs[name] for name in names})  # steps of it are not read apart
    if is_large(runs, names) and inputs[0].chunks is not None and not held:
        mask, score, flagged = _run_by_run(work, inputs, ("run", *frame, "y", "x"))
    else:
        mask, score, flagged = xr.apply_ufunc(
            work,
            *inputs,
            input_core_dims=[
                [dim for dim in (*core, "activation") if dim in one.dims] for one in inputs
            ],
            output_core_dims=[[*frame, "y", "x"], [], []],
            dask="parallelized",
            dask_gufunc_kwargs={"allow_rechunk": True},  # large batches are cut along the steps
            output_dtypes=[bool, np.float64, bool],
        )
    found = xr.Dataset({"mask": mask, "score": score, "flagged": flagged})
    found.attrs["level"] = detector.level
    return found


def _run_by_run(
    work: Any, inputs: list[xr.DataArray], dims: tuple[str, ...]
) -> tuple[xr.DataArray, ...]:
    """Mask, score and flag of each run, lazily; steps are read one after another."""
    import dask.array as lazy
    import xarray as xr

    from asced_analysis.compute.shard_graphs import untyped_dask

    delayed: Any = untyped_dask().delayed
    from_delayed: Any = lazy.from_delayed
    join: Any = lazy.concatenate
    first = inputs[0]
    sizes = dict(zip(first.dims, first.shape, strict=True))
    found: list[list[Any]] = [[], [], []]
    for run in range(sizes["run"]):
        each = [one.isel(run=slice(run, run + 1)) for one in inputs]
        given = [
            Stepped(one.transpose("run", "step", ...).data) if one.ndim > 1 else one.values
            for one in each
        ]
        parts = delayed(work, nout=3, pure=False)(*given)
        shapes = [(1, *(sizes[dim] for dim in dims[1:])), (1,), (1,)]
        for list_, part, shape, dtype in zip(
            found, parts, shapes, (bool, float, bool), strict=True
        ):
            list_.append(from_delayed(part, shape, dtype))
    coordinates = {name: one for name, one in first.coords.items() if one.dims == ("run",)}
    return tuple(xr.DataArray(join(parts), coordinates, dims[: parts[0].ndim]) for parts in found)


def bind(
    runs: xr.Dataset,
    thresholds: Thresholds,
    *,
    override: bool = False,
    pipeline: Any = None,
    network: Any = None,
) -> Detector:
    """The detector of these runs' sampler, if the thresholds belong to it.

    Parameters
    ----------
    runs, thresholds, override, pipeline, network
        As in `detect`.

    Raises
    ------
    FingerprintMismatchError
        Where the thresholds were calibrated on something else.
    """
    from asced_analysis.thresholds.document import fingerprint_of

    source = open_source(runs)
    level = thresholds.levels.level
    if not override:
        here = fingerprint_of(runs.attrs, source.sample_shape, steps=source.steps)
        thresholds.check_fingerprint(here)
        level = thresholds.level_for(here["scheduler_class"], here["steps"])
    source = with_lookahead(source, thresholds, pipeline, network)
    detector = detector_for(source, thresholds, level=level)
    detector.start((1, *source.sample_shape[-3:]))  # another size is refused before runs are read
    return detector


def levels_of(
    runs: xr.Dataset, thresholds: Thresholds, *, override: bool = False
) -> npt.NDArray[np.float64] | None:
    """Level of each run by its group; None where one level is for all.

    Parameters
    ----------
    runs, thresholds, override
        As in `detect`.

    Raises
    ------
    InputError
        Where the runs do not say which group they are of.
    """
    if not thresholds.groups:
        return None
    by = str(thresholds.grouped_by)
    known = by in runs.coords and runs[by].dims == ("run",)
    groups = runs[by].values if known else None
    if override:
        return thresholds.levels_for(groups)
    return thresholds.levels_for(groups, runs.attrs.get("scheduler_class"), int(runs.sizes["step"]))


def own_levels_above(runs: xr.Dataset, thresholds: Thresholds) -> npt.NDArray[np.float64]:
    """By how much the level of each run's group lies above the common one: 0 without groups.

    Less this, the scores of all runs are told apart by the common level.

    Parameters
    ----------
    runs : xarray.Dataset
        With the coordinate that tells the groups apart.
    thresholds : Thresholds
    """
    levels = levels_of(runs, thresholds, override=True)
    if levels is None:
        return np.zeros(runs.sizes["run"])
    return levels - thresholds.levels.level


def watch(detector: Detector, inputs: dict[str, npt.NDArray[Any]]) -> DetectorState:
    """Feed the window's steps of some runs to a detector.

    Parameters
    ----------
    detector : Detector
    inputs : dict of str to array, shape (run, step, [frame,] channel, y, x)
        What the detector needs, from its first step to its last; a video's frames are runs.

    Returns
    -------
    DetectorState
        From which masks at any level follow without reading again.
    """
    first = next(iter(inputs.values()))
    rows = first.shape[0] * math.prod(first.shape[2:-3])
    state = detector.start((rows, *first.shape[-3:]))
    for offset in range(first.shape[1]):
        given = {n: _as_rows(array[:, offset], first.ndim - 1) for n, array in inputs.items()}
        state = detector.update(state, detector.first_step + offset, **given)
    return state


def _as_rows(values: npt.NDArray[Any], dims: int) -> npt.NDArray[Any]:
    """One step of some runs with the frames of a video as rows; activations as they are."""
    return values.reshape(-1, *values.shape[-3:]) if values.ndim == dims else values


def _by_frame(runs: Stepped) -> Stepped:
    """Every frame as a row, shape (row, step, channel, y, x)."""
    return SteppedFrames(runs.array) if runs.ndim == 6 else runs


def _detect_block(
    *arrays: npt.NDArray[Any], detector: Detector, names: tuple[str, ...]
) -> tuple[npt.NDArray[Any], ...]:
    """Detect in one block of runs, shape (run, step, [frame,] channel, y, x), with levels (run)."""
    first = arrays[0]
    levels = arrays[len(names)] if len(arrays) > len(names) else None
    frames = first.shape[2] if first.ndim == 6 else 1
    if levels is not None:
        levels = np.repeat(levels, frames)
    inputs = dict(zip(names, arrays[: len(names)], strict=True))
    if isinstance(first, Stepped) and len({one.ndim for one in inputs.values()}) == 1:
        found = detect_rows(detector, {n: _by_frame(one) for n, one in inputs.items()}, levels)
    else:
        found = failed_flagged(detector.result(watch(detector, inputs), levels))
    mask: npt.NDArray[Any] = np.asarray(found.mask)
    score: npt.NDArray[Any] = np.asarray(found.score)
    flagged: npt.NDArray[Any] = np.asarray(found.flagged)
    if first.ndim == 6:
        mask = mask.reshape(-1, frames, *mask.shape[1:])
        score = score.reshape(-1, frames).max(axis=1)
        flagged = np.asarray(flagged.reshape(-1, frames).any(axis=1))
    return mask, score.astype(np.float64), flagged
