"""What is counted of runs, and counting it: the same numbers as the kernels of `dynamics`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from asced_analysis.counts.bit_patterns import Kind
from asced_analysis.counts.changes import PART, Change, parts_of, widen
from asced_analysis.counts.histograms import Counts, join_counts
from asced_analysis.counts.tally import Tally
from asced_analysis.signals import fields
from asced_analysis.signals.dynamics import noise_ratio
from asced_stores.errors import InputError, TooFewStepsError

Measure: TypeAlias = Literal["dynamics", "difference", "magnitude", "value"]
"""``|D_k|``, signed ``D_k``, ``|signal|`` or the signed signal itself."""

_ROWS_AT_ONCE = 128  # of a table; 2 MB of address space a step and channel, little of it touched


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
        self, block: npt.NDArray[Any]
    ) -> Iterator[tuple[int, npt.NDArray[np.floating[Any]]]]:
        """Position and values of each step of a block of runs, shape (run, step, ...).

        Parameters
        ----------
        block : numpy.ndarray, shape (run, step, ...)
            Runs.

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
        now, last, change = np.empty((3, block.shape[0], *block.shape[2:]), np.float32)
        for position, step in enumerate(self.steps):
            now, last = last, now
            widen(block[:, step], now)
            if self.before is not None:
                now *= np.float32(self.before[position])
            if self.lag == 0:
                yield position, now
            elif position:
                np.subtract(now, last, out=change)
                if self.after is not None:
                    change *= np.float32(self.after[position])
                yield position - 1, change

    def changes(self, run: Any) -> Iterator[tuple[int, Change]]:
        """Position and change of each step of one run, of which two steps lie in memory.

        Parameters
        ----------
        run : array, shape (1, step, ...)
            In memory, or read step by step.

        Yields
        ------
        int
            Position among the results.
        Change
            Valid until the next one is asked for.
        """
        change = Change()
        for position, step in enumerate(self.steps):
            change.last = change.now if self.lag else None
            change.now = None  # before the next one is read
            change.now = np.ascontiguousarray(run[:, step]).reshape(-1)
            change.scale = change.scale[1], self._factor(self.before, position)
            change.after = self._factor(self.after, position)
            if position >= self.lag:
                yield position - self.lag, change

    @staticmethod
    def _factor(factors: tuple[float, ...] | None, position: int) -> np.float32 | None:
        return None if factors is None else np.float32(factors[position])


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
    channels = 1
    for block in blocks:
        data = block[plan.variable]
        channels = data.shape[-3] if by_channel else 1
        pixels = math.prod(data.shape[-2:]) if by_channel else math.prod(data.shape[2:])
        window = max(1, _ROWS_AT_ONCE // channels)
        if not isinstance(data, np.ndarray):  # it is read step by step
            window = 1
        else:
            data = data.reshape(*data.shape[:2], -1, channels, pixels)
        codes = np.zeros(len(data), np.intp) if groups is None else block["group"]
        for code in np.unique(codes).tolist():
            if code not in tallies:
                tallies[code] = [
                    Tally(min(window, steps - at) * channels, plan.kind, signed=plan.signed)
                    for at in range(0, steps, window)
                ]
            if isinstance(data, np.ndarray):
                _count(data, np.flatnonzero(codes == code), plan, tallies[code], window)
            else:
                _count_stepwise(data, plan, tallies[code], channels, pixels)
        del block, data  # so that the next shard is read into the same memory
    shape = (steps, channels) if by_channel else (steps,)
    finished = {
        code: join_counts([tally.finish() for tally in own], shape) for code, own in tallies.items()
    }
    if groups is None:
        return finished[0]
    nothing = Counts.empty(plan.kind, shape)
    everyone = [finished.get(code, nothing) for code in range(groups)]
    return join_counts(everyone, (groups, *shape))


def _count(
    data: npt.NDArray[Any],
    runs: npt.NDArray[np.intp],
    plan: Plan,
    tallies: Sequence[Tally],
    window: int,
) -> None:
    """Count some runs of a block, shape (run, step, frame, channel, pixel).

    A window of so many steps goes into each of the tallies.
    """
    if plan.kind == "half":
        channels = data.shape[3]
        for channel in range(channels):
            for step, values in plan.values(data[:, :, :, channel]):
                part, row = divmod(step, window)
                tallies[part].add(row * channels + channel, values[runs])
        return
    for first, tally in zip(range(0, len(plan.steps), window), tallies, strict=False):
        steps = plan.steps[first : first + window + plan.lag]
        before, after = (
            np.ones(len(steps)) if factors is None else np.asarray(factors[first:][: len(steps)])
            for factors in (plan.before, plan.after)
        )
        tally.add_steps(data, runs, steps[0], before, after, plan.lag)


def _count_stepwise(
    run: Any, plan: Plan, tallies: Sequence[Tally], channels: int, pixels: int
) -> None:
    """Count one run that is read step by step; each of the tallies is for a step."""
    length = PART if channels == 1 else min(pixels, PART)
    for position, change in plan.changes(run):
        for start in range(0, change.size, pixels if channels > 1 else change.size):
            own = change.size if channels == 1 else pixels
            for which in parts_of(own, length):
                here = slice(start + which.start, start + which.stop)
                values = change.stored(here) if plan.kind == "half" else change.part(here)
                tallies[position].add(start // own % channels, values)


def plan_counts(ds: xr.Dataset, signal: str, measure: str) -> Plan:
    """What to count for a signal and a measure.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them.
    signal, measure : str
        As in `asced_analysis.step_statistics`.

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
        found = f"{len(plan.steps)} step{'s' * (len(plan.steps) != 1)}"
        raise TooFewStepsError(
            f"{found} with finite levels found; dynamics need at least {plan.lag + 1}"
        )
    return plan
