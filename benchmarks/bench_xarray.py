"""The xarray path: `ds.asced` beside `RunReader` and beside plain `xarray.open_zarr`.

A store of runs of 4x64x64 in 25 steps, sealed. Every row is the median of interleaved pairs with a
bootstrap interval of 95 %. ``reader`` is the time that `RunReader` takes to read every run's eps,
by ours (must be at least 0.5); ``plain`` that of the same expression on what ``xarray.open_zarr``
opens, by ours (must be at least 1). Run ``python benchmarks/bench_xarray.py`` (or ``--quick``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pairs import compare

STEPS, SHAPE, BATCH, STEP, WINDOW = 25, (4, 64, 64), 32, 11, 20


def make_store(path: Path, runs: int) -> Path:
    """Write random eps; numbers do not matter."""
    from asced_stores import TrajectoryStore
    from asced_stores.testing import synthetic_spec

    spec = synthetic_spec(steps=STEPS, shape=SHAPE, fields=("eps",))
    store = TrajectoryStore.create(path, spec, runs=runs, batch_size=BATCH, fsync=False)
    rng = np.random.default_rng(0)
    eps = rng.standard_normal((BATCH, STEPS, *SHAPE), np.float32).astype(np.float16)
    with store.writer(0, 1) as writer:
        for batch in writer.pending_batches():
            writer.write_batch(batch, {"eps": eps[: runs - batch * BATCH]})
    store.seal()
    return path


EXPRESSIONS: dict[str, Any] = {
    "mean of one step": lambda change: change.isel(step=STEP).mean("run"),
    "groups of one step": lambda change: change.isel(step=STEP).groupby("label").mean(),
    "window of one step": lambda change: change.isel(step=STEP).rolling(run=WINDOW).mean(),
    "mean of all steps": lambda change: change.mean("run"),
}
"""What people ask of dynamics, lazily."""


def main() -> None:
    """Print one JSON row an expression."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few pairs")
    parser.add_argument("--runs", type=int, default=320)
    parser.add_argument("--reader", action="store_true", help="beside RunReader alone")
    options = parser.parse_args()
    pairs = 3 if options.quick else 15

    import xarray as xr

    from asced_analysis.accessor import open_runs
    from asced_stores import RunReader

    with tempfile.TemporaryDirectory() as folder:
        path = make_store(Path(folder) / "runs.zarr", options.runs)
        label = ("run", np.arange(options.runs) % 8)

        def read() -> None:
            for _ in RunReader(path, variables=("eps",)).batches():
                pass

        def ours() -> Any:
            return open_runs(path).assign_coords(label=label).asced.dynamics()

        def plain() -> Any:
            ds = xr.open_zarr(path).assign_coords(label=label)
            kappa = (ds["sigma"] / ds["alpha"]).astype(np.float32)
            return (-kappa * ds["eps"].astype(np.float32)).diff("step")

        for name, expression in EXPRESSIONS.items():
            beside = compare(read, lambda e=expression: e(ours()).compute(), pairs)
            row = beside.row(f"{name}, {options.runs} runs", faster=True)
            row["cpu_reader"] = round(beside.cpu(faster=True).median, 2)
            if not options.reader:
                row["plain"] = round(
                    compare(
                        lambda e=expression: e(plain()).compute(),
                        lambda e=expression: e(ours()).compute(),
                        1,
                    )
                    .cpu(faster=True)
                    .median,
                    1,
                )
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
