"""Profiling | Mutation | Refinement: where the phases of sampling begin, with intervals.

The activity curve (`asced_analysis.phases.activity`) is split at two change points into
calm, active, calm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.phases.activity import (
    CUTOFF,
    Curves,
    Unit,
    activity_curves,
    network_switches,
)
from asced_analysis.phases.change_points import segment, shortest_segment
from asced_analysis.phases.intervals import (
    interval,
    largest_step,
    population_bootstrap,
    step_bootstrap,
)
from asced_analysis.phases.results import Boundary, Phases, Population, activity_array
from asced_analysis.phases.significance import Significance, population_tests, run_tests
from asced_analysis.signals import fields
from asced_analysis.signals.dimensions import with_all_dims
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
    A boundary is reported only where the curve's mean changes along the steps at all and rises
    (falls) there, both at the level ``1 - confidence`` (`asced_analysis.phases.significance`): of
    the population, and of every run by itself.

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
        Of the intervals; a boundary whose p-value is above ``1 - confidence`` is NaN.
    replicates, run_replicates : int, optional
        Bootstrap replicates over runs, and over the steps of each run; 0 leaves the intervals of
        the runs out. Tests draw as many, and at least 99.
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
    ds = with_all_dims(ds)
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} found; expected a number between 0 and 1")
    shortest_segment(ds.sizes["step"] - 1)  # refuses too few steps
    curves, steps = activity_curves(ds, signal=signal, cutoff=cutoff, unit=unit, progress=progress)
    rng = np.random.default_rng(seed)
    axes = _axes(ds, steps)
    widths = _widths(ds, steps)
    finite: npt.NDArray[np.bool_] = np.all(np.isfinite(curves), axis=1)
    if not finite.any():
        raise InputError("no run has finite innovations; look at its status with `asced info`")
    used = curves if finite.all() else curves[finite]
    mean = used.mean(axis=0, dtype=np.float64)
    level = 1 - confidence
    tests, test = population_tests(used, widths, replicates, rng)
    boundaries = [
        _boundary(place, interval(draws, level / 2), axes, p)
        for place, draws, p in _places(used, mean, tests, widths, replicates, level, rng)
    ]
    del used
    per_run = _run_frame(ds, curves, widths, run_replicates, level, rng, axes)
    attributes = {"signal": signal, "unit": unit, "test": test, "failed_runs": int((~finite).sum())}
    if switches := network_switches(ds):
        attributes["network_switches"] = switches
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
        p_value=tests.change,
        runs=int(finite.sum()),
        cutoff=cutoff,
        confidence=confidence,
        attributes=attributes,
    )


def _places(
    curves: Curves,
    mean: Floats,
    tests: Significance,
    widths: Floats,
    replicates: int,
    level: float,
    rng: np.random.Generator,
) -> list[tuple[float, Floats, float]]:
    """Both boundaries as positions, with their replicates and p-values; NaN for what may be chance.

    Where activity only rises, or only falls, its curve is split in two.
    """
    drawn = population_bootstrap(curves, widths, replicates, rng)
    found = tests.boundaries(level)
    both = all(there for there, _ in found)
    places = _split(np.stack([mean]), widths, found[0][0], found[1][0])[:, 0]
    draws = _split(drawn, widths, found[0][0], found[1][0])
    if both and np.isnan(places).any():  # no split has a middle above both sides
        places = np.full(2, np.nan)
    return [(float(places[n]), draws[n], found[n][1]) for n in range(2)]


def _split(curves: Floats, widths: Floats, rises: bool, falls: bool) -> Floats:
    """Change points of curves that rise, fall or do both, shape (2, curve)."""
    places = np.full((2, len(curves)), np.nan)
    if rises and falls:
        split = segment(curves, widths)
        places[:] = split.first, split.second
    elif rises:
        places[0] = largest_step(curves, widths, -1)[0]
    elif falls:
        places[1] = largest_step(curves, widths, 1)[0]
    return places


def _run_frame(
    ds: xr.Dataset,
    curves: Curves,
    widths: Floats,
    replicates: int,
    level: float,
    rng: np.random.Generator,
    axes: Axes,
) -> pd.DataFrame:
    """Boundaries of each run, with intervals by residual block bootstrap over steps.

    Some runs at a time, so that what lies in memory beside the frame does not grow with them.
    """
    import pandas as pd

    names = ("mutation", "refinement")
    columns = {
        _column(name, axis, end): np.full(len(curves), np.nan)
        for name in names
        for axis in _AXES
        for end in ("", *(_ENDS if replicates else ()))
    }
    columns |= {f"{name}_p_value": np.full(len(curves), np.nan) for name in names}
    columns["p_value"] = np.full(len(curves), np.nan)
    for start in range(0, len(curves), _RUNS_AT_ONCE):
        rows = slice(start, start + _RUNS_AT_ONCE)
        chosen = start + np.flatnonzero(np.isfinite(curves[rows]).all(axis=1))
        if not chosen.size:
            continue
        tests = run_tests(curves[chosen], widths, replicates, rng, level=level)
        found = [test.boundaries(level) for test in tests]
        columns["p_value"][chosen] = [test.change for test in tests]
        for number, name in enumerate(names):
            columns[f"{name}_p_value"][chosen] = [both[number][1] for both in found]
        shapes = np.array([(both[0][0], both[1][0]) for both in found])
        for rises, falls in ((True, True), (True, False), (False, True)):
            own = chosen[(shapes == (rises, falls)).all(axis=1)]
            if own.size:
                _fill(
                    columns, own, curves[own], widths, (rises, falls), replicates, level, rng, axes
                )
    return pd.DataFrame(columns, index=pd.Index(ds["run"].values, name="run"), copy=False)


def _fill(
    columns: dict[str, Floats],
    rows: npt.NDArray[np.intp],
    curves: Curves,
    widths: Floats,
    shape: tuple[bool, bool],
    replicates: int,
    level: float,
    rng: np.random.Generator,
    axes: Axes,
) -> None:
    """Boundaries of runs whose curves rise, fall, or do both."""

    def split(every: Floats) -> Floats:
        return _split(every, widths, *shape)

    best = split(np.asarray(curves, np.float64))
    draws = step_bootstrap(curves, best, split, widths, replicates, rng) if replicates else None
    for number, name in enumerate(("mutation", "refinement")):
        places = {"": best[number]}
        if draws is not None:
            spread = (
                np.where(np.isnan(best[number]), np.nan, values)
                for values in interval(draws[:, number], level / 2)
            )
            places |= dict(zip(_ENDS, spread, strict=True))
        for axis, values in zip(_AXES, axes, strict=True):
            for end, place in places.items():
                columns[_column(name, axis, end)][rows] = _at(values, place)


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
    return step, step / fields.recorded_steps(ds), snr


def _widths(ds: xr.Dataset, steps: npt.NDArray[np.int64]) -> Floats:
    """Log-SNR that the differences span."""
    snr = np.asarray(ds["log_snr"].values, np.float64)
    widths: Floats = np.abs(snr[steps] - snr[steps - 1])
    return widths
