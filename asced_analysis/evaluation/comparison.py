"""What is compared: a replay with its recording, or two stores of any making."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.evaluation.control_runs import PairedRuns
from asced_analysis.evaluation.intervals import (
    Change,
    change_estimate,
    mean_estimate,
    unpaired_estimate,
)
from asced_analysis.evaluation.judges import AT_ONCE, Assessment, Judge, RealismJudge
from asced_analysis.evaluation.matching import pair_runs, replayed_runs
from asced_analysis.evaluation.parts import OtherRuns
from asced_analysis.evaluation.populations import compare, quality_of
from asced_analysis.realism.distances import neighbour_radii
from asced_analysis.realism.pictures import judged_variable, picture_shape, read_pictures
from asced_analysis.replay.agreement import exactness, visible_difference
from asced_analysis.replay.recording import Recording
from asced_stores import TrajectoryStore, open_runs
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Comparison:
    """Two sets of runs.

    Attributes
    ----------
    first, second : xarray.Dataset
        The recorded and the corrected runs.
    at, there : int arrays
        Places of the runs in both; entry i of both is one run where they are paired.
    paired : bool
    why : str
        How they belong together, for people.
    flagged : bool array
        Of the pairs: who was corrected. All, where nothing says.
    changed : bool array
        Of the pairs: who is not bit for bit the same.
    masks : xarray.DataArray or None
        Of the second store.
    recording : Recording or None
        Of a replay.
    notes : list of str
        What a reader must know.
    """

    first: xr.Dataset
    second: xr.Dataset
    at: NDArray[np.intp]
    there: NDArray[np.intp]
    paired: bool
    why: str
    flagged: NDArray[np.bool_]
    changed: NDArray[np.bool_]
    masks: Any = None
    recording: Recording | None = None
    notes: list[str] = field(default_factory=list)

    def paired_runs(self) -> PairedRuns:
        """Flagged runs, corrected and recorded; memory grows with these alone."""
        index = np.flatnonzero(self.flagged)
        there = self.there[index]
        runs = np.asarray(self.second["run"].values, np.int64)[there]
        part = self.second.isel(run=there)
        masks = (
            np.ones((len(index), 1, 1), np.bool_)
            if self.masks is None
            else np.asarray(self.masks.isel(run=there).values, np.bool_)
        )
        scores = np.full(len(index), np.nan)
        if "score" in part:
            scores = np.asarray(part["score"].values, np.float64)
        before, after = self._pictures(index)
        return PairedRuns(runs, masks, scores, before, after)

    def _pictures(self, index: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[Any]]:
        shape = picture_shape(self.first)
        if not len(index):
            return np.empty((0, *shape), np.float32), np.empty((0, *shape), np.float32)
        return (
            read_pictures(self.first, self.at[index]),
            read_pictures(self.second, self.there[index]),
        )

    def evaluations(self) -> float | None:
        """Mean evaluations of a flagged run."""
        if "evaluations" not in self.second:
            return None
        paid = np.asarray(self.second["evaluations"].values)[self.there][self.flagged]
        return mean_estimate(paid).value

    def others(self, before: NDArray[np.float64], after: NDArray[np.float64]) -> OtherRuns:
        """What happened to runs that were not flagged."""
        rest = ~self.flagged
        changed = rest & self.changed
        largest = None
        if "difference" in self.second:
            differences = np.asarray(self.second["difference"].values)[self.there][rest]
            found = float(differences.max(initial=0.0))
            largest = found if np.isfinite(found) else None
        return OtherRuns(
            runs=int(rest.sum()),
            changed=int(changed.sum()),
            worse=int((after[changed] > before[changed]).sum()),
            largest_difference=largest,
        )


def compare_replay(first: TrajectoryStore, second: TrajectoryStore) -> Comparison:
    """A replay beside its recording.

    Raises
    ------
    InputError
        When it is not whole, is one of another recording, or unedited runs did not come back.
    """
    recording = Recording(first)
    ds = replayed_runs(recording, second)
    notes = _reproduction_notes(second)
    place = {int(run): i for i, run in enumerate(recording.dataset["run"].values)}
    at = np.array([place[int(run)] for run in ds["run"].values], np.intp)
    changed = ~(np.asarray(ds["difference"].values) == 0)
    flagged = np.asarray(ds["flagged"].values, np.bool_)
    return Comparison(
        first=recording.dataset,
        second=ds,
        at=at,
        there=np.arange(len(at)),
        paired=True,
        why="a replay of these runs",
        flagged=flagged,
        changed=changed | flagged,
        masks=ds["mask"],
        recording=recording,
        notes=notes,
    )


def _reproduction_notes(store: TrajectoryStore) -> list[str]:
    """Refuse a replay of which unedited runs are other ones; a note where that is not known."""
    exact = exactness(store)
    if not exact.runs:
        return [f"whether unedited runs come back could not be checked: {exact.sentence()}"]
    if exact.largest_difference <= visible_difference(store.attributes):
        return []
    if not exact.conditions:
        raise InputError(
            f"the replay {store.path} does not reproduce its recording: {exact.sentence()}, "
            "although all known conditions are the same. A broken replay cannot show an effect: "
            "find out what the recording was made with, and replay again with strategy none "
            "until its runs come back"
        )
    if exact.of_corrected and exact.typical_difference > exact.of_corrected / 2:
        raise InputError(
            f"the replay {store.path} does not reproduce its recording: {exact.sentence()}. "
            f"Unedited runs differ by {exact.typical_difference:.2g} (median), corrected ones by "
            f"{exact.of_corrected:.2g}: that cannot show an effect. Replay under the "
            "recording's own conditions, or record again here"
        )
    return [
        f"unedited runs did not come back ({exact.sentence()}): a part of every change may be "
        "due to that"
    ]


def compare_stores(first: TrajectoryStore, second: TrajectoryStore) -> Comparison:
    """Any two stores, paired where their runs began alike.

    Raises
    ------
    InputError
        Where their images cannot be compared.
    """
    a, b = open_runs(first.path), open_runs(second.path)
    for ds, store in ((a, first), (b, second)):
        if not {"sample", "image"} & set(ds.data_vars):
            raise InputError(f"{store.path} holds neither sample nor image: nothing can be judged")
    if picture_shape(a) != picture_shape(b) or judged_variable(a) != judged_variable(b):
        raise InputError(
            f"images of {first.path} have shape {picture_shape(a)} ({judged_variable(a)}), those "
            f"of {second.path} {picture_shape(b)} ({judged_variable(b)}): record both alike"
        )
    b, notes = _on_one_scale(a, b)
    pairs = pair_runs(a, b)
    flagged = np.ones(len(pairs.second), np.bool_)
    if pairs.paired and "flagged" in b:
        flagged = np.asarray(b["flagged"].values, np.bool_)[pairs.second]
    changed = np.ones(len(pairs.second), np.bool_)
    if pairs.paired:
        changed = _changed(a, b, pairs.first, pairs.second)
    masks = b["mask"] if pairs.paired and "mask" in b else None
    return Comparison(
        a,
        b,
        pairs.first,
        pairs.second,
        pairs.paired,
        pairs.why,
        flagged,
        changed,
        masks,
        None,
        notes,
    )


def _on_one_scale(a: xr.Dataset, b: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
    """The second store's samples are seen in the range of the first's, or they would not compare.

    A range may be measured on a recording's first batch, so that two recordings of one model differ
    in it.
    """
    one, other = a.attrs.get("value_range"), b.attrs.get("value_range")
    if judged_variable(a) != "sample" or one == other:
        return b, []
    attributes = {name: value for name, value in b.attrs.items() if name != "value_range"}
    if one is not None:
        attributes["value_range"] = one
    low, high = one or (-1, 1)
    seen = b.copy(deep=False)
    seen.attrs = attributes
    return seen, [
        f"samples of both stores are seen in the first one's range, {low:.3g} to {high:.3g}"
    ]


def _changed(
    a: xr.Dataset, b: xr.Dataset, at: NDArray[np.intp], there: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Which pairs are not the same picture, a few at a time."""
    parts = [np.zeros(0, np.bool_)]
    for begin in range(0, len(at), AT_ONCE):
        part = slice(begin, begin + AT_ONCE)
        one, other = read_pictures(a, at[part]), read_pictures(b, there[part])
        parts.append((one != other).any((1, 2, 3)))
    return np.concatenate(parts)


def quality_change(
    compared: Comparison, before: Assessment, after: Assessment, assessor: Judge, neighbours: int
) -> dict[str, Change]:
    """Quality of all runs before and after: distances of sets only where there are real images."""
    if (
        isinstance(assessor, RealismJudge)
        and before.vectors is not None
        and after.vectors is not None
    ):
        radii = neighbour_radii(assessor.model.vectors, neighbours)
        model = assessor.model
        return compare(
            quality_of(before.vectors, before.distance, model, radii, neighbours),
            quality_of(after.vectors, after.distance, model, radii, neighbours),
            model,
            paired=compared.paired,
        )
    old, new = before.distance, after.distance
    change = change_estimate(new - old) if compared.paired else unpaired_estimate(new, old)
    return {"local_realism": Change(mean_estimate(old), mean_estimate(new), change)}
