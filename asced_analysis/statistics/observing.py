"""Statistics and flags of every run while it is recorded, and reading them again.

`StatisticsObserver` and `FlagObserver` are shown each sampled batch by a recording
(``asced record --keep``); `observed_statistics` and `observed_features` read what they left for
every run, also for those whose trajectory was not kept.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from asced_analysis.detection.registry import modules_of
from asced_stores.errors import InputError
from asced_stores.format.observations import Observations, SparseCounts, read_observations

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from asced_analysis.counts.histograms import Counts
    from asced_analysis.thresholds.document import Thresholds
    from asced_stores import TrajectoryStore

SIGNALS = ("weighted_score", "innovation")


class StatisticsObserver:
    """Counts the dynamics of every run by step, and takes its features.

    Parameters
    ----------
    signals : sequence of str
        Signals whose dynamics are counted.
    features : bool
        Take `run_features` too.
    """

    def __init__(self, signals: Sequence[str] = SIGNALS, *, features: bool = True) -> None:
        self.signals, self.features = tuple(signals), features

    def observe(self, batch: Any) -> Any:
        """Look at a batch (`asced_recorders.writing.observers.RunObserver`)."""
        from asced_analysis.statistics.by_step import counts_of, step_statistics
        from asced_analysis.statistics.features import run_features

        ds = batch_dataset(batch)
        counts = {}
        for signal in self.signals:
            found = counts_of(step_statistics(ds, signal, (0.5,)))
            counts[signal] = SparseCounts(found.keys, found.table)
            others = np.stack([found.nan, found.infinite], axis=-1)
            counts[f"{signal}:other"] = SparseCounts(np.arange(2), others)
        features = {}
        if self.features:
            frame = run_features(ds)
            features = {str(name): frame[name].to_numpy() for name in frame}
        return _Seen(features, counts, None)


class FlagObserver:
    """Asks for the runs that thresholds flag.

    Parameters
    ----------
    thresholds : Thresholds
    override : bool
        Use them although they were calibrated on something else.
    """

    def __init__(self, thresholds: Thresholds, *, override: bool = False) -> None:
        self.thresholds, self.override = thresholds, override
        self.activations = modules_of(thresholds)

    def observe(self, batch: Any) -> Any:
        """Look at a batch (`asced_recorders.writing.observers.RunObserver`)."""
        from asced_analysis.detection.apply import detect

        found = detect(batch_dataset(batch), self.thresholds, override=self.override)
        flagged = np.asarray(found["flagged"].values, dtype=bool)
        return _Seen({"flagged": flagged, "score": found["score"].values}, {}, flagged)


class _Seen:
    """An observation, by shape: this package does not import the recorders."""

    def __init__(self, features: Any, counts: Any, keep: Any) -> None:
        self.features, self.counts, self.keep = features, counts, keep


def batch_dataset(batch: Any) -> xr.Dataset:
    """A batch in memory as `open_runs` would give it."""
    import dask.array as da
    import xarray as xr

    spec = batch.spec
    variables = {}
    for v in spec.variables:
        if v.name in ("eps", "x0", "sample", "activations"):
            array = batch.arrays[v.name]
            held = isinstance(array, np.ndarray)  # or in a file: a step of a run at a time
            chunks = -1 if held else (1, 1, *array.shape[2:])
            meta = np.empty((0,) * array.ndim, array.dtype)
            lazy = da.from_array(array, chunks, name=False, meta=meta)  # type: ignore[no-untyped-call]
            variables[v.name] = (("run", *v.dims), lazy)
    coordinates = {
        "run": np.asarray(batch.runs),
        "step": np.arange(spec.steps),
        **{
            name: ("step", np.asarray(getattr(spec, name), dtype=np.float64))
            for name in ("timestep", "alpha", "sigma", "log_snr")
        },
    }
    for name in ("label", "prompt", "guidance_scale"):
        if name in batch.scalars:
            coordinates[name] = ("run", np.asarray(batch.scalars[name]))
    return xr.Dataset(variables, coordinates, attrs=dict(spec.attributes))


def observed(path: str | os.PathLike[str] | TrajectoryStore) -> Observations:
    """Observations of all runs of a store, added up.

    Raises
    ------
    InputError
        If the store holds none.
    """
    from asced_stores import TrajectoryStore

    store = path if isinstance(path, TrajectoryStore) else TrajectoryStore.open(path)
    total: Observations | None = None
    for part in read_observations(store):
        total = part if total is None else total + part
    if total is None:
        raise InputError(f"{store.path} holds no runs yet")
    return total


def observed_features(path: str | os.PathLike[str] | TrajectoryStore) -> pd.DataFrame:
    """Features of every run, one row a run, recorded in full or not."""
    import pandas as pd

    seen = observed(path)
    return pd.DataFrame(dict(seen.features), index=pd.Index(seen.runs, name="run")).sort_index()


def observed_counts(
    path: str | os.PathLike[str] | TrajectoryStore, signal: str = "weighted_score"
) -> Counts:
    """Counts of ``|D|`` by step over every run of a store.

    Parameters
    ----------
    path : path, str or TrajectoryStore
        Of a store made with ``asced record --keep``.
    signal : str
        One that was observed.

    Returns
    -------
    Counts
        With groups ``(step,)``; its ``quantile``, ``median`` and ``mad`` are those of all runs.
    """
    return _counts(observed(path), signal)


def observed_statistics(
    path: str | os.PathLike[str] | TrajectoryStore,
    signal: str = "weighted_score",
    quantiles: Sequence[float] | None = None,
) -> xr.Dataset:
    """Median, MAD and quantiles of ``|D|`` by step over every run, recorded in full or not.

    Parameters
    ----------
    path : path, str or TrajectoryStore
        Of a store made with ``asced record --keep``.
    signal : str
        One that was observed.
    quantiles : sequence of float, optional
        Probabilities; those of `step_statistics` by default.

    Returns
    -------
    xarray.Dataset
        As `step_statistics` gives it, and it merges with such results.
    """
    from asced_analysis.statistics.by_step import QUANTILES, statistics_of
    from asced_stores import open_runs

    seen = observed(path)
    counts, runs = _counts(seen, signal), len(seen.runs)
    ds = open_runs(path, statuses=("complete", "failed"))
    return statistics_of(counts, runs, ds, signal, QUANTILES if quantiles is None else quantiles)


def _counts(seen: Observations, signal: str) -> Counts:
    from asced_analysis.counts.histograms import Counts

    if signal not in seen.counts:
        names = sorted(name for name in seen.counts if ":" not in name)
        raise InputError(f"{signal!r} was not observed; {', '.join(names) or 'nothing'} was")
    counts, others = seen.counts[signal], seen.counts[f"{signal}:other"]
    return Counts("single", counts.keys, counts.table, others.table[..., 0], others.table[..., 1])
