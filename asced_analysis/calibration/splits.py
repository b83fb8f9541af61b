"""Disjoint sets of runs: fit, calibrate, report; whole prompts (or seeds) stay together.

Runs of one prompt are alike, and so are runs of one seed: of such runs, it is prompts (seeds) that
are exchangeable with new ones, not runs. What is not known of the runs is said: a promise on the
wrong unit is not kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from asced_analysis.calibration.options import FRACTIONS
from asced_stores.errors import InputError


@dataclass(frozen=True)
class Split:
    """Boolean masks over the runs, and what was exchanged.

    Attributes
    ----------
    fit, calibrate, report : array of bool, shape (run,)
        Where prompts repeat, `calibrate` and `report` hold one run of each of their prompts.
    unit : str
        `run`, `prompt` or `seed`.
    notes : tuple of str
        What the promise does not hold for, or was not known.
    units : int
        How many runs, prompts or seeds were split.
    whose : int array, shape (run,)
        Which of them each run is of.
    """

    fit: npt.NDArray[np.bool_]
    calibrate: npt.NDArray[np.bool_]
    report: npt.NDArray[np.bool_]
    unit: Literal["run", "prompt", "seed"]
    notes: tuple[str, ...] = ()
    units: int = 0
    whose: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))


class ExchangeableUnitWarning(UserWarning):
    """Runs depend on each other in a way that the split cannot take into account."""


def split_runs(
    prompts: Sequence[Any] | None,
    runs: int,
    *,
    seeds: npt.ArrayLike | None = None,
    prompts_hidden: bool = False,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int = 0,
    eligible: npt.NDArray[np.bool_] | None = None,
) -> Split:
    """Split runs at random.

    Parameters
    ----------
    prompts : sequence, optional
        One a run. Where a prompt that is not empty repeats, prompts are the unit, and runs
        without one are left out: whose they are is not known.
    runs : int
    seeds : array of int, shape (run,), optional
        Where seeds repeat and prompts do not, seeds are the unit; -1 is unknown.
    prompts_hidden : bool, optional
        Whether runs had prompts that were not kept.
    fractions : (float, float, float)
        Shares of fit, calibrate and report; they need not add up to one.
    seed : int
    eligible : array of bool, optional
        Runs that may be used at all (the population of the promise).

    Warns
    -----
    ExchangeableUnitWarning
        Where runs without a prompt are left out, prompts were not kept, or seeds repeat across
        prompts; `Split.notes` say the same.
    """
    shares = np.asarray(fractions, dtype=float)
    if shares.shape != (3,) or not (shares >= 0).all() or not shares[:2].all():
        raise InputError(f"split fractions are {fractions}; expected three, the first two above 0")
    keep = np.ones(runs, dtype=bool) if eligible is None else np.asarray(eligible, dtype=bool)
    if not keep.any():
        raise InputError("no run is left to calibrate on; check the label of the population")
    rng = np.random.default_rng(seed)
    names = np.asarray([str(p) for p in prompts]) if prompts is not None else np.full(runs, "")
    units, unit, keep, notes = _units(names, seeds, prompts_hidden, keep)
    present = np.unique(units[keep])
    order = rng.permutation(present)
    ends = np.round(np.cumsum(shares / shares.sum()) * order.size).astype(int)
    fit, calibrate, report = (keep & np.isin(units, part) for part in np.split(order, ends[:2]))
    if unit != "run":
        calibrate, report = (_one_each(units, part, rng) for part in (calibrate, report))
    for note in notes:
        warnings.warn(note, ExchangeableUnitWarning, stacklevel=3)
    return Split(fit, calibrate, report, unit, notes, int(order.size), units)


def _units(
    names: npt.NDArray[np.str_],
    seeds: npt.ArrayLike | None,
    prompts_hidden: bool,
    keep: npt.NDArray[np.bool_],
) -> tuple[
    npt.NDArray[np.intp], Literal["run", "prompt", "seed"], npt.NDArray[np.bool_], tuple[str, ...]
]:
    """Unit of each run, what a unit is, the runs that can be used, and what to say."""
    numbers = np.full(names.size, -1) if seeds is None else np.asarray(seeds, np.int64)
    own, known = np.unique(names, return_inverse=True)[1], keep & (names != "")
    prompts, total = np.unique(own[known]).size, int(keep.sum())
    notes = []
    # a seed under two prompts, not the same run once more
    drawn = known & (numbers >= 0)
    pairs = np.unique(np.stack([numbers[drawn], own[drawn]]), axis=1)
    if (noises := np.unique(pairs[0]).size) < pairs.shape[1]:
        notes.append(
            f"seeds repeat across prompts ({noises} seeds for {prompts} prompts): the promise is "
            "for new prompts with these starting noises; draw a seed of its own for every run to "
            "promise more"
        )
    if prompts < known.sum():
        if without := int((keep & ~known).sum()):
            notes.append(
                f"{without} of {total} runs have no prompt and are left out: prompts repeat among "
                "the others, and which of them these runs share is not known"
            )
        return own, "prompt", known, tuple(notes)
    drawn = keep & (numbers >= 0)
    if not known.any() and np.unique(numbers[drawn]).size < drawn.sum():
        if without := int((keep & ~drawn).sum()):
            notes.append(
                f"{without} of {total} runs have no seed and are left out: seeds repeat among the "
                "others"
            )
        return np.unique(numbers, return_inverse=True)[1], "seed", drawn, tuple(notes)
    if prompts_hidden and not known.any():
        notes.append(
            "the prompts of these runs were not kept, so every run counts by itself: where prompts "
            "repeat, more runs of new prompts are flagged than promised; keep the prompts when "
            "recording, or draw each once"
        )
    return np.arange(names.size), "run", keep, tuple(notes)


def total_runs(runs: int, used: int, needed: int) -> int:
    """How many runs there must be in all, so that ``needed`` are used where ``used`` of them are.

    People choose how many runs they record, not how many fall to one part of them.
    """
    return ceil(needed * runs / max(used, 1))


def _one_each(
    units: npt.NDArray[np.intp], chosen: npt.NDArray[np.bool_], rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """One random run of each unit among the chosen."""
    order = rng.permutation(np.flatnonzero(chosen))
    first = order[np.unique(units[order], return_index=True)[1]]
    result = np.zeros_like(chosen)
    result[first] = True
    return result
