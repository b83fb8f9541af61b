"""Open runs for looking, with whatever belongs to them."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asced_analysis.realism.judges import choose_judge
from asced_analysis.viewer.session import Session
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

    from asced_analysis.realism.local import RealismModel
    from asced_analysis.realism.real_images import Real, RealImages
    from asced_analysis.thresholds.document import Thresholds


def open_session(
    runs: str | PathLike[str] | xr.Dataset,
    *,
    thresholds: Thresholds | str | PathLike[str] | None = None,
    replay: str | PathLike[str] | xr.Dataset | None = None,
    override: bool = False,
    pipeline: Any = None,
    keep_scores: bool = True,
    judge: str | RealismModel | None = None,
    real: Real | RealImages | None = None,
) -> Session:
    """Open runs, thresholds and a replay for looking, if they belong together.

    Parameters
    ----------
    runs : path or xarray.Dataset
        A store, or runs as `open_runs` returns them.
    thresholds : Thresholds or path, optional
    replay : path or xarray.Dataset, optional
        What `replay` made of these runs.
    override, pipeline, keep_scores
        As in `Session`.
    judge, real
        Who measures each run's local distance, and real images to compare with, as in
        `asced_analysis.evaluate`; without both nothing is measured.

    Raises
    ------
    InputError
        Where they do not belong together, or there is no run.
    """
    import xarray as xr

    from asced_analysis.thresholds.document import Thresholds
    from asced_stores import open_runs

    ds = runs if isinstance(runs, xr.Dataset) else open_runs(runs)
    source = str(ds.encoding.get("source", ""))
    if isinstance(thresholds, (str, PathLike)):
        thresholds = Thresholds.load(thresholds)
    if replay is not None and not isinstance(replay, xr.Dataset):
        replay = _corrected(source, fspath(replay))
    return Session(
        ds,
        name=Path(source).name or "runs",
        thresholds=thresholds,
        corrected=replay,
        override=override,
        pipeline=pipeline,
        keep_scores=keep_scores,
        judge=None if judge is None and real is None else choose_judge(judge, ds, real=real),
    )


def _corrected(source: str, replay: str) -> xr.Dataset:
    """A replay, if it is one of this recording."""
    from asced_analysis.evaluation.matching import replayed_runs
    from asced_analysis.replay.recording import Recording
    from asced_stores import TrajectoryStore

    if not source:
        raise InputError("these runs come from no store: give the replay as a dataset as well")
    return replayed_runs(Recording(source), TrajectoryStore.open(replay))
