"""Who judges an evaluation: a realism model that looks at pictures, or scores from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from asced_analysis.detection.given_outcomes import given_outcomes
from asced_analysis.realism.claims import Reference
from asced_analysis.realism.local import RealismModel, features, local_realism
from asced_analysis.realism.membership import stand_ins
from asced_analysis.realism.outcomes import Outcomes
from asced_analysis.realism.pictures import read_pictures
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

AT_ONCE = 64
BEFORE, AFTER = "before", "after"
GROUPS = ("prompt", "label")
"""What makes runs alike before they begin."""


@dataclass(frozen=True)
class Assessment:
    """What a judge sees of some runs.

    Attributes
    ----------
    maps : float32 array, shape (n, rows, columns)
        Local distances, lower is better; 1 x 1 for a judge that gives one score a run.
    vectors : float32 array, shape (n, d), or None
        For distances between sets, where these mean anything.
    """

    maps: NDArray[np.float32]
    vectors: NDArray[np.float32] | None

    @property
    def distance(self) -> NDArray[np.float64]:
        """Mean over each map."""
        return np.asarray(self.maps.mean((1, 2), dtype=np.float64))

    def at(self, index: NDArray[Any]) -> Assessment:
        """Of some of these runs."""
        return Assessment(self.maps[index], None if self.vectors is None else self.vectors[index])

    def replaced(self, index: NDArray[np.intp], by: Assessment) -> Assessment:
        """With some runs seen anew."""
        maps = self.maps.copy()
        maps[index] = by.maps
        vectors = None if self.vectors is None else self.vectors.copy()
        if vectors is not None and by.vectors is not None:
            vectors[index] = by.vectors
        return Assessment(maps, vectors)


class Judge(Protocol):
    """Who looks at runs."""

    @property
    def name(self) -> str:
        """Stands in every result."""

    @property
    def reference(self) -> Reference:
        """What it compares with."""

    def assess(
        self, dataset: xr.Dataset, positions: NDArray[np.intp], which: str, *, paired: bool
    ) -> Assessment:
        """See runs of a store.

        Parameters
        ----------
        dataset : xarray.Dataset
        positions : int array, shape (n,)
            Along its run dimension.
        which : {"before", "after"}
        paired : bool
            Whether run numbers mean the same in this store as in the recorded one.
        """


@dataclass(frozen=True)
class RealismJudge:
    """Looks at pictures, never comparing one with itself or with its paired run.

    Attributes
    ----------
    model : RealismModel
    recorded : xarray.Dataset, optional
        The recorded runs: runs not paired with them take their places (`membership.stand_ins`).
    """

    model: RealismModel
    recorded: xr.Dataset | None = None

    @property
    def name(self) -> str:
        """Of the features."""
        return self.model.name

    @property
    def reference(self) -> Reference:
        """What pictures are compared with."""
        return self.model.reference

    def assess(
        self, dataset: xr.Dataset, positions: NDArray[np.intp], which: str, *, paired: bool
    ) -> Assessment:
        """See runs of a store, a few at a time (see `Judge`)."""
        numbers = np.asarray(dataset["run"].values, np.int64)[positions]
        if not paired:
            numbers = self._stand_ins(dataset, positions)
        parts = [
            self.see(
                read_pictures(dataset, positions[at : at + AT_ONCE]), numbers[at : at + AT_ONCE]
            )
            for at in range(0, len(positions), AT_ONCE)
        ]
        maps = [part.maps for part in parts]
        vectors = [part.vectors for part in parts if part.vectors is not None]
        return Assessment(
            np.concatenate(maps) if maps else np.empty((0, 1, 1), np.float32),
            np.concatenate(vectors) if vectors else None,
        )

    def _stand_ins(self, dataset: xr.Dataset, positions: NDArray[np.intp]) -> NDArray[np.int64]:
        """Recorded runs of the same prompt and class, whose places these runs take."""
        if self.recorded is None:
            return np.full(len(positions), -1, np.int64)
        shared = [
            name for name in GROUPS if all(name in runs.coords for runs in (dataset, self.recorded))
        ]

        def groups_of(runs: xr.Dataset) -> list[tuple[str, ...]]:
            columns = [runs[name].values.astype(str).tolist() for name in shared]
            return list(zip(*columns, strict=True)) if columns else [()] * runs.sizes["run"]

        groups = groups_of(dataset)
        return stand_ins(
            [groups[place] for place in positions],
            groups_of(self.recorded),
            np.asarray(self.recorded["run"].values, np.int64),
        )

    def see(self, pictures: NDArray[np.float32], runs: NDArray[np.int64]) -> Assessment:
        """See pictures of runs."""
        maps = local_realism(pictures, self.model, runs=runs)
        of_sets = self.model.reference.kind == "real"
        return Assessment(maps, features(pictures, self.model) if of_sets else None)


@dataclass(frozen=True)
class GivenJudge:
    """Scores, or masks of broken places, that were given for the runs of both stores."""

    before: Outcomes
    after: Outcomes

    @property
    def name(self) -> str:
        """Of the files."""
        return f"{self.before.source} and {self.after.source}"

    @property
    def reference(self) -> Reference:
        """Scores or masks from elsewhere."""
        return replace(self.before.reference, source=self.name)

    def assess(
        self, dataset: xr.Dataset, positions: NDArray[np.intp], which: str, *, paired: bool
    ) -> Assessment:
        """Scores or masks of runs of a store (see `Judge`)."""
        given = self.before if which == BEFORE else self.after
        given.check(dataset, varied=which == BEFORE)
        runs = np.asarray(dataset["run"].values, np.int64)[positions]
        if given.of_masks:
            return Assessment(given.masks_of(runs), None)
        return Assessment(given.of(runs).astype(np.float32)[:, None, None], None)


def given_judge(outcomes: Any, better: Any) -> GivenJudge:
    """The judge of two files of scores, or of two folders of masks.

    Raises
    ------
    InputError
        Unless there are two of one kind, of the recorded and of the corrected runs.
    """
    if not isinstance(outcomes, (tuple, list)) or len(outcomes) != 2:
        raise InputError(
            "outcomes that judge are two: those of the recorded runs and those of the corrected"
        )
    first, second = (given_outcomes(one, better=better) for one in outcomes)
    if first.of_masks != second.of_masks:
        raise InputError(
            f"{first.source} and {second.source} are not alike: give scores of both stores, or "
            "masks of both"
        )
    shapes = [next(iter(one.masks.values())).shape for one in (first, second) if one.of_masks]
    if len(set(shapes)) > 1:
        raise InputError(
            f"masks of {first.source} have shape {shapes[0]}, those of {second.source} {shapes[1]}:"
            " give both alike"
        )
    return GivenJudge(first, second)
