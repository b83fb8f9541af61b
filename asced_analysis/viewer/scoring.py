"""How unusual every run is: scored behind the page, kept beside the store for the next time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from asced_stores.errors import InputError
from asced_stores.files import whole

if TYPE_CHECKING:
    import xarray as xr

    from asced_analysis.detection.streaming import Detector

FORMAT = "asced-view-scores-1"
FIRST_FIT = 256
"""Runs after which outliers are looked for; again whenever their number has doubled."""


class Scores:
    """Scores as they come in.

    Attributes
    ----------
    values : float32 array, shape (run,)
        NaN where a run is not scored yet.
    source : str
        ``thresholds``, ``replay`` or ``features``.
    reasons : list of str
        What is unusual about each run, where the source tells.
    done : int
        Number of runs that were looked at.
    """

    def __init__(self, runs: int, source: str) -> None:
        self.values = np.full(runs, np.nan, np.float32)
        self.source = source
        self.reasons: list[str] = []
        self.done = 0

    @property
    def complete(self) -> bool:
        """Whether every run was looked at."""
        return self.done >= self.values.size

    def take(self, values: npt.NDArray[Any]) -> None:
        """All scores at once."""
        self.values = np.asarray(values, np.float32)
        self.done = self.values.size


def by_thresholds(
    ds: xr.Dataset, detector: Detector, scores: Scores, above: npt.NDArray[np.float64]
) -> Iterator[None]:
    """Score by calibrated thresholds, one shard a step.

    `above` says by how much each run's own level lies above the common one, which scores are shown
    against.
    """
    from asced_analysis.compute.source import open_source
    from asced_analysis.detection.scoring import detections

    for batch, found in detections(open_source(ds), detector):
        score = np.asarray(found.score, np.float64).reshape(-1, batch.frames).max(axis=1)
        scores.values[batch.rows] = score - above[batch.rows]
        scores.done += len(batch.rows)
        yield


def by_features(ds: xr.Dataset, scores: Scores) -> Iterator[None]:
    """Score by `rank_runs` of `run_features`, the default outlier model, a few shards a step.

    The model is fitted anew whenever twice as many runs are known, so scores are there early; the
    last fit is to all runs, and equals ``rank_runs(run_features(ds))``.
    """
    import pandas as pd

    from asced_analysis.statistics.features import run_features
    from asced_analysis.statistics.outliers import rank_runs

    total = ds.sizes["run"]
    parts: list[pd.DataFrame] = []
    due = min(total, FIRST_FIT)
    for rows in pieces_of(ds, ("eps", "x0"), 4 * 2**20):
        parts.append(run_features(ds.isel(run=rows)))
        if rows.stop >= due:
            features = pd.concat(parts)
            parts = [features]
            due = min(total, 2 * due)
            if len(features) >= 10:
                table = rank_runs(features).loc[features.index]
                scores.values[: len(table)] = table["score"].to_numpy(np.float32)
                scores.reasons = _in_words(table)
        scores.done = rows.stop  # once they are there: nobody asks again after the last
        yield


def _in_words(table: Any) -> list[str]:
    """What sets each run apart."""
    return [
        f"{str(reason).replace('_', ' ')} {deviation:+.1f} robust units"
        for reason, deviation in zip(table["reason"], table["deviation"], strict=True)
    ]


def pieces_of(ds: xr.Dataset, names: tuple[str, ...], size: int) -> list[slice]:
    """Neighbouring whole shards of about so many bytes, as slices of rows."""
    variables = [ds[name] for name in names if name in ds]
    each = max(1, sum(v.nbytes for v in variables) // ds.sizes["run"])
    chunks = variables[0].chunksizes.get("run") or (max(1, size // each),) * (
        -(-ds.sizes["run"] // max(1, size // each))
    )
    found, start, stop = [], 0, 0
    for count in chunks:
        stop = min(stop + count, ds.sizes["run"])
        if (stop - start) * each >= size:
            found.append(slice(start, stop))
            start = stop
    if start < stop:
        found.append(slice(start, stop))
    return found


class ScoreFile:
    """Scores kept from one look at a store to the next, beside the store and never inside.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them.
    of : mapping
        What the scores depend on beside the runs: the thresholds as JSON, or nothing.
    """

    def __init__(self, ds: xr.Dataset, of: dict[str, Any]) -> None:
        self._runs = np.asarray(ds["run"].values, np.int64)
        identity = {
            "format": FORMAT,
            "of": of,
            "attributes": {
                name: ds.attrs.get(name) for name in ("launch", "model_fingerprint", "replay_of")
            },
        }
        identity["arrays"] = {name: _identity(ds[name]) for name in ("eps", "x0") if name in ds}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode())
        for name in ("run", "seed", "batch", "alpha", "sigma"):
            if name in ds.coords:
                digest.update(np.ascontiguousarray(ds[name].values).tobytes())
        self.paths = [folder / f"{digest.hexdigest()[:20]}.npz" for folder in _folders(ds)]

    def load(self) -> tuple[npt.NDArray[np.float32], list[str]] | None:
        """Scores and reasons of these very runs, if they were kept."""
        for path in self.paths:
            try:
                with np.load(path, allow_pickle=False) as content:
                    runs, score = content["run"], content["score"]
                    reasons = [str(reason) for reason in content["reason"]]
            except (OSError, ValueError, KeyError, BadZipFile):
                continue
            if np.array_equal(runs, self._runs) and score.shape == runs.shape:
                return score.astype(np.float32), reasons
        return None

    def save(self, scores: Scores) -> Path | None:
        """Keep complete scores where there is a place that can be written to."""
        if not scores.complete:
            raise InputError(f"{scores.done} of {scores.values.size} runs are scored")
        for path in self.paths:
            try:
                with whole(path, overwrite=True) as part:
                    np.savez_compressed(
                        part,
                        run=self._runs,
                        score=scores.values,
                        reason=np.asarray(scores.reasons, dtype=np.str_),
                    )
            except OSError:
                continue
            return path
        return None


def _identity(array: xr.DataArray) -> list[Any]:
    """What tells an array from others: of lazy ones the name of their graph.

    That name is made from the store's own id, its commits, and all that was done to the array.
    """
    from dask.base import tokenize

    name = tokenize(array.values) if array.chunks is None else array.data.name
    return [list(array.dims), list(array.shape), str(array.dtype), name]


def _folders(ds: xr.Dataset) -> list[Path]:
    """Beside the store, else in the user's own cache."""
    own = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asced" / "scores"
    source = str(ds.encoding.get("source", ""))
    if not source or "://" in source:
        return [own]
    store = Path(source).absolute()
    return [store.with_name(f"{store.name}.scores"), own]
