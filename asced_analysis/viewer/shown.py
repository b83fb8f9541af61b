"""The runs that a page shows, and what is known of them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asced_analysis.signals.dimensions import with_images
from asced_analysis.viewer import frames
from asced_analysis.viewer.background import Background
from asced_analysis.viewer.distances import Distances
from asced_analysis.viewer.labelling import HandLabels
from asced_analysis.viewer.population import Population
from asced_analysis.viewer.reading import Trajectories
from asced_analysis.viewer.scores import RunScores
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from asced_analysis.realism.local import RealismModel
    from asced_analysis.thresholds.document import Thresholds


class ShownRuns:
    """Runs with their scores, labels by hand, corrections and distances.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them.
    name : str
        What they are called on the page.
    thresholds : Thresholds, optional
        Score runs and draw their masks.
    corrected : xarray.Dataset, optional
        A replay's runs, with ``mask``, ``flagged`` and ``score``.
    override : bool
        Use thresholds that were calibrated on something else.
    pipeline : DiffusionPipeline, str or Path, optional
        For thresholds with a lookahead; by default the one that the store names.
    judge : RealismModel, optional
        Measures how far each run's picture lies from real images, or from the other runs.
    """

    def __init__(
        self,
        ds: xr.Dataset,
        *,
        name: str = "runs",
        thresholds: Thresholds | None = None,
        corrected: xr.Dataset | None = None,
        override: bool = False,
        pipeline: Any = None,
        judge: RealismModel | None = None,
    ) -> None:
        if "step" in ds.dims:
            ds = with_images(ds)
        self.ds, self.name, self.corrected = ds, name, corrected
        self.runs = Trajectories(ds)
        self.background = Background()
        self.hand = HandLabels()
        self.population = Population(ds)
        self.scores = RunScores(
            self.runs, thresholds, corrected, override=override, pipeline=pipeline
        )
        self.distances = None if judge is None else Distances(ds, judge, corrected)
        self.corrected_row = (
            {}
            if corrected is None
            else {int(run): i for i, run in enumerate(corrected["run"].values)}
        )
        self.signals = frames.signals_of(self.runs)

    def row(self, given: Any) -> int:
        """The position of a run."""
        row = int(given)
        if not 0 <= row < len(self.runs.runs):
            raise InputError(f"no run at position {row}; there are {len(self.runs.runs)}")
        return row

    def frame(self, given: Mapping[str, Any]) -> int:
        """The frame of a video, 0 for images."""
        frame = int(given.get("frame", 0))
        if not 0 <= frame < self.runs.frames:
            raise InputError(f"no frame {frame}; there are {self.runs.frames}")
        return frame

    def picked(self, given: Any) -> npt.NDArray[np.bool_]:
        """A mask as the page sends it: one byte a pixel, base64."""
        try:
            content = base64.b64decode(str(given), validate=True)
        except binascii.Error as error:
            raise InputError(f"a mask that is no base64: {error}") from error
        flat = np.frombuffer(content, np.uint8)
        if flat.size != self.runs.height * self.runs.width:
            raise InputError(
                f"a mask of {flat.size} pixels; expected {self.runs.height} x {self.runs.width}"
            )
        return flat.reshape(self.runs.height, self.runs.width) > 0

    def region_curve(self, given: Mapping[str, Any]) -> tuple[list[int], list[float]]:
        """Dynamics of the region that was clicked or drawn."""
        return frames.curve(
            self.runs,
            self.row(given["row"]),
            self.picked(given["region"]),
            signal=str(given["signal"]),
            frame=self.frame(given),
        )
