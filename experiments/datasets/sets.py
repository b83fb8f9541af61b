"""The sets of runs: recorded or given once, split once, kept in the cache by fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism import RealismModel, load_embedded, local_realism
from asced_analysis.realism.pictures import as_pictures as pictures
from asced_recorders import record
from asced_stores import TrajectoryStore, open_runs
from asced_stores.copying.selecting import select_runs
from asced_stores.errors import InputError
from experiments.datasets.committee import committee, patches

STEPS = 25
CHECKPOINTS = (8, 12, 16)
SHARES = {"fit": (0.0, 0.25), "tune": (0.25, 0.4), "pool": (0.4, 0.88), "report": (0.88, 1.0)}
"""Detectors learn on `fit`, choices are made on `tune`, `pool` holds new draws for restarts, and
every figure comes from `report`."""
FEWEST_REPORTED = 1000


@dataclass(frozen=True)
class Split:
    """Some runs of the natural store, with how real their ends look.

    Attributes
    ----------
    store : Path
        A store of these runs alone, where runs are sampled again from it; else the whole one.
    rows : slice
        Of the natural store.
    name : str
    """

    store: Path
    natural: Path
    rows: slice
    name: str

    @cached_property
    def dataset(self) -> Any:
        """Opened runs."""
        return open_runs(self.natural).isel(run=self.rows)

    @cached_property
    def runs(self) -> NDArray[np.int64]:
        """Numbers of the runs."""
        return np.asarray(self.dataset["run"].values, np.int64)

    @cached_property
    def samples(self) -> NDArray[np.float32]:
        """Ends of the runs, shape (n, channel, y, x)."""
        return pictures(self.dataset["sample"].values)

    def distance(self, model: str) -> NDArray[np.float32]:
        """Maps of local distance, as the teacher or the judge sees them; kept in the cache."""
        path = self.store.parent / f"{self.name}-{model}.npy"
        if not path.exists():
            np.save(path, local_realism(self.samples, model_named(model)))
        return np.asarray(np.load(path), np.float32)


def natural_sets(
    cache: Path, *, runs: int, pipeline: str, natural: Path | None
) -> dict[str, Split]:
    """Record the natural set, or take a given one, and split it."""
    if natural is None:
        natural = cache / f"natural-{runs}.zarr"
        record(
            pipeline,
            natural,
            runs=runs,
            steps=STEPS,
            batch_size=64,
            seed=0,
            checkpoints=CHECKPOINTS,
            resume=natural.exists(),
        )
    store = TrajectoryStore.open(natural)
    count = int(open_runs(natural).sizes["run"])
    if count * (SHARES["report"][1] - SHARES["report"][0]) < FEWEST_REPORTED and count >= 10_000:
        raise InputError(f"{natural} holds too few runs: {count}")
    folder = cache / f"{store.fingerprint.removeprefix('sha256:')[:12]}-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, (low, high) in SHARES.items():
        rows = slice(round(low * count), round(high * count))
        path = folder / f"{name}.zarr"
        if name in ("tune", "report") and not path.exists():
            part = folder / f"{name}.part.zarr"
            numbers = np.asarray(open_runs(natural)["run"].values)[rows]
            select_runs(
                store, part, lambda index, n=numbers: np.isin(index["run"], n), overwrite=True
            )
            part.rename(path)
        found[name] = Split(path, natural, rows, name)
    return found


def model_named(name: str) -> RealismModel:
    """The judge, the teacher, whitened patches, or these and the teacher as a committee."""
    if name in ("patches", "committee"):
        return {"patches": patches, "committee": committee}[name]()
    return load_embedded(name)


def mean_distance(maps: NDArray[Any]) -> NDArray[np.float64]:
    """One number a run."""
    return np.asarray(maps.mean((1, 2), dtype=np.float64))


def limit_of(split: Split, model: str = "judge") -> float:
    """Local distance beyond which a run belongs to the worst quarter, from other runs."""
    return float(np.quantile(mean_distance(split.distance(model)), 0.75))


def judge_of() -> RealismModel:
    """The judge, which no detector learnt from."""
    return load_embedded("judge")
