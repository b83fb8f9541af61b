"""Counting a block of runs: the same numbers as the kernels of `dynamics`, tile by tile.

A tile of 65,536 values goes through conversion, scaling, difference and counting while it stays
in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis import fields
from asced_analysis.bit_patterns import Kind
from asced_analysis.counts import Counts, join_counts
from asced_analysis.dynamics import noise_ratio
from asced_analysis.tally import Tally
from asced_stores.errors import InputError

Measure: TypeAlias = Literal["dynamics", "difference", "magnitude", "value"]
"""``|D_k|``, signed ``D_k``, ``|signal|`` or the signed signal itself."""

_TILE = 1 << 16  # values counted at once: three float32 tiles and their keys stay in the L2 cache
_HALF_INFINITY = 0x7C00
_HALF_SCALE = 2.0**112
_LARGEST_FACTOR = 2.0**15  # times the scale, still a float32 number
_SIGN_AND_HALF = np.int32(-0x70002000)  # 0x8FFFE000: the sign, and fifteen bits below the top four
_STEPS_AT_ONCE = 32  # steps with a table each; 2 MB of address space a step, little of it touched


@dataclass(frozen=True)
class Plan:
    """What to count: ``post_k * (pre_k * v_k - pre_{k-1} * v_{k-1})`` of one recorded variable.

    Attributes
    ----------
    variable : str
        Recorded variable v.
    signal, measure : str
        What the numbers are called.
    steps : tuple of int
        Positions of the steps that are read, in the arrays.
    before, after : tuple of float
        Factors pre and post, one a step in `steps`; None where they are one.
    lag : int
        1 for differences of neighbours, 0 for the values themselves.
    kind : {"half", "single"}
    signed : bool
    """

    variable: str
    signal: str
    measure: str
    steps: tuple[int, ...]
    before: tuple[float, ...] | None
    after: tuple[float, ...] | None
    lag: int
    kind: Kind
    signed: bool

    def values(
        self, block: npt.NDArray[Any], memory: npt.NDArray[np.float32] | None = None
    ) -> Iterator[tuple[int, npt.NDArray[np.floating[Any]]]]:
        """Position and values of each step of a block of runs, shape (run, step, ...).

        Parameters
        ----------
        block : numpy.ndarray, shape (run, step, ...)
            Runs.
        memory : numpy.ndarray, shape (3, values), float32, optional
            To work in, with room for a step of the block; new by default.

        Yields
        ------
        int
            Position among the results.
        numpy.ndarray, shape (run, ...), float16 or float32
            Valid until the next one is asked for: the memory is used again.
        """
        if self.kind == "half":
            for position, step in enumerate(self.steps):
                yield position, np.ascontiguousarray(block[:, step], np.float16)
            return
        shape = (block.shape[0], *block.shape[2:])
        finite = _finite_halves(block)
        size = math.prod(shape)
        memory = np.empty((3, size), np.float32) if memory is None else memory[:, :size]
        now, last, change = (row.reshape(shape) for row in memory)
        for position, step in enumerate(self.steps):
            now, last = last, now
            factor = 1.0 if self.before is None else self.before[position]
            _scaled(block[:, step], factor, now, finite=finite)
            if self.lag == 0:
                yield position, now
            elif position:
                np.subtract(now, last, out=change)
                if self.after is not None:
                    change *= np.float32(self.after[position])
                yield position - 1, change


def _finite_halves(values: npt.NDArray[Any]) -> bool:
    """Whether these are fp16 numbers and none is NaN or infinite: two passes of integers."""
    if values.dtype != np.float16:
        return False
    positive = int(values.view(np.int16).max(initial=0))
    negative = int(values.view(np.uint16).max(initial=0))
    return positive < _HALF_INFINITY and negative < _HALF_INFINITY + 0x8000


def _scaled(
    values: npt.NDArray[np.floating[Any]],
    factor: float,
    out: npt.NDArray[np.float32],
    *,
    finite: bool,
) -> None:
    """``out = factor * values``, rounded once from fp16; four times as fast as NumPy's cast.

    Shifted by 13, the bits of a `finite` fp16 number are those of a float32 number 2**112 times
    smaller, subnormal numbers included; other numbers take the ordinary way.
    """
    number = np.float32(factor)
    if finite:
        wide = out.view(np.int32)
        np.copyto(wide, values.view(np.int16))
        wide <<= np.int32(13)
        wide &= _SIGN_AND_HALF
        if abs(number) < _LARGEST_FACTOR:
            out *= number * np.float32(_HALF_SCALE)
            return
        out *= np.float32(_HALF_SCALE)
    else:
        np.copyto(out, values, casting="unsafe")
    if number != 1:
        out *= number


def count_block(
    blocks: Iterator[dict[str, npt.NDArray[Any]]],
    *,
    plan: Plan,
    groups: int | None,
    by_channel: bool,
) -> Counts:
    """Count the shards of one task; the same numbers as the kernels of `dynamics` give.

    Parameters
    ----------
    blocks : iterator of dict
        The recorded variable, shape (run, step, ..., channel, y, x), and ``group`` codes.
    plan : Plan
        What to count.
    groups : int, optional
        Number of groups of runs.
    by_channel : bool
        Whether channels are told apart.

    Returns
    -------
    Counts
        With groups ``([group,] step[, channel])``.
    """
    tallies: dict[int, list[Tally]] = {}
    steps = len(plan.steps) - plan.lag
    channels = 0
    # once a task: in Dask's workers fresh memory costs as much as the subtraction done in it
    memory = np.empty((3, _TILE), np.float32)
    for block in blocks:
        data = block[plan.variable]
        channels = data.shape[-3] if by_channel else 1
        for code, chosen in _by_group(data, None if groups is None else block["group"]):
            if code not in tallies:
                tallies[code] = [
                    Tally(min(_STEPS_AT_ONCE, steps - at) * channels, plan.kind, signed=plan.signed)
                    for at in range(0, steps, _STEPS_AT_ONCE)
                ]
            own = tallies[code]
            for channel in range(channels):
                part = chosen[..., channel, :, :] if by_channel else chosen
                for tile in _tiles(part):
                    for position, values in plan.values(tile, memory):
                        window, row = divmod(position, _STEPS_AT_ONCE)
                        own[window].add(row * channels + channel, values)
    shape = (steps, channels) if by_channel else (steps,)
    finished = {
        code: join_counts([tally.finish() for tally in own], shape) for code, own in tallies.items()
    }
    if groups is None:
        return finished[0]
    nothing = Counts.empty(plan.kind, shape)
    everyone = [finished.get(code, nothing) for code in range(groups)]
    return join_counts(everyone, (groups, *shape))


def _by_group(
    data: npt.NDArray[Any], codes: npt.NDArray[np.intp] | None
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Each group of runs and its code; all of them as group 0 where there are no codes."""
    if codes is None:
        yield 0, data
        return
    for code in np.unique(codes):
        yield int(code), data[codes == code]


def _tiles(data: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Blocks of shape (run, step, pixel) with at most a tile's values a step."""
    flat = data.reshape(*data.shape[:2], -1)
    rows, pixels = max(1, _TILE // max(1, flat.shape[2])), flat.shape[2]
    for run in range(0, len(flat), rows):
        for pixel in range(0, pixels, _TILE):
            yield flat[run : run + rows, :, pixel : pixel + _TILE]


def plan_counts(ds: xr.Dataset, signal: str, measure: str) -> Plan:
    """What to count for a signal and a measure.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them.
    signal, measure : str
        As in `asced_analysis.step_statistics`.

    Returns
    -------
    Plan

    Raises
    ------
    InputError
        When a name is unknown, a variable is missing, or too few steps are usable.
    """
    if measure not in get_args(Measure):
        raise InputError(f"no measure {measure!r}; choose one of {', '.join(get_args(Measure))}")
    signed = measure in ("difference", "value")
    lag = int(measure in ("dynamics", "difference"))
    if signal in ("eps", "x0"):
        recorded = fields.recorded(ds, signal)
        kind: Kind = "half" if lag == 0 and recorded.dtype == np.float16 else "single"
        steps = tuple(range(ds.sizes["step"]))
        return _check(Plan(signal, signal, measure, steps, None, None, lag, kind, signed))
    name = fields.check_signal(signal)
    variable = fields.RECORDED[name]
    recorded = fields.recorded(ds, variable)
    steps = tuple(range(ds.sizes["step"]))
    before = after = None
    if name == "weighted_score":
        used, _ = fields.regular_steps(ds)
        steps = steps[len(steps) - used.sizes["step"] :]
        before = tuple(-noise_ratio(used["alpha"].values, used["sigma"].values))
    elif name == "innovation":
        kappa = noise_ratio(ds["alpha"].values[1:], ds["sigma"].values[1:])
        after, lag = (np.nan, *(-kappa)), 1
    return _check(Plan(variable, name, measure, steps, before, after, lag, "single", signed))


def _check(plan: Plan) -> Plan:
    """Refuse runs with too few steps."""
    if len(plan.steps) <= plan.lag:
        raise InputError(f"{len(plan.steps)} usable steps found; expected at least {plan.lag + 1}")
    return plan
