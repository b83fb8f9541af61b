"""Who says how recorded runs ended: the model itself, real images, the population, or others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from asced_analysis.compute.source import Source
from asced_analysis.realism.claims import Reference
from asced_analysis.realism.judges import SELF
from asced_analysis.realism.local import RealismModel, local_realism
from asced_analysis.realism.outcomes import Outcomes
from asced_analysis.realism.pictures import read_pictures
from asced_analysis.realism.self_consistency import (
    DRAWS,
    content_energy,
    content_slope,
    mean_residual,
    self_consistency,
)

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]
Network = Callable[[Any, float, float], Any]
"""``network(sample, alpha, sigma)`` to predicted x0; torch tensors."""

AT_ONCE = 64


class Teacher(Protocol):
    """Labels runs by how they ended."""

    @property
    def name(self) -> str:
        """Stands in thresholds and reports."""

    @property
    def reference(self) -> Reference:
        """What stands behind the labels."""

    def knows(self, source: Source) -> npt.NDArray[np.bool_]:
        """Runs that it can label."""

    def outcomes(self, source: Source, rows: Rows, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        """Label runs.

        Parameters
        ----------
        source : Source
        rows : int array, shape (n,)
        shape : (int, int)
            Of the maps.

        Returns
        -------
        maps : float32 array, shape (n, *shape)
            How badly each place ended, higher is worse.
        scores : float32 array, shape (n,)
            The same of each run.
        """


@dataclass(frozen=True)
class RealismTeacher:
    """Local distance of the finished pictures; no picture is compared with itself."""

    model: RealismModel

    @property
    def name(self) -> str:
        """Of the features."""
        return self.model.name

    @property
    def reference(self) -> Reference:
        """Real images, or the population."""
        return self.model.reference

    def knows(self, source: Source) -> npt.NDArray[np.bool_]:
        """All."""
        return np.ones(source.runs, np.bool_)

    def outcomes(self, source: Source, rows: Rows, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        """Log distances (see `Teacher`)."""
        numbers = np.asarray(source.dataset["run"].values, np.int64)
        maps, scores = [], []
        for begin in range(0, len(rows), AT_ONCE):
            some = rows[begin : begin + AT_ONCE]
            pictures = read_pictures(source.dataset, some)
            own = local_realism(pictures, self.model, runs=numbers[some])
            maps.append(np.log(resized(own, shape) + 1e-6))
            whole = own
            if self.model.runs is not None:
                whole = local_realism(pictures, self.model.runs, runs=numbers[some])
            scores.append(np.log(whole.mean((1, 2)) + 1e-6))
        return np.concatenate(maps).astype(np.float32), np.concatenate(scores).astype(np.float32)


@dataclass
class SelfConsistencyTeacher:
    """The model's own mean prediction from the re-noised end (`realism.self_consistency`).

    Attributes
    ----------
    ask : callable
        ``ask(noised, runs)`` to predicted x0.
    alpha, sigma, log_snr : float
        The level.
    draws, seed : int
        Of noise.
    slope : float or None
        On content; found on the first runs that are labelled, which are those to learn from.
    """

    ask: Callable[[Floats, npt.NDArray[np.int64]], npt.NDArray[Any]]
    alpha: float
    sigma: float
    log_snr: float
    draws: int = DRAWS
    seed: int = 0
    slope: float | None = field(default=None)

    name = SELF

    @property
    def reference(self) -> Reference:
        """The model."""
        source = f"the model itself, re-noised to log-SNR {self.log_snr:.2g}, {self.draws} draws"
        return Reference("model", source)

    def knows(self, source: Source) -> npt.NDArray[np.bool_]:
        """All."""
        return np.ones(source.runs, np.bool_)

    def outcomes(self, source: Source, rows: Rows, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        """Maps and scores less the content's share (see `Teacher`)."""
        numbers = np.asarray(source.dataset["run"].values, np.int64)
        residual, energy = [], []
        for begin in range(0, len(rows), AT_ONCE):
            some = rows[begin : begin + AT_ONCE]
            ends = source.dataset["sample"].isel(run=some).values.astype(np.float32)
            runs = numbers[some]

            def predict(noised: Floats, which: Rows, runs: Any = runs) -> npt.NDArray[Any]:
                return self.ask(noised, runs[which])

            residual.append(
                mean_residual(
                    ends,
                    predict,
                    alpha=self.alpha,
                    sigma=self.sigma,
                    draws=self.draws,
                    seed=self.seed,
                    runs=runs,
                )
            )
            energy.append(content_energy(ends))
        found, content = np.concatenate(residual), np.concatenate(energy)
        if self.slope is None:
            self.slope = content_slope(found.mean((1, 2)), content)
        maps, scores = self_consistency(found, content, self.slope)
        return resized(maps, shape).astype(np.float32), scores.astype(np.float32)


@dataclass(frozen=True)
class GivenTeacher:
    """Scores, or masks, from elsewhere."""

    given: Outcomes

    @property
    def name(self) -> str:
        """Of the file."""
        return f"outcomes of {self.given.source}"

    @property
    def reference(self) -> Reference:
        """Scores or masks from elsewhere."""
        return self.given.reference

    def knows(self, source: Source) -> npt.NDArray[np.bool_]:
        """Runs with a score."""
        numbers = np.asarray(source.dataset["run"].values, np.int64)
        self.given.check(source.dataset)
        return np.isfinite(self.given.of(numbers, need_all=False))

    def outcomes(self, source: Source, rows: Rows, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        """Standardised scores, and maps from masks where there are some (see `Teacher`)."""
        numbers = np.asarray(source.dataset["run"].values, np.int64)[rows]
        every = np.array(list(self.given.scores.values()))
        # on one scale, whatever theirs is: scores of 0 to 100 overflowed what is learnt from them
        scores = ((self.given.of(numbers) - every.mean()) / every.std()).astype(np.float32)
        if not self.given.masks:
            flat = np.broadcast_to(scores[:, None, None], (len(scores), *shape))
            return np.ascontiguousarray(flat), scores
        return resized(self.given.masks_of(numbers), shape).astype(np.float32), scores


def resized(maps: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Maps at another resolution, by averaging whole blocks, or by nearest neighbour.

    Parameters
    ----------
    maps : array, shape (n, rows, columns)
    shape : (int, int)
    """
    height, width = shape
    rows, columns = maps.shape[1:]
    if rows % height == 0 and columns % width == 0:
        blocks = maps.reshape(-1, height, rows // height, width, columns // width)
        return np.asarray(blocks.mean(axis=(2, 4)))
    index = np.arange(height) * rows // height, np.arange(width) * columns // width
    return np.asarray(maps[:, index[0][:, None], index[1]])
