"""Other samplers: the realised false-alarm rate there, and a level that keeps the promise there."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from asced_analysis.compute.source import open_source
from asced_analysis.detection.apply import levels_of
from asced_analysis.detection.scoring import scores_of, with_lookahead
from asced_analysis.thresholds import conformal
from asced_analysis.thresholds.document import (
    FingerprintMismatchError,
    PortabilityWarning,
    Thresholds,
    Transfer,
    fingerprint_of,
)


def calibrate_transfer(thresholds: Thresholds, runs: Any, *, pipeline: Any = None) -> Thresholds:
    """Measure another sampler and give it a level of its own.

    Parameters
    ----------
    thresholds : Thresholds
    runs : path, TrajectoryStore or xarray.Dataset
        Runs of the same model with the other sampler; 200 are enough for 5 %.
    pipeline : DiffusionPipeline, str or Path, optional
        For thresholds with a lookahead; by default the one that the store names.

    Returns
    -------
    Thresholds
        With a `Transfer` for the runs' scheduler and step count, which `Thresholds.level_for` uses.

    Raises
    ------
    FingerprintMismatchError
        Where the runs come from another model.
    TooFewRunsError
        Where the promised rate needs more runs.

    Examples
    --------
    >>> import warnings
    >>> from asced_analysis import Thresholds
    >>> from asced_analysis.calibration import calibrate_transfer
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")  # few runs
    ...     everywhere = calibrate_transfer(Thresholds.load("thresholds.json"), "runs.zarr")
    >>> everywhere.transfers[-1].scheduler_class
    'DDIMScheduler'
    """
    source = open_source(runs)
    here = {
        **fingerprint_of(source.dataset.attrs, source.sample_shape),
        "steps": source.steps,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PortabilityWarning)
        thresholds.check_fingerprint(here)
    if here["scheduler_class"] is None:
        raise FingerprintMismatchError("the runs don't say which scheduler drew them")
    promised = thresholds.guarantee.promised
    source = with_lookahead(source, thresholds, pipeline)
    rows, scores = scores_of(source, thresholds, np.ones(source.runs, dtype=bool))
    levels = levels_of(source.dataset, thresholds, override=True)
    if levels is not None:  # of groups: they keep their distances to the level for all
        scores = scores - (levels - thresholds.levels.level)[rows]
    level, _ = conformal.conformal_level(scores, promised)
    realised = float((scores > thresholds.levels.level).mean())
    return thresholds.with_transfer(
        Transfer(
            str(here["scheduler_class"]),
            source.steps,
            int(rows.size),
            realised,
            realised / promised,
            level,
        )
    )
