"""Which runs of two stores belong together: a replay's with its recording's, or pairs of seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asced_analysis.replay.recording import SCALARS, Recording
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Pairs:
    """Places of runs in two datasets.

    Attributes
    ----------
    first, second : int arrays
        Where ``paired``, of one length: entry i of both is one run.
    paired : bool
    why : str
        For people: how many were paired by what, or why none.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    paired: bool
    why: str


def pair_runs(first: xr.Dataset, second: xr.Dataset) -> Pairs:
    """Pair runs that have the same number and began alike; where half do not, compare unpaired.

    Parameters
    ----------
    first, second : xarray.Dataset
        Complete runs, as `open_runs` gives them.

    Returns
    -------
    Pairs
        A run began alike where seed, prompt, label and guidance agree, and the starting noise where
        both hold it; a run without a seed of its own needs the starting noise.
    """
    here = {int(run): i for i, run in enumerate(first["run"].values)}
    both = [(here[int(run)], i) for i, run in enumerate(second["run"].values) if int(run) in here]
    a, b = (np.array([pair[side] for pair in both], np.intp) for side in (0, 1))
    same = np.ones(len(both), np.bool_)
    known = np.zeros(len(both), np.bool_)
    for name in SCALARS:
        if name in first.coords and name in second.coords:
            same &= _same(first[name].values[a], second[name].values[b])
            if name == "seed":
                known |= np.asarray(first[name].values[a]) >= 0
    if "x_init" in first and "x_init" in second and len(both):
        if first["x_init"].shape[1:] == second["x_init"].shape[1:]:
            began = [
                np.array_equal(first["x_init"][i].values, second["x_init"][j].values)
                for i, j in both
            ]
            same &= began
            known[:] = True
        else:
            same[:] = False
    same &= known
    fewer = min(first.sizes["run"], second.sizes["run"])
    if same.sum() * 2 > fewer:
        left = first.sizes["run"] + second.sizes["run"] - 2 * int(same.sum())
        why = f"{int(same.sum())} runs paired by number and start"
        return Pairs(a[same], b[same], True, why + (f"; {left} have no pair" if left else ""))
    return Pairs(
        np.arange(first.sizes["run"]),
        np.arange(second.sizes["run"]),
        False,
        f"{int(same.sum())} of {fewer} runs began alike: compared unpaired",
    )


def replayed_runs(recording: Recording, store: TrajectoryStore) -> xr.Dataset:
    """Open the runs of a replay, if it is a whole one of this recording.

    Parameters
    ----------
    recording : Recording
    store : TrajectoryStore
        What `replay` made of it.

    Returns
    -------
    xarray.Dataset
        The replay's complete runs.

    Raises
    ------
    InputError
        For a store that is no replay, is one of another model or schedule or of other runs, or was
        interrupted.
    """
    of = store.attributes.get("replay_of")
    if of is None:
        raise InputError(f"{store.path} is no replay; make one with `asced replay`")
    if of != recording.store.fingerprint:
        raise InputError(
            f"{store.path} is a replay of another recording than {recording.store.path}; give the "
            "recording it was made from"
        )
    ds = open_runs(store.path)
    _check_runs(recording, store, ds)
    wanted = {int(number) for number in np.unique(recording.dataset["batch"].values)}
    missing = wanted - set(store.committed_batches())
    if missing:
        raise InputError(
            f"{store.path} lacks {len(missing)} of the {len(wanted)} batches of "
            f"{recording.store.path}: the replay was interrupted, or runs were recorded since; run "
            "`asced replay` again, with --resume or --overwrite"
        )
    return ds


def _check_runs(recording: Recording, store: TrajectoryStore, ds: xr.Dataset) -> None:
    """Compare the runs' numbers, and what each was sampled from, with the recording's.

    Recordings with one schedule and model share a fingerprint, whatever their seeds and prompts.
    """
    recorded = recording.dataset
    place = {int(run): i for i, run in enumerate(recorded["run"].values)}
    runs = [int(run) for run in ds["run"].values]
    if not all(run in place for run in runs):
        raise InputError(f"{store.path} holds runs that {recording.store.path} does not have")
    index = np.array([place[run] for run in runs], np.intp)
    for name in SCALARS:
        if name not in ds.coords or name not in recorded.coords:
            continue
        here, there = ds[name].values, recorded[name].values[index]
        other = np.flatnonzero(~_same(here, there))
        if len(other):
            raise InputError(
                f"{store.path} is a replay of other runs than those of {recording.store.path}: the "
                f"{name} of run {runs[other[0]]} is {here[other[0]]!s} where the recording has "
                f"{there[other[0]]!s}; give the recording it was made from"
            )


def _same(here: NDArray[np.generic], there: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where two arrays agree; NaN is like NaN."""
    same = np.asarray(here == there, np.bool_)
    both = np.asarray((here != here) & (there != there), np.bool_)
    return same | both
