"""What `keep` does: statistics of every run, full trajectories of a few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from asced_recorders.writing.observers import ObservedBatch, RunObserver
from asced_stores.errors import InputError
from asced_stores.format.observations import Observations
from asced_stores.format.steps_on_disk import StepsOnDisk
from asced_stores.writing.not_finite import finite_runs
from asced_stores.writing.writer import MUST_BE_FINITE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from asced_stores import TrajectorySpec

GROUP_RUNS = 2048
OBSERVED = "all, observed"
"""What a store with all runs in full says of itself where observers looked at them."""
FLAGGED_SHARE = 0.1  # what the cost preview assumes


@dataclass(frozen=True)
class KeepRule:
    """Which runs are kept in full.

    Parameters
    ----------
    kind : str
        ``flagged``: those that an observer asks for; ``sample``: a random share.
    share : float
        Of ``sample``, above 0 and at most 1.
    """

    kind: str
    share: float = 1.0

    @classmethod
    def parse(cls, text: str) -> KeepRule | None:
        """Read ``all`` (None), ``flagged`` or ``sample:P``.

        Raises
        ------
        InputError
            If it is none of them.
        """
        if text == "all":
            return None
        if text == "flagged":
            return cls("flagged", FLAGGED_SHARE)
        kind, _, share = text.partition(":")
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if kind != "sample" or not 0 < value <= 1:
            raise InputError(f"--keep is {text!r}: give all, flagged, or sample:P with P in 0..1")
        return cls("sample", value)

    def __str__(self) -> str:
        return self.kind if self.kind == "flagged" else f"sample:{self.share:g}"

    def chosen(self, runs: Sequence[int]) -> NDArray[np.bool_]:
        """The random share: each run's own number decides, whatever the batch."""
        if self.kind == "flagged":
            return np.zeros(len(runs), dtype=np.bool_)
        draws = [np.random.default_rng([0xA5CED, int(run)]).random() for run in runs]
        return np.asarray(draws) < self.share


class FlightRecorder:
    """Gathers what is kept of several sampled batches into one batch of the store.

    Parameters
    ----------
    rule : KeepRule
    observers : sequence of RunObserver
        Their features and counts are stored for every run.
    """

    def __init__(self, rule: KeepRule, observers: Sequence[RunObserver] = ()) -> None:
        if rule.kind == "flagged" and not observers:
            raise InputError("--keep flagged needs --thresholds, which say what is flagged")
        self.rule, self.observers = rule, tuple(observers)
        self.clear()

    def clear(self) -> None:
        """Begin a new group."""
        self._seen: Observations | None = None
        self._kept: list[tuple[dict[str, Any], NDArray[np.int64], dict[str, Any]]] = []
        self._first: tuple[dict[str, Any], NDArray[np.int64], dict[str, Any]] | None = None

    def add(
        self,
        arrays: Mapping[str, NDArray[Any]],
        runs: Sequence[int],
        scalars: Mapping[str, Any],
        spec: TrajectorySpec,
    ) -> None:
        """Look at a batch, keep its statistics and the runs that the rule chooses."""
        numbers = np.asarray(runs, dtype=np.int64)
        seen, asked = observe(self.observers, arrays, runs, spec, scalars)
        keep = self.rule.chosen(runs)
        if self.rule.kind == "flagged":
            keep = keep | asked
        keep = keep | ~_finite(arrays, len(numbers))  # a failed run is never lost
        self._seen = seen if self._seen is None else self._seen + seen
        if self._first is None:
            self._first = _rows(arrays, numbers, scalars, np.arange(len(numbers)) == 0)
        if keep.any():
            self._kept.append(_rows(arrays, numbers, scalars, keep))

    def finish(self) -> tuple[dict[str, Any], NDArray[np.int64], dict[str, Any], Observations]:
        """What the store gets for this group; one run at least, so that the batch exists."""
        assert self._first is not None
        assert self._seen is not None
        kept = self._kept or [self._first]
        arrays = {n: _joined([part[0][n] for part in kept]) for n in kept[0][0]}
        runs = np.concatenate([part[1] for part in kept])
        scalars = {n: np.concatenate([part[2][n] for part in kept]) for n in kept[0][2]}
        seen = self._seen
        self.clear()
        return arrays, runs, scalars, seen


def observe(
    observers: Sequence[RunObserver],
    arrays: Mapping[str, NDArray[Any]],
    runs: Sequence[int],
    spec: TrajectorySpec,
    scalars: Mapping[str, Any],
) -> tuple[Observations, NDArray[np.bool_]]:
    """What observers say of a batch together, and which runs they ask for."""
    asked = np.zeros(len(runs), np.bool_)
    features: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    batch = ObservedBatch(arrays, runs, spec, scalars)
    for observer in observers:
        found = observer.observe(batch)
        if both := sorted({*features, *counts} & {*found.features, *found.counts}):
            raise InputError(
                f"two observers give {', '.join(both)}: give one of them other names, or record "
                "with one of them"
            )
        features |= found.features
        counts |= found.counts
        if found.keep is not None:
            asked = asked | found.keep
    return Observations(np.asarray(runs, dtype=np.int64), features, counts), asked


def _finite(arrays: Mapping[str, NDArray[Any]], count: int) -> NDArray[np.bool_]:
    """Runs without NaN and infinity, by what a writer judges them by."""
    finite = np.ones(count, dtype=np.bool_)
    for name in MUST_BE_FINITE:
        if name in arrays:
            finite &= finite_runs(arrays[name])
    return finite


def _chosen(array: Any, keep: NDArray[np.bool_]) -> Any:
    """Some runs of a variable; of large runs in a file again."""
    if not isinstance(array, StepsOnDisk):
        return array[keep]
    chosen = StepsOnDisk((0, *array.shape[1:]), array.dtype.name)
    chosen.add(array, np.flatnonzero(keep).tolist())
    return chosen


def _joined(parts: list[Any]) -> Any:
    """Runs of several batches."""
    first, *others = parts
    if not isinstance(first, StepsOnDisk):
        return np.concatenate(parts)
    for other in others:
        first.add(other, range(len(other)))
    return first


def _rows(
    arrays: Mapping[str, NDArray[Any]],
    runs: NDArray[np.int64],
    scalars: Mapping[str, Any],
    keep: NDArray[np.bool_],
) -> tuple[dict[str, Any], NDArray[np.int64], dict[str, Any]]:
    """Copies of the chosen runs; the buffers are used again."""
    spread = {
        name: np.broadcast_to(np.asarray(value, dtype=object if _text(value) else None), len(runs))
        for name, value in scalars.items()
    }
    return (
        {name: _chosen(array, keep) for name, array in arrays.items()},
        runs[keep],
        {name: value[keep] for name, value in spread.items()},
    )


def _text(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], str)
    )
