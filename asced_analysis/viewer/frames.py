"""Steps of one run as pictures: sample, predicted x0, weighted score, size of the dynamics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.signals import fields
from asced_analysis.viewer import pictures
from asced_analysis.viewer.reading import Trajectories
from asced_stores.errors import InputError

NOISE_REACH = 2.5
"""Standard deviations of noise that the sample's grey scale spans beside the data's range."""

KINDS: dict[str, tuple[str, ...]] = {
    "sample": ("eps", "x0"),
    "predicted_x0": ("x0",),
    "weighted_score": ("eps",),
    "dynamics": (),
}
"""Pictures of a step, and the recorded variables that each needs."""


@dataclass
class Strip:
    """Pictures of one kind for some steps.

    Attributes
    ----------
    kind : str
    scale : str
        ``picture``, ``diverging`` (the middle is zero) or ``sequential`` (from zero).
    images : list of uint8 arrays, shape (y, x, 1 or 3)
    low, high : list of float or None
        What 0 and 255 stand for, step by step; None where there is nothing to show.
    """

    kind: str
    scale: str
    images: list[pictures.Bytes] = field(default_factory=list)
    low: list[float | None] = field(default_factory=list)
    high: list[float | None] = field(default_factory=list)

    def add(self, image: npt.NDArray[Any], low: float, high: float) -> None:
        """One more step."""
        self.images.append(pictures.eight_bit(image, low, high))
        self.low.append(float(low))
        self.high.append(float(high))

    def skip(self, height: int, width: int) -> None:
        """A step without a picture."""
        self.images.append(np.zeros((height, width, 1), np.uint8))
        self.low.append(None)
        self.high.append(None)


def kinds_of(runs: Trajectories) -> list[str]:
    """What can be shown of these runs' steps."""
    return [kind for kind, needed in KINDS.items() if set(needed) <= set(runs.fields)]


def signals_of(runs: Trajectories) -> list[str]:
    """Signals whose dynamics can be shown."""
    return [name for name in fields.SIGNALS if fields.RECORDED[name] in runs.fields]


def strips(
    runs: Trajectories, row: int, first: int, stop: int, *, signal: str, frame: int = 0
) -> list[Strip]:
    """Pictures of some steps of a run.

    Parameters
    ----------
    runs : Trajectories
    row : int
        Position of the run.
    first, stop : int
        Steps.
    signal : str
        Whose dynamics.
    frame : int
        Of a video.
    """
    if signal not in signals_of(runs):
        raise InputError(f"no signal {signal!r}; choose one of {', '.join(signals_of(runs))}")
    # float64 is left to NumPy: the first page would wait for compiled loops to load
    one = runs.part(row, first, stop, frame).astype(np.float64)
    wanted = range(first - one.attrs["first"], stop - one.attrs["first"])
    projection = runs.projection(row, frame)
    found = []
    for kind in kinds_of(runs):
        if kind in ("sample", "predicted_x0"):
            found.append(_samples(kind, one, wanted, projection))
        elif kind == "weighted_score":
            found.append(_weighted(one, first, stop))
        else:
            found.append(_changes(one, signal, first, stop))
    return found


def size_of_changes(one: xr.Dataset, signal: str) -> xr.DataArray:
    """``|D_k|`` of one run in memory, dims (step, channel, y, x), singular steps left out."""
    return abs(fields.dynamics(one, signal)).isel(run=0).transpose("step", "channel", "y", "x")


def curve(
    runs: Trajectories,
    row: int,
    region: npt.NDArray[np.bool_],
    *,
    signal: str,
    frame: int = 0,
) -> tuple[list[int], list[float]]:
    """Mean size of the dynamics inside a region, step by step.

    Parameters
    ----------
    runs, row, signal, frame
        As in `strips`.
    region : array of bool, shape (y, x)

    Returns
    -------
    list of int, list of float
        The later step of each pair, and the mean of ``|D_k|`` over the region and the channels.
    """
    if region.shape != (runs.height, runs.width) or not region.any():
        raise InputError(
            f"the region has shape {region.shape} and {int(region.sum())} pixels; expected some "
            f"pixels of {runs.height} x {runs.width}"
        )
    change = size_of_changes(runs.whole(row, frame), signal)
    inside = change.values[..., region].mean(axis=(1, 2), dtype=np.float64)
    return [int(step) for step in change["step"].values], [float(value) for value in inside]


def _samples(
    kind: str, one: xr.Dataset, wanted: range, projection: pictures.Projection | None
) -> Strip:
    """Noisy samples or predictions, as pictures on the data's own scale."""
    strip = Strip(kind, "picture")
    field = fields.sample(one) if kind == "sample" else one["x0"]
    values = field.isel(run=0).transpose("step", "channel", "y", "x").values
    reach = 1.0
    if projection is not None:
        values, reach = projection.colours(values), projection.reach
    alpha, sigma = one["alpha"].values, one["sigma"].values
    for step in wanted:
        limit = reach
        if kind == "sample":
            limit = reach * (float(alpha[step]) + NOISE_REACH * float(sigma[step]))
        strip.add(pictures.pixels_of(values[step]), -limit, limit)
    return strip


def _weighted(one: xr.Dataset, first: int, stop: int) -> Strip:
    """The weighted score, mean over channels, around zero."""
    strip = Strip("weighted_score", "diverging")
    values = fields.signal(one, "weighted_score").isel(run=0).mean("channel")
    return _by_step(strip, values, first, stop, one)


def _changes(one: xr.Dataset, signal: str, first: int, stop: int) -> Strip:
    """The size of the dynamics, largest over channels."""
    strip = Strip("dynamics", "sequential")
    if one.sizes["step"] < 2:
        strip.skip(one.sizes["y"], one.sizes["x"])
        return strip
    return _by_step(strip, size_of_changes(one, signal).max("channel"), first, stop, one)


def _by_step(strip: Strip, values: xr.DataArray, first: int, stop: int, one: xr.Dataset) -> Strip:
    """Pictures of a field that lacks some steps."""
    known = {int(step): place for place, step in enumerate(values["step"].values)}
    numbers = values.transpose("step", "y", "x").values
    for step in range(first, stop):
        if step not in known:
            strip.skip(one.sizes["y"], one.sizes["x"])
            continue
        now = numbers[known[step]]
        reach = pictures.reach_of(now)
        strip.add(now[..., None], -reach if strip.scale == "diverging" else 0.0, reach)
    return strip
