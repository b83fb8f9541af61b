"""How fast the analysis is: against NumPy in memory, against reading, as runs and workers grow.

Times are medians of interleaved pairs with a bootstrap interval of 95 %; CPU seconds stand beside
them. Run ``python benchmarks/bench_analysis.py`` (or ``--quick``, ``--json``, ``--only reading``);
``--store runs.zarr`` measures a recorded store instead of a synthetic one. Memory is measured by
``bench_analysis_memory.py``, a million runs by ``bench_analysis_scaling.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from analysis_stores import add_options, chosen_store
from pairs import compare

TIMES = (1, 8, 32)
"""How often the workers read the store: what takes a quarter of a second shares no work."""
QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)
GROUPS = ("numpy", "counting", "reading", "linear", "workers")


def numpy_statistics(eps: Any, kappa: Any) -> list[Any]:
    """The same statistics with everything in memory."""
    weighted = -kappa[:, None, None, None].astype(np.float32) * eps.astype(np.float32)
    found = []
    for step in range(1, eps.shape[1]):
        size = np.abs(weighted[:, step] - weighted[:, step - 1]).ravel()
        median = np.median(size)
        mad = np.median(np.abs(size - median))
        found.append((median, mad, *np.quantile(size, QUANTILES)))
    return found


def bench_numpy(path: Path, runs: int, pairs: int) -> list[dict[str, Any]]:
    """Median, MAD and five quantiles by step: NumPy in memory by ours from disk."""
    from asced_analysis.accessor import open_runs
    from asced_analysis.statistics.by_step import step_statistics

    ds = open_runs(path).isel(run=slice(0, runs))
    eps, kappa = ds["eps"].values, (ds["sigma"] / ds["alpha"]).values
    expected = np.asarray(numpy_statistics(eps, kappa)).T
    found = step_statistics(ds, quantiles=QUANTILES)
    assert np.allclose(found["median"], expected[0], rtol=1e-3)
    assert np.allclose(found["mad"], expected[1], rtol=2.5e-3)
    assert np.allclose(found["quantile"], expected[2:], rtol=1e-3, atol=1e-5)
    halves = step_statistics(ds, "eps", QUANTILES, measure="magnitude")
    size = np.abs(eps.swapaxes(0, 1).reshape(eps.shape[1], -1)).astype(np.float64)
    for name, plain in (
        ("median", np.median(size, axis=1)),
        ("mad", np.median(np.abs(size - np.median(size, axis=1, keepdims=True)), axis=1)),
        ("quantile", np.quantile(size, QUANTILES, axis=1)),
    ):
        np.testing.assert_allclose(halves[name], plain, rtol=1e-12)  # fp16 values: equal
    name = f"NumPy in memory / step_statistics from disk, {runs} runs (at least 5)"
    return [
        compare(
            lambda: numpy_statistics(eps, kappa),
            lambda: step_statistics(ds, quantiles=QUANTILES),
            pairs,
        ).row(name, faster=True)
    ]


def bench_counting(path: Path, pairs: int) -> list[dict[str, Any]]:
    """The compiled loop by NumPy's ufuncs and add.at, on runs in memory; nanoseconds each."""
    from asced_analysis.accessor import open_runs
    from asced_analysis.counts.tally import Tally

    ds = open_runs(path).isel(run=slice(0, 1_000))
    eps = ds["eps"].values
    kappa = -(ds["sigma"] / ds["alpha"]).values.astype(np.float32)
    data = eps.reshape(*eps.shape[:2], 1, 1, -1)
    runs, ones = np.arange(len(data)), np.ones(len(kappa), np.float32)
    table = np.zeros((len(kappa) - 1, 1 << 19), np.int32)

    def plain() -> None:
        for first in range(0, len(data), 50):  # what stays in the cache
            last: Any = None
            for step in range(data.shape[1]):
                now = data[first : first + 50, step].astype(np.float32) * kappa[step]
                if step:
                    pattern = np.abs(now - last).reshape(-1).view(np.uint32)
                    keys = (pattern >> np.uint32(12)).astype(np.intp)
                    np.add.at(table[step - 1], keys, np.int32(1))
                last = now

    tally = Tally(len(kappa) - 1)
    compared = compare(plain, lambda: tally.add_steps(data, runs, 0, kappa, ones, 1), pairs)
    differences = eps[:, 1:].size
    nanoseconds = compared.seconds[:, :, 0].T / differences * 1e9
    each = {
        name: round(float(np.median(values)), 2)
        for name, values in zip(("plain_ns", "ns"), nanoseconds, strict=True)
    }
    return [compared.row("NumPy's ufuncs and add.at / compiled loop", faster=True, **each)]


def bench_reading(path: Path, pairs: int) -> list[dict[str, Any]]:
    """Counting beside merely reading the same shards with zarr."""
    import dask
    import zarr

    from asced_analysis.accessor import open_runs
    from asced_analysis.statistics.by_step import step_statistics

    ds = open_runs(path)
    array: Any = zarr.open(str(path), mode="r")["eps"]  # type: ignore[index]
    batch, runs = int(ds.chunksizes["run"][0]), ds.sizes["run"]

    def read() -> None:
        for first in range(0, runs, batch):
            array[first : first + batch]

    def alone() -> None:
        with dask.config.set(scheduler="synchronous"):
            step_statistics(ds)

    rows = []
    for threads, ours in (("two threads", lambda: step_statistics(ds)), ("one thread", alone)):
        name = f"step_statistics, {threads} / reading the same shards with zarr, {runs} runs"
        rows.append(compare(read, ours, pairs).row(f"{name} (at most 3)"))
    return rows


def bench_linear(path: Path, sizes: list[int], pairs: int) -> list[dict[str, Any]]:
    """Doubling the runs."""
    from asced_analysis.accessor import open_runs
    from asced_analysis.statistics.by_step import step_statistics

    ds = open_runs(path)
    rows = []
    for small, large in pairwise(sizes):
        name = f"step_statistics of {large} runs / of {small} runs (at most 2.1)"
        one, two = (ds.isel(run=slice(0, runs)) for runs in (small, large))
        rows.append(
            compare(
                lambda one=one: step_statistics(one),  # type: ignore[misc]
                lambda two=two: step_statistics(two),  # type: ignore[misc]
                pairs,
            ).row(name)
        )
    return rows


def repeated(ds: Any, times: int) -> Any:
    """The same shards, so many times: what more runs would cost."""
    import xarray as xr

    gap = int(ds["run"].max()) + 1
    parts = [ds[["eps"]].assign_coords(run=ds["run"] + gap * time) for time in range(times)]
    return xr.concat(parts, "run")


def bench_workers(path: Path, pairs: int) -> list[dict[str, Any]]:
    """One worker process by two, for all runs and for many times as many; threads likewise."""
    import dask
    from distributed import Client, LocalCluster

    from asced_analysis.accessor import open_runs
    from asced_analysis.phases.segmentation import segment_phases
    from asced_analysis.statistics.by_step import step_statistics
    from asced_analysis.statistics.features import run_features

    ds = open_runs(path)
    rows = []
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as single,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as double,
        Client(single, set_as_default=False) as one,
        Client(double, set_as_default=False) as two,
    ):

        def on(client: Any, work: Any) -> None:
            with client.as_current(), dask.config.set(scheduler=client):
                work()

        quarter = ds.isel(run=slice(0, ds.sizes["run"] // 4))
        jobs: list[tuple[str, Any, Any, int]] = [
            ("run_features", run_features, quarter, pairs // 2),
            ("segment_phases", partial(segment_phases, run_replicates=0), quarter, pairs // 2),
            *(("step_statistics", step_statistics, repeated(ds, n), pairs) for n in TIMES),
        ]
        for name, function, runs, repeats in jobs:
            work = partial(function, runs)
            compared = compare(partial(on, one, work), partial(on, two, work), repeats)
            row = f"one worker process / two, {name} of {runs.sizes['run']} runs"
            rows.append(compared.row(f"{row} (at least 1.7 on two idle cores)", faster=True))

    def threads(number: int) -> None:
        with dask.config.set(scheduler="threads", num_workers=number):
            step_statistics(ds)

    threaded = compare(lambda: threads(1), lambda: threads(2), pairs)
    rows.append(threaded.row("one thread / two", faster=True))
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the benches and print one row each."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS)
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    few, many = (5, 8) if options.quick else (10, 30)

    with chosen_store(options) as path:
        from asced_stores import open_runs

        large = open_runs(path).sizes["run"]
        found = {
            "numpy": lambda: (
                bench_numpy(path, 200, many)
                + bench_numpy(path, 1_000, few)
                + bench_numpy(path, large // 2, 5)
            ),
            "counting": lambda: bench_counting(path, many),
            "reading": lambda: bench_reading(path, many),
            "linear": lambda: bench_linear(path, [large // 4, large // 2, large], few),
            "workers": lambda: bench_workers(path, many // 2),
        }
        for name in options.only:
            for row in found[name]():
                rest = ", ".join(f"{key} {value}" for key, value in row.items() if key != "row")
                print(json.dumps(row) if options.json else f"{row['row']}: {rest}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
