"""The activity curve of each run: the share of its pixels that move far more than the rest.

A pixel is active at a step where its innovation per unit of log-SNR lies more than c robust units
from the median.

Whose unit? The robust unit is taken over the pixels of the run at that step (``unit="step"``), so
the curve says how *locally* a run changes its mind. A unit over all steps (``unit="run"``) is
there too, but with real networks it only shows that early predictions change more: the median
innovation per unit of log-SNR of `fashion` falls by a factor of 130 from the first step to the
last, without a hump. (A share beyond population quantiles by step would be flat by construction.)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.compute import streaming
from asced_analysis.compute.shard_graphs import Blocks
from asced_analysis.compute.stepped import memory_note
from asced_analysis.counts.changes import Change, steps_at_once
from asced_analysis.counts.counting import Plan, plan_counts
from asced_analysis.counts.selection import median_of
from asced_analysis.phases.change_points import shortest_segment
from asced_stores.errors import InputError

Floats: TypeAlias = npt.NDArray[np.float64]
Curves: TypeAlias = npt.NDArray[np.float32]

Unit: TypeAlias = Literal["step", "run"]
"""Over which values of a run its robust unit is taken."""

SIGNALS = ("innovation", "predicted_x0")
"""What activity is measured on: changes that the schedule alone does not make."""

CUTOFF = 5.0
"""Robust units beyond which a pixel counts as active, as in `artifact_regions`."""

_FLOOR = 1e-3  # of the root mean square: a unit of zero would make every moving pixel active


def activity_curves(
    ds: xr.Dataset,
    *,
    signal: str = "innovation",
    cutoff: float = CUTOFF,
    unit: Unit = "step",
    progress: bool = False,
) -> tuple[Curves, npt.NDArray[np.int64]]:
    """Activity curve of every run: the share of its pixels beyond `cutoff` of its own units.

    A unit is 1.4826 times the median absolute deviation from the median of the signal's change
    per unit of log-SNR, and at least a thousandth of its root mean square: over the flat
    background of an image the MAD may be zero.

    Parameters
    ----------
    ds, signal, cutoff, unit, progress
        As in `asced_analysis.phases.segmentation.segment_phases`.

    Returns
    -------
    curves : numpy.ndarray, shape (run, step), float32
        NaN for a run with a number that is not finite.
    steps : numpy.ndarray, shape (step,)
        Position of the later step of each pair; pairs with an infinite log-SNR are left out, and
        those between which one network took over from another.
    """
    if unit not in get_args(Unit):
        raise InputError(f"no unit {unit!r}; choose one of {', '.join(get_args(Unit))}")
    if signal not in SIGNALS:
        raise InputError(f"no activity of {signal!r}; choose one of {', '.join(SIGNALS)}")
    check_cutoff(cutoff)
    plan = plan_counts(ds, signal, "difference")
    levels = np.asarray(ds["log_snr"].values, np.float64)[list(plan.steps)]
    with np.errstate(invalid="ignore"):
        width = np.abs(np.diff(levels))
    usable = np.isfinite(width) & (width > 0) & ~_across_networks(ds, plan.steps)
    shortest_segment(int(usable.sum()))
    tasks = streaming.shard_tasks(
        ds,
        [plan.variable],
        _activity_block,
        stepwise=unit == "step",
        plan=plan,
        rates=1 / width[usable],
        usable=usable,
        cutoff=cutoff,
        unit=unit,
    )
    label = f"Activity of {ds.sizes['run']} runs{memory_note(ds, [plan.variable])}"
    curves = streaming.concatenate(tasks, progress=progress, label=label)
    return curves, np.asarray(plan.steps)[1:][usable]


def network_switches(ds: xr.Dataset) -> list[int]:
    """Steps at which another of a pipeline's networks took over (the experts of Wan 2.2)."""
    names = ds.attrs.get("networks_by_step") or []
    return [step for step in range(1, len(names)) if names[step] != names[step - 1]]


def _across_networks(ds: xr.Dataset, steps: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Which pairs of adjacent steps were answered by different networks."""
    number = ds["step"].values[list(steps)]
    across = np.zeros(len(number) - 1, np.bool_)
    for switch in network_switches(ds):
        across |= (number[:-1] < switch) & (switch <= number[1:])
    return across


def check_cutoff(cutoff: float) -> None:
    """Refuse what is no number of robust units."""
    if not (np.isfinite(cutoff) and cutoff > 0):
        raise InputError(f"the cutoff is {cutoff}; expected a positive number of robust units")


def _activity_block(
    blocks: Blocks,
    *,
    plan: Plan,
    rates: Floats,
    usable: npt.NDArray[np.bool_],
    cutoff: float,
    unit: Unit,
) -> Curves:
    """Activity curves of the runs of one task, shape (run, step)."""
    curves = []
    for block in blocks:
        data = block[plan.variable]
        curves += [
            _curve(data[run : run + 1], rates.astype(np.float32), usable, plan, cutoff, unit)
            for run in range(len(data))
        ]
    return np.stack(curves)


def _curve(
    run: Any,
    rates: npt.NDArray[np.float32],
    usable: npt.NDArray[np.bool_],
    plan: Plan,
    cutoff: float,
    unit: Unit,
) -> Curves:
    """Activity curve of one run, shape (step,); in units of each step, a few steps at a time."""
    if isinstance(run, np.ndarray):
        changes = (values.flatten() for step, values in plan.values(run) if usable[step])
        each, axis = (steps_at_once(run[0, 0].size), -1) if unit == "step" else (None, (-2, -1))
        parts, at = [], 0
        while few := list(itertools.islice(changes, each)):
            rate = np.stack(few) * rates[at : at + len(few), np.newaxis]
            parts.append(_active(rate, cutoff, axis))
            at += len(few)
        curve = np.concatenate(parts)
    else:
        places = np.cumsum(usable) - 1
        curve = np.empty(len(rates), np.float32)
        for step, change in plan.changes(run):
            if usable[step]:
                place = places[step]
                curve[place] = _active_in_parts(change, rates[place], cutoff)
    return curve if np.isfinite(curve).all() else np.full_like(curve, np.nan)


def _active_in_parts(change: Change, rate: np.float32, cutoff: float) -> np.float32:
    """`_active` of one step, whose rates are made anew for every pass over them."""

    def rates() -> Iterator[npt.NDArray[np.float32]]:
        return (part * rate for part in change.parts())

    squares = sum(float(np.square(part).sum()) for part in rates())
    if not (np.isfinite(squares) or all(np.isfinite(part).all() for part in rates())):
        return np.float32(np.nan)
    centre = median_of(rates, change.size)

    def distances() -> Iterator[npt.NDArray[np.float32]]:
        return (np.abs(part - centre) for part in rates())

    typical = 1.4826 * median_of(distances, change.size)
    floor = _FLOOR * np.sqrt(np.float32(squares / change.size))
    limit = cutoff * np.maximum(typical, floor)
    active = sum(np.count_nonzero(part > limit) for part in distances())
    return np.float32(active) / np.float32(change.size)


def _active(rate: npt.NDArray[np.float32], cutoff: float, axis: int | tuple[int, ...]) -> Curves:
    """Share of active pixels by step, of rates of shape (step, pixel); NaN where one is not finite.

    The unit is taken over `axis`.
    """
    if not np.isfinite(rate).all():
        return np.full(len(rate), np.nan, np.float32)
    distance = np.abs(rate - np.median(rate, axis=axis, keepdims=True))
    typical = 1.4826 * np.median(distance, axis=axis, keepdims=True)
    floor = _FLOOR * np.sqrt(np.mean(np.square(rate), axis=axis, keepdims=True))
    active = distance > cutoff * np.maximum(typical, floor)
    share: Curves = active.mean(axis=-1, dtype=np.float32)
    return share
