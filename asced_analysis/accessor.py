"""``ds.asced``: derived variables and statistics of recorded runs, lazily.

Importing this module registers the accessor; ``asced_analysis.open_runs`` does so by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from asced_analysis.signals import fields
from asced_stores import open_runs

if TYPE_CHECKING:
    import pandas as pd

    from asced_analysis.phases.segmentation import Phases
    from asced_analysis.viewer.widget import Explorer

__all__ = ["ScoreAccessor", "open_runs"]


@xr.register_dataset_accessor("asced")  # type: ignore[no-untyped-call]
class ScoreAccessor:
    """Score, dynamics and statistics of the runs in a Dataset.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them.

    Examples
    --------
    >>> import asced_analysis as aa
    >>> ds = aa.open_runs("runs.zarr")
    >>> weighted = ds.asced.weighted_score()  # lazy
    >>> weighted.sizes["step"], ds.asced.dynamics("predicted_x0").sizes["step"]
    (12, 11)
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def score(self) -> xr.DataArray:
        """Score ``-eps / sigma``; see `asced_analysis.signals.fields.score`."""
        return fields.score(self._ds)

    def weighted_score(self) -> xr.DataArray:
        """Weighted score ``W = -kappa * eps``; see `asced_analysis.signals.fields.signal`."""
        return fields.signal(self._ds, "weighted_score")

    def predicted_x0(self) -> xr.DataArray:
        """Predicted x0 in float32; see `asced_analysis.signals.fields.signal`."""
        return fields.signal(self._ds, "predicted_x0")

    def innovation(self) -> xr.DataArray:
        """``-kappa_k * (eps_k - eps_{k-1})``; see `asced_analysis.signals.fields.signal`."""
        return fields.signal(self._ds, "innovation")

    def sample(self) -> xr.DataArray:
        """Sample entering each step; see `asced_analysis.signals.fields.sample`."""
        return fields.sample(self._ds)

    def dynamics(self, signal: str = "weighted_score") -> xr.DataArray:
        """Differences between adjacent steps; see `asced_analysis.signals.fields.dynamics`."""
        return fields.dynamics(self._ds, signal)

    def acceleration(self, signal: str = "weighted_score") -> xr.DataArray:
        """``|D_k| - |D_{k-1}|``; see `asced_analysis.signals.fields.acceleration`."""
        return fields.acceleration(self._ds, signal)

    def log_snr_rate(self, signal: str = "weighted_score") -> xr.DataArray:
        """Dynamics per unit of log-SNR; see `asced_analysis.signals.fields.log_snr_rate`."""
        return fields.log_snr_rate(self._ds, signal)

    def norm(self, signal: str = "weighted_score") -> xr.DataArray:
        """Root mean square by run and step; see `asced_analysis.signals.fields.norm`."""
        return fields.norm(self._ds, signal)

    def trajectory_variance(self, *, last: int | None = None) -> xr.DataArray:
        """Variance of predicted x0; see `asced_analysis.signals.fields.trajectory_variance`."""
        return fields.trajectory_variance(self._ds, last=last)

    def step_statistics(self, **options: Any) -> xr.Dataset:
        """Exact quantiles by step; see `asced_analysis.statistics.by_step.step_statistics`."""
        from asced_analysis.statistics.by_step import step_statistics

        return step_statistics(self._ds, **options)

    def segment_phases(self, **options: Any) -> Phases:
        """Boundaries of the phases; see `asced_analysis.phases.segmentation.segment_phases`."""
        from asced_analysis.phases.segmentation import segment_phases

        return segment_phases(self._ds, **options)

    def run_features(self, **options: Any) -> pd.DataFrame:
        """Features by run; see `asced_analysis.statistics.features.run_features`."""
        from asced_analysis.statistics.features import run_features

        return run_features(self._ds, **options)

    def explore(self, **options: Any) -> Explorer:
        """Look at the runs in a notebook; see `asced_analysis.viewer.explore`."""
        from asced_analysis.viewer import explore

        return explore(self._ds, **options)
