"""Where in the image things move: statistics per pixel position, mergeable.

Exact counts would take gigabytes here, so a map holds moments (exact up to rounding) and coarse
logarithmic bins: four an octave, so a value is known to 12 % (half a bin), and a quantile, between
two values as in NumPy, is too. The bins span 19 octaves below a limit that follows from the signal
and its noise levels alone, so that maps of different stores with the same levels merge; zeros have
a bin of their own, and a quantile among values outside the bins is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.compute import streaming
from asced_analysis.compute.shard_graphs import Blocks
from asced_analysis.counts.counting import Plan, plan_counts
from asced_analysis.signals import fields
from asced_analysis.signals.dimensions import with_all_dims
from asced_stores.errors import InputError

Floats: TypeAlias = npt.NDArray[np.float64]

BINS = 80
RELATIVE_ERROR = 0.12
"""Largest relative error of a quantile map, for values inside the range of the bins."""

_ZERO, _UNDER, _FIRST, _OVER = 0, 1, 2, BINS - 1
"""Bins of zeros, of values below the range, the first of the range, and of those above it."""

MAP_BYTES = 700
"""Of a pixel and step while maps are made."""

_SHIFT = 21  # of a float32 pattern; two bits of mantissa stay: four bins an octave
_NAMES = ("count", "mean", "squares", "largest", "bins")


def pixel_maps(
    ds: xr.Dataset,
    signal: str = "innovation",
    quantiles: Sequence[float] = (0.5, 0.95),
    *,
    steps: Sequence[int] | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Statistics of ``|D_k|`` for every pixel position and step, over runs.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them; read one shard at a time.
    signal : {"innovation", "weighted_score", "predicted_x0"}
        Whose dynamics.
    quantiles : sequence of float
        Probabilities between 0 and 1.
    steps : sequence of int, optional
        Only these steps (the later of each pair), in any order; one named twice counts once. All
        of them take 700 bytes a pixel and step: 18 MB for 32 x 32 pixels and 25 steps, 3.5 GB
        for 3 x 256 x 256; then choose some.
    progress : bool, optional
        Show a progress bar on standard error.

    Returns
    -------
    xarray.Dataset
        ``mean, standard_deviation, largest, quantile, count`` over ``step, channel, y, x``, and
        the ``bins`` and ``squares`` that merging needs. Values that are not finite are left out
        of ``count``, the number of runs that went in there; where it is 0 the rest is NaN.
        ``attrs["relative_error"]`` holds for the quantiles; one that lies among values too small or
        too large for the bins is NaN, unless it is zero.

    Raises
    ------
    InputError
        When a name or a step is unknown, or no steps are chosen.
    """
    ds = with_all_dims(ds)
    plan = plan_counts(ds, signal, "dynamics")
    numbers = np.asarray(ds["step"].values)[list(plan.steps)][1:]
    wanted = numbers if steps is None else np.unique(np.asarray(steps))
    if not wanted.size:
        raise InputError("no steps chosen; expected at least one, or None for all of them")
    if not np.isin(wanted, numbers).all():
        raise InputError(
            f"steps {np.setdiff1d(wanted, numbers).tolist()} have no dynamics; choose among "
            f"{numbers[0]} to {numbers[-1]}"
        )
    chosen = np.flatnonzero(np.isin(numbers, wanted))
    top = _tops(ds, plan)[chosen]
    tasks = streaming.shard_tasks(
        ds,
        [plan.variable],
        _map_block,
        merged=True,
        stepwise=True,
        plan=plan,
        chosen=chosen.tolist(),
        top=top,
    )
    pixels = math.prod(ds[plan.variable].shape[2:])
    need = MAP_BYTES * pixels * len(chosen) / 1e6
    label = f"Maps of {ds.sizes['run']} runs in {need:,.0f} MB of memory for each thread"
    parts = streaming.compute(streaming.tree_merge(tasks, _merge), progress=progress, label=label)
    dims = tuple(
        str(d) for d in fields.recorded(ds, plan.variable).dims if d not in ("run", "step")
    )
    layout = xr.Dataset(
        {"top": ("step", top)},
        coords={"step": wanted},
        attrs={
            "signal": plan.signal,
            "measure": "dynamics",
            "runs": ds.sizes["run"],
            "relative_error": RELATIVE_ERROR,
            "units": fields.UNITS,
            **fields.left_out(ds["step"].values[: plan.steps[0]]),
        },
    )
    if "log_snr" in ds.coords:
        layout = layout.assign_coords(log_snr=("step", ds["log_snr"].sel(step=wanted).values))
    return _summary(parts, layout, dims, quantiles)


def merge_maps(parts: Sequence[xr.Dataset], quantiles: Sequence[float] | None = None) -> xr.Dataset:
    """Maps of all runs of several stores, from their saved moments and bins.

    Parameters
    ----------
    parts : sequence of xarray.Dataset
        Results of `pixel_maps` with the same steps and noise levels, over disjoint runs.
    quantiles : sequence of float, optional
        Probabilities of the result; those of the first part by default.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    InputError
        When there is nothing to merge, or the parts do not fit.
    """
    if not parts:
        raise InputError("nothing to merge; expected at least one result of pixel_maps")
    first = parts[0]
    for part in parts[1:]:
        same = (
            part.attrs["signal"] == first.attrs["signal"]
            and part["bins"].shape == first["bins"].shape
            and all(
                np.array_equal(part[name].values, first[name].values)
                for name in ("step", "top", *(n for n in ("log_snr",) if n in first.coords))
            )
        )
        if not same:
            raise InputError(
                "maps of different signals, shapes, steps or noise levels do not merge"
            )
    # the mean and the largest of nothing are NaN in a result, and 0 while they are merged
    merged = _merge([{name: np.nan_to_num(part[name].values) for name in _NAMES} for part in parts])
    layout = first[["top"]]
    layout.attrs = {**first.attrs, "runs": sum(int(part.attrs["runs"]) for part in parts)}
    dims = tuple(str(dim) for dim in first["mean"].dims if dim != "step")
    wanted = first["probability"].values if quantiles is None else quantiles
    return _summary(merged, layout, dims, wanted)


def _map_block(
    blocks: Blocks, *, plan: Plan, chosen: list[int], top: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Moments and bins of the shards of one task, arrays of shape (step, channel, y, x[, bin])."""
    place = {position: row for row, position in enumerate(chosen)}
    parts: list[dict[str, npt.NDArray[Any]]] = []
    for block in blocks:
        data = block[plan.variable]
        shape = data.shape[2:]
        whole = {
            "count": np.zeros((len(chosen), *shape), np.int64),
            "mean": np.zeros((len(chosen), *shape)),
            "squares": np.zeros((len(chosen), *shape)),
            "largest": np.zeros((len(chosen), *shape)),
            "bins": np.zeros((len(chosen), *shape, BINS), np.int64),
        }
        with np.errstate(invalid="ignore", over="ignore"):  # failed runs; they are left out
            for position, values in plan.values(data):
                if position in place:
                    out = {name: array[place[position]] for name, array in whole.items()}
                    _accumulate(np.abs(values), int(top[place[position]]), out)
        parts = [_merge([*parts, whole])]
    return parts[0]


def _accumulate(size: npt.NDArray[np.float32], top: int, out: dict[str, npt.NDArray[Any]]) -> None:
    """Put |D| of one step, shape (run, channel, y, x), into views of the results."""
    finite = np.isfinite(size)
    clean = np.where(finite, size, 0).astype(np.float64)
    number = finite.sum(axis=0)
    mean = clean.sum(axis=0) / np.maximum(number, 1)
    out["count"][...] = number
    out["mean"][...] = mean
    out["squares"][...] = np.where(finite, (clean - mean) ** 2, 0).sum(axis=0)
    out["largest"][...] = clean.max(axis=0)
    keys = (size.view(np.uint32) >> np.uint32(_SHIFT)).astype(np.int64) - (top - _OVER)
    np.clip(keys, _UNDER, _OVER, out=keys)
    keys[size == 0] = _ZERO
    pixel = np.broadcast_to(np.arange(number.size).reshape(number.shape), size.shape)
    flat = np.bincount((pixel * BINS + keys)[finite], minlength=number.size * BINS)
    out["bins"][...] = flat.reshape(*number.shape, BINS)


def _merge(parts: Sequence[dict[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """Moments of both populations by Chan's formula; bins add up."""
    whole = dict(parts[0])
    for part in parts[1:]:
        number = whole["count"] + part["count"]
        safe = np.maximum(number, 1)
        gap = part["mean"] - whole["mean"]
        whole = {
            "count": number,
            "mean": whole["mean"] + gap * part["count"] / safe,
            "squares": whole["squares"]
            + part["squares"]
            + gap**2 * whole["count"] * part["count"] / safe,
            "largest": np.maximum(whole["largest"], part["largest"]),
            "bins": whole["bins"] + part["bins"],
        }
    return whole


def _tops(ds: xr.Dataset, plan: Plan) -> npt.NDArray[np.int64]:
    """Key above the last bin, by step: from the noise levels alone, so that maps merge.

    The limit is eight standard deviations of unit noise seen through the noise ratio of the two
    steps (of an innovation, of the later one), and 32 data units for predicted x0, on which the
    noise ratio has no hold.
    """
    if plan.after is None and plan.before is None:
        return np.full(len(plan.steps) - 1, (5 + 127) << 2)
    alpha, sigma = (
        np.asarray(ds[name].values, np.float64)[list(plan.steps)] for name in ("alpha", "sigma")
    )
    with np.errstate(divide="ignore"):
        kappa = np.minimum(np.where(alpha > 0, sigma / alpha, np.inf), 2.0**60)
    earlier = kappa[1:] if plan.before is None else np.minimum(kappa[:-1], 1e3 * kappa[1:] + 1)
    limit = 8 * (kappa[1:] + earlier)
    octave = np.ceil(np.log2(np.maximum(limit, 2.0**-30)))
    top: npt.NDArray[np.int64] = (octave.astype(np.int64) + 127) << 2
    return top


def _values(top: npt.NDArray[np.int64]) -> Floats:
    """Value that stands for each bin by step, shape (step, BINS): its geometric middle."""
    keys = top[:, None] - _OVER + np.arange(_FIRST, _OVER + 1)
    edges = (keys.astype(np.uint32) << np.uint32(_SHIFT)).view(np.float32).astype(np.float64)
    values = np.full((len(top), BINS), np.nan)
    values[:, _ZERO] = 0.0
    values[:, _FIRST:_OVER] = np.sqrt(edges[:, :-1] * edges[:, 1:])
    return values


def _summary(
    parts: dict[str, npt.NDArray[Any]],
    layout: xr.Dataset,
    dims: tuple[str, ...],
    quantiles: npt.ArrayLike,
) -> xr.Dataset:
    """Maps of the moments and quantiles."""
    levels = np.atleast_1d(np.asarray(quantiles, np.float64))
    full, units = ("step", *dims), {"units": layout.attrs["units"]}
    number = parts["count"]
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = np.sqrt(parts["squares"] / number)
        mean, largest = (np.where(number > 0, parts[n], np.nan) for n in ("mean", "largest"))
    return layout.assign(
        mean=(full, mean, units),
        standard_deviation=(full, deviation, units),
        largest=(full, largest, units),
        quantile=(("probability", *full), _quantiles(parts, layout["top"].values, levels), units),
        count=(full, number),
        squares=(full, parts["squares"]),
        bins=((*full, "bin"), parts["bins"]),
    ).assign_coords(probability=levels)


def _quantiles(
    parts: dict[str, npt.NDArray[Any]], top: npt.NDArray[np.int64], levels: Floats
) -> Floats:
    """Quantile maps, between the two values around the rank as in `numpy.quantile`."""
    cumulative = np.cumsum(parts["bins"], axis=-1)
    values = _values(top)
    result = np.empty((levels.size, *parts["count"].shape))
    for place, level in enumerate(levels):
        rank = level * np.maximum(parts["count"] - 1, 0)
        below = np.floor(rank)
        ends = []
        for end in (below, np.ceil(rank)):
            column = (cumulative <= end[..., None]).sum(axis=-1).clip(0, BINS - 1)
            ends.append(np.stack([own[at] for own, at in zip(values, column, strict=True)]))
        result[place] = ends[0] + (rank - below) * (ends[1] - ends[0])
    return np.where(parts["count"] > 0, result, np.nan)
