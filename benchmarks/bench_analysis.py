"""How fast and how flat the analysis is: against NumPy in memory, against reading, as runs grow.

Times are medians of interleaved pairs with a bootstrap interval of 95 %; CPU seconds stand beside
them. Memory is the peak of a fresh process above its imports. Run
``python benchmarks/bench_analysis.py`` (or ``--quick``, ``--json``, ``--only memory``);
``--store runs.zarr`` measures a recorded store instead of a synthetic one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pairs import compare, timed

STEPS, SIDE, BATCH = 25, 32, 50
QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)


def make_store(path: Path, runs: int) -> Path:
    """Write a synthetic store of `fashion`'s shape: four different batches, over and over."""
    from asced_stores import TrajectoryStore
    from asced_stores.testing.synthetic import synthetic_batch, synthetic_spec

    spec = synthetic_spec(steps=STEPS, shape=(1, SIDE, SIDE), fields=("eps", "x0"))
    store = TrajectoryStore.create(path, spec, runs=runs, batch_size=BATCH, fsync=False)
    pool = [synthetic_batch(spec, range(b * BATCH, (b + 1) * BATCH)) for b in range(4)]
    with store.writer(0, 1) as writer:
        for batch in writer.pending_batches():
            rows = min(BATCH, runs - batch * BATCH)
            writer.write_batch(batch, {name: a[:rows] for name, a in pool[batch % 4].items()})
    store.seal()
    return path


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
    from asced_analysis.statistics import step_statistics

    ds = open_runs(path).isel(run=slice(0, runs))
    eps, kappa = ds["eps"].values, (ds["sigma"] / ds["alpha"]).values
    expected = np.asarray(numpy_statistics(eps, kappa)).T
    found = step_statistics(ds, quantiles=QUANTILES)
    assert np.allclose(found["median"], expected[0], rtol=1e-3)
    assert np.allclose(found["mad"], expected[1], rtol=2.5e-3)
    assert np.allclose(found["quantile"], expected[2:], rtol=1e-3, atol=1e-5)
    name = f"NumPy in memory / step_statistics from disk, {runs} runs (at least 5)"
    return [
        compare(
            lambda: numpy_statistics(eps, kappa),
            lambda: step_statistics(ds, quantiles=QUANTILES),
            pairs,
        ).row(name, faster=True)
    ]


def bench_reading(path: Path, pairs: int) -> list[dict[str, Any]]:
    """Counting beside merely reading the same shards with zarr."""
    import zarr

    from asced_analysis.accessor import open_runs
    from asced_analysis.statistics import step_statistics

    ds = open_runs(path)
    array: Any = zarr.open(str(path), mode="r")["eps"]  # type: ignore[index]
    batch, runs = int(ds.chunksizes["run"][0]), ds.sizes["run"]

    def read() -> None:
        for first in range(0, runs, batch):
            array[first : first + batch]

    name = f"step_statistics / reading the same shards with zarr, {runs} runs (at most 3)"
    return [compare(read, lambda: step_statistics(ds), pairs).row(name)]


def bench_linear(path: Path, sizes: list[int], pairs: int) -> list[dict[str, Any]]:
    """Doubling the runs."""
    from asced_analysis.accessor import open_runs
    from asced_analysis.statistics import step_statistics

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


def bench_workers(path: Path, pairs: int) -> list[dict[str, Any]]:
    """One worker process by two; threads likewise."""
    import dask
    from distributed import Client, LocalCluster

    from asced_analysis.accessor import open_runs
    from asced_analysis.statistics import step_statistics

    ds = open_runs(path)
    rows = []
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as single,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as double,
        Client(single, set_as_default=False) as one,
        Client(double, set_as_default=False) as two,
    ):

        def on(client: Any) -> None:
            with client.as_current(), dask.config.set(scheduler=client):
                step_statistics(ds)

        name = "one worker process / two (at least 1.7 on two idle cores)"
        rows.append(compare(lambda: on(one), lambda: on(two), pairs).row(name, faster=True))

    def threads(number: int) -> None:
        with dask.config.set(scheduler="threads", num_workers=number):
            step_statistics(ds)

    threaded = compare(lambda: threads(1), lambda: threads(2), pairs)
    rows.append(threaded.row("one thread / two", faster=True))
    return rows


_CHILD = """
import resource, sys
import dask, numpy, pandas, scipy.stats, scipy.ndimage, sklearn.ensemble, sklearn.decomposition
import sklearn.covariance, xarray, zarr
import asced_analysis as aa
from asced_analysis import accessor, statistics, phases, features, calibration, streaming
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
ds = aa.open_runs(sys.argv[2])
runs = int(sys.argv[3])
ds = ds.isel(run=slice(0, runs))
before = peak()
name = sys.argv[1]
if name == "stats": statistics.step_statistics(ds)
elif name == "phases": phases.segment_phases(ds)
elif name == "features": features.run_features(ds)
elif name == "calibrate": aa.calibrate(ds, "calibrated", false_alarm_rate=0.05)
elif name == "evaluate": aa.evaluate(sys.argv[2], sys.argv[4])
print(peak(), peak() - before)
"""


def bench_memory(
    path: Path, small: int, large: int, names: list[str], replay: str | None
) -> list[dict[str, Any]]:
    """Peak memory above imports, in fresh processes, at two numbers of runs."""
    rows = []
    for name in names:
        peaks, seconds = [], []
        for runs in (small, large):
            command = [sys.executable, "-c", _CHILD, name, str(path), str(runs), replay or ""]
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds.append(round(time.perf_counter() - start, 1))
            if done.returncode:
                reason = done.stderr.strip().splitlines()[-1:]
                rows.append({"row": f"memory of {name}", "failed": reason})
                break
            peaks.append([float(part) for part in done.stdout.split()[-2:]])
        else:
            rows.append(
                {
                    "row": f"memory of {name}: {large} runs / {small} runs (at most 1.1)",
                    "ratio": round(peaks[1][0] / peaks[0][0], 3),
                    "ratio_above_imports": round(peaks[1][1] / peaks[0][1], 3),
                    "mb_above_imports": [round(peak[1], 1) for peak in peaks],
                    "seconds_with_imports": seconds,
                }
            )
    return rows


class SyntheticShards:
    """An array that is never stored: every shard is the same block, made when it is read."""

    dtype, ndim = np.dtype(np.float16), 5

    def __init__(self, runs: int, side: int) -> None:
        self.shape = (runs, STEPS, 1, side, side)

    def __getitem__(self, key: Any) -> Any:
        rows = len(range(*key[0].indices(self.shape[0])))
        rng = np.random.default_rng(0)
        return rng.standard_normal((rows, *self.shape[1:]), np.float32).astype(np.float16)


def simulated(runs: int, side: int) -> Any:
    """A Dataset of so many runs whose shards are synthetic."""
    import dask.array as da
    import xarray as xr

    from asced_stores.testing.synthetic import ddim_levels

    array: Any = SyntheticShards(runs, side)
    chunks = ((BATCH,) * (runs // BATCH), (STEPS,), (1,), (side,), (side,))
    eps = da.from_array(array, chunks=chunks, meta=np.empty((0,) * 5, np.float16), name=False)
    _, alpha, sigma = ddim_levels(STEPS)
    levels = {"alpha": alpha, "sigma": sigma, "log_snr": 2 * np.log(alpha / sigma)}
    coordinates: dict[str, Any] = {n: ("step", v) for n, v in levels.items()}
    return xr.Dataset(
        {"eps": (("run", "step", "channel", "y", "x"), eps)},
        {"run": np.arange(runs), "step": np.arange(STEPS), **coordinates},
    )


def bench_scaling(sizes: list[int], side: int) -> list[dict[str, Any]]:
    """Build and run the graph over simulated stores: seconds, tasks and memory by size."""
    import resource

    import dask

    from asced_analysis.statistics import statistics_graph

    rows = []
    for runs in sizes:
        ds = simulated(runs, side)
        start, cpu = time.perf_counter(), time.process_time()
        graph, _ = statistics_graph(ds)
        built = time.perf_counter() - start
        tasks = len(graph.__dask_graph__())
        counts = dask.compute(graph)[0]
        assert int(counts.finite[0]) == runs * side * side
        rows.append(
            {
                "row": f"simulated store of {runs} runs, {side} x {side} pixels",
                "tasks": tasks,
                "graph_s": round(built, 2),
                "seconds": round(time.perf_counter() - start, 1),
                "cpu_s": round(time.process_time() - cpu, 1),
                "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
        )
    return rows


def bench_costs(path: Path, runs: int) -> dict[str, float]:
    """Costs by run, task and merge, for the table of docs/scaling.md."""
    import dask

    from asced_analysis import streaming
    from asced_analysis.accessor import open_runs
    from asced_analysis.counts import merge_counts
    from asced_analysis.statistics import statistics_graph

    def cpu(work: Callable[[], Any], times: int = 5) -> float:
        return float(min(timed(work)[1] for _ in range(times)))

    ds = open_runs(path).isel(run=slice(0, runs))
    with dask.config.set(scheduler="synchronous"):
        graph = statistics_graph(ds)[0]
        counts = dask.compute(graph)[0]
        whole = cpu(lambda: dask.compute(graph))

        def nothing(blocks: streaming.Blocks) -> int:
            return sum(len(block["eps"]) for block in blocks)

        reading = cpu(
            lambda: streaming.compute(
                streaming.tree_merge(streaming.shard_tasks(ds, ["eps"], nothing), sum)
            )
        )
    merge = cpu(lambda: merge_counts([counts] * streaming.FAN_IN)) / streaming.FAN_IN
    big = simulated(1_000_000, 4)
    build = timed(lambda: statistics_graph(big))[1]
    return {
        "read_us_a_run": 1e6 * reading / runs,
        "count_us_a_run": 1e6 * (whole - reading) / runs,
        "merge_ms": 1e3 * merge,
        "graph_us_a_shard": 1e6 * build / (1_000_000 / BATCH),
        "counts_mb": counts.table.nbytes / 2**20,
    }


def scaling_table(costs: dict[str, float]) -> list[str]:
    """Seconds by runs and workers, from measured costs: rows of Markdown.

    A task holds 64 MB of shards, costs a scheduler 1 ms (Dask's own figure), and its counts are
    merged in a tree whose last level runs on one worker.
    """
    from asced_analysis.streaming import FAN_IN, TASK_BYTES

    lines = ["| runs | shards | tasks | 1 worker | 10 workers | 100 workers | graph |"]
    lines.append("|---|---|---|---|---|---|---|")
    run_bytes = 2 * STEPS * SIDE**2
    for runs in (10_000, 1_000_000):
        tasks = -(-runs * run_bytes // TASK_BYTES)
        merges = tasks * costs["merge_ms"] / 1e3
        work = runs * (costs["read_us_a_run"] + costs["count_us_a_run"]) / 1e6
        graph = costs["graph_us_a_shard"] * runs / BATCH / 1e6
        cells = []
        for workers in (1, 10, 100):
            busy = min(workers, tasks)
            levels = np.ceil(np.log(max(tasks, 2)) / np.log(FAN_IN))
            tail = FAN_IN * levels * costs["merge_ms"] / 1e3
            cells.append(graph + work / busy + max(merges / busy, tail) + tasks * 1e-3)
        row = " | ".join(f"{cell:.1f} s" for cell in cells)
        lines.append(f"| {runs:,} | {runs // BATCH:,} | {tasks:,} | {row} | {graph:.1f} s |")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Run the benches and print one row each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pairs and runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--only", choices=["numpy", "reading", "linear", "workers", "memory", "scaling", "table"]
    )
    parser.add_argument("--store", help="a recorded store instead of a synthetic one")
    parser.add_argument("--replay", help="its replay, for the memory of evaluate")
    parser.add_argument("--folder", default=None, help="where the synthetic store is written")
    options = parser.parse_args(arguments)
    pairs = 5 if options.quick else 30
    large = 2_000 if options.quick else 10_000
    rows: list[dict[str, Any]] = []

    def wanted(name: str) -> bool:
        return options.only in (None, name)

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.store:
            path = Path(options.store)
        elif options.only == "scaling":
            path = Path(folder)
        else:
            path = make_store(Path(folder) / "runs.zarr", large)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        if wanted("numpy"):
            rows += bench_numpy(path, large // 2, max(5, pairs // 6))
        if wanted("reading"):
            rows += bench_reading(path, pairs)
        if wanted("linear"):
            rows += bench_linear(path, [large // 4, large // 2, large], max(5, pairs // 3))
        if wanted("workers"):
            rows += bench_workers(path, max(5, pairs // 3))
        if wanted("memory"):
            names = ["stats", "phases", "features", "calibrate"]
            names += ["evaluate"] if options.replay else []
            rows += bench_memory(path, large // 4, large, names, options.replay)
        if wanted("scaling"):
            rows += bench_scaling([10_000, 100_000] if options.quick else [10_000, 1_000_000], 8)
        if wanted("table"):
            costs = bench_costs(path, large // 4)
            rows.append({"row": "costs", **{k: round(v, 2) for k, v in costs.items()}})
            rows.append({"row": "table", "markdown": scaling_table(costs)})
    for row in rows:
        print(json.dumps(row) if options.json else _line(row))
    return 0


def _line(row: dict[str, Any]) -> str:
    """One row for people."""
    if "markdown" in row:
        return "\n".join(row["markdown"])
    rest = ", ".join(f"{key} {value}" for key, value in row.items() if key != "row")
    return f"{row['row']}: {rest}"


if __name__ == "__main__":
    sys.exit(main())
