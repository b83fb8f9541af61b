"""How exactly a replay reproduced its recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asced_recorders.pipelines.data_range import range_of
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError


def visible_difference(attributes: Mapping[str, Any]) -> float:
    """Difference of values that shows in a picture of 8 bits: 2 / 255 of data in -1..1.

    Parameters
    ----------
    attributes : mapping
        Of a store: between which its data lie.
    """
    low, high = range_of(attributes)
    return (high - low) / 255


@dataclass(frozen=True)
class Exactness:
    """Agreement of a replay with its recording, over runs that no correction edited.

    Attributes
    ----------
    runs : int
        Runs compared. Under the recording's own conditions copied runs count where others came
        back: sampled again they would be the same. Under other conditions they do not.
    identical : int
        Of these, bit for bit the same.
    largest_difference : float
        Over all pixels of all compared runs, in units of the data.
    conditions : list of str
        What differs between recording and replay: version, device, batch.
    copied : int
        Runs that were copied and say nothing: under other conditions, or where none was sampled.
    typical_difference, of_corrected : float
        Median over the compared runs, and over the corrected ones, of their largest difference.
    value_range : (float, float)
        Between which the data lie.

    Examples
    --------
    >>> from asced_analysis.replay import Exactness
    >>> Exactness(runs=8, identical=8, largest_difference=0.0, conditions=[]).sentence()
    '8 of 8 uncorrected runs came back bit for bit'
    """

    runs: int
    identical: int
    largest_difference: float
    conditions: list[str]
    copied: int = 0
    typical_difference: float = 0.0
    of_corrected: float = 0.0
    value_range: tuple[float, float] = (-1.0, 1.0)

    @property
    def bit_exact(self) -> bool:
        """Whether every compared run is the same bit for bit."""
        return self.identical == self.runs

    def sentence(self) -> str:
        """For people."""
        low, high = self.value_range
        why = f" ({'; '.join(self.conditions)})" if self.conditions else ""
        if not self.runs and self.copied:
            return f"{self.copied} uncorrected runs were copied, not sampled: not compared{why}"
        if not self.runs:
            return "every run was corrected: nothing to compare"
        if self.bit_exact:
            return f"{self.runs} of {self.runs} uncorrected runs came back bit for bit{why}"
        return (
            f"{self.identical} of {self.runs} uncorrected runs came back bit for bit; the largest "
            f"difference is {self.largest_difference:.2g} in {low:g}..{high:g}{why}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "bit_exact": self.bit_exact}


class NotReproducedError(InputError):
    """Unedited runs did not come back although nothing that is known of the two differs."""


def check_reproduced(replayed: TrajectoryStore, likely: str) -> None:
    """Refuse a replay of which unedited runs are other ones.

    Parameters
    ----------
    replayed : TrajectoryStore
        A store that `replay` wrote.
    likely : str
        What is likely to be missing, for the message.

    Raises
    ------
    NotReproducedError
        Where the largest difference shows in a picture, under the recording's own conditions.
    """
    found = exactness(replayed)
    if found.conditions or found.largest_difference <= visible_difference(replayed.attributes):
        return
    raise NotReproducedError(
        f"the replay does not reproduce the recording: {found.sentence()}, although "
        f"all known conditions are the same. {likely} The new samples are in {replayed.path}; "
        "`asced evaluate` refuses them, since a broken replay cannot show an effect."
    )


def exactness(replayed: TrajectoryStore | str | Path) -> Exactness:
    """Sum up the differences that a replay measured while it ran.

    Parameters
    ----------
    replayed : TrajectoryStore or path
        A store that `replay` wrote.

    Examples
    --------
    >>> from asced_analysis.replay import exactness
    >>> exactness("corrected.zarr").bit_exact
    True
    """
    store = replayed if isinstance(replayed, TrajectoryStore) else TrajectoryStore.open(replayed)
    ds = open_runs(store.path)
    conditions = list(store.attributes.get("replay_conditions", []))
    plain = ~np.asarray(ds["flagged"].values, np.bool_)
    start = store.attributes.get("start")
    remaining = len(store.spec.alpha) - (start if isinstance(start, int) else 0)
    copied = plain & (np.asarray(ds["evaluations"].values) < remaining)
    if not conditions and (plain & ~copied).any():
        copied = np.zeros_like(plain)
    every = np.asarray(ds["difference"].values)
    difference = every[plain & ~copied]
    return Exactness(
        runs=len(difference),
        identical=int((difference == 0).sum()),
        largest_difference=float(difference.max(initial=0.0)),
        conditions=conditions,
        copied=int(copied.sum()),
        typical_difference=float(np.median(difference)) if len(difference) else 0.0,
        of_corrected=float(np.median(every[~plain])) if (~plain).any() else 0.0,
        value_range=range_of(store.attributes),
    )
