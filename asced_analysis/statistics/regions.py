"""Where and when runs are abnormal: a table of regions, and which runs to look at first.

A pixel is abnormal at a step where its smoothed innovation exceeds a quantile of the population
*at that step*, or so many robust units of its own run at that step; abnormal pixels that touch in
space or in successive steps form a region. (The first way finds what is unusual for this model;
by construction it finds equally much at every step, so *when* things happen is for the second.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.compute import streaming
from asced_analysis.compute.shard_graphs import Blocks
from asced_analysis.compute.stepped import Stepped, memory_note
from asced_analysis.counts.counting import Plan, plan_counts
from asced_analysis.counts.histograms import Counts, merge_counts
from asced_analysis.counts.tally import Tally
from asced_analysis.signals import fields
from asced_analysis.signals.dimensions import with_images
from asced_analysis.statistics.stepped_regions import (
    Region,
    SteppedMap,
    blurred,
    find,
    own_level,
    row_of,
)
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Floats: TypeAlias = npt.NDArray[np.float64]

Reference: TypeAlias = Literal["population", "run"]
"""What a pixel is compared with."""

REGION_COLUMNS: dict[str, str] = {
    "run": "run",
    "region": "number of the region within its run, the most abnormal first",
    "onset_step": "first step at which it is abnormal",
    "end_step": "last such step",
    "persistence": "number of steps from onset to end",
    "peak_step": "step of the peak acceleration; the onset where there is none",
    "peak_acceleration": "largest |D_k| - |D_{k-1}|, mean over the region's pixels, data units; "
    "NaN for a region at the first difference only, as nothing lies before that",
    "excess": "largest ratio of a pixel to the level at its step",
    "area": "pixels that are abnormal at any step",
    "area_share": "the same as a share of the image",
    "y": "row of its centre, pixels from the top",
    "x": "column of its centre, pixels from the left",
    "top": "first row",
    "left": "first column",
    "height": "rows",
    "width": "columns",
}
"""What each column of `artifact_regions` means."""


def artifact_regions(
    ds: xr.Dataset,
    *,
    signal: str = "innovation",
    reference: Reference = "population",
    probability: float = 0.99,
    cutoff: float = 5.0,
    smooth: float = 1.0,
    smallest_area: int | None = None,
    levels: npt.ArrayLike | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Table of abnormal regions of all runs.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them; read twice, one shard at a time.
    signal : {"innovation", "predicted_x0", "weighted_score"}
        Whose dynamics.
    reference : {"population", "run"}
        Whether a pixel is compared with the population or with its own run.
    probability : float, optional
        Quantile of the population, step by step, above which a pixel is abnormal.
    cutoff : float, optional
        Robust units of the run above its median, step by step, beyond which a pixel is abnormal.
    smooth : float, optional
        Standard deviation of the Gaussian blur before, in pixels; 0 for none.
    smallest_area : int, optional
        Pixels below which a region is dropped; 100 at 256 x 256 and in proportion elsewhere, at
        least 3, by default.
    levels : array, shape (step - 1,), optional
        Levels by step from another population (`abnormal_levels`), instead of this one's.
    progress : bool, optional
        Show a progress bar on standard error.

    Returns
    -------
    pandas.DataFrame
        One row a region; the columns are explained in `REGION_COLUMNS`. A value that is not
        finite is never abnormal, so that a failed run may have few regions or none:
        ``attrs["not_finite_runs"]`` is the number of runs with such values. Where a singular
        first step is left out, ``attrs["dropped_steps"]`` and ``attrs["note"]`` say so.

    Raises
    ------
    InputError
        When a name is unknown, or the levels do not fit the steps.
    """
    import pandas as pd

    if reference not in get_args(Reference):
        raise InputError(f"no reference {reference!r}; choose {' or '.join(get_args(Reference))}")
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise InputError(f"the cutoff is {cutoff}; expected a positive number of robust units")
    ds = with_images(ds)
    plan = plan_counts(ds, signal, "dynamics")
    steps = np.asarray(ds["step"].values)[list(plan.steps)][1:]
    if levels is None and reference == "population":
        levels = abnormal_levels(
            ds, signal=signal, probability=probability, smooth=smooth, progress=progress
        )
    limits = None if reference == "run" or levels is None else np.asarray(levels, np.float64)
    if limits is not None and limits.shape != steps.shape:
        raise InputError(f"{limits.size} levels found; expected {steps.size}, one a difference")
    pixels = ds.sizes["y"] * ds.sizes["x"]
    smallest = max(3, -(-100 * pixels // 256**2)) if smallest_area is None else smallest_area
    tasks = streaming.shard_tasks(
        ds,
        [plan.variable],
        _region_block,
        stepwise=True,
        per_run={"run": ds["run"].values},
        plan=plan,
        levels=limits,
        cutoff=cutoff,
        smooth=smooth,
        smallest=smallest,
        steps=steps,
    )
    label = f"Regions of {ds.sizes['run']} runs{memory_note(ds, [plan.variable])}"
    rows, broken = streaming.compute(
        streaming.tree_merge(tasks, _join), progress=progress, label=label
    )
    table = pd.DataFrame(rows, columns=list(REGION_COLUMNS))
    whole = ["region", "onset_step", "end_step", "persistence", "peak_step", "area"]
    table = table.astype(dict.fromkeys([*whole, "top", "left", "height", "width"], np.int64))
    table.attrs |= {"not_finite_runs": broken, **fields.left_out(_before(ds, plan))}
    return table


def abnormal_levels(
    ds: xr.Dataset,
    *,
    signal: str = "innovation",
    probability: float = 0.99,
    smooth: float = 1.0,
    progress: bool = False,
) -> xr.DataArray:
    """Quantile of the smoothed dynamics by step, over all pixels of all runs.

    Parameters
    ----------
    ds, signal, probability, smooth, progress
        As in `artifact_regions`.

    Returns
    -------
    xarray.DataArray, dims (step,), float64
        In data units, one a difference; ``step`` names the later of the pair. Values that are not
        finite are left out: ``attrs["nan"]`` and ``attrs["infinite"]`` are their numbers over all
        steps. A singular first step is left out, and ``attrs["note"]`` says so.
    """
    ds = with_images(ds)
    plan = plan_counts(ds, signal, "dynamics")
    tasks = streaming.shard_tasks(
        ds, [plan.variable], _level_block, merged=True, stepwise=True, plan=plan, smooth=smooth
    )
    label = f"Levels of {ds.sizes['run']} runs{memory_note(ds, [plan.variable])}"
    counts: Counts = streaming.compute(
        streaming.tree_merge(tasks, merge_counts), progress=progress, label=label
    )
    return xr.DataArray(
        counts.quantile(probability),
        {"step": np.asarray(ds["step"].values)[list(plan.steps)][1:]},
        ("step",),
        "level",
        {
            "units": fields.UNITS,
            "nan": int(counts.nan.sum()),
            "infinite": int(counts.infinite.sum()),
            **fields.left_out(_before(ds, plan)),
        },
    )


def region_profile(
    ds: xr.Dataset, region: pd.Series[Any], *, signal: str = "innovation"
) -> pd.DataFrame:
    """Dynamics and acceleration inside a region's rectangle and in the rest of its image.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them; one run is read.
    region : pandas.Series
        A row of `artifact_regions`.
    signal : {"innovation", "predicted_x0", "weighted_score"}
        Whose dynamics.

    Returns
    -------
    pandas.DataFrame
        ``step, place ("region" or "rest"), dynamics, acceleration``, means over pixels.
    """
    import pandas as pd

    ds = with_images(ds)
    one = ds.sel(run=[region["run"]])
    plan = plan_counts(one, signal, "dynamics")
    data: Any = one[plan.variable].transpose("run", "step", ...).data
    inside = np.zeros((ds.sizes["y"], ds.sizes["x"]), bool)
    inside[_window(region)] = True
    masks = {"region": inside, "rest": ~inside}
    means: dict[str, list[float]] = {place: [] for place in masks}
    block: Any = data if isinstance(data, np.ndarray) else Stepped(data)
    for _, change in plan.changes(block):
        sums = np.zeros(inside.shape)
        for values in change.parts(inside.size):
            sums += np.abs(values).reshape(inside.shape)
        planes = change.size // inside.size
        for place, mask in masks.items():
            means[place].append(float(sums[mask].mean()) / planes if mask.any() else np.nan)
    frames = [
        pd.DataFrame(
            {
                "step": one["step"].values[list(plan.steps)][1:],
                "place": place,
                "dynamics": found,
                "acceleration": np.concatenate([[np.nan], np.diff(found)]),
            }
        )
        for place, found in means.items()
    ]
    return pd.concat(frames, ignore_index=True)


def _before(ds: xr.Dataset, plan: Plan) -> list[int]:
    """Steps that a plan leaves out at the beginning."""
    steps: list[int] = ds["step"].values[: plan.steps[0]].tolist()
    return steps


def _window(region: pd.Series[Any]) -> tuple[slice, slice]:
    """Rows and columns of a region's rectangle."""
    top, left, height, width = (int(region[name]) for name in ("top", "left", "height", "width"))
    return slice(top, top + height), slice(left, left + width)


def _maps(block: Any, plan: Plan, smooth: float) -> Iterator[SteppedMap]:
    """|D| of one run that is read step by step: blurred, largest over channels and frames."""
    return (SteppedMap(change, block.shape[-2:], smooth) for _, change in plan.changes(block))


def _smoothed(
    block: npt.NDArray[Any], plan: Plan, smooth: float
) -> Iterator[npt.NDArray[np.float32]]:
    """The same of runs in memory, step by step, shape (run, y, x)."""
    for _, values in plan.values(block):
        size = blurred(np.abs(values), smooth)
        yield size.reshape(len(size), -1, *size.shape[-2:]).max(axis=1)


def _level_block(blocks: Blocks, *, plan: Plan, smooth: float) -> Counts:
    """Counts of the smoothed dynamics by step."""
    tally = Tally(len(plan.steps) - 1)
    for block in blocks:
        data = block[plan.variable]
        with np.errstate(invalid="ignore", over="ignore"):  # failed runs; they are counted
            if isinstance(data, np.ndarray):
                for step, maps in enumerate(_smoothed(data, plan, smooth)):
                    tally.add(step, np.ascontiguousarray(maps))
                continue
            for step, one in enumerate(_maps(data, plan, smooth)):
                for part in one.parts():
                    tally.add(step, part)
                one.forget()
    return tally.finish()


def _region_block(
    blocks: Blocks,
    *,
    plan: Plan,
    levels: Floats | None,
    cutoff: float,
    smooth: float,
    smallest: int,
    steps: npt.NDArray[np.int64],
) -> tuple[list[tuple[Any, ...]], int]:
    """Rows of the region table for the runs of one task, and how many of those are not finite."""
    rows: list[tuple[Any, ...]] = []
    broken = 0
    for block in blocks:
        for place, run in enumerate(block["run"]):
            one = block[plan.variable][place : place + 1]
            with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
                if isinstance(one, np.ndarray):
                    size = np.stack([maps[0] for maps in _smoothed(one, plan, smooth)])
                    broken += not np.isfinite(size).all()
                    limits = _own_levels(size, cutoff) if levels is None else levels
                    rows += _regions(run, size, limits, smallest, steps)
                    continue
                found, means, finite = find(
                    partial(_maps, one, plan, smooth),
                    partial(_level_of, levels, cutoff),
                    one.shape[-2:],
                    smallest,
                )
                broken += not finite
                rows += _numbered(
                    run,
                    [
                        row_of(region, whole, one.shape[-2:], steps)
                        for region, whole in zip(found, means, strict=True)
                    ],
                )
    return rows, int(broken)


def _own_levels(size: npt.NDArray[np.float32], cutoff: float) -> Floats:
    """`own_level` of every step, at once."""
    flat = size.reshape(len(size), -1)
    median = np.median(flat, axis=1)
    spread = 1.4826 * np.median(np.abs(flat - median[:, None]), axis=1)
    # over a flat background the MAD may be zero
    floor = 1e-3 * np.sqrt(np.mean(np.square(flat), axis=1))
    levels: Floats = (median + cutoff * np.maximum(spread, floor)).astype(np.float64)
    return levels


def _regions(
    run: Any,
    size: npt.NDArray[np.float32],
    levels: Floats,
    smallest: int,
    steps: npt.NDArray[np.int64],
) -> list[tuple[Any, ...]]:
    """Regions of one run, the most abnormal first."""
    from scipy.ndimage import find_objects, label

    shape = size.shape[-2:]
    ratio = size / levels.astype(np.float32)[:, None, None]
    labels, count = label(ratio > 1)
    found = []
    for number, box in enumerate(find_objects(labels, count), start=1):
        voxels = labels[box] == number
        footprint = voxels.any(axis=0)
        if int(footprint.sum()) < smallest:
            continue
        along, rows, columns = box
        y, x = np.nonzero(footprint)
        region = Region(
            along.start,
            along.stop - 1,
            (y + rows.start) * shape[-1] + x + columns.start,
            float(ratio[box][voxels].max()),
        )
        inside = size[:, rows, columns][:, footprint]
        # pixel after pixel, as a run that is read step by step adds them: the same to the last bit
        sums = np.cumsum(inside, axis=1, dtype=np.float64)[:, -1]
        found.append(row_of(region, sums / inside.shape[1], shape, steps))
    return _numbered(run, found)


def _level_of(levels: Floats | None, cutoff: float, step: int, one: SteppedMap) -> float:
    """A step's level: the population's, or the run's own."""
    return own_level(one, cutoff) if levels is None else float(levels[step])


def _numbered(run: Any, found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows of one run's table, the most abnormal first."""
    found.sort(key=lambda row: row[0], reverse=True)
    return [(run, place, *row[1:6], row[0], *row[6:]) for place, row in enumerate(found)]


def _join(
    parts: Sequence[tuple[list[tuple[Any, ...]], int]],
) -> tuple[list[tuple[Any, ...]], int]:
    return [row for rows, _ in parts for row in rows], sum(broken for _, broken in parts)
