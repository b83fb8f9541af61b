"""What every experiment of the paper starts from: runs, detectors as printed, and a judge."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.calibration.fitting import fit_variant
from asced_analysis.compute.source import open_source
from asced_analysis.detection.window import window_and_correction
from asced_analysis.realism import RealismModel, features, local_realism
from asced_analysis.replay.recording import Recording
from asced_analysis.thresholds.document import Thresholds
from asced_analysis.thresholds.registries import VARIANTS
from asced_stores import TrajectoryStore, open_runs
from asced_stores.copying.selecting import select_runs
from asced_stores.errors import InputError
from experiments.paper.judging import pictures_of

T_D, T_C = 0.24, 0.48  # shares of sampling: the detector's window begins, the correction edits
LITERAL = {"released": 3.0, "paper": 1.0}  # MAD scale of the code, factor on tau of Eq. 4
GROWTH = {"released": 5 / 256, "paper": 0.0}
AT_ONCE = 256


@dataclass(frozen=True)
class Setting:
    """Recorded runs and who judges them.

    Attributes
    ----------
    store : Path
    pipeline : DiffusionPipeline or str or None
        None: the one the store names.
    model : RealismModel
        Features of every figure; its name stands in the results.
    cache : Path
        Where corrected versions lie, by `key_of` these runs.
    """

    store: Path
    pipeline: Any
    model: RealismModel
    cache: Path

    @cached_property
    def recording(self) -> Recording:
        """The runs."""
        return Recording(self.store)

    @property
    def steps(self) -> int:
        """Of sampling."""
        return self.recording.steps

    def thresholds(self, variant: str, at: float = T_C) -> Thresholds:
        """A detector with its printed level, looking from T_d up to the edit at `at`."""
        source = open_source(open_runs(self.store))
        begin = min(T_D, max(0.0, at - 2 * T_D / 3))  # an early edit is looked at from before T_d
        window, correction = window_and_correction(source, (begin, at), "ttc")
        found, _ = fit_variant(
            source,
            VARIANTS.get(variant),
            np.ones(source.runs, np.bool_),
            window=window,
            correction=replace(correction, grow=GROWTH[variant]),
            parameters={},
        )
        return replace(found, levels=replace(found.levels, level=LITERAL[variant]))

    def seen(self, store: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vectors (n, d) and maps of local distance (n, rows, columns) of a store's pictures."""
        images = pictures_of(store)
        return features(images, self.model), local_realism(images, self.model)

    @cached_property
    def original(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vectors and maps of the uncorrected runs."""
        return self.seen(self.store)

    @cached_property
    def distance(self) -> NDArray[np.float64]:
        """Mean local distance of each run: how broken it ended."""
        return np.asarray(self.original[1].mean((1, 2), dtype=np.float64))


def runs_of(
    *, store: Path | None, pipeline: str, runs: int, steps: int, cache: Path, seed: int = 0
) -> Path:
    """Store of so many runs: the first of a given store, or recorded now, or found in the cache."""
    if store is not None:
        source = TrajectoryStore.open(store)
        found = open_runs(store).sizes["run"]
        if found < runs:
            raise InputError(f"{store} holds {found} runs, fewer than {runs}: give --runs {found}")
        if found == runs:
            return store
        part = cache / f"first-{runs}-of-{key_of(store)}.zarr"
        select_runs(source, part, lambda index: np.arange(len(index)) < runs, resume=part.exists())
        return part
    from asced_recorders import record

    named = hashlib.sha256(str(pipeline).encode()).hexdigest()[:6]
    path = cache / f"{Path(pipeline).name}-{named}-{steps}-steps-{runs}.zarr"
    record(
        pipeline,
        path,
        runs=runs,
        steps=steps,
        batch_size=64,
        seed=seed,
        checkpoints=tuple(sorted({round(share * steps) for share in (0.32, T_C, 0.64)})),
        resume=path.exists(),
    )
    return path


def key_of(store: Path) -> str:
    """What tells these runs from others: the recording's fingerprint, run numbers and seeds."""
    ds = open_runs(store)
    digest = hashlib.sha256(TrajectoryStore.open(store).fingerprint.encode())
    for name in ("run", "seed"):
        digest.update(np.ascontiguousarray(ds[name].values, np.int64).tobytes())
    return digest.hexdigest()[:10]
