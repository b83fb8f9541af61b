"""What is usual: bands of the dynamics by step and phases, from more and more of the runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from asced_analysis.signals import fields
from asced_analysis.thresholds.typed_json import finite_json
from asced_analysis.viewer.scoring import pieces_of

if TYPE_CHECKING:
    from asced_analysis.phases.segmentation import Phases

FIRST, PIECE = 12 * 2**20, 48 * 2**20
MOST = 4 * 2**30
"""Bytes of runs that the bands are made from; a larger store is sampled, and the page says so."""

PHASE_RUNS, PHASE_BYTES = 512, 256 * 2**20
REPLICATES = 199


class Population:
    """Bands and phases of a set of runs, as far as they are known.

    Attributes
    ----------
    statistics : dict of str to xarray.Dataset
        Result of `step_statistics` by signal, over the runs seen so far.
    phases : Phases or None
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds
        self.statistics: dict[str, xr.Dataset] = {}
        self.phases: Phases | None = None

    def grow_bands(self, signal: str) -> Iterator[None]:
        """Count the runs, in random order, so that the first ones already speak for all."""
        from asced_analysis.statistics.by_step import merge_statistics, step_statistics

        variable = fields.RECORDED[signal]
        seen = 0
        each = self._ds[variable].nbytes // self._ds.sizes["run"]
        for rows in _mixed(pieces_of(self._ds, (variable,), FIRST)):
            part = step_statistics(self._ds.isel(run=rows), signal=signal)
            known = self.statistics.get(signal)
            self.statistics[signal] = part if known is None else merge_statistics([known, part])
            seen += (rows.stop - rows.start) * each
            if seen > MOST:
                return
            yield

    def find_phases(self) -> Iterator[None]:
        """Segment a sample of the runs; each boundary has an interval."""
        from asced_analysis.phases.segmentation import segment_phases

        signal = "innovation" if "eps" in self._ds else "predicted_x0"
        variable = fields.RECORDED[signal]
        each = max(1, self._ds[variable].nbytes // self._ds.sizes["run"])
        most = max(8, min(PHASE_RUNS, PHASE_BYTES // each))
        rows: list[Any] = []
        for piece in _mixed(pieces_of(self._ds, (variable,), 1)):
            rows.extend(range(piece.start, piece.stop))
            if len(rows) >= most:
                break
        chosen = self._ds.isel(run=np.sort(rows[:most]))
        self.phases = segment_phases(chosen, signal=signal, replicates=REPLICATES, run_replicates=0)
        yield

    def bands(self, signal: str) -> dict[str, Any] | None:
        """Quantiles by step as plain lists; None before the first runs are counted."""
        found = self.statistics.get(signal)
        if found is None:
            return None
        quantile = found["quantile"].transpose("probability", "step")
        return {
            "signal": signal,
            "runs": int(found.attrs["runs"]),
            "step": [int(step) for step in found["step"].values],
            "median": finite_json(found["median"].values.tolist()),
            "probability": [float(p) for p in found["probability"].values],
            "quantile": finite_json(quantile.values.tolist()),
        }

    def boundaries(self) -> dict[str, Any] | None:
        """Where the phases begin, in steps."""
        if self.phases is None:
            return None
        population = self.phases.population
        return {
            "runs": self.phases.runs,
            "p_value": float(self.phases.p_value),
            "verdict": self.phases.verdict(),
            "mutation": finite_json(float(population.mutation.step)),
            "refinement": finite_json(float(population.refinement.step)),
            "mutation_interval": finite_json(population.mutation.step_interval),
            "refinement_interval": finite_json(population.refinement.step_interval),
        }


def _mixed(pieces: list[slice]) -> list[slice]:
    """The same pieces in an order that has nothing to do with how they were recorded."""
    order = np.random.default_rng(0).permutation(len(pieces))
    return [pieces[place] for place in order]
