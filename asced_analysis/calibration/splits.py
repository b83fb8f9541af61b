"""Disjoint sets of runs: fit, calibrate, report; whole prompts stay together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from asced_stores.errors import InputError

FRACTIONS = (0.4, 0.4, 0.2)


@dataclass(frozen=True)
class Split:
    """Boolean masks over the runs, and what was exchanged.

    Attributes
    ----------
    fit, calibrate, report : array of bool, shape (run,)
        Where prompts repeat, `calibrate` and `report` hold one run of each of their prompts.
    unit : str
        `run` or `prompt`.
    """

    fit: npt.NDArray[np.bool_]
    calibrate: npt.NDArray[np.bool_]
    report: npt.NDArray[np.bool_]
    unit: Literal["run", "prompt"]


def split_runs(
    prompts: Sequence[Any] | None,
    runs: int,
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int = 0,
    eligible: npt.NDArray[np.bool_] | None = None,
) -> Split:
    """Split runs at random.

    Parameters
    ----------
    prompts : sequence, optional
        One a run. Where a prompt that is not empty repeats, prompts are the unit.
    runs : int
    fractions : (float, float, float)
        Shares of fit, calibrate and report; they need not add up to one.
    seed : int
    eligible : array of bool, optional
        Runs that may be used at all (the population of the promise).
    """
    shares = np.asarray(fractions, dtype=float)
    if shares.shape != (3,) or not (shares >= 0).all() or not shares[:2].all():
        raise InputError(f"split fractions are {fractions}; expected three, the first two above 0")
    keep = np.ones(runs, dtype=bool) if eligible is None else np.asarray(eligible, dtype=bool)
    if not keep.any():
        raise InputError("no run is left to calibrate on; check the label of the population")
    rng = np.random.default_rng(seed)
    names = np.asarray([str(p) for p in prompts]) if prompts is not None else np.full(runs, "")
    repeated = len(set(names[keep])) < keep.sum() and bool((names[keep] != "").all())
    units = np.unique(names, return_inverse=True)[1] if repeated else np.arange(runs)
    present = np.unique(units[keep])
    order = rng.permutation(present)
    ends = np.round(np.cumsum(shares / shares.sum()) * order.size).astype(int)
    fit, calibrate, report = (keep & np.isin(units, part) for part in np.split(order, ends[:2]))
    if repeated:
        calibrate, report = (_one_each(units, part, rng) for part in (calibrate, report))
    return Split(fit, calibrate, report, "prompt" if repeated else "run")


def _one_each(
    units: npt.NDArray[np.intp], chosen: npt.NDArray[np.bool_], rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """One random run of each unit among the chosen."""
    order = rng.permutation(np.flatnonzero(chosen))
    first = order[np.unique(units[order], return_index=True)[1]]
    result = np.zeros_like(chosen)
    result[first] = True
    return result
