"""``audit``: whether recorded trajectories obey their own schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.audit import checks
from asced_analysis.audit.levels import Levels
from asced_analysis.audit.moments import (
    Ends,
    Moments,
    end_moments,
    merge_ends,
    merge_moments,
    step_moments,
)
from asced_analysis.audit.quantities import Estimate, quantities
from asced_analysis.audit.result import Audit, Finding
from asced_analysis.compute import streaming
from asced_analysis.compute.stepped import Stepped, is_large, memory_note
from asced_analysis.signals.dimensions import with_all_dims
from asced_stores.errors import InputError

ROOTS = (
    checks.check_finite,
    checks.check_start,
    checks.check_terminal,
    checks.check_timestep,
    checks.check_shift,
    checks.check_next,
)
NEEDED = ("eps", "x0", "sample")


def audit(ds: xr.Dataset, *, confidence: float = 0.99, progress: bool = False) -> Audit:
    """Hold trajectories against their own schedule, step by step.

    Energy of the sample against alpha, sigma and the runs' own ends; noise as the network sees it;
    energy of predicted eps; the level of each next sample; timesteps against levels; the start;
    the range of predicted x0; NaN and infinity. Read shard by shard, in memory that does not grow
    with the runs.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them, with eps, x0 and sample; failed ones too, if NaN is to
        be counted (``statuses=("complete", "failed")``). With x_init and seeds the start's scale
        is known exactly.
    confidence : float
        Of the intervals, of all steps of a quantity together.
    progress : bool, optional
        Show a progress bar on standard error.

    Returns
    -------
    Audit
        Findings with their likely causes, notes, and a table by step.

    Raises
    ------
    InputError
        When a variable is missing, there are no runs, or `confidence` is no share.

    Examples
    --------
    >>> import asced_analysis as aa
    >>> audit = aa.audit(aa.open_runs("runs.zarr"))
    >>> audit.sound, [finding.name for finding in audit.findings]
    (True, [])
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; expected a share between 0 and 1")
    ds = with_all_dims(ds)
    missing = [name for name in NEEDED if name not in ds]
    if missing:
        raise InputError(
            f"an audit needs {', '.join(NEEDED)}, and the runs hold no {', '.join(missing)}: "
            "record with them among the fields"
        )
    levels = _levels(ds)
    ends, alike = _ends(ds, progress)
    moments = _moments(ds, levels, ends, progress)
    finite = int(moments.runs.sum())
    if not finite:  # what is infinite still tells why, as the greatest number of float16
        moments = _moments(ds, levels, ends, progress, saturate=True)
    found = quantities(moments, levels.alpha, levels.sigma, confidence=confidence)
    shape = tuple(int(ds["x0"].sizes[dim]) for dim in ds["x0"].dims if dim not in ("run", "step"))
    seen = checks.AuditInputs(
        levels, ends, moments, found, shape, _guidance(ds), confidence, ds.sizes["run"], alike
    )
    findings, notes = _look(seen)
    notes += _cached(ds, moments)
    return Audit(
        runs=int(ds.sizes["run"]),
        finite=finite,
        findings=tuple(findings),
        notes=tuple(notes),
        steps=_table(ds, seen),
        confidence=confidence,
        attributes={
            name: ds.attrs[name]
            for name in ("pipeline", "scheduler_class", "prediction_type")
            if name in ds.attrs
        },
    )


def _look(seen: checks.AuditInputs) -> tuple[list[Finding], list[str]]:
    """Everything that is wrong; what follows from an earlier finding becomes a note."""
    findings: list[Finding] = []
    notes: list[str] = []
    for check in ROOTS:
        for said in check(seen):
            if isinstance(said, Finding):
                findings.append(said)
            else:
                notes.append(said)
    roots = {one.name for one in findings} & {"start", "timestep", "next_level"}
    for said in checks.check_path(seen):
        if roots:
            notes.append(f"probably because of that ({', '.join(sorted(roots))}): {said.what}")
        else:
            findings.append(said)
    return findings, notes


def _levels(ds: xr.Dataset) -> Levels:
    """Noise levels and what is known of the scheduler."""
    timestep, alpha, sigma, log_snr = (
        np.asarray(ds[name].values, np.float64)
        for name in ("timestep", "alpha", "sigma", "log_snr")
    )
    return Levels(timestep, alpha, sigma, log_snr, ds.attrs)


def _ends(ds: xr.Dataset, progress: bool) -> tuple[Ends, tuple[float, float] | None]:
    """Starts and ends, read before the trajectories: they say what range to expect.

    Where seeds do not tell how starts were made, also how alike the mean start and end are.
    """
    started = "x_init" in ds
    ends = _read_ends(ds, progress, started=started)
    if not started or (ends.compared and ends.seeded == ends.compared):
        return ends, None
    if is_large(ds, NEEDED):
        end, start = _averages(ds)
    else:
        ends = _read_ends(ds, progress, started=True, averages=True)
        end, start = ends.mean_end, ends.mean_start
    end, start = end.reshape(-1), start.reshape(-1)
    return ends, (float(end @ end), float(start @ end)) if start.any() else None


def _averages(ds: xr.Dataset) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Sums of ends and of starts, pixel by pixel, one run and one of both in memory at a time."""
    ends, starts = (
        data if isinstance(data, np.ndarray) else Stepped(data)
        for data in (ds[name].transpose("run", ...).data for name in ("sample", "x_init"))
    )
    end, start = np.zeros((2, *ends.shape[1:]), np.float32)
    for run in range(len(ends)):
        if np.isfinite(np.asarray(ends[run])).all():
            begun = np.asarray(starts[run])
            if np.isfinite(begun).all():
                start += begun
                del begun
                end += np.asarray(ends[run])
    return end, start


def _read_ends(ds: xr.Dataset, progress: bool, *, started: bool, averages: bool = False) -> Ends:
    """One pass over starts and ends."""
    numbers = ds["run"].values
    ends: Ends = streaming.compute(
        streaming.tree_merge(
            streaming.shard_tasks(
                ds,
                ["sample", "x_init"] if started else ["sample"],
                end_moments,
                per_run={
                    "number": numbers,
                    "seed": ds["seed"].values if "seed" in ds else np.full(len(numbers), -1),
                },
                stepwise=True,
                large=is_large(ds, NEEDED),
                started=started,
                averages=averages,
            ),
            merge_ends,
        ),
        progress=progress,
        label="Reading starts and ends",
    )
    return ends


def _moments(
    ds: xr.Dataset, levels: Levels, ends: Ends, progress: bool, *, saturate: bool = False
) -> Moments:
    """Sums over the trajectories, one task a shard."""
    low, high = (ends.low, ends.high) if ends.runs.any() else (-np.inf, np.inf)
    reach = 0.5 * (high - low)
    moments: Moments = streaming.compute(
        streaming.tree_merge(
            streaming.shard_tasks(
                ds,
                list(NEEDED),
                step_moments,
                stepwise=True,
                per_run={"number": ds["run"].values},
                alpha=levels.alpha,
                sigma=levels.sigma,
                low=low - reach,
                high=high + reach,
                same=str(ds.attrs.get("prediction_type")) == "epsilon",
                saturate=saturate,
            ),
            merge_moments,
        ),
        progress=progress,
        label=f"Auditing {ds.sizes['run']} runs{memory_note(ds, ['eps', 'x0'])}",
    )
    return moments


def _guidance(ds: xr.Dataset) -> float:
    """Greatest guidance scale of the runs; 1 where there is none."""
    if "guidance_scale" not in ds.coords:
        return 1.0
    scales = np.asarray(ds["guidance_scale"].values, np.float64)
    finite = scales[np.isfinite(scales)]
    return float(finite.max()) if finite.size else 1.0


def _cached(ds: xr.Dataset, moments: Moments) -> list[str]:
    """Steps that a cache answered, which is no fault."""
    if "evaluated" in ds:
        share = 1 - np.asarray(ds["evaluated"].values, np.float64).mean(0)
    else:
        share = moments.repeated / ds.sizes["run"]
    steps = np.flatnonzero(share > 0.5).tolist()
    if not steps:
        return []
    return [
        f"at {len(steps)} of {len(share)} steps a cache answered for the network: "
        f"{', '.join(map(str, steps))}"
    ]


def _table(ds: xr.Dataset, seen: checks.AuditInputs) -> xr.Dataset:
    """Every quantity by step, with intervals and tolerances."""
    values: dict[str, Any] = {}
    for name in ("energy", "noise", "eps_energy", "eps_excess", "next_noise", "angle"):
        estimate: Estimate = getattr(seen.quantities, name)
        values[name] = ("step", estimate.value)
        values[f"{name}_low"] = ("step", estimate.low)
        values[f"{name}_high"] = ("step", estimate.high)
    moments = seen.moments
    values |= {
        "energy_tolerance": ("step", seen.tolerance("energy", checks.ENERGY)),
        "noise_tolerance": ("step", seen.tolerance("noise", checks.NOISE)),
        "x0_low": ("step", moments.low),
        "x0_high": ("step", moments.high),
        "x0_outside": ("step", moments.outside / max(1, moments.values)),
        "bad": ("step", moments.nan + moments.infinite),
        "first_bad": ("step", moments.first_bad),
    }
    levels = {
        name: ("step", getattr(seen.levels, name))
        for name in ("timestep", "alpha", "sigma", "log_snr")
    }
    return xr.Dataset(values, {"step": ds["step"].values, **levels})
