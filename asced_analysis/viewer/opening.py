"""Open runs for looking, with whatever belongs to them."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

from asced_analysis.realism.judges import choose_judge
from asced_analysis.viewer.options import ViewOptions
from asced_analysis.viewer.session import Session
from asced_stores.errors import InputError
from asced_stores.options import takes

if TYPE_CHECKING:
    import xarray as xr


@takes(ViewOptions)
def open_session(runs: str | PathLike[str] | xr.Dataset, options: ViewOptions) -> Session:
    """Open runs, thresholds and a replay for looking, if they belong together.

    Parameters
    ----------
    runs : path or xarray.Dataset
        A store, or runs as `open_runs` returns them.
    options : ViewOptions
        Each by keyword.

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
    thresholds, replay = options.thresholds, options.replay
    if isinstance(thresholds, (str, PathLike)):
        thresholds = Thresholds.load(thresholds)
    if replay is not None and not isinstance(replay, xr.Dataset):
        replay = _corrected(source, fspath(replay))
    measured = options.judge is not None or options.real is not None
    return Session(
        ds,
        name=Path(source).name or "runs",
        thresholds=thresholds,
        corrected=replay,
        override=options.override,
        pipeline=options.pipeline,
        keep_scores=options.keep_scores,
        judge=choose_judge(options.judge, ds, real=options.real) if measured else None,
    )


def _corrected(source: str, replay: str) -> xr.Dataset:
    """A replay, if it is one of this recording."""
    from asced_analysis.evaluation.matching import replayed_runs
    from asced_analysis.replay.recording import Recording
    from asced_stores import TrajectoryStore

    if not source:
        raise InputError("these runs come from no store: give the replay as a dataset as well")
    return replayed_runs(Recording(source), TrajectoryStore.open(replay))
