"""Profiling | Mutation | Refinement: where the phases of sampling begin, and how surely.

The activity curve (`asced_analysis.phases.activity`) is split at two change points into
calm, active, calm.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.phases.activity import CUTOFF, Curves, Unit, activity_curves
from asced_analysis.phases.change_points import segment
from asced_analysis.phases.intervals import (
    boundary_tests,
    interval,
    largest_step,
    no_phases_test,
    population_bootstrap,
    step_bootstrap,
)
from asced_analysis.phases.results import Boundary, Phases, Population, activity_array
from asced_analysis.signals import fields
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CUTOFF", "Boundary", "Phases", "Population", "activity_curves", "segment_phases"]

Floats: TypeAlias = npt.NDArray[np.float64]

Axes: TypeAlias = tuple[npt.NDArray[np.int64], Floats, Floats]
"""Step, normalised time and log-SNR of the differences."""

_AXES = ("step", "normalised_time", "log_snr")
_ENDS = ("lower", "upper")
_RUNS_AT_ONCE = 512  # whose replicates lie in memory at once


def segment_phases(
    ds: xr.Dataset,
    *,
    signal: str = "innovation",
    cutoff: float = CUTOFF,
    unit: Unit = "step",
    confidence: float = 0.95,
    replicates: int = 999,
    run_replicates: int = 199,
    seed: int = 0,
    progress: bool = False,
) -> Phases:
    """Boundaries Profiling | Mutation | Refinement of the population and of each run.

    The activity curve is split by least squares along log-SNR: a difference weighs as much as the
    log-SNR that it spans, so that boundaries do not depend on where a sampler spends its steps.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them; read one shard at a time.
    signal : {"innovation", "predicted_x0"}
        What the activity is measured on.
    cutoff : float, optional
        Robust units beyond which a pixel is active.
    unit : {"step", "run"}
        Whether a robust unit is that of the run at the step, or of all the steps of the run.
    confidence : float, optional
        Of the intervals.
    replicates, run_replicates : int, optional
        Bootstrap replicates over runs (and of the test), and over the steps of each run; 0 leaves
        the intervals of the runs out.
    seed : int, optional
        Of the bootstrap.
    progress : bool, optional
        Show a progress bar on standard error.

    Returns
    -------
    Phases

    Raises
    ------
    InputError
        With fewer than four steps, no runs, or a signal that is no difference.

    Examples
    --------
    >>> import asced_analysis as aa
    >>> phases = aa.segment_phases(aa.open_runs("runs.zarr"), replicates=99, run_replicates=0)
    >>> phases.runs, phases.activity.dims
    (48, ('step',))
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} found; expected a number between 0 and 1")
    curves, steps = activity_curves(ds, signal=signal, cutoff=cutoff, unit=unit, progress=progress)
    rng = np.random.default_rng(seed)
    axes = _axes(ds, steps)
    widths = _widths(ds, steps)
    finite: npt.NDArray[np.bool_] = np.all(np.isfinite(curves), axis=1)
    if not finite.any():
        raise InputError("no run has finite innovations; look at its status with `asced info`")
    used = curves if finite.all() else curves[finite]
    mean = used.mean(axis=0, dtype=np.float64)
    tail = (1 - confidence) / 2
    boundaries = [
        _boundary(place, interval(every, tail), axes, p)
        for place, every, p in zip(
            *_places(used, mean, widths, replicates, confidence, rng, seed), strict=True
        )
    ]
    p_value, test = no_phases_test(used, widths, replicates, rng)
    del used
    per_run = _run_frame(ds, curves, widths, run_replicates, tail, rng, axes)
    attributes = {"signal": signal, "unit": unit, "test": test, "failed_runs": int((~finite).sum())}
    attributes |= fields.left_out(ds["step"].values[~np.isfinite(ds["log_snr"].values)])
    attributes |= {
        name: ds.attrs[name]
        for name in ("pipeline", "scheduler_class", "model_fingerprint")
        if name in ds.attrs
    }
    return Phases(
        population=Population(*boundaries),
        per_run=per_run,
        activity=activity_array(mean, *axes),
        p_value=p_value,
        runs=int(finite.sum()),
        cutoff=cutoff,
        confidence=confidence,
        attributes=attributes,
    )


def _places(
    curves: Curves,
    mean: Floats,
    widths: Floats,
    replicates: int,
    confidence: float,
    rng: np.random.Generator,
    seed: int,
) -> tuple[list[float], list[Floats], tuple[float, float]]:
    """Both boundaries as positions, their replicates, and p-values; NaN for what may be chance."""
    drawn = population_bootstrap(curves, widths, replicates, rng)
    split, spread = segment(mean, widths), segment(drawn, widths)
    places, draws = [split.first[0], split.second[0]], [spread.first, spread.second]
    enough = max(replicates, math.ceil(1 / (1 - confidence)))
    own = np.random.default_rng([seed, 1])
    tests = boundary_tests(curves, (places[0], places[1]), widths, enough, own)
    chance = [p > 1 - confidence for p in tests]
    if all(chance):
        places = [np.nan, np.nan]
    elif any(chance):  # only a rise, or only a fall: split in two
        left = chance.index(False)
        direction = (-1, 1)[left]
        places = [np.nan, np.nan]
        places[left] = largest_step(mean[np.newaxis], widths, direction)[0][0]
        draws[left] = largest_step(drawn, widths, direction)[0]
    return places, draws, tests


def _run_frame(
    ds: xr.Dataset,
    curves: Curves,
    widths: Floats,
    replicates: int,
    tail: float,
    rng: np.random.Generator,
    axes: Axes,
) -> pd.DataFrame:
    """Boundaries of each run, with intervals by residual block bootstrap over steps.

    Some runs at a time, so that what lies in memory beside the frame does not grow with them.
    """
    import pandas as pd

    ends = _ENDS if replicates else ()
    columns = {
        _column(name, axis, end): np.full(len(curves), np.nan)
        for name in ("mutation", "refinement")
        for axis in _AXES
        for end in ("", *ends)
    }
    for start in range(0, len(curves), _RUNS_AT_ONCE):
        rows = slice(start, start + _RUNS_AT_ONCE)
        chosen = start + np.flatnonzero(np.isfinite(curves[rows]).all(axis=1))
        if not chosen.size:
            continue
        split = segment(curves[chosen], widths)
        draws = step_bootstrap(curves[chosen], widths, replicates, rng) if replicates else None
        for number, (name, best) in enumerate(
            (("mutation", split.first), ("refinement", split.second))
        ):
            places = {"": best}
            if draws is not None:
                spread = (
                    np.where(np.isnan(best), np.nan, values)
                    for values in interval(draws[number], tail)
                )
                places |= dict(zip(ends, spread, strict=True))
            for axis, values in zip(_AXES, axes, strict=True):
                for end, place in places.items():
                    columns[_column(name, axis, end)][chosen] = _at(values, place)
    return pd.DataFrame(columns, index=pd.Index(ds["run"].values, name="run"), copy=False)


def _column(name: str, axis: str, end: str) -> str:
    """Column of a boundary, or of an end of its interval: ``mutation_lower`` is in steps."""
    stem = name if end and axis == "step" else f"{name}_{axis}"
    return f"{stem}_{end}" if end else stem


def _boundary(best: float, spread: tuple[Any, Any], axes: Axes, p_value: float) -> Boundary:
    """One boundary in steps, normalised time and log-SNR."""
    ends = np.array([float(spread[0]), float(spread[1])])
    ends = (
        np.array([min(ends[0], best), max(ends[1], best)]) if np.isfinite(best) else ends * np.nan
    )

    def both(axis: npt.NDArray[Any]) -> tuple[float, tuple[float, float]]:
        values = _at(axis, np.array([best, *ends]))
        return float(values[0]), (float(values[1]), float(values[2]))

    step, time, snr = axes
    return Boundary(*both(step), *both(time), *both(snr), p_value)


def _at(axis: npt.NDArray[Any], position: npt.NDArray[Any]) -> Floats:
    """Values of an axis at positions that may be NaN."""
    known = np.isfinite(position)
    index = np.where(known, position, 0).astype(int)
    return np.where(known, axis[index], np.nan)


def _axes(ds: xr.Dataset, steps: npt.NDArray[np.int64]) -> Axes:
    """Step, normalised time and log-SNR of the pairs."""
    step = np.asarray(ds["step"].values, np.int64)[steps]
    snr = np.asarray(ds["log_snr"].values, np.float64)[steps]
    return step, step / ds.sizes["step"], snr


def _widths(ds: xr.Dataset, steps: npt.NDArray[np.int64]) -> Floats:
    """Log-SNR that the differences span."""
    snr = np.asarray(ds["log_snr"].values, np.float64)
    widths: Floats = np.abs(snr[steps] - snr[steps - 1])
    return widths
