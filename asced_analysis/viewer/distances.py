"""How far pictures of runs, recorded and corrected, lie from real images or from other runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from asced_analysis.realism.claims import claims_of
from asced_analysis.realism.local import RealismModel, local_realism
from asced_analysis.realism.pictures import picture_shape, read_pictures
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

AT_ONCE = 64


class Distances:
    """A judge's distances as they come in.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them.
    judge : RealismModel
        Never compares a run with itself or its paired run.
    corrected : xarray.Dataset, optional
        A replay's runs.

    Attributes
    ----------
    values, of_corrected : float32 arrays, shape (run,) and (corrected,)
        Mean local distance, lower is better; NaN where it is not measured yet.
    done, size : int
        Pictures that were looked at, and all.
    """

    def __init__(self, ds: xr.Dataset, judge: RealismModel, corrected: xr.Dataset | None) -> None:
        self._judge = judge
        self._sets = [ds] if corrected is None else [ds, corrected]
        if corrected is not None and picture_shape(corrected) != picture_shape(ds):
            raise InputError(
                f"images of the runs have shape {picture_shape(ds)}, those of the replay "
                f"{picture_shape(corrected)}"
            )
        found = [np.full(one.sizes["run"], np.nan, np.float32) for one in self._sets]
        self.values = found[0]
        self.of_corrected = found[1] if corrected is not None else np.empty(0, np.float32)
        self._found = found
        self.done, self.size = 0, sum(map(len, found))

    @property
    def words(self) -> str:
        """What is measured."""
        return claims_of(self._judge.reference).distance

    @property
    def reference(self) -> str:
        """Who measures, and against what."""
        return f"{self._judge.name}, {self._judge.reference}"

    def measure(self) -> Iterator[None]:
        """Look at all pictures, a few at a time."""
        for ds, found in zip(self._sets, self._found, strict=True):
            numbers = np.asarray(ds["run"].values, np.int64)
            for begin in range(0, len(numbers), AT_ONCE):
                part = np.arange(begin, min(begin + AT_ONCE, len(numbers)))
                maps = local_realism(read_pictures(ds, part), self._judge, runs=numbers[part])
                found[part] = maps.mean((1, 2))
                self.done += len(part)
                yield

    def of_run(self, row: int, corrected: int | None) -> list[tuple[str, str]]:
        """Rows for the page about one run."""
        told: list[tuple[str, Any]] = [(self.words, self.values[row])]
        if corrected is not None and len(self.of_corrected):
            told.append(("of its corrected version", self.of_corrected[corrected]))
        return [(name, f"{value:.4g}") for name, value in told if np.isfinite(value)]
