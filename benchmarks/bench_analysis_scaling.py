"""Many more runs than are recorded: simulated stores, and seconds by runs and workers.

Run ``python benchmarks/bench_analysis_scaling.py`` (or ``--quick``, ``--json``, ``--only table``).
The table follows from the costs of a run, a merge and a shard, measured on a store
(``--store runs.zarr``, or a synthetic one); the simulated stores hold nothing, every shard is the
same block of memory. ``--full`` simulates a million runs of 32 x 32 pixels too: some minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from analysis_stores import BATCH, SIDE, STEPS, add_options, chosen_store
from pairs import timed


class SyntheticShards:
    """An array that is never stored: every shard is the same block."""

    dtype, ndim = np.dtype(np.float16), 5

    def __init__(self, runs: int, side: int) -> None:
        self.shape = (runs, STEPS, 1, side, side)

    def __getitem__(self, key: Any) -> Any:
        return synthetic_block(len(range(*key[0].indices(self.shape[0]))), *self.shape[1:])


@cache
def synthetic_block(*shape: int) -> Any:
    """Normal numbers, drawn once: what is measured is counting, not drawing."""
    drawn = np.random.default_rng(0).standard_normal(shape, np.float32).astype(np.float16)
    drawn.flags.writeable = False
    return drawn


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

    from asced_analysis.statistics.by_step import statistics_graph

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

    from asced_analysis.accessor import open_runs
    from asced_analysis.compute import streaming
    from asced_analysis.compute.shard_graphs import Blocks
    from asced_analysis.counts.histograms import merge_counts
    from asced_analysis.statistics.by_step import statistics_graph

    def cpu(work: Callable[[], Any], times: int = 5) -> float:
        return float(min(timed(work)[1] for _ in range(times)))

    ds = open_runs(path).isel(run=slice(0, runs))
    with dask.config.set(scheduler="synchronous"):
        graph = statistics_graph(ds)[0]
        counts = dask.compute(graph)[0]
        whole = cpu(lambda: dask.compute(graph))

        def nothing(blocks: Blocks) -> int:
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

    Tasks have the size that suits the workers; each costs a scheduler 1 ms (Dask's own figure), and
    its counts are merged in a tree whose last level runs on one worker.
    """
    from asced_analysis.compute.streaming import FAN_IN, merged_task_bytes

    lines = ["| runs | shards | 1 worker | 10 workers | 100 workers | of it, graph |"]
    lines.append("|---|---|---|---|---|---|")
    run_bytes = 2 * STEPS * SIDE**2
    for runs in (10_000, 1_000_000):
        work = runs * (costs["read_us_a_run"] + costs["count_us_a_run"]) / 1e6
        graph = costs["graph_us_a_shard"] * runs / BATCH / 1e6
        cells = []
        for workers in (1, 10, 100):
            tasks = -(-runs * run_bytes // merged_task_bytes(runs * run_bytes, workers))
            merges = tasks * costs["merge_ms"] / 1e3
            busy = min(workers, tasks)
            levels = np.ceil(np.log(max(tasks, 2)) / np.log(FAN_IN))
            tail = FAN_IN * levels * costs["merge_ms"] / 1e3
            seconds = graph + work / busy + max(merges / busy, tail) + tasks * 1e-3
            cells.append(f"{seconds:.2f} s, {tasks} tasks")
        row = " | ".join(cells)
        lines.append(f"| {runs:,} | {runs // BATCH:,} | {row} | {graph:.2f} s |")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Run the benches and print one row each."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--only", nargs="+", choices=["simulated", "table"])
    parser.add_argument("--full", action="store_true", help="a million runs of full size as well")
    options = parser.parse_args(arguments)
    wanted = options.only or ["simulated", "table"]
    rows: list[dict[str, Any]] = []
    if "simulated" in wanted:
        rows += bench_scaling([10_000, 100_000], 8)
        rows += [] if options.quick else bench_scaling([1_000_000], 4)
        rows += bench_scaling([1_000_000], SIDE) if options.full else []
    if "table" in wanted:
        with chosen_store(options) as path:
            costs = bench_costs(path, 2_500)
        rows.append({"row": "costs", **{key: round(value, 2) for key, value in costs.items()}})
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
