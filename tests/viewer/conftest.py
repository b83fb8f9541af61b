"""Runs to look at, written by the store's own writer; a person's prompt may hold anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from asced_analysis import Thresholds, calibrate
from asced_analysis.accessor import open_runs
from asced_stores import TrajectoryStore
from asced_stores.testing import synthetic_store
from asced_stores.testing.synthetic import synthetic_batch, synthetic_spec

SCRIPT = '<script>document.title = "broken in"</script><img src=x onerror="document.title=1">'
RUNS, STEPS, SIDE, BATCH = 96, 25, 16, 16


@pytest.fixture(scope="session")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 96 runs with labels and hostile prompts, numbered from 0, seeds from 500."""
    path = tmp_path_factory.mktemp("viewer") / "runs.zarr"
    spec = synthetic_spec(steps=STEPS, shape=(1, SIDE, SIDE))
    store = TrajectoryStore.create(path, spec, runs=RUNS, batch_size=BATCH, fsync=False)
    with store.writer(0, 1) as writer:
        for batch in writer.pending_batches():
            numbers = range(batch * BATCH, (batch + 1) * BATCH)
            told = {
                "seed": 500 + np.asarray(numbers),
                "label": np.asarray(numbers) % 3,
                "prompt": np.array([f"{SCRIPT} number {n}" for n in numbers], object),
            }
            writer.write_batch(batch, synthetic_batch(spec, numbers, seed=500), scalars=told)
    return path


@pytest.fixture(scope="session")
def thresholds(looked_at: Path) -> Thresholds:
    found: Thresholds = calibrate(looked_at, false_alarm_rate=0.2)
    return found


@pytest.fixture(scope="session")
def runs(looked_at: Path) -> xr.Dataset:
    return open_runs(looked_at)


@pytest.fixture(scope="session")
def corrected(runs: xr.Dataset) -> xr.Dataset:
    """A replay's runs in memory: every third run flagged, its upper left quarter inverted."""
    ds = runs
    corrected = ds[["image", "sample"]].compute()
    flagged = ds["run"].values % 3 == 0
    image = corrected["image"].values.copy()
    image[flagged, : SIDE // 2, : SIDE // 2] = 255 - image[flagged, : SIDE // 2, : SIDE // 2]
    mask = np.zeros((ds.sizes["run"], SIDE, SIDE), np.uint8)
    mask[flagged, : SIDE // 2, : SIDE // 2] = 1
    return corrected.assign(
        image=(corrected["image"].dims, image),
        mask=(("run", "y", "x"), mask),
        flagged=("run", flagged),
        score=("run", np.linspace(0, 1, ds.sizes["run"])),
        difference=("run", np.where(flagged, ds["run"].values / 100, 0.0)),
    )


@pytest.fixture(scope="session")
def other_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, xr.Dataset]:
    """Other pipelines: RGB, latents of four channels, video, without x0."""
    folder = tmp_path_factory.mktemp("kinds")
    shapes = {"rgb": (3, 256, 256), "latents": (4, 16, 12), "video": (5, 4, 8, 8)}
    found = {}
    for name, shape in shapes.items():
        store = synthetic_store(folder / name, runs=6, steps=5, batch_size=3, shape=shape)
        found[name] = open_runs(store.path)
    fields = ("eps", "sample")
    bare = synthetic_store(folder / "bare", runs=6, steps=5, batch_size=3, fields=fields)
    found["bare"] = open_runs(bare.path)
    return found
